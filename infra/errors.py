"""Every error vmborg raises on purpose.

Each has three voices: `brief` (what failed), `evidence` (command, exit code, last lines) and `remedy` (what to do).
`transient` says whether the same call may succeed later without anybody changing anything; only such errors are
retried.

    VmborgError
    ├── ConfigError                 exit 2
    │   └── UsageError              exit 2
    ├── ProcessError
    │   ├── CommandNotFound
    │   ├── CommandFailed
    │   └── CommandTimedOut         transient
    ├── HypervisorError             a libvirt call failed
    │   ├── HypervisorUnreachable   transient
    │   ├── DomainNotFound
    │   ├── DomainBusy              a block job, migration, snapshot or other run holds it
    │   ├── DomainExists
    │   ├── DomainXmlError          the definition cannot be read or is not trusted
    │   ├── DomainStateChanged      it was started, stopped or redefined while we looked; transient
    │   ├── DiskMissing             a disk's file or device is not there
    │   ├── AgentUnresponsive       the guest agent does not answer (in time); transient
    │   ├── FreezeFailed
    │   ├── ThawUnconfirmed         the guest may still be frozen
    │   ├── SnapshotFailed
    │   ├── CommitFailed            the domain is still on its overlay
    │   └── ImageError              qemu-img says no
    ├── BorgError
    │   ├── RepositoryNotFound
    │   ├── RepositoryLocked        transient
    │   ├── RepositoryInvalid       not a repository, or of another version
    │   ├── RepositoryDamaged
    │   ├── RepositoryFull
    │   ├── RepositoryExists
    │   ├── RepositoryUnreachable   transient
    │   ├── PassphraseWrong
    │   ├── ArchiveNotFound
    │   ├── ArchiveExists
    │   └── ArchiveIncomplete       a warning touched a disk, or the content is not what the manifest promises
    ├── StorageError
    │   └── NoSpace
    ├── WindowExceeded              the overlay window's deadline or space guard ended the copy
    ├── JournalError
    ├── RecoveryFailed              the domain could not be put back; the journal stays open
    ├── ManifestError               the manifest is unreadable, of an unknown version or unsafe
    ├── RestoreError
    │   ├── UnsafeArchive           the archive asks for something a restore must not do
    │   └── TargetExists
    ├── SshError                    the way to a dump host
    │   ├── HostUnreachable         transient
    │   ├── HostKeyUnknown          nobody has pinned its key yet
    │   ├── HostKeyChanged
    │   ├── LoginRefused            key or user is wrong
    │   └── ConnectionLost          cut or silent in the middle; transient
    └── DumpError                   a dump host's source
        ├── DumpBusy                another pull of this host runs
        ├── DumpFailed              the command on the dump host did not end well
        └── DumpIncomplete          it ended well, but what came is not proven whole

Those of retention, health checks and cloud copies are in infra/errors_upkeep.py, those of single files in
infra/errors_views.py.
"""

from typing import ClassVar


class VmborgError(Exception):
    """Superclass of every error of vmborg. Never raised directly."""

    exit_code: ClassVar[int] = 1
    is_transient: ClassVar[bool] = False

    def __init__(self, brief: str, *, evidence: str = "", remedy: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.evidence = evidence
        self.remedy = remedy

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later without a change."""
        return self.is_transient

    @property
    def facts(self) -> dict[str, str]:
        """Its class and its three voices, as JSON-like data."""
        return {"type": type(self).__name__, "brief": self.brief, "evidence": self.evidence, "remedy": self.remedy}

    def __str__(self) -> str:
        """All three voices, for logs and for Prefect's state messages."""
        lines = [self.brief]
        if self.evidence:
            lines.append(self.evidence.rstrip())
        if self.remedy:
            lines.append(f"What to do: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling (Prefect keeps results) with all three voices."""
        return _rebuild, (type(self), dict(vars(self)))


def _rebuild(kind: type[VmborgError], values: dict[str, object]) -> VmborgError:
    error = kind.__new__(kind)
    Exception.__init__(error, values["brief"])
    vars(error).update(values)
    return error


class ConfigError(VmborgError):
    """The configuration is missing, unreadable or wrong; all mistakes are listed at once."""

    exit_code = 2


class UsageError(ConfigError):
    """The command line asks for something that does not exist or does not fit together."""


class ProcessError(VmborgError):
    """A program could not be run to a good end."""


class CommandNotFound(ProcessError):
    """The program is not installed."""


class CommandFailed(ProcessError):
    """The program ended with an exit code other than 0."""

    def __init__(self, brief: str, *, evidence: str = "", remedy: str = "", returncode: int = 1) -> None:
        super().__init__(brief, evidence=evidence, remedy=remedy)
        self.returncode = returncode


class CommandTimedOut(ProcessError):
    """The program did not end in time and was killed."""

    is_transient = True


class HypervisorError(VmborgError):
    """A libvirt call failed. `code` is libvirt's error number (VIR_ERR_*), 0 if there was none."""

    def __init__(self, brief: str, *, evidence: str = "", remedy: str = "", code: int = 0) -> None:
        super().__init__(brief, evidence=evidence, remedy=remedy)
        self.code = code


class HypervisorUnreachable(HypervisorError):
    """The libvirt daemon does not answer."""

    is_transient = True


class DomainNotFound(HypervisorError):
    """libvirt knows no domain of this name or UUID."""


class DomainBusy(HypervisorError):
    """A block job, a migration, a foreign snapshot or another run of ours holds the domain."""


class DomainExists(HypervisorError):
    """A domain of this name or UUID is defined already."""


class DomainXmlError(HypervisorError):
    """A domain definition cannot be read, or holds what is not trusted (a DTD, external entities)."""


class DomainStateChanged(HypervisorError):
    """The domain was started, stopped or redefined while we looked at it."""

    is_transient = True


class DiskMissing(HypervisorError):
    """The file or device that a definition names is not there."""


class AgentUnresponsive(HypervisorError):
    """The guest agent is not connected, or did not answer in time."""

    is_transient = True


class FreezeFailed(HypervisorError):
    """The guest's file systems could not be frozen, and the policy is `require`."""


class ThawUnconfirmed(HypervisorError):
    """The agent did not confirm that the guest is thawed; the journal stays open."""


class SnapshotFailed(HypervisorError):
    """The external snapshot could not be taken; the domain was left as it was."""


class CommitFailed(HypervisorError):
    """A block commit or pivot did not end; the domain is still on its overlay."""


class ImageError(HypervisorError):
    """qemu-img refused an image."""


class BorgError(VmborgError):
    """borg ended with an error. `msgid` is borg's own name for it, where it gave one."""

    def __init__(
        self, brief: str, *, evidence: str = "", remedy: str = "", returncode: int = 2, msgid: str = ""
    ) -> None:
        super().__init__(brief, evidence=evidence, remedy=remedy)
        self.returncode = returncode
        self.msgid = msgid


class RepositoryNotFound(BorgError):
    """There is no repository at this location."""


class RepositoryLocked(BorgError):
    """Another borg holds the repository."""

    is_transient = True


class RepositoryInvalid(BorgError):
    """The location holds something that is not a repository, or one of another version."""


class RepositoryDamaged(BorgError):
    """borg found the repository damaged."""


class RepositoryFull(BorgError):
    """The repository's file system or quota is full."""


class RepositoryExists(BorgError):
    """A repository, or something else, is at this location already."""


class RepositoryUnreachable(BorgError):
    """The connection to a remote repository failed or broke."""

    is_transient = True


class PassphraseWrong(BorgError):
    """The passphrase or key does not open the repository, or there is none."""


class ArchiveNotFound(BorgError):
    """The repository holds no such archive."""


class ArchiveExists(BorgError):
    """The repository holds an archive of this name already."""


class ArchiveIncomplete(BorgError):
    """What borg stored is not what the manifest promises, or a warning touched a disk."""


class StorageError(VmborgError):
    """A file system cannot take what is asked of it."""


class NoSpace(StorageError):
    """A file system has less free space than the work needs."""


class WindowExceeded(VmborgError):
    """The copy was ended early: the overlay's space or the window's deadline ran out."""


class JournalError(VmborgError):
    """The journal cannot be read or written."""


class RecoveryFailed(VmborgError):
    """A domain could not be put back on its bases; the journal stays open and the next recover tries again."""


class ManifestError(VmborgError):
    """The manifest is unreadable, of an unknown version, or unsafe."""


class RestoreError(VmborgError):
    """A restore could not be carried out; nothing half-made is left."""


class UnsafeArchive(RestoreError):
    """The archive asks for something a restore must not do unasked."""


class TargetExists(RestoreError):
    """A domain or file of the wanted name is there already."""


class SshError(VmborgError):
    """A dump host cannot be worked with over SSH."""


class HostUnreachable(SshError):
    """Nothing that speaks SSH answers at the address and port, or not in time."""

    is_transient = True


class HostKeyUnknown(SshError):
    """The host's key is not pinned; it is never added by itself."""


class HostKeyChanged(SshError):
    """The host shows another key than the pinned one."""


class LoginRefused(SshError):
    """The host does not take our key for this user, or our key cannot be used."""


class ConnectionLost(SshError):
    """The connection broke, or no byte came for longer than `stall_timeout`."""

    is_transient = True


class DumpError(VmborgError):
    """A dump could not be taken."""


class DumpBusy(DumpError):
    """Another pull of the same host has not ended."""


class DumpFailed(DumpError):
    """The command on the dump host did not end well. `status` is its exit code there; -1 for a signal."""

    def __init__(self, brief: str, *, evidence: str = "", remedy: str = "", status: int = 1) -> None:
        super().__init__(brief, evidence=evidence, remedy=remedy)
        self.status = status


class DumpIncomplete(DumpError):
    """The command ended well, and yet the dump is empty, much smaller than the last one, or not whole."""
