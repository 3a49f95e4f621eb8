"""Files of the guest, read from the restored image before it boots: by libguestfs, in its appliance, read-only."""

import re
from collections.abc import Mapping, Sequence

from infra.config.drills import FileProbe
from infra.errors import CommandFailed, CommandNotFound, CommandTimedOut
from infra.errors_drills import NotProvable, ProbeFailed
from infra.process import run

_TIMEOUT_S = 300
_WAYS: tuple[dict[str, str | None], ...] = ({}, {"LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"})
_NO_LAUNCH = "guestfs_launch failed"
_PLACE = re.compile(r"([a-z]+)([0-9]*)")


def check_files(probes: Sequence[FileProbe], disks: Mapping[str, str]) -> list[str]:
    """What was shown. `disks` are the restored images by target. Raises ProbeFailed, NotProvable (no libguestfs)."""
    return [_check(probe, disks) for probe in probes]


def _check(probe: FileProbe, disks: Mapping[str, str]) -> str:
    argv = ["guestfish", "--ro"]
    for path in disks.values():
        argv += ["--add", path]
    argv += ["--mount", _device(probe.disk, list(disks))] if probe.disk else ["--inspector"]
    found = _read([*argv, "checksum", "sha256", probe.path], probe.path)
    if found != probe.sha256:
        raise ProbeFailed(f"{probe.path} is not the file it was.", evidence=f"SHA-256 is {found}, not {probe.sha256}")
    return f"{probe.path} has its checksum"


def _read(argv: Sequence[str], path: str) -> str:
    """What guestfish prints. KVM is there on hosts on which it does not work: its appliance is tried without, too."""
    for settings in _WAYS:
        try:
            return run(argv, timeout=_TIMEOUT_S, env={"LIBGUESTFS_BACKEND": "direct", **settings}).stdout.strip()
        except CommandNotFound as error:
            remedy = "apt install libguestfs-tools"
            raise NotProvable("guestfish is not installed.", evidence=error.brief, remedy=remedy) from error
        except (CommandFailed, CommandTimedOut) as error:
            if _NO_LAUNCH not in error.evidence:
                raise ProbeFailed(f"{path} cannot be read from the restored disks.", evidence=error.evidence) from error
    remedy = "Run libguestfs-test-tool: it says why."
    raise NotProvable("The appliance of libguestfs does not start.", evidence=_NO_LAUNCH, remedy=remedy)


def _device(place: str, targets: Sequence[str]) -> str:
    """`vdb1` as libguestfs names it: by the order of the disks."""
    parts = _PLACE.fullmatch(place)
    names = [target for target in targets if parts is not None and place.startswith(target)]
    if not names:
        raise ProbeFailed(f"There is no disk {place!r} in the archive.", evidence=f"it has {', '.join(targets)}")
    target = max(names, key=len)
    return f"/dev/sd{chr(ord('a') + list(targets).index(target))}{place.removeprefix(target)}"
