"""What vmborg uses of libvirt-python, with the types the C code really returns.

The binding's own annotations are wrong where its generator guessed (`info() -> str`), and it has no py.typed.
Source: libvirt-override.c and the override modules of libvirt-python 12.8, built against libvirt 9.0.
Narrower than the binding where it guards us: `blockCommit` takes no None for its base (that would be the
template of a clone), `fsFreeze` only a list (the C code ignores any other sequence and freezes everything).
A unit test compares these names with the installed binding.
"""

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

_RawError: TypeAlias = tuple[int, int, str, int, str, str | None, str | None, int, int]
"""code, domain, message, level, str1, str2, str3, int1, int2"""

_BlockJobInfo: TypeAlias = dict[Literal["type", "bandwidth", "cur", "end"], int]
"""bandwidth in MiB/s unless BANDWIDTH_BYTES was asked for; cur and end in bytes"""

class libvirtError(Exception):
    def __init__(self, defmsg: str) -> None: ...
    def get_error_code(self) -> int | None: ...
    def get_error_domain(self) -> int | None: ...
    def get_error_message(self) -> str | None: ...
    def get_error_level(self) -> int | None: ...
    def get_str1(self) -> str | None: ...

def open(name: str | None = None) -> virConnect: ...
def openReadOnly(name: str | None = None) -> virConnect: ...
def getVersion(name: str | None = None) -> int: ...
def registerErrorHandler(f: Callable[[Any, _RawError], object] | None, ctx: object) -> int: ...
def virEventRegisterDefaultImpl() -> int: ...
def virEventRunDefaultImpl() -> int: ...
def virEventAddTimeout(timeout: int, cb: Callable[[int, Any], object], opaque: object) -> int: ...
def virEventRemoveTimeout(timer: int) -> int: ...

class virConnect:
    def lookupByName(self, name: str) -> virDomain: ...
    def lookupByUUIDString(self, uuidstr: str) -> virDomain: ...
    def lookupByID(self, id: int) -> virDomain: ...
    def listAllDomains(self, flags: int = 0) -> list[virDomain]: ...
    def defineXML(self, xml: str) -> virDomain: ...
    def defineXMLFlags(self, xml: str, flags: int = 0) -> virDomain: ...
    def createXML(self, xmlDesc: str, flags: int = 0) -> virDomain: ...
    def getVersion(self) -> int: ...
    def getLibVersion(self) -> int: ...
    def getType(self) -> str: ...
    def getURI(self) -> str: ...
    def getHostname(self) -> str: ...
    def getCapabilities(self) -> str: ...
    def getDomainCapabilities(
        self,
        emulatorbin: str | None = None,
        arch: str | None = None,
        machine: str | None = None,
        virttype: str | None = None,
        flags: int = 0,
    ) -> str: ...
    def storagePoolLookupByName(self, name: str) -> virStoragePool: ...
    def close(self) -> int: ...
    def isAlive(self) -> int: ...
    def setKeepAlive(self, interval: int, count: int) -> int: ...
    def domainEventRegisterAny(
        self, dom: virDomain | None, eventID: int, cb: Callable[..., object], opaque: object
    ) -> int:
        """The callback gets connection, domain, then: LIFECYCLE (event, detail); BLOCK_JOB and BLOCK_JOB_2
        (disk, type, status); IO_ERROR_REASON (path, alias, action, reason); last of all opaque. An
        AttributeError raised in a block job's callback is swallowed by the binding."""
    def domainEventDeregisterAny(self, callbackID: int) -> None: ...
    def registerCloseCallback(self, cb: Callable[[virConnect, int, Any], object], opaque: object) -> int: ...
    def unregisterCloseCallback(self) -> int: ...

class virDomain:
    def name(self) -> str: ...
    def UUIDString(self) -> str: ...
    def ID(self) -> int:
        """-1 while the domain is shut off."""
    def connect(self) -> virConnect: ...
    def state(self, flags: int = 0) -> list[int]:
        """[state, reason]"""
    def info(self) -> list[int]:
        """[state, maximum memory KiB, memory KiB, vCPUs, CPU time ns]"""
    def isActive(self) -> int: ...
    def isPersistent(self) -> int: ...
    def isUpdated(self) -> int: ...
    def XMLDesc(self, flags: int = 0) -> str: ...
    def autostart(self) -> int: ...
    def setAutostart(self, autostart: int) -> int: ...
    def rename(self, new_name: str, flags: int = 0) -> int: ...
    def metadata(self, type: int, uri: str | None, flags: int = 0) -> str: ...
    def setMetadata(
        self, type: int, metadata: str | None, key: str | None, uri: str | None, flags: int = 0
    ) -> int: ...
    def create(self) -> int: ...
    def createWithFlags(self, flags: int = 0) -> int: ...
    def destroy(self) -> int: ...
    def destroyFlags(self, flags: int = 0) -> int: ...
    def shutdown(self) -> int: ...
    def shutdownFlags(self, flags: int = 0) -> int: ...
    def reboot(self, flags: int = 0) -> int: ...
    def reset(self, flags: int = 0) -> int: ...
    def suspend(self) -> int: ...
    def resume(self) -> int: ...
    def undefine(self) -> int: ...
    def undefineFlags(self, flags: int = 0) -> int: ...
    def hasManagedSaveImage(self, flags: int = 0) -> int: ...
    def managedSave(self, flags: int = 0) -> int: ...
    def managedSaveGetXMLDesc(self, flags: int = 0) -> str: ...
    def managedSaveDefineXML(self, dxml: str, flags: int = 0) -> int: ...
    def snapshotCreateXML(self, xmlDesc: str, flags: int = 0) -> virDomainSnapshot: ...
    def snapshotNum(self, flags: int = 0) -> int: ...
    def listAllSnapshots(self, flags: int = 0) -> list[virDomainSnapshot]: ...
    def checkpointCreateXML(self, xmlDesc: str, flags: int = 0) -> virDomainCheckpoint: ...
    def checkpointLookupByName(self, name: str, flags: int = 0) -> virDomainCheckpoint: ...
    def listAllCheckpoints(self, flags: int = 0) -> list[virDomainCheckpoint]: ...
    def blockPull(self, disk: str, bandwidth: int = 0, flags: int = 0) -> int: ...
    def blockCommit(
        self, disk: str, base: str, top: str | None, bandwidth: int = 0, flags: int = 0
    ) -> int: ...
    def blockJobInfo(self, path: str, flags: int = 0) -> _BlockJobInfo:
        """Empty when the disk has no job."""
    def blockJobAbort(self, disk: str, flags: int = 0) -> int: ...
    def blockJobSetSpeed(self, disk: str, bandwidth: int, flags: int = 0) -> int: ...
    def blockInfo(self, path: str, flags: int = 0) -> list[int]:
        """[capacity, allocation, physical] in bytes"""
    def blockStats(self, path: str) -> tuple[int, int, int, int, int]:
        """(read requests, read bytes, write requests, written bytes, errors)"""
    def setBlockThreshold(self, dev: str, threshold: int, flags: int = 0) -> int: ...
    def diskErrors(self, flags: int = 0) -> dict[str, int]: ...
    def fsFreeze(self, mountpoints: list[str] | None = None, flags: int = 0) -> int:
        """The number of filesystems that were frozen: may be 0."""
    def fsThaw(self, mountpoints: list[str] | None = None, flags: int = 0) -> int: ...
    def fsInfo(self, flags: int = 0) -> list[tuple[str, str, str, list[str]]]:
        """(mountpoint, device in the guest, type, disk targets) each"""
    def interfaceAddresses(self, source: int, flags: int = 0) -> dict[str, dict[str, Any]]:
        """By interface: hwaddr, and addrs, None or a list of {addr, prefix, type}"""
    def agentSetResponseTimeout(self, timeout: int, flags: int = 0) -> int:
        """timeout in seconds, or VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_*"""
    def jobInfo(self) -> list[int]:
        """[type, elapsed ms, remaining ms, then total, processed, remaining bytes of data, memory, files]"""
    def jobStats(self, flags: int = 0) -> dict[str, int | str]: ...
    def abortJob(self) -> int: ...

class virStoragePool:
    def storageVolLookupByName(self, name: str) -> virStorageVol: ...

class virStorageVol:
    def path(self) -> str: ...

class virDomainSnapshot:
    def getName(self) -> str: ...
    def getXMLDesc(self, flags: int = 0) -> str: ...
    def delete(self, flags: int = 0) -> int: ...

class virDomainCheckpoint:
    def getName(self) -> str: ...
    def getXMLDesc(self, flags: int = 0) -> str: ...
    def delete(self, flags: int = 0) -> int: ...

VIR_DOMAIN_NOSTATE: int
VIR_DOMAIN_RUNNING: int
VIR_DOMAIN_BLOCKED: int
VIR_DOMAIN_PAUSED: int
VIR_DOMAIN_SHUTDOWN: int
VIR_DOMAIN_SHUTOFF: int
VIR_DOMAIN_CRASHED: int
VIR_DOMAIN_PMSUSPENDED: int

VIR_DOMAIN_PAUSED_UNKNOWN: int
VIR_DOMAIN_PAUSED_USER: int
VIR_DOMAIN_PAUSED_MIGRATION: int
VIR_DOMAIN_PAUSED_SAVE: int
VIR_DOMAIN_PAUSED_DUMP: int
VIR_DOMAIN_PAUSED_IOERROR: int
VIR_DOMAIN_PAUSED_WATCHDOG: int
VIR_DOMAIN_PAUSED_FROM_SNAPSHOT: int
VIR_DOMAIN_PAUSED_SHUTTING_DOWN: int
VIR_DOMAIN_PAUSED_SNAPSHOT: int
VIR_DOMAIN_PAUSED_CRASHED: int
VIR_DOMAIN_PAUSED_STARTING_UP: int
VIR_DOMAIN_PAUSED_POSTCOPY: int
VIR_DOMAIN_PAUSED_POSTCOPY_FAILED: int

VIR_DOMAIN_RUNNING_UNKNOWN: int
VIR_DOMAIN_RUNNING_BOOTED: int
VIR_DOMAIN_RUNNING_MIGRATED: int
VIR_DOMAIN_RUNNING_RESTORED: int
VIR_DOMAIN_RUNNING_FROM_SNAPSHOT: int
VIR_DOMAIN_RUNNING_UNPAUSED: int
VIR_DOMAIN_RUNNING_MIGRATION_CANCELED: int
VIR_DOMAIN_RUNNING_SAVE_CANCELED: int
VIR_DOMAIN_RUNNING_WAKEUP: int
VIR_DOMAIN_RUNNING_CRASHED: int
VIR_DOMAIN_RUNNING_POSTCOPY: int
VIR_DOMAIN_RUNNING_POSTCOPY_FAILED: int

VIR_DOMAIN_SHUTOFF_UNKNOWN: int
VIR_DOMAIN_SHUTOFF_SHUTDOWN: int
VIR_DOMAIN_SHUTOFF_DESTROYED: int
VIR_DOMAIN_SHUTOFF_CRASHED: int
VIR_DOMAIN_SHUTOFF_MIGRATED: int
VIR_DOMAIN_SHUTOFF_SAVED: int
VIR_DOMAIN_SHUTOFF_FAILED: int
VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT: int
VIR_DOMAIN_SHUTOFF_DAEMON: int

VIR_DOMAIN_CRASHED_UNKNOWN: int
VIR_DOMAIN_CRASHED_PANICKED: int

VIR_DOMAIN_XML_SECURE: int
VIR_DOMAIN_XML_INACTIVE: int
VIR_DOMAIN_XML_MIGRATABLE: int

VIR_CONNECT_LIST_DOMAINS_ACTIVE: int
VIR_CONNECT_LIST_DOMAINS_INACTIVE: int
VIR_CONNECT_LIST_DOMAINS_PERSISTENT: int
VIR_CONNECT_LIST_DOMAINS_TRANSIENT: int

VIR_DOMAIN_AFFECT_CURRENT: int
VIR_DOMAIN_AFFECT_CONFIG: int

VIR_DOMAIN_DEFINE_VALIDATE: int

VIR_DOMAIN_START_PAUSED: int
VIR_DOMAIN_START_AUTODESTROY: int
VIR_DOMAIN_START_VALIDATE: int
VIR_DOMAIN_START_RESET_NVRAM: int

VIR_DOMAIN_DESTROY_DEFAULT: int
VIR_DOMAIN_DESTROY_GRACEFUL: int
VIR_DOMAIN_DESTROY_REMOVE_LOGS: int

VIR_DOMAIN_SHUTDOWN_DEFAULT: int
VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN: int
VIR_DOMAIN_SHUTDOWN_GUEST_AGENT: int

VIR_DOMAIN_UNDEFINE_MANAGED_SAVE: int
VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA: int
VIR_DOMAIN_UNDEFINE_NVRAM: int
VIR_DOMAIN_UNDEFINE_KEEP_NVRAM: int
VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA: int
VIR_DOMAIN_UNDEFINE_TPM: int
VIR_DOMAIN_UNDEFINE_KEEP_TPM: int

VIR_DOMAIN_SNAPSHOT_CREATE_REDEFINE: int
VIR_DOMAIN_SNAPSHOT_CREATE_CURRENT: int
VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA: int
VIR_DOMAIN_SNAPSHOT_CREATE_HALT: int
VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY: int
VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT: int
VIR_DOMAIN_SNAPSHOT_CREATE_QUIESCE: int
VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC: int
VIR_DOMAIN_SNAPSHOT_CREATE_LIVE: int
VIR_DOMAIN_SNAPSHOT_CREATE_VALIDATE: int

VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY: int

VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY: int

VIR_DOMAIN_BLOCK_COMMIT_SHALLOW: int
VIR_DOMAIN_BLOCK_COMMIT_DELETE: int
VIR_DOMAIN_BLOCK_COMMIT_ACTIVE: int
VIR_DOMAIN_BLOCK_COMMIT_RELATIVE: int
VIR_DOMAIN_BLOCK_COMMIT_BANDWIDTH_BYTES: int

VIR_DOMAIN_BLOCK_JOB_COMPLETED: int
VIR_DOMAIN_BLOCK_JOB_TYPE_UNKNOWN: int
VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC: int
VIR_DOMAIN_BLOCK_JOB_FAILED: int
VIR_DOMAIN_BLOCK_JOB_INFO_BANDWIDTH_BYTES: int
VIR_DOMAIN_BLOCK_JOB_SPEED_BANDWIDTH_BYTES: int
VIR_DOMAIN_BLOCK_JOB_TYPE_PULL: int
VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT: int
VIR_DOMAIN_BLOCK_JOB_CANCELED: int
VIR_DOMAIN_BLOCK_JOB_TYPE_COPY: int
VIR_DOMAIN_BLOCK_JOB_READY: int
VIR_DOMAIN_BLOCK_JOB_TYPE_COMMIT: int
VIR_DOMAIN_BLOCK_JOB_TYPE_ACTIVE_COMMIT: int
VIR_DOMAIN_BLOCK_JOB_TYPE_BACKUP: int

VIR_DOMAIN_DISK_ERROR_NONE: int
VIR_DOMAIN_DISK_ERROR_UNSPEC: int
VIR_DOMAIN_DISK_ERROR_NO_SPACE: int

VIR_DOMAIN_BLOCK_IOTUNE_READ_BYTES_SEC: str
VIR_DOMAIN_BLOCK_IOTUNE_READ_IOPS_SEC: str
VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC: str
VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC: str
VIR_DOMAIN_BLOCK_IOTUNE_WRITE_BYTES_SEC: str
VIR_DOMAIN_BLOCK_IOTUNE_WRITE_IOPS_SEC: str

VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK: int
VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_DEFAULT: int
VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_NOWAIT: int

VIR_DOMAIN_METADATA_DESCRIPTION: int
VIR_DOMAIN_METADATA_TITLE: int
VIR_DOMAIN_METADATA_ELEMENT: int

VIR_DOMAIN_JOB_NONE: int
VIR_DOMAIN_JOB_BOUNDED: int
VIR_DOMAIN_JOB_UNBOUNDED: int
VIR_DOMAIN_JOB_COMPLETED: int
VIR_DOMAIN_JOB_FAILED: int
VIR_DOMAIN_JOB_CANCELLED: int

VIR_DOMAIN_JOB_OPERATION_UNKNOWN: int
VIR_DOMAIN_JOB_OPERATION_SAVE: int
VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN: int
VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: int
VIR_DOMAIN_JOB_OPERATION_SNAPSHOT: int
VIR_DOMAIN_JOB_OPERATION_BACKUP: int

VIR_DOMAIN_EVENT_ID_LIFECYCLE: int
VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON: int
VIR_DOMAIN_EVENT_ID_BLOCK_JOB: int
VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2: int
VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE: int
VIR_DOMAIN_EVENT_ID_JOB_COMPLETED: int
VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD: int

VIR_DOMAIN_EVENT_DEFINED: int
VIR_DOMAIN_EVENT_UNDEFINED: int
VIR_DOMAIN_EVENT_STARTED: int
VIR_DOMAIN_EVENT_SUSPENDED: int
VIR_DOMAIN_EVENT_RESUMED: int
VIR_DOMAIN_EVENT_STOPPED: int
VIR_DOMAIN_EVENT_SHUTDOWN: int
VIR_DOMAIN_EVENT_PMSUSPENDED: int
VIR_DOMAIN_EVENT_CRASHED: int

VIR_DOMAIN_EVENT_IO_ERROR_NONE: int
VIR_DOMAIN_EVENT_IO_ERROR_PAUSE: int
VIR_DOMAIN_EVENT_IO_ERROR_REPORT: int

VIR_FROM_NONE: int
VIR_FROM_XML: int
VIR_FROM_RPC: int
VIR_FROM_QEMU: int
VIR_FROM_REMOTE: int
VIR_FROM_STORAGE: int
VIR_FROM_DOMAIN: int

VIR_ERR_OK: int
VIR_ERR_INTERNAL_ERROR: int
VIR_ERR_NO_SUPPORT: int
VIR_ERR_UNKNOWN_HOST: int
VIR_ERR_NO_CONNECT: int
VIR_ERR_INVALID_CONN: int
VIR_ERR_INVALID_DOMAIN: int
VIR_ERR_INVALID_ARG: int
VIR_ERR_OPERATION_FAILED: int
VIR_ERR_XML_ERROR: int
VIR_ERR_DOM_EXIST: int
VIR_ERR_OPERATION_DENIED: int
VIR_ERR_XML_DETAIL: int
VIR_ERR_SYSTEM_ERROR: int
VIR_ERR_RPC: int
VIR_ERR_GNUTLS_ERROR: int
VIR_ERR_NO_DOMAIN: int
VIR_ERR_NO_NETWORK: int
VIR_ERR_AUTH_FAILED: int
VIR_ERR_NO_STORAGE_POOL: int
VIR_ERR_NO_STORAGE_VOL: int
VIR_ERR_OPERATION_INVALID: int
VIR_ERR_NO_SECRET: int
VIR_ERR_CONFIG_UNSUPPORTED: int
VIR_ERR_OPERATION_TIMEOUT: int
VIR_ERR_NO_DOMAIN_SNAPSHOT: int
VIR_ERR_ARGUMENT_UNSUPPORTED: int
VIR_ERR_OPERATION_ABORTED: int
VIR_ERR_AUTH_CANCELLED: int
VIR_ERR_NO_DOMAIN_METADATA: int
VIR_ERR_MIGRATE_UNSAFE: int
VIR_ERR_BLOCK_COPY_ACTIVE: int
VIR_ERR_OPERATION_UNSUPPORTED: int
VIR_ERR_SSH: int
VIR_ERR_AGENT_UNRESPONSIVE: int
VIR_ERR_RESOURCE_BUSY: int
VIR_ERR_ACCESS_DENIED: int
VIR_ERR_XML_INVALID_SCHEMA: int
VIR_ERR_AUTH_UNAVAILABLE: int
VIR_ERR_AGENT_UNSYNCED: int
VIR_ERR_LIBSSH: int
VIR_ERR_DEVICE_MISSING: int
