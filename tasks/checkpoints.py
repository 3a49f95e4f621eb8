"""Checkpoints of vmborg's, removed for good: what libvirt refuses while one stands is allowed again."""

from infra.config.models import Config
from infra.hypervisor import images
from infra.hypervisor.checkpoints import is_ours, remove_checkpoints
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.inspect import inspect
from infra.journal.locks import domain_lock
from infra.model import ImageKind
from infra.qcow2.image import Qcow2Image
from tasks.recovery import Recovery


def remove_all_checkpoints(config: Config, hypervisor: Hypervisor, vm: str) -> Recovery:
    """Remove every checkpoint of ours from one VM, with its bitmaps; its next backup reads whole disks once.

    Of a shut-off VM also the bitmaps that libvirt knows nothing of any more. Raises DomainNotFound, DomainBusy (a
    backup works on it), HypervisorError, ImageError, DiskMissing.
    """
    domain = hypervisor.find(vm)
    with domain_lock(config.state.locks, domain.uuid, domain.name):
        actions = [f"removed the checkpoint {name}" for name in remove_checkpoints(domain)]
        if not domain.live_xml():
            actions += _remove_bitmaps(domain)
    return Recovery(domain.uuid, domain.name, tuple(actions) or ("vmborg has no checkpoint of it",))


def _remove_bitmaps(domain: Domain) -> list[str]:
    """libvirt takes bitmaps away through qemu alone; qemu-img does it where no qemu runs."""
    actions: list[str] = []
    for disk in inspect(domain, exclude_disks=()).covered:
        if disk.base.kind is not ImageKind.FILE or disk.base.format != "qcow2":
            continue
        with Qcow2Image(disk.base.path) as image:
            names = [entry.name for entry in image.bitmaps() if is_ours(entry.name)]
        for name in names:
            images.remove_bitmap(disk.base.path, name)
            actions.append(f"removed the bitmap {name} from {disk.base.path}")
    return actions
