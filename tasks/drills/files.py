"""Files of the guest, read from the restored images before it boots: by libguestfs, in its appliance, read-only."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.config.drills import FileProbe
from infra.errors import CommandNotFound
from infra.errors_drills import NotProvable, ProbeFailed
from infra.errors_views import ApplianceFailed, GuestEncrypted, GuestPathError
from infra.guestfs.session import Appliance, Drive, appliance
from tasks.files.tree import mount_tree

_PLACE = re.compile(r"([a-z]+)([0-9]*)")


def check_files(probes: Sequence[FileProbe], disks: Mapping[str, Drive], *, work: Path, remember: Path) -> list[str]:
    """What was shown. `disks` are the restored images by target; `work` and `remember` are those of `appliance`.

    Raises ProbeFailed, NotProvable (no libguestfs, or its appliance does not run here).
    """
    if not probes:
        return []
    work.mkdir(mode=0o700, exist_ok=True)
    try:
        with appliance(list(disks.values()), work=work, remember=remember) as started:
            return [_check(started, probe, list(disks)) for probe in probes]
    except CommandNotFound as error:
        raise NotProvable("guestfish is not installed.", evidence=error.brief, remedy=error.remedy) from error
    except ApplianceFailed as error:
        raise NotProvable(error.brief, evidence=error.evidence, remedy=error.remedy) from error


def _check(started: Appliance, probe: FileProbe, targets: Sequence[str]) -> str:
    try:
        started.do("umount-all")
        if probe.disk:
            started.do("mount-ro", _device(probe.disk, targets), "/")
        else:
            mount_tree(started, targets, by_disk=False)
        found = started.do("checksum", "sha256", probe.path).strip()
    except (GuestPathError, GuestEncrypted) as error:
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
