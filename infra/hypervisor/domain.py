"""One domain: libvirt's calls, each a method, each error typed.

A domain is known by its UUID: it is looked up anew for every call, because its name may change and the
connection may have been replaced since. Reading calls survive a restart of the daemon; acting calls are sent
once (see Link).
"""

import json
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from infra.errors import DomainStateChanged, HypervisorError, HypervisorUnreachable
from infra.hypervisor import codes, domain_xml
from infra.hypervisor.answers import BlockJob, FileSystem
from infra.hypervisor.bounded import CALL_S, START_S
from infra.hypervisor.parsed import ParsedDomain
from infra.model import DomainState

if TYPE_CHECKING:
    from infra.hypervisor.connection import Link, RawDomain

logger = logging.getLogger("vmborg.hypervisor")

T = TypeVar("T")

_STATES = {1: DomainState.RUNNING, 3: DomainState.PAUSED, 5: DomainState.SHUT_OFF}
_KEEP, _DROP = codes.Undefine.KEEP_NVRAM | codes.Undefine.KEEP_TPM, codes.Undefine.NVRAM | codes.Undefine.TPM
_UNDEFINE = codes.Undefine.MANAGED_SAVE | codes.Undefine.SNAPSHOTS_METADATA | codes.Undefine.CHECKPOINTS_METADATA


class Domain:
    """A domain of one hypervisor. Made by Hypervisor; equal when the UUID is.

    Every method raises HypervisorError with libvirt's code: of its subtypes DomainNotFound when the domain is
    gone, HypervisorUnreachable when the daemon is.
    """

    def __init__(self, link: "Link", *, uuid: str, name: str) -> None:
        self._link = link
        self.uuid = uuid
        self._name = name

    @property
    def uri(self) -> str:
        """The hypervisor's URI."""
        return self._link.uri

    def __repr__(self) -> str:
        return f"Domain({self._name!r}, {self.uuid})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Domain) and other.uuid == self.uuid

    def __hash__(self) -> int:
        return hash(self.uuid)

    def _read(self, what: str, operation: "Callable[[RawDomain], T]") -> T:
        return self._link.read_domain(self.uuid, what=f"{what} {self._name!r}", operation=operation)

    def _act(self, what: str, operation: "Callable[[RawDomain], T]", *, seconds: float = CALL_S) -> T:
        return self._link.act_domain(self.uuid, what=f"{what} {self._name!r}", operation=operation, seconds=seconds)

    @property
    def name(self) -> str:
        """The name it has now."""
        self._name = self._read("Looking up", lambda raw: raw.name())
        return self._name

    def state(self) -> DomainState:
        """Its state. Crashed, in shutdown and suspended by the guest are OTHER."""
        number = self._read("Reading the state of", lambda raw: raw.state()[0])
        return _STATES.get(number, DomainState.OTHER)

    def stopped_by_io(self) -> bool:
        """Whether qemu paused it because a disk gave an error, such as a file system that is full."""
        state = self._read("Reading the state of", lambda raw: raw.state())
        return _STATES.get(state[0]) is DomainState.PAUSED and state[1] == codes.PAUSED_IOERROR

    def persistent(self) -> bool:
        """Whether it has a definition that outlives its shut-off."""
        return self._read("Looking up", lambda raw: bool(raw.isPersistent()))

    def autostart(self) -> bool:
        """Whether it starts with the host."""
        return self._read("Looking up", lambda raw: bool(raw.autostart()))

    def live_xml(self) -> str:
        """The definition that qemu runs on, with secrets; "" when it is shut off."""
        xml = self._read("Reading the live definition of", lambda raw: raw.XMLDesc(codes.Xml.SECURE))
        return xml if domain_xml.is_live(xml) else ""

    def inactive_xml(self) -> str:
        """The definition of its next start, with secrets and without what only this host's libvirt added.

        Of a transient domain: its live definition in the same form.
        """
        flags = codes.Xml.INACTIVE | codes.Xml.SECURE | codes.Xml.MIGRATABLE
        return self._read("Reading the definition of", lambda raw: raw.XMLDesc(flags))

    def block_job(self, target: str) -> BlockJob | None:
        """The block job of a disk, None without one."""
        what = f"Reading the block job of disk {target} of"
        info = cast("dict[str, int]", self._read(what, lambda raw: raw.blockJobInfo(target, 0)))
        if not info:
            return None
        kind = codes.BLOCK_JOBS.get(info["type"], f"of type {info['type']}")
        return BlockJob(kind=kind, cur=info["cur"], end=info["end"], bandwidth=info["bandwidth"])

    def job(self) -> str:
        """The domain job in progress (migration out, save, dump, backup, ...); "" for none."""
        try:
            stats = self._read("Reading the job of", lambda raw: raw.jobStats(0))
        except DomainStateChanged:
            return ""  # shut off
        if not stats.get("type"):
            return ""
        return codes.JOB_OPERATIONS.get(int(stats.get("operation", 0)), "a job")

    def snapshots(self) -> tuple[str, ...]:
        """Names of the snapshots that libvirt keeps metadata of."""
        found = self._read("Listing the snapshots of", lambda raw: raw.listAllSnapshots(0))
        return tuple(snapshot.getName() for snapshot in found)

    def checkpoints(self) -> tuple[str, ...]:
        """Names of its checkpoints."""
        found = self._read("Listing the checkpoints of", lambda raw: raw.listAllCheckpoints(0))
        return tuple(checkpoint.getName() for checkpoint in found)

    def managed_save_xml(self) -> str:
        """The definition in its managed save image, which its next start resumes; "" without one."""
        if not self._read("Looking up", lambda raw: bool(raw.hasManagedSaveImage())):
            return ""
        what = "Reading the saved definition of"
        return self._read(what, lambda raw: raw.managedSaveGetXMLDesc(codes.Xml.SECURE))

    def volume_path(self, pool: str, volume: str) -> str:
        """The path of a storage pool's volume; "" when libvirt does not know it: an inactive pool, a removed volume."""
        try:
            return self._link.volume_path(pool, volume)
        except HypervisorUnreachable:
            raise
        except HypervisorError as error:
            logger.debug("%s", error)
            return ""

    def live(self) -> ParsedDomain | None:
        """Its live definition, parsed; None when it is shut off."""
        xml = self.live_xml()
        return self.parse(xml) if xml else None

    def inactive(self) -> ParsedDomain:
        """Its definition, parsed."""
        return self.parse(self.inactive_xml())

    def saved(self) -> ParsedDomain | None:
        """The definition in its managed save image, parsed; None without one."""
        xml = self.managed_save_xml()
        return self.parse(xml) if xml else None

    def parse(self, xml: str) -> ParsedDomain:
        """A definition of this domain, parsed, the volumes of storage pools as paths."""
        return domain_xml.parse_domain(xml, volume_path=self.volume_path)

    def agent_connected(self) -> bool:
        """Whether an agent has opened its channel. A frozen or stopped agent counts as connected."""
        xml = self.live_xml()
        return bool(xml) and domain_xml.agent_connected(xml)

    def agent_timeout(self, seconds: int) -> None:
        """Bound every later wait for the agent, in seconds. libvirt's default is to wait for ever.

        The bound belongs to the running domain, not to this connection, and stays until it is set anew.
        """
        self._act("Bounding the agent's answers of", lambda raw: raw.agentSetResponseTimeout(seconds, 0))

    def agent(self, command: str, *, timeout: int = 5) -> Any:
        """Send one agent command without arguments, return what it answers. `timeout` in seconds."""
        request = json.dumps({"execute": command})
        what = f"The agent command {command} of"
        answer = self._act(what, lambda raw: self._link.agent_command(raw, request=request, timeout=timeout))
        try:
            return json.loads(answer)["return"]
        except (ValueError, KeyError, TypeError) as error:
            raise HypervisorError(f"{what} {self._name!r} was answered by nonsense.", evidence=answer) from error

    def agent_ping(self, *, timeout: int = 5) -> None:
        """Raise AgentUnresponsive unless the agent answers within `timeout` seconds."""
        self.agent("guest-ping", timeout=timeout)

    def freeze_status(self, *, timeout: int = 5) -> str:
        """`frozen` or `thawed`, asked from the agent itself; answers while frozen too."""
        return str(self.agent("guest-fsfreeze-status", timeout=timeout))

    def freeze(self, mountpoints: Sequence[str] | None = None) -> int:
        """Freeze all file systems, or those named; return how many the agent says it froze.

        0 is no error to libvirt: unknown mount points are passed over (tried: libvirt 9.0, agent 7.2).
        """
        names = list(mountpoints) if mountpoints else None
        return self._act("Freezing the file systems of", lambda raw: raw.fsFreeze(names, 0))

    def thaw(self) -> int:
        """Thaw all file systems; return how many. Only `freeze_status` proves that it is thawed."""
        return self._act("Thawing the file systems of", lambda raw: raw.fsThaw(None, 0))

    def filesystems(self) -> tuple[FileSystem, ...]:
        """The file systems that the guest has mounted."""
        found = self._read("Listing the file systems of", lambda raw: raw.fsInfo(0))
        return tuple(
            FileSystem(mountpoint=mountpoint, device=device, kind=kind, disks=tuple(disks or ()))
            for mountpoint, device, kind, disks in found
        )

    def snapshot(self, xml: str) -> None:
        """Take one external snapshot of the disks named in `xml`: all or none, and no metadata is kept."""
        flags = codes.Snapshot.DISK_ONLY | codes.Snapshot.ATOMIC | codes.Snapshot.NO_METADATA
        self._act("The snapshot of", lambda raw: raw.snapshotCreateXML(xml, flags))

    def checkpoint(self, xml: str) -> None:
        """Begin a dirty bitmap on the disks that `xml` names: on all of them or none."""
        self._act("The checkpoint of", lambda raw: raw.checkpointCreateXML(xml, 0))

    def drop_checkpoint(self, name: str, *, metadata_only: bool = False) -> None:
        """Remove a checkpoint and its bitmaps, or only what libvirt knows of it."""
        flags = codes.CHECKPOINT_METADATA_ONLY if metadata_only else 0
        self._act("A checkpoint of", lambda raw: raw.checkpointLookupByName(name).delete(flags))

    def block_commit(self, target: str, *, base: str, top: str | None = None, bandwidth: int = 0) -> None:
        """Begin the active block commit of a disk into `base`. `bandwidth` in MiB/s, 0 for no limit.

        `base` is never left to libvirt, whose default is the end of the chain: a linked clone's template.
        """
        if not base:
            raise ValueError("a block commit without a base writes into the template of a clone")
        what = f"The block commit of disk {target} of"
        flags = codes.BLOCK_COMMIT_ACTIVE
        self._act(what, lambda raw: raw.blockCommit(target, base, top, bandwidth, flags))

    def block_pull(self, target: str) -> None:
        """Begin to copy what lies below the disk's image into it; at the end nothing is below it any more."""
        self._act(f"The block pull of disk {target} of", lambda raw: raw.blockPull(target, 0, 0))

    def lift_limit(self, target: str) -> None:
        """Let the disk's block job copy as fast as it can."""
        self._act(f"Hurrying the block job of disk {target} of", lambda raw: raw.blockJobSetSpeed(target, 0))

    def pivot(self, target: str) -> None:
        """Ask qemu to switch the disk to the base of its ready commit; the live definition tells when it did.

        Not ready yet is DomainBusy with code 83. libvirt does not wait for it here: it would wait without limit.
        """
        flags = codes.BLOCK_JOB_ABORT_PIVOT | codes.BLOCK_JOB_ABORT_ASYNC
        self._act(f"The pivot of disk {target} of", lambda raw: raw.blockJobAbort(target, flags))

    def abort_job(self, target: str) -> None:
        """Cancel the disk's block job; the disk stays on its overlay."""
        self._act(f"Cancelling the block job of disk {target} of", lambda raw: raw.blockJobAbort(target, 0))

    def suspend(self) -> None:
        """Pause its CPUs."""
        self._act("Pausing", lambda raw: raw.suspend())

    def resume(self) -> None:
        """Let its CPUs go on."""
        self._act("Resuming", lambda raw: raw.resume())

    def start(self, *, paused: bool = False) -> None:
        """Start it, its CPUs stopped if `paused`."""
        flags = codes.START_PAUSED if paused else 0
        self._act("Starting", lambda raw: raw.createWithFlags(flags), seconds=START_S)

    def shutdown(self) -> None:
        """Ask the guest to shut down; it may take its time, or not listen."""
        self._act("Shutting down", lambda raw: raw.shutdown())

    def destroy(self) -> None:
        """Pull its power plug, if it is in.

        libvirt kills qemu before it waits for its turn at the domain; somebody else may then be the one to see it off.
        """
        try:
            self._act("Stopping", lambda raw: raw.destroy())
        except DomainStateChanged as error:
            logger.debug("%s", error)

    def set_autostart(self, *, on: bool) -> None:
        """Start it with the host, or not."""
        self._act("Setting the autostart of", lambda raw: raw.setAutostart(int(on)))

    def managed_save_define(self, xml: str) -> None:
        """Replace the definition inside its managed save image."""
        self._act("Changing the saved definition of", lambda raw: raw.managedSaveDefineXML(xml, 0))

    def undefine(self, *, keep_nvram: bool = True) -> None:
        """Forget its definition, saved state and snapshot metadata; `keep_nvram` keeps NVRAM and TPM files.

        Else libvirt deletes the NVRAM file and, since 8.9, the TPM state.
        """
        self._act("Undefining", lambda raw: raw.undefineFlags(_UNDEFINE | (_KEEP if keep_nvram else _DROP)))
