"""Files of the guest, read from the restored image before it boots: by libguestfs, in its appliance, read-only."""

import re
from collections.abc import Mapping, Sequence

from infra.config.drills import FileProbe
from infra.errors import CommandFailed, CommandNotFound, CommandTimedOut
from infra.errors_drills import NotProvable, ProbeFailed
from infra.process import run

_TIMEOUT_S = 300
_PLACE = re.compile(r"([a-z]+)([0-9]*)")


def check_files(probes: Sequence[FileProbe], disks: Mapping[str, str]) -> list[str]:
    """What was shown. `disks` are the restored images by target. Raises ProbeFailed, NotProvable (no libguestfs)."""
    return [_check(probe, disks) for probe in probes]


def _check(probe: FileProbe, disks: Mapping[str, str]) -> str:
    argv = ["guestfish", "--ro"]
    for path in disks.values():
        argv += ["--add", path]
    argv += ["--mount", _device(probe.disk, list(disks))] if probe.disk else ["--inspector"]
    try:
        found = run([*argv, "checksum", "sha256", probe.path], timeout=_TIMEOUT_S).stdout.strip()
    except CommandNotFound as error:
        raise NotProvable(
            "guestfish, which reads files out of images, is not installed.",
            evidence=error.brief,
            remedy="apt install libguestfs-tools",
        ) from error
    except (CommandFailed, CommandTimedOut) as error:
        raise ProbeFailed(f"{probe.path} cannot be read from the restored disks.", evidence=error.evidence) from error
    if found != probe.sha256:
        raise ProbeFailed(f"{probe.path} is not the file it was.", evidence=f"SHA-256 is {found}, not {probe.sha256}")
    return f"{probe.path} has its checksum"


def _device(place: str, targets: Sequence[str]) -> str:
    """`vdb1` as libguestfs names it: by the order of the disks."""
    parts = _PLACE.fullmatch(place)
    names = [target for target in targets if parts is not None and place.startswith(target)]
    if not names:
        raise ProbeFailed(f"There is no disk {place!r} in the archive.", evidence=f"it has {', '.join(targets)}")
    target = max(names, key=len)
    return f"/dev/sd{chr(ord('a') + list(targets).index(target))}{place.removeprefix(target)}"
