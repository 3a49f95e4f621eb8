"""Drills of real archives: what boots is proven, what does not is failed and told, and nothing of them is left."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from infra.config.load import load
from infra.errors import JournalError
from infra.process import run
from tasks.coverage import alarms_of
from tasks.recover_all import recover_all
from tasks.status import read_status
from tests.e2e.site import Site, make_site
from tests.guests import Boot, Daemons, DiskSpec, Guest, domain_xml, make_disk, virsh
from tests.integration.bare import digest

pytestmark = pytest.mark.e2e

MIB = 1024**2
STEPS = ("journalled", "restoring", "restored", "starting", "started", "judged")
NETWORK = "<interface type='user'><mac address='52:54:00:d1:11:01'/></interface>"
COMMAND = {"argv": ["ls", "/data"], "output": "vdc"}
DRILLED = {
    "three": {"agent": "require", "commands": [COMMAND], "console": "guest ready"},
    "uefi": {"agent": "require"},
    "silent": {},
    "panics": {},
    "broken": {},
}


class Estate:
    """Shut-off VMs, each backed up: `three`, `uefi` and `silent` boot, `panics` and the archive of `broken` do not."""

    def __init__(self, site: Site, images: Path, boot: Boot, stack: ExitStack) -> None:
        self.site, self.images, self.uri = site, images, site.uri
        uri = site.uri
        self.guests: dict[str, Guest] = {}
        self._define = lambda name, xml: self.guests.update({name: stack.enter_context(Guest.define(uri, xml))})
        small = {"boot": boot, "memory_mib": 192}
        self._define(
            "three", domain_xml(self.name("three"), disks=self._disks("three", 3), extra_devices=NETWORK, **small)
        )
        self._define("uefi", domain_xml(self.name("uefi"), disks=self._disks("uefi", 2), uefi=True, **small))
        self._define("silent", domain_xml(self.name("silent"), disks=self._disks("silent", 1), agent=False, **small))
        panics = domain_xml(self.name("panics"), disks=self._disks("panics", 1), agent=False, **small)
        self._define("panics", panics.replace(f"<initrd>{boot.initrd}</initrd>", ""))
        self._define("broken", domain_xml(self.name("broken"), disks=self._disks("broken", 1), **small))
        self.sums = {number: self.checksum("three", number) for number in (0, 2)}

    def name(self, vm: str) -> str:
        """What libvirt calls it."""
        return f"{self.images.name}-{vm}"

    def _disks(self, vm: str, count: int) -> list[DiskSpec]:
        paths = [self.images / f"{vm}-{number}.qcow2" for number in range(count)]
        made = [make_disk(path, size=64 * MIB, data=4 * MIB) for path in paths]
        return [DiskSpec(f"vd{letter}", path) for letter, path in zip("abc", made, strict=False)]

    @property
    def scratch(self) -> Path:
        """Where drills restore to."""
        return self.images / "scratch"

    def checksum(self, vm: str, number: int) -> str:
        """Of the first file of its so many-th disk, read without libguestfs."""
        raw = self.images / "look.raw"
        run(["qemu-img", "convert", "-O", "raw", str(self.images / f"{vm}-{number}.qcow2"), str(raw)], timeout=60)
        content = self.images / "look"
        run(["debugfs", "-R", f"dump data-0000 {content}", str(raw)], timeout=60)
        try:
            return digest(content)
        finally:
            raw.unlink()
            content.unlink()

    def configure(self, **drilled: dict[str, Any]) -> None:
        """Write what each VM has to show; `drilled` instead of it."""
        settings = json.loads(self.site.config.read_text())
        main = settings["repositories"]["main"]
        settings["repositories"]["other"] = {**main, "location": str(self.site.root / "other")}
        settings["vms"]["overrides"] = {self.name("broken"): {"repository": "other"}}
        files = [{"path": "/data-0000", "disk": f"vd{'abc'[each]}", "sha256": self.sums[each]} for each in (0, 2)]
        every = {**DRILLED, "three": {**DRILLED["three"], "files": files}, **drilled}
        wanted = {self.name(vm): what for vm, what in every.items()}
        settings["drills"] = {"scratch": str(self.scratch), "boot": "90s", "vms": wanted}
        self.site.config.write_text(json.dumps(settings))

    def facts(self) -> dict[str, str]:
        """What a drill must not touch: definitions and images of the originals."""
        xml = {vm: virsh(self.uri, "dumpxml", guest.uuid) for vm, guest in self.guests.items()}
        return xml | {path.name: digest(path) for path in self.images.glob("*.qcow2")}

    def left(self) -> list[str]:
        """Whatever of drills is on the host."""
        domains = virsh(self.uri, "list", "--all", "--name").split()
        state = self.site.root / "state"
        files = [*self.scratch.glob("*"), *state.glob("drills/open/*"), *state.glob(".vmborg-restore-*")]
        logs = Path("/var/log/libvirt/qemu").glob("vmborg-drill-*")
        nvram = Path("/var/lib/libvirt/qemu/nvram").glob("vmborg-drill-*")
        return [*(name for name in domains if name.startswith("vmborg-drill-")), *map(str, [*files, *logs, *nvram])]


def spoil(repository: Path) -> None:
    """Turn one byte of each segment's data, in the middle."""
    for segment in repository.glob("data/*/*"):
        size = segment.stat().st_size
        if size > MIB:
            with segment.open("r+b") as file:
                file.seek(size // 2)
                byte = file.read(1)
                file.seek(size // 2)
                file.write(bytes([byte[0] ^ 0xFF]))


@pytest.fixture(scope="module")
def estate(
    daemons: Daemons, boot: Boot, guest_images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Estate]:
    """VMs that are backed up without being booted; one of their repositories is damaged afterwards."""
    site = make_site(tmp_path_factory.mktemp("drills"), daemons.uri)
    with ExitStack() as stack:
        made = Estate(site, guest_images, boot, stack)
        made.configure()
        site.ok("init")
        site.ok("backup", *(guest.name for guest in made.guests.values()))
        spoil(site.root / "other")
        yield made
        recover_all(load(site.config))  # what a test that failed has left


def test_what_restores_is_proven_and_what_does_not_is_told(estate: Estate) -> None:
    """One, two and three disks, BIOS and UEFI, with and without agent are proven; the broken two fail, by name."""
    before = estate.facts()
    call = estate.site.vmborg("--json", "drill", "--all", timeout=600)
    found = {each["vm"].removeprefix(f"{estate.images.name}-"): each for each in call.document["drills"]}
    assert {vm: each["verdict"] for vm, each in found.items()} == {
        "three": "proven",
        "uefi": "proven",
        "silent": "proven",
        "panics": "failed",
        "broken": "failed",
    }, {vm: (each["reason"], each["console"]) for vm, each in found.items()}
    assert call.code == 1
    assert found["three"]["judged_by"] == found["uefi"]["judged_by"] == "agent"
    assert found["silent"]["judged_by"] == "console"
    assert "no agent" in found["silent"]["reason"]
    assert found["three"]["reason"].count("/data-0000 has its checksum") == 2
    assert "panic" in found["panics"]["reason"]
    for vm in ("three", "uefi", "silent", "panics"):
        assert found[vm]["restore_s"] > 0
        assert Path(found[vm]["picture"]).read_bytes().startswith(b"\x89PNG")
    assert estate.left() == []
    assert estate.facts() == before

    status = read_status(load(estate.site.config))
    bad = {vm.vm.removeprefix(f"{estate.images.name}-") for vm in status.vms if vm.unproven}
    assert bad == {"panics", "broken"}
    assert {vm.vm for vm in status.vms if vm.proven} == {estate.name(vm) for vm in ("three", "uefi", "silent")}
    assert {f"VM {estate.name(vm)}" for vm in bad} <= {alarm.subject for alarm in alarms_of(status)}
    listed = estate.site.vmborg("status")
    assert listed.code == 2
    assert listed.stdout.count("failed:") == 2
    assert "proven" in estate.site.vmborg("list", estate.name("three")).stdout


def test_a_probe_that_fails_fails_the_drill(estate: Estate) -> None:
    """A command that ends otherwise than it should is named with what it printed; a drill that works mends it."""
    estate.configure(three={"commands": [{"argv": ["ls", "/data/nowhere"]}]})
    call = estate.site.vmborg("drill", estate.name("three"), timeout=300)
    assert call.code == 1
    assert "'ls /data/nowhere' ended with 1, not 0" in call.stdout
    assert estate.left() == []
    estate.configure()


def test_a_file_that_differs_fails_the_drill(estate: Estate) -> None:
    """It is named with both checksums, before anything is booted."""
    file = {"path": "/data-0000", "disk": "vda", "sha256": "0" * 64}
    estate.configure(silent={"files": [file]})
    call = estate.site.vmborg("drill", estate.name("silent"), timeout=300)
    estate.configure()
    assert call.code == 1
    assert "/data-0000 is not the file it was" in call.stdout
    assert estate.left() == []


def test_an_entry_that_cannot_be_read_keeps_no_other_from_being_taken_away(estate: Estate) -> None:
    """The dead drill beside it is cleaned, then the bad file is told."""
    argv = [sys.executable, "-m", "tests.e2e.dying_drill", str(estate.site.config), estate.name("silent"), "restored"]
    assert run(argv, timeout=300, check=False, cwd=str(Path(__file__).parents[2])).returncode == -9
    bad = estate.site.root / "state/drills/open/00000000-bad.json"
    bad.write_text("{}", encoding="utf-8")
    with pytest.raises(JournalError) as told:
        recover_all(load(estate.site.config))
    assert str(bad) in told.value.brief
    bad.unlink()
    assert estate.left() == []


def test_a_host_that_is_too_small_says_nothing_of_the_archive(estate: Estate) -> None:
    """More memory than the configuration allows: not provable, with both figures, exit code 3, nothing left."""
    settings = json.loads(estate.site.config.read_text())
    settings["drills"]["memory"] = "64MiB"
    estate.site.config.write_text(json.dumps(settings))
    call = estate.site.vmborg("drill", estate.name("silent"), timeout=300)
    estate.configure()
    assert call.code == 3, call.stdout + call.stderr
    assert "not provable" in call.stdout
    assert "192.0 MiB of memory, drills.memory is 64.0 MiB" in call.stdout
    assert estate.left() == []


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_drill_is_taken_away(estate: Estate, step: str) -> None:
    """Whenever it is killed, recover leaves nothing of it; meanwhile the throw-away VM shares nothing."""
    before = estate.facts()
    argv = [sys.executable, "-m", "tests.e2e.dying_drill", str(estate.site.config), estate.name("silent"), step]
    dead = run(argv, timeout=300, check=False, cwd=str(Path(__file__).parents[2]))
    assert dead.returncode == -9, dead.stderr
    assert estate.left()
    for name in virsh(estate.uri, "list", "--name").split():
        if name.startswith("vmborg-drill-"):
            xml = virsh(estate.uri, "dumpxml", name)
            assert step in ("started", "judged")
            assert "<interface" not in xml
            sources = [part.split("'")[0] for part in xml.split("file='")[1:]]
            assert sources
            assert all(path.startswith((f"{estate.scratch}/", "/usr/share/")) for path in sources)
    recovered = recover_all(load(estate.site.config))
    assert [each.error for each in recovered] == [""]
    assert estate.left() == []
    assert estate.facts() == before
