"""A VM that counts, an installation that backs it up, and the one check that every fault ends with."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from infra.borg.command import run_borg
from infra.process import Child, spawn
from infra.process import run as run_program
from tests.e2e.checks import assert_on_bases, sources
from tests.e2e.dashboard import FINAL, Dashboard
from tests.e2e.held import hold_borg
from tests.e2e.site import Site, make_site
from tests.guests import Boot, DiskSpec, Guest, domain_xml, make_disk
from tests.integration.vmborg import VMBORG, Call

MIB = 1024**2
UNFINISHED = ".unfinished"
_SEGMENT = "/00000000"
_NEVER = 1000
"""Backups between full reads: within a file of tests nothing heals by itself what a fault has spoiled."""


class Running:
    """A `vmborg` command that goes on beside the test."""

    def __init__(self, child: Child, folder: Path) -> None:
        self.child = child
        self._folder = folder

    def told(self) -> str:
        """What it has said so far on stderr."""
        return (self._folder / "stderr").read_text(errors="replace")

    def wait(self, timeout: float = 120) -> Call:
        """Its end. A code below 0 is the signal that killed it."""
        code = self.child.wait(timeout)
        stdout, stderr = ((self._folder / name).read_text(errors="replace") for name in ("stdout", "stderr"))
        return Call(code, stdout, stderr)


class Rig:
    """One VM, its installation, and what both were like before the fault. Made by `make_rig`."""

    def __init__(self, site: Site, guest: Guest, folder: Path) -> None:
        self.site = site
        self.guest = guest
        self.folder = folder
        self.bases = sources(guest)
        self.dashboard = Dashboard(site.api)
        self.earlier: list[str] = []  # finished archives from before the fault
        self._runs_before = 0

    # ----------------------------------------------------------------------------------------------- the backup

    @contextmanager
    def running(self, *arguments: str, env: Mapping[str, str] | None = None, program: str = "") -> Iterator[Running]:
        """`vmborg --json ARGUMENTS` beside the block; by default the backup of the VM. It is ended with the block.

        `program` is a module that runs it instead: `tests.e2e.killing after create`.
        """
        command = [str(VMBORG)] if not program else [str(VMBORG.with_name("python")), "-m", *program.split(" ", 1)]
        words = arguments or ("backup", "--", self.guest.name)
        # Signals that were ignored by whoever started the tests would stay ignored.
        argv = ["env", "--default-signal", *command, "--config", str(self.site.config), "--json", *words]
        logs = self.site.root / "running"
        logs.mkdir(exist_ok=True)
        environment = {"PREFECT_API_URL": self.site.api, **(env or {})}
        with (
            (logs / "stdout").open("wb") as stdout,
            (logs / "stderr").open("wb") as stderr,
            spawn(argv, env=environment, stdout=stdout, stderr=stderr, own_session=True) as child,
        ):
            yield Running(child, logs)

    def hold(self, target: str = "vdb", *, timeout: float = 90) -> int:
        """Stop borg in the middle of the create step, while it reads this disk; return its process id."""
        return hold_borg(self.site.repository_path, Path(self.bases[target]), target=target, timeout=timeout)

    def archives(self) -> list[str]:
        """The finished archives of the repository, oldest first."""
        return [each.name for each in self.site.repository.archives() if not each.name.endswith(UNFINISHED)]

    def unfinished(self) -> list[str]:
        """The archives that no run has verified."""
        return [each.name for each in self.site.repository.archives() if each.name.endswith(UNFINISHED)]

    def backup(self, code: int = 0) -> dict[str, Any]:
        """A backup from beginning to end; returns its outcome: state, result, error."""
        call = self.site.vmborg("--json", "backup", "--", self.guest.name)
        assert call.code == code, f"exit code {call.code}\n{call.stdout}\n{call.stderr}"
        outcome: dict[str, Any] = call.document["backups"][0]
        return outcome

    def refused(self, kind: str) -> dict[str, Any]:
        """A backup that ends with this error before the guest is touched; returns the error."""
        before = sources(self.guest), sources(self.guest, inactive=True)
        error: dict[str, Any] = self.backup(code=1)["error"]
        assert error["type"] == kind, error
        assert error["remedy"]
        assert (sources(self.guest), sources(self.guest, inactive=True)) == before
        assert self.archives() == self.earlier
        return error

    def recover(self, code: int = 0) -> dict[str, Any]:
        """`vmborg recover`; returns its document."""
        call = self.site.vmborg("--json", "recover")
        assert call.code == code, f"exit code {call.code}\n{call.stdout}\n{call.stderr}"
        document: dict[str, Any] = call.document
        return document

    # ------------------------------------------------------------------------------------------------ the check

    def begin(self) -> None:
        """A running VM on its bases; what is there is remembered."""
        if self.guest.state() == "shut off":
            self.guest.start()
            self.guest.wait_agent()
            self.guest.wait_ready()
        self.earlier = self.archives()
        self._runs_before = len(self.dashboard.runs(self.guest.name))
        self.check()

    def end(self) -> None:
        """The fault is gone: the VM is whole, no run lied, and the next backup needs nobody."""
        if self.guest.state() == "shut off":
            self.guest.start()
            self.guest.wait_agent()
            self.guest.wait_ready()
        outcome = self.backup()
        assert outcome["state"] == "complete"
        self.check()
        self.check_truth()
        assert not self.unfinished()
        for archive in {self.earlier[0], self.earlier[-1], outcome["result"]["archive"]}:
            self.check_extracts(archive)

    def check(self, state: str = "running") -> None:
        """On its bases in both definitions, no job, no overlay, no journal entry, in this state; nothing is frozen."""
        assert self.guest.state() == state
        assert_on_bases(self.site, self.guest, self.bases, [self.folder])
        if state == "running":
            self.check_counts()

    def check_counts(self) -> None:
        """The guest runs: its counter moves on every disk, and its file systems are not frozen."""
        assert self.guest.agent("guest-fsfreeze-status") == "thawed"
        self.guest.wait_counter_moves()

    def check_truth(self) -> None:
        """No run of this fault is Completed without a finished archive of its own."""
        finished = self.archives()
        for run in self.dashboard.runs(self.guest.name)[self._runs_before :]:
            if run["state_type"] == "COMPLETED":
                assert run["state"]["message"].removeprefix("Archive ") in finished, run["state"]

    def check_extracts(self, archive: str) -> None:
        """borg reads every byte of it back, decrypted and checked against its hashes."""
        target = self.site.repository.target
        run_borg(target, ["extract", "--dry-run", f"{target.location}::{archive}"])

    def check_bytes(self) -> None:
        """After all faults, each disk whose changes are known is in one more archive, read by its bitmap, to the byte.

        No scheduled full read has mended what a fault spoiled: see `make_rig`.
        """
        if self.guest.state() != "shut off":
            self.guest.destroy()
        archive = self.backup()["result"]["archive"]
        for target, path in self.segmented(archive).items():
            stored = self.folder / f"{target}.stored"
            with stored.open("wb") as file:
                self.site.repository.extract_to(archive, f"disks/{target}", file)
            shown = ["qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, str(stored)]
            assert "identical" in run_program(shown, timeout=120).stdout
            stored.unlink()

    def segmented(self, archive: str) -> dict[str, str]:
        """The disks that are in this archive as segments, and their images: every qcow2 disk, if all is well."""
        folders = {item.path.split("/")[1] for item in self.site.repository.items(archive) if _SEGMENT in item.path}
        assert folders == {target for target, path in self.bases.items() if path.endswith(".qcow2")}
        return {target: self.bases[target] for target in folders}

    def check_critical(self, *words: str) -> None:
        """As long as the VM is not put back, `status` and `doctor` are critical and say what to do."""
        for verb in (("status",), ("doctor", self.guest.name)):
            call = self.site.vmborg(*verb)
            assert call.code == 2, f"{verb}: exit code {call.code}\n{call.stdout}\n{call.stderr}"
            for word in (self.guest.name, "vmborg recover", *words):
                assert word in call.stdout, call.stdout

    def check_failed(self, call: Call, kind: str, *, new_archives: int = 0) -> dict[str, Any]:
        """The command failed with this error, which says what to do, and left no archive; returns the error."""
        assert call.code == 1, f"exit code {call.code}\n{call.stdout}\n{call.stderr}"
        error: dict[str, Any] = json.loads(call.stdout)["backups"][0]["error"]
        assert error["type"] == kind, error
        assert error["remedy"], error
        assert len(self.archives()) == len(self.earlier) + new_archives
        last = self.dashboard.last_run(self.guest.name)
        assert last["state_type"] in FINAL - {"COMPLETED"}, last["state"]
        return error


def three_disks(folder: Path) -> list[DiskSpec]:
    """A qcow2 disk with room, a raw disk whose data takes borg a moment, a small qcow2 disk."""
    raw = make_disk(folder / "b.raw", size=128 * MIB, format="raw", data=64 * MIB)
    return [
        DiskSpec("vda", make_disk(folder / "a.qcow2", size=512 * MIB, data=4 * MIB)),
        DiskSpec("vdb", raw, format="raw"),
        DiskSpec("vdc", make_disk(folder / "c.qcow2", size=64 * MIB, data=4 * MIB)),
    ]


@contextmanager
def make_rig(
    name: str,
    uri: str,
    *,
    boot: Boot,
    images: Path,
    api: str,
    root: Path,
    policy: Mapping[str, Any] | None = None,
    disks: list[DiskSpec] | None = None,
) -> Iterator[Rig]:
    """A running VM `name` of this libvirtd, on three disks below `images`, backed up once. It ends with the block.

    `policy` are keys of vms.defaults that differ; `disks` stand in for the three.
    """
    folder = images / name
    folder.mkdir()
    with ExitStack() as stack:
        xml = domain_xml(name, boot=boot, disks=disks or three_disks(folder), serial_log=folder / "console.log")
        guest = stack.enter_context(Guest.define(uri, xml))
        guest.start()
        site = make_site(root / "site", uri, api=api, full_read_every=_NEVER, **(policy or {}))
        guest.wait_agent()
        guest.wait_ready()
        rig = Rig(site, guest, folder)
        rig.backup()
        yield rig
        rig.check_bytes()


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
