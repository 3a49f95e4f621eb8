"""A running test guest."""

import base64
import re
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from types import TracebackType
from typing import Self

import defusedxml.ElementTree as SafeET

from infra.errors import CommandFailed
from infra.process import run
from tests.guests.virsh import agent_answers, agent_command, virsh
from tests.guests.waiting import GuestError, wait_for

_READ_COUNTERS = 'for disk in $(cat /run/disks); do echo "$disk $(cat "/data/$disk/counter" 2>/dev/null)"; done'


class Guest:
    """A domain made from `domain_xml`. As a context manager it is destroyed and undefined at the end.

    Everything is asked by UUID, so a guest may be renamed meanwhile. Methods raise GuestError when a deadline
    passes and CommandFailed when virsh fails.
    """

    def __init__(self, uri: str, xml: str) -> None:
        root = SafeET.fromstring(xml)
        self.uri = uri
        self.name = root.findtext("name") or ""
        self.uuid = root.findtext("uuid") or ""
        self._log = _console_log(root)
        self._started = time.monotonic()

    @classmethod
    def define(cls, uri: str, xml: str) -> Self:
        """Define a persistent guest, not started."""
        return cls._from_xml(uri, xml, verb="define")

    @classmethod
    def create(cls, uri: str, xml: str) -> Self:
        """Start a transient guest."""
        return cls._from_xml(uri, xml, verb="create")

    @classmethod
    def _from_xml(cls, uri: str, xml: str, *, verb: str) -> Self:
        guest = cls(uri, xml)
        # Minutes: libvirtd probes qemu anew when /dev/kvm or a package changed.
        run(["virsh", "-q", "-c", uri, verb, "/dev/stdin"], timeout=300, input_text=xml)
        return guest

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()
        self.undefine()

    def start(self, *, paused: bool = False) -> Self:
        """Start it; the clock of `wait_agent` starts too."""
        self._started = time.monotonic()
        virsh(self.uri, "start", self.uuid, *(["--paused"] if paused else []), timeout=120)
        return self

    def exists(self) -> bool:
        """Whether libvirt knows the guest, running or not."""
        return self.uuid in virsh(self.uri, "list", "--all", "--uuid").split()

    def state(self) -> str:
        """virsh's word: `running`, `paused`, `shut off` ..."""
        return virsh(self.uri, "domstate", self.uuid)

    def xml(self, *, inactive: bool = False) -> ET.Element:
        """The live or the inactive definition, with its secrets."""
        options = ["--security-info", *(["--inactive"] if inactive else [])]
        return SafeET.fromstring(virsh(self.uri, "dumpxml", self.uuid, *options))

    def disk_paths(self) -> dict[str, Path]:
        """The file or device of each writable disk by its target: the live ones while the guest runs."""
        found: dict[str, Path] = {}
        for disk in self.xml().iterfind("./devices/disk[@device='disk']"):
            source = disk.find("source")
            target = disk.find("target")
            if source is not None and target is not None and disk.find("readonly") is None:
                found[target.get("dev", "")] = Path(source.get("file") or source.get("dev", ""))
        return found

    def wait_agent(self, timeout: float = 90) -> float:
        """Wait until the agent answers; return the seconds since `start`."""
        try:
            wait_for(lambda: agent_answers(self.uri, self.uuid), timeout=timeout, what=f"{self.name}: agent")
        except GuestError as error:
            raise GuestError(f"{error}; console: {self.console()[-800:]!r}") from error
        return time.monotonic() - self._started

    def wait_console(self, text: str, timeout: float = 90) -> float:
        """Wait until the console of this boot shows `text`; return the seconds since `start`."""
        wait_for(lambda: text in self.console(), timeout=timeout, what=f"{self.name}: {text!r} on the console")
        return time.monotonic() - self._started

    def wait_ready(self, timeout: float = 90) -> float:
        """Wait until every disk has its counter, also without an agent; return the seconds since `start`."""
        return self.wait_console("guest ready", timeout)

    def console(self) -> str:
        """What the serial console printed since the last start; empty without a `serial_log`."""
        return self._log.read_text(errors="replace") if self._log and self._log.exists() else ""

    def console_counter(self) -> int:
        """The last number on the console (one a second), 0 before the first: also without an agent."""
        return int((re.findall(r"^counter (\d+)\s*$", self.console(), re.MULTILINE) or ["0"])[-1])

    def agent(self, command: str, *, timeout: int = 10, **arguments: object) -> object:
        """The answer to any command of qemu-ga-ref(7); `_` in argument names becomes `-`."""
        dashed = {name.replace("_", "-"): value for name, value in arguments.items()}
        return agent_command(self.uri, self.uuid, command, timeout=timeout, **dashed)

    def exec(self, argv: list[str], timeout: float = 60) -> tuple[int, str]:
        """Run a command in the guest; return its exit code (128 + signal if killed) and all its output."""
        path, *arg = argv
        begun = agent_command(self.uri, self.uuid, "guest-exec", **{"path": path, "arg": arg, "capture-output": True})
        status: dict[str, int | str] = wait_for(
            lambda: self._exec_status(begun["pid"]), timeout=timeout, what=f"{self.name}: {argv}"
        )
        output = b"".join(base64.b64decode(str(status.get(key, ""))) for key in ("out-data", "err-data"))
        code = int(status["exitcode"]) if "exitcode" in status else 128 + int(status.get("signal", 0))
        return code, output.decode(errors="replace")

    def _exec_status(self, pid: int) -> dict[str, int | str] | None:
        status = agent_command(self.uri, self.uuid, "guest-exec-status", pid=pid)
        return status if status["exited"] else None

    def counters(self) -> dict[str, int]:
        """The counter of each writable disk by its target. Not one point in time unless the guest stands still."""
        code, output = self.exec(["sh", "-c", _READ_COUNTERS])
        if code != 0:
            raise GuestError(f"{self.name}: reading the counters: {output}")
        return {disk: int(value or 0) for disk, value in re.findall(r"^(\S+) (\d*)\s*$", output, re.MULTILINE)}

    def wait_counter_moves(self, timeout: float = 30, *, console: bool = False) -> None:
        """Wait until every disk's counter is higher than now; `console=True`: until the console's is."""
        read = (lambda: {"": self.console_counter()}) if console else self.counters
        before = read()

        def moved() -> bool:
            now = read()
            return bool(before) and all(now[target] > value for target, value in before.items())

        wait_for(moved, timeout=timeout, what=f"{self.name}: counters beyond {before}")

    def shutdown(self, *, mode: str = "agent", timeout: float = 60) -> None:
        """Shut down through `agent` or `acpi` and wait until it is off."""
        virsh(self.uri, "shutdown", self.uuid, "--mode", mode, timeout=timeout)
        self.wait_state("shut off", timeout=timeout)

    def wait_state(self, state: str, timeout: float = 60) -> None:
        """Wait until `state()` is this one."""
        wait_for(lambda: self.state() == state, timeout=timeout, what=f"{self.name}: {state}")

    def destroy(self) -> None:
        """Pull the plug, if it runs."""
        try:
            virsh(self.uri, "destroy", self.uuid, timeout=120)
        except CommandFailed:
            if self.exists() and self.state() != "shut off":
                raise

    def undefine(self) -> None:
        """Forget it with NVRAM, TPM state and all metadata, if it is defined. The disks stay."""
        forget = ("--nvram", "--managed-save", "--snapshots-metadata", "--checkpoints-metadata")
        if self.exists():
            virsh(self.uri, "undefine", self.uuid, *forget)


def _console_log(root: ET.Element) -> Path | None:
    source = root.find("./devices/serial[@type='file']/source")
    return Path(source.get("path", "")) if source is not None else None
