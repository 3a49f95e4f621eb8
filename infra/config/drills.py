"""How restores are tried: where, how much of the host they may take, and what a VM has to show."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ByteSize, Field

from infra.config.fields import AbsolutePath, Duration, Seconds, Size, Text
from infra.config.section import Section

SCRATCH = Path("/var/lib/libvirt/images/vmborg-drills")


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from error
    return text


def _guest_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("must be a full path inside the guest")
    return text


Pattern = Annotated[Text, AfterValidator(_regex)]
GuestPath = Annotated[Text, AfterValidator(_guest_path)]


class CommandProbe(Section):
    """A command that the guest agent runs."""

    argv: tuple[Text, ...] = Field(min_length=1, description="The program and its arguments; no shell is started.")
    exit_code: int = Field(default=0, ge=0, le=255, description="How it has to end.")
    output: Pattern | None = Field(
        default=None, description="A regular expression that has to be found in what it prints."
    )


class FileProbe(Section):
    """A file of the guest, read from the restored image before it boots."""

    path: GuestPath = Field(description="Its path in the guest, or in the file system of `disk`.")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(description="Its checksum.")
    disk: Text | None = Field(
        default=None,
        description="The disk (vda) or partition (vda1) whose file system has it; else the guest's root is looked for.",
        examples=["vdb1"],
    )


class DrillVm(Section):
    """What one VM has to show."""

    skip: bool = Field(default=False, description="Never try it by itself, and do not miss its proof.")
    agent: Literal["auto", "require", "ignore"] = Field(
        default="auto",
        description="Whether the guest agent has to answer; auto: if it did when the archive was made.",
    )
    console: Pattern | None = Field(
        default=None,
        description="A regular expression that its first serial port has to print.",
        examples=["login:"],
    )
    commands: tuple[CommandProbe, ...] = Field(
        default=(),
        description="Commands that the agent runs.",
        examples=[[{"argv": ["systemctl", "is-active", "nginx"], "output": "^active"}]],
    )
    files: tuple[FileProbe, ...] = Field(
        default=(),
        description="Files that must be as they are known, read without booting.",
        examples=[[{"path": "/etc/machine-id", "sha256": "0" * 64}]],
    )


class DrillsConfig(Section):
    """How restores are tried."""

    scratch: AbsolutePath = Field(
        default=SCRATCH,
        description="Where drills restore VMs to, and where those write that `vmborg boot` made; qemu's user must be "
        "able to enter it.",
    )
    every: Duration = Field(default=timedelta(days=30), description="A VM that was not proven for so long is told of.")
    time: Seconds = Field(default=4 * 3600, description="No further VM is begun after this long.")
    memory: Size = Field(
        default=ByteSize(4 * 1024**3), description="A VM with more memory than this is not tried on this host."
    )
    space: Size | None = Field(
        default=None,
        description="A VM with larger disks than this is not tried; what is free decides if left out.",
        examples=["200GiB"],
    )
    boot: Seconds = Field(default=300, description="How long a VM may take until it has shown what it has to.")
    vms: dict[Text, DrillVm] = Field(
        default_factory=dict[str, DrillVm],
        description="Per VM: what it has to show beyond booting.",
        examples=[
            {
                "db01": {
                    "console": "login:",
                    "commands": [{"argv": ["systemctl", "is-active", "nginx"], "output": "^active"}],
                }
            }
        ],
    )

    def of(self, vm: str) -> DrillVm:
        """What this VM has to show."""
        return self.vms.get(vm, DrillVm())
