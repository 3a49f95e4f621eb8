"""How a VM is backed up: the keys of `vms.defaults` and of its override."""

from datetime import timedelta
from typing import Any

from pydantic import ByteSize, Field

from infra.config.fields import ChunkSize, Duration, Pause, Seconds, Size, Text
from infra.config.retention import Retention
from infra.config.section import Section
from infra.model import Quiesce, ReadMode


class VmPolicy(Section):
    """How a VM is backed up."""

    repository: str = Field(default="main", description="The repository, by its name above.", examples=["main"])
    replicas: tuple[Text, ...] = Field(
        default=(), description="Further repositories that every archive is written to, each by itself."
    )
    quiesce: Quiesce = Field(
        default=Quiesce.TRY,
        description="require: fail unless the guest agent froze the file systems; try: else go on with what "
        "a power cut would leave, and say so; never: do not ask the agent.",
        examples=["try"],
    )
    retention: Retention = Field(
        default_factory=lambda: Retention(daily=7, weekly=4, monthly=6),
        description="How many archives are kept. A rule that is not named here keeps none.",
    )
    exclude_disks: tuple[Text, ...] = Field(default=(), description="Disk targets that are left out, such as vdc.")
    read: ReadMode = Field(
        default=ReadMode.CHANGED,
        description="changed: read only what the guest wrote to since the last backup, of disks where that can be "
        "known (qcow2), and all of the others; whole: read every image whole.",
    )
    whole_disks: tuple[Text, ...] = Field(
        default=(), description="Disk targets that are read whole all the same, such as vdb."
    )
    full_read_every: int = Field(
        default=14,
        ge=1,
        description="So often, in backups, everything is read anew; 1: always.",
    )
    chunk_size: ChunkSize = Field(
        default=ByteSize(1024**2),
        description="How finely `read: changed` cuts: smaller blocks store less of a scattered change, and borg keeps "
        "about 100 bytes of memory for each. 64KiB to 4MiB, a power of two.",
    )
    freeze_mountpoints: tuple[Text, ...] = Field(
        default=(), description="Freeze only these file systems of the guest; all of them if empty."
    )
    objective: Duration = Field(
        default=timedelta(hours=26),
        description="`status` is critical when the last good archive is older than this.",
    )
    agent_timeout: Seconds = Field(default=5, description="How long the guest agent may take to answer one command.")
    freeze_deadline: Seconds = Field(
        default=10, description="A watchdog thaws the guest after this, whatever happened."
    )
    create_deadline: Seconds = Field(
        default=8 * 3600, description="The copy is given up when it takes longer than this."
    )
    commit_deadline: Seconds = Field(default=3600, description="How long the block commit of one disk may take.")
    pivot_deadline: Seconds = Field(default=60, description="How long the pivot of one disk is tried.")
    commit_pause: Pause = Field(
        default=10,
        description="When one of these two has passed, the guest is paused so long, at most twice, for the rest to be "
        "copied; 0: never.",
    )
    commit_bandwidth: Size = Field(
        default=ByteSize(0),
        description="Bytes a second that the block commit of one disk may copy, until commit_deadline; 0: no limit.",
    )
    min_free: Size = Field(
        default=ByteSize(1024**3),
        description="Kept free on the file system of every overlay: the copy is given up before it is used. A restore "
        "of images leaves it free, too.",
    )
    min_free_start: Size = Field(
        default=ByteSize(2 * 1024**3), description="Free space there without which no backup is begun."
    )

    @property
    def repositories(self) -> tuple[str, ...]:
        """Every repository that an archive goes to: its own, then the replicas."""
        return (self.repository, *self.replicas)

    def written(self) -> dict[str, Any]:
        """Only the keys that stand in the file, as JSON-like data."""
        return self.model_dump(mode="json", exclude_unset=True)

    def overridden_by(self, override: "VmPolicy") -> "VmPolicy":
        """This policy with the keys that were written in `override`."""
        changes: dict[str, Any] = {key: getattr(override, key) for key in override.model_fields_set}
        return self.model_copy(update=changes)
