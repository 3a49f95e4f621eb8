"""What a plan must not do. Pure; each check raises before anything is touched."""

import posixpath
from collections.abc import Collection

from infra.errors import ManifestError, RestoreError, TargetExists, UnsafeArchive, UsageError
from infra.hypervisor.device_xml import describe_source, disk_target
from infra.hypervisor.inspect import SWTPM_DIR
from infra.hypervisor.restore_xml import parse
from infra.hypervisor.system_paths import is_system_path
from infra.manifest import Manifest
from tasks.restore.model import Host, Plan, Rule, Wish

NVRAM_DIR = "/var/lib/libvirt/qemu/nvram"

_NAME_LIMIT = 200  # bytes; file names made of it must stay below 255
_ITSELF_SAFE = (f"{NVRAM_DIR}/", f"{SWTPM_DIR}/")


def require_agreement(manifest: Manifest, xml: str) -> None:
    """Raise UnsafeArchive unless the definition has every disk that the manifest covers, at the same path."""
    disks = {disk_target(disk): disk for disk in parse(xml).iterfind("devices/disk")}
    for disk in manifest.disks:
        if not disk.chain:
            continue
        found = disks.get(disk.target)
        source = describe_source(found) if found is not None else "no such disk"
        by_path = found is not None and found.get("type") in ("file", "block")
        if found is None or (by_path and source != disk.source):
            raise UnsafeArchive(
                f"The archive's manifest and definition disagree about disk {disk.target}.",
                evidence=f"manifest: {disk.source}; definition: {source}",
                remedy="Restore another archive, or bring back the files alone with --files-only.",
            )


def require_left_out(manifest: Manifest, xml: str, targets: Collection[str]) -> None:
    """Raise UsageError for a disk to be left out that the definition does not have, or that is in the archive."""
    there = {disk_target(disk) for disk in parse(xml).iterfind("devices/disk")}
    archived = {disk.target for disk in manifest.disks if disk.chain}
    for target in sorted(targets):
        if target not in there or target in archived:
            known = ", ".join(sorted(there - archived)) or "none"
            why = "is in the archive" if target in archived else "is no disk of the archived definition"
            raise UsageError(
                f"{target} cannot be left out: it {why}.",
                evidence=f"disks that are not in the archive: {known}",
                remedy="Name one of these, or leave --leave-out out.",
            )


def require_distinct(plan: Plan) -> None:
    """Raise ManifestError when two archived files would end at one path."""
    seen: set[str] = set()
    every = [(file.target, file.archive_path) for file in plan.all_files]
    for target, archive_path in [*every, *((device.device, device.archive_path) for device in plan.devices)]:
        if target in seen:
            raise ManifestError(
                f"Two files of the archive would be restored to {target}.",
                evidence=f"the second is {archive_path}",
                remedy="Restore another archive, or bring back the files alone with --files-only.",
            )
        seen.add(target)


def require_safe(plan: Plan, wish: Wish, host: Host) -> None:
    """Raise UnsafeArchive when a target that nobody chose lies among the host's own files."""
    if "path" in wish.allow:
        return
    for path in sorted(plan.written):
        chosen = wish.to and posixpath.dirname(path) == wish.to
        if is_system_path(path) and not chosen and not path.startswith(_ITSELF_SAFE) and path not in host.own_paths:
            raise UnsafeArchive(
                "The archive would be restored to a place that is none for a VM's files.",
                evidence=path,
                remedy="Choose the place with --as NAME --to DIR, or add --allow path if it is right.",
            )


def require_free(plan: Plan, host: Host) -> None:
    """Raise TargetExists when a file is in the way, or one that would make way is used by another domain."""
    replaced = [file.target for file in plan.all_files if file.rule is Rule.REPLACE]
    for path in [*replaced, *(device.device for device in plan.devices)]:
        if path in host.other_users:
            raise TargetExists(
                f"{path} is used by the VM {host.other_users[path]!r}.",
                remedy="Restore beside it with --as NEWNAME, or give that VM another disk first.",
            )
    new = [file.target for file in plan.all_files if file.rule is Rule.NEW]
    foreign = [path for path in replaced if path not in host.own_paths]
    for path in [*new, *foreign]:
        if host.exists(path):
            raise TargetExists(
                f"{path} exists already; nothing was changed.",
                evidence="it is no image of the VM as it is defined now" if path in foreign else "",
                remedy="Move it away, or restore elsewhere with --as NEWNAME --to DIR.",
            )


def require_device_consent(plan: Plan, wish: Wish) -> None:
    """Raise RestoreError when block devices would be written over without --overwrite-devices, or flattened."""
    linked = {chain.images[0].archive_path for chain in plan.chains if len(chain.images) > 1}
    flat = [device.device for device in plan.devices if plan.flatten and device.archive_path in linked]
    if flat:
        raise RestoreError(
            "A linked disk on a block device cannot be made one image there.",
            evidence=", ".join(flat),
            remedy="Leave --flatten out, or use --as NEWNAME --flatten: it makes a file of the device.",
        )
    if plan.devices and not wish.overwrite_devices:
        devices = "\n".join(f"{device.device}: {device.size} bytes" for device in plan.devices)
        raise RestoreError(
            "Restoring in place would write over block devices.",
            evidence=devices,
            remedy="Add --overwrite-devices if their content may go, or use --as NEWNAME: it makes files of them.",
        )


def check_copy_name(name: str) -> None:
    """Raise UsageError for a name that libvirt or a file name cannot hold."""
    reason = ""
    if not name.strip():
        reason = "it is empty"
    elif name.startswith("."):
        reason = "it begins with a dot, and its images would be hidden files"
    elif "/" in name or not name.isprintable():
        reason = "it holds a slash or characters that cannot be printed"
    elif len(name.encode()) > _NAME_LIMIT:
        reason = f"it is longer than {_NAME_LIMIT} bytes"
    if reason:
        raise UsageError(f"{name!r} cannot be the name of a VM: {reason}.", remedy="Choose another name for --as.")
