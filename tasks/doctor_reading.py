"""What `doctor` looks at for `read: changed`: whether disks can be mounted for borg, and what checkpoints forbid."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.config.models import Config
from infra.errors import StorageError
from infra.hypervisor.checkpoints import is_ours
from infra.model import DomainFacts, ReadMode
from infra.segments.view import segment_view, supported
from tasks.health import Finding, Health, vm_argument

CHECK = "read"
_REMEDY = (
    "It needs /dev/fuse (modprobe fuse), nsenter, CAP_SYS_ADMIN and CAP_SYS_CHROOT; in a container they have to be "
    "given. Or set `read: whole`."
)


def reading_finding(config: Config, subject: str) -> Finding:
    """Whether what changed can be read alone on this host. It is tried: an empty mount, entered and ended."""
    policies = (config.vms.defaults, *map(config.policy, config.vms.overrides))
    if all(policy.read is ReadMode.WHOLE for policy in policies):
        return Finding(Health.OK, subject, CHECK, "whole images (read: whole)")
    obstacle = supported() or _tried()
    if obstacle:
        text = f"backups read whole disks, for these cannot be mounted for borg: {obstacle}"
        return Finding(Health.WARNING, subject, CHECK, text, _REMEDY)
    return Finding(Health.OK, subject, CHECK, "disks can be mounted for borg (read: changed)")


def _tried() -> str:
    """Why nothing can be mounted; "" when it can."""
    try:
        with tempfile.TemporaryDirectory(prefix="vmborg-doctor-") as folder, segment_view(Path(folder), ()):
            return ""
    except StorageError as error:
        return error.evidence
    except OSError as error:
        return str(error)


def checkpoint_findings(facts: DomainFacts) -> Iterator[Finding]:
    """Ours, and how to be rid of them."""
    ours = [name for name in facts.checkpoints if is_ours(name)]
    if ours:
        text = (
            f"vmborg keeps the checkpoint {', '.join(ours)}, which is in the way of internal snapshots and `virsh "
            f"undefine`; vmborg recover --drop-checkpoints {vm_argument(facts.name)} removes it"
        )
        yield Finding(Health.OK, facts.name, "checkpoints", text)
