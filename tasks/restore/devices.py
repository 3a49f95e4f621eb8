"""Write archived content over block devices. This alone of a restore cannot be undone, so it comes last."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from infra.borg.client import Repository
from infra.errors import DiskMissing, RestoreError
from tasks.restore import files
from tasks.restore.model import DevicePlan, Plan


def require_devices(plan: Plan) -> None:
    """Raise DiskMissing or RestoreError unless every device is there, large enough and used by nobody."""
    for device in plan.devices:
        os.close(_open(device))


def _open(device: DevicePlan) -> int:
    try:
        # O_EXCL on a block device: EBUSY when it is mounted or part of something (open(2)).
        descriptor = os.open(device.device, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
    except OSError as error:
        raise DiskMissing(
            f"The block device {device.device} cannot be written.",
            evidence=error.strerror or str(error),
            remedy="Create or activate it, or end what uses it; --as NEWNAME makes a file of it instead.",
        ) from error
    is_device = stat.S_ISBLK(os.fstat(descriptor).st_mode)
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, 0, os.SEEK_SET)
    if is_device and size >= device.size:
        return descriptor
    os.close(descriptor)
    raise RestoreError(
        f"{device.device} cannot take the archived disk.",
        evidence=f"{device.size} bytes are archived; it has {size}" if is_device else "it is no block device",
        remedy="Make it as large as it was, or use --as NEWNAME: it makes a file of it.",
    )


def write_devices(
    repository: Repository, archive: str, plan: Plan, *, final: Mapping[str, str], progress: files.Progress
) -> tuple[str, ...]:
    """Write every device of the plan; return their names.

    `final` are the places of the other images by archive path. Raises RestoreError naming what was written over,
    UnsafeArchive, ImageError, and borg's typed errors.
    """
    done = sum(file.size for file in plan.files)
    total = done + sum(device.size for device in plan.devices)
    written: list[str] = []
    for device in plan.devices:
        with os.fdopen(_open(device), "wb") as target:
            written.append(device.device)
            repository.extract_to(archive, device.archive_path, target)
            target.flush()
            os.fsync(target.fileno())
        done += device.size
        progress(done, total)
    for chain in plan.chains:
        top = chain.images[0]
        if any(device.archive_path == top.archive_path for device in plan.devices):
            files.check_header(top, Path(top.source), last=len(chain.images) == 1)
            files.link_chain(chain, {top.archive_path: top.source}, final)
            files.check_tables(top, Path(top.source))
    return tuple(written)
