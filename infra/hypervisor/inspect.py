"""Everything a backup has to know of one domain, read once."""

import os
from collections.abc import Collection
from pathlib import Path
from urllib.parse import urlsplit

from infra.errors import DiskMissing, DomainBusy, DomainStateChanged
from infra.hypervisor import images
from infra.hypervisor.connection import Domain
from infra.hypervisor.disks import check_excluded, classify, image_format, needs_chain
from infra.hypervisor.image_info import ImageInfo
from infra.hypervisor.outside import outside_disks, outside_targets
from infra.hypervisor.parsed import ParsedDisk, ParsedDomain, ParsedTpm
from infra.model import BootFile, DomainFacts, DomainState

SWTPM_DIR = Path("/var/lib/libvirt/swtpm")
"""State of the emulated TPMs of qemu:///system, a folder a UUID (libvirt's qemu_conf.c, swtpmStorageDir)."""


def inspect(
    domain: Domain,
    *,
    exclude_disks: Collection[str],
    must_have: Collection[str] | None = None,
    ours: Collection[str] = (),
) -> DomainFacts:
    """Read and classify. `ours` are overlays of an open journal entry: on one of them a definition may disagree.

    `must_have` are those of `exclude_disks` without which something is wrong; all of them, if it is left out.

    Raises DomainNotFound; DomainBusy when the running guest uses other images than its definition names;
    DomainStateChanged when it was started or stopped meanwhile; DiskMissing; ImageError; DomainXmlError; UsageError
    when an excluded disk does not exist.
    """
    name = domain.name
    live_xml, inactive_xml = domain.live_xml(), domain.inactive_xml()
    state = domain.state()
    persistent = domain.persistent()
    if (state is DomainState.SHUT_OFF) != (not live_xml):
        raise DomainStateChanged(f"The VM {name!r} was started or stopped while it was looked at.")
    live = domain.parse(live_xml) if live_xml else None
    inactive = domain.parse(inactive_xml)
    now = live or inactive
    if live is not None and persistent:
        _refuse_drift(name, drift(live, inactive, ours=ours))
    beside = [disk.target for disk in inactive.disks] + list(outside_targets(inactive_xml))
    check_excluded(now.disks, exclude_disks if must_have is None else must_have, others=beside, vm=name)
    chains = {disk.target: _walk(disk) for disk in now.disks if needs_chain(disk, exclude_disks)}
    return DomainFacts(
        uuid=domain.uuid,
        name=name,
        state=state,
        persistent=persistent,
        live_xml=live_xml,
        inactive_xml=inactive_xml,
        disks=classify(now.disks, exclude=exclude_disks, chains=chains),
        boot_files=_boot_files(now, name),
        tpm_dir=_tpm_state(domain, now),
        has_agent=now.agent_connected,
        block_jobs=_block_jobs(domain, live),
        job=domain.job(),
        snapshots=domain.snapshots(),
        checkpoints=domain.checkpoints(),
        managed_save=bool(domain.managed_save_xml()),
        outside_disks=outside_disks(inactive_xml, live=live, inactive=inactive, exclude=exclude_disks),
    )


def drift(live: ParsedDomain, inactive: ParsedDomain, *, ours: Collection[str] = ()) -> tuple[str, ...]:
    """Where the running guest writes to another image than its next start would. Pure.

    libvirt moves the definition along with a snapshot and a pivot only where both name the same image
    (qemu_snapshot.c, qemuSnapshotDiskPrepareOne), so such a disk would come out of a backup half moved.
    """
    found: list[str] = []
    for disk in live.disks:
        planned = inactive.disk(disk.target)
        # A transient disk runs on an overlay of libvirt's own; media come and go.
        if planned is None or disk.device not in {"disk", "lun"} or disk.readonly or disk.transient:
            continue
        used, named = disk.image.path, planned.image.path
        if used != named and used not in ours and named not in ours:
            found.append(
                f"{disk.target}: the running guest uses {used or 'nothing'}, its definition names {named or 'nothing'}"
            )
    return tuple(found)


def _refuse_drift(name: str, differences: tuple[str, ...]) -> None:
    if differences:
        raise DomainBusy(
            f"The VM {name!r} runs on other images than its definition names.",
            evidence="\n".join(differences),
            remedy="If an earlier backup died: vmborg recover. Else let the guest and its definition agree "
            "(restart it, or virsh edit), then back up again.",
        )


def _walk(disk: ParsedDisk) -> tuple[ImageInfo, ...]:
    formats = {image.path: image.format for image in disk.backing}
    return images.walk(disk.image.path, image_format(disk), formats=formats)


def _block_jobs(domain: Domain, live: ParsedDomain | None) -> tuple[str, ...]:
    if live is None:
        return ()
    return tuple(disk.target for disk in live.disks if disk.mirror or domain.block_job(disk.target) is not None)


def _boot_files(now: ParsedDomain, name: str) -> tuple[BootFile, ...]:
    """The files beside the disks without which it does not boot. Raises DiskMissing."""
    found = [BootFile(role, path) for role, path in _boot_paths(now).items() if path]
    if not now.live:
        # libvirt makes the NVRAM file at the first start.
        found = [each for each in found if each.role != "nvram" or Path(each.path).exists()]
    for each in found:
        if not Path(each.path).is_file():
            raise DiskMissing(
                f"The {each.role} of the VM {name!r} is not there.",
                evidence=f"{each.path}: no such file",
                remedy="Bring it back, or correct the definition: without it the VM does not start.",
            )
    return tuple(found)


def _boot_paths(now: ParsedDomain) -> dict[str, str]:
    nvram = now.nvram.path if now.nvram and now.nvram.local else ""
    return {"nvram": nvram, "kernel": now.kernel, "initrd": now.initrd, "dtb": now.dtb}


def swtpm_root(uri: str) -> Path:
    """Where a hypervisor keeps the state of its emulated TPMs."""
    if urlsplit(uri).path != "/session":
        return SWTPM_DIR
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(settings) / "libvirt/qemu/swtpm"


def tpm_dir(tpm: ParsedTpm, uuid: str, *, root: Path) -> Path:
    """The state folder of one emulated TPM (libvirt's qemu_tpm.c, qemuTPMEmulatorStorageBuildPath). Pure."""
    if tpm.source:
        return Path(tpm.source)
    return root / uuid / ("tpm1.2" if tpm.version == "1.2" else "tpm2")


def _tpm_state(domain: Domain, now: ParsedDomain) -> str:
    """The folder, "" when there is none: no emulated TPM, or never started. Raises DiskMissing."""
    if now.tpm is None:
        return ""
    found = tpm_dir(now.tpm, domain.uuid, root=swtpm_root(domain.uri))
    if found.is_dir():
        return str(found)
    if now.live and not found.exists():
        raise DiskMissing(
            f"The TPM state of the running VM {now.name!r} is not where libvirt keeps it.",
            evidence=f"{found}: no such folder",
            remedy="Run this on the hypervisor itself and as root.",
        )
    return ""
