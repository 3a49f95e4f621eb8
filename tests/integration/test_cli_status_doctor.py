"""`status` and `doctor` on a host whose VMs, archives, journal and repositories are in every state."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from infra.hypervisor.connection import Domain, Hypervisor
from infra.journal.locks import domain_lock
from infra.journal.store import Journal
from infra.process import run
from tests.guests import DiskSpec, virsh
from tests.integration.bare import Bare
from tests.integration.hosting import Host, defined, disk
from tests.integration.own_libvirtd import OwnLibvirtd

pytestmark = pytest.mark.integration


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where this test's images are: below /var/lib/libvirt that daemon would see its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="vmborg-cli-") as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.fixture
def host(tmp_path: Path, folder: Path, daemon: OwnLibvirtd) -> Host:
    """An initialised host."""
    host = Host(tmp_path, folder, daemon.uri)
    assert host.run("init").code == 0
    return host


@pytest.fixture
def hypervisor(daemon: OwnLibvirtd) -> Iterator[Hypervisor]:
    """A connection to it."""
    with Hypervisor.open(daemon.uri) as opened:
        yield opened


@pytest.fixture
def web(hypervisor: Hypervisor, folder: Path) -> Iterator[Domain]:
    """A shut-off VM with one disk."""
    with defined(hypervisor, "web", [disk(folder)]) as domain:
        yield domain


def _status(host: Host, *, code: int) -> dict[str, Any]:
    call = host.run("status", "--json")
    assert call.code == code, call.stdout + call.stderr
    assert host.run("status").code == code
    return call.document


def _vm(document: dict[str, Any], name: str) -> dict[str, Any]:
    return next(each for each in document["vms"] if each["vm"] == name)


def _findings(host: Host, *arguments: str, code: int) -> list[tuple[str, str, str, str]]:
    """Level, subject, check and text of everything that is not ok; each names a remedy."""
    call = host.run("doctor", "--json", *arguments)
    assert call.code == code, call.stdout + call.stderr
    bad = [each for each in call.document["findings"] if each["health"] != "ok"]
    assert [each for each in bad if not each["remedy"] and each["check"] != "disks"] == []
    return [(each["health"], each["subject"], each["check"], each["text"]) for each in bad]


@pytest.mark.usefixtures("web")
def test_a_vm_without_archive_is_critical(host: Host, hypervisor: Hypervisor, folder: Path) -> None:
    """Every domain is covered: never backed up is critical, an excluded one is shown as excluded."""
    with defined(hypervisor, "scratch-1", [disk(folder)]):
        document = _status(host, code=2)
        assert [(each["vm"], each["health"]) for each in document["vms"]] == [("scratch-1", "ok"), ("web", "critical")]
        assert _vm(document, "scratch-1")["excluded_by"] == "scratch-*"
        assert "never backed up" in _vm(document, "web")["text"]
    assert "vmborg backup web" in host.run("status").stdout


def test_a_fresh_archive_is_ok(host: Host, web: Domain) -> None:
    """A VM with a good archive younger than its objective is ok, whatever it is called now."""
    now = datetime.now(UTC)
    host.archive(web, now - timedelta(days=9))
    name = host.archive(web, now - timedelta(hours=2))
    host.archive(web, now - timedelta(hours=1), finished=False)
    vm = _vm(_status(host, code=0), "web")
    assert (vm["health"], vm["archive"], vm["state"]) == ("ok", name, "shut off")
    assert 2 * 3600 <= vm["age"] < 2 * 3600 + 600
    virsh(host.uri, "domrename", "web", "website")
    assert _vm(_status(host, code=0), "website")["archive"] == name
    virsh(host.uri, "domrename", "website", "web")


def test_age_and_coverage_are_judged(host: Host, web: Domain) -> None:
    """An archive older than the objective is critical, one that leaves a disk out is a warning."""
    host.archive(web, datetime.now(UTC) - timedelta(hours=3), uncovered="vdb")
    vm = _vm(_status(host, code=1), "web")
    assert (vm["health"], vm["uncovered"]) == ("warning", ["vdb"])
    host.configure(vms={"overrides": {"web": {"objective": "2h"}}})
    assert "older than its objective" in _vm(_status(host, code=2), "web")["text"]


@pytest.mark.usefixtures("web")
def test_archives_of_another_vm_do_not_count(host: Host, hypervisor: Hypervisor, folder: Path) -> None:
    """A new VM under a known name has no archives: the UUID decides."""
    with defined(hypervisor, "web-2", [disk(folder)]) as other:
        host.archive(other, datetime.now(UTC))
        document = _status(host, code=2)
        assert (_vm(document, "web")["health"], _vm(document, "web-2")["health"]) == ("critical", "ok")
    gone = _vm(_status(host, code=2), "web-2")
    assert (gone["state"], gone["health"]) == ("gone", "ok")


def test_a_host_without_libvirt_is_critical_and_still_tells(host: Host, web: Domain) -> None:
    """When libvirtd is down status is critical, names it, and shows what the repositories know."""
    host.archive(web, datetime.now(UTC))
    host.configure(hypervisor={"name": "kvm1", "uri": f"qemu+unix:///system?socket={host.root}/no-socket"})
    document = _status(host, code=2)
    assert [(each["subject"], each["health"]) for each in document["problems"]] == [("libvirt", "critical")]
    assert document["problems"][0]["remedy"]
    assert (_vm(document, "web")["state"], _vm(document, "web")["health"]) == ("unknown", "ok")
    found = _findings(host, code=2)
    assert [each[:3] for each in found] == [("critical", "host", "libvirt")]
    for verb in (("backup", "web"), ("backup", "--all"), ("recover", "web")):
        call = host.run(*verb)
        assert call.code == 1
        assert "no-socket" in call.stderr
        assert "What to do:" in call.stderr


@pytest.mark.usefixtures("web")
def test_a_missing_repository_is_critical(host: Host) -> None:
    """Without its repository a VM's state is unknown and the repository critical."""
    (host.root / "repositories").rename(host.root / "unmounted")
    document = _status(host, code=2)
    assert _vm(document, "web")["health"] == "unknown"
    assert [each["subject"] for each in document["problems"]] == ["repository main"]
    assert [each[:3] for each in _findings(host, code=2)] == [("critical", "repository main", "open")]


@pytest.fixture
def bare(hypervisor: Hypervisor, folder: Path) -> Iterator[Bare]:
    """A running VM that a dead run left on an overlay."""
    vm = Bare(hypervisor, folder, [disk(folder)]).define().start()
    yield vm
    vm.forget()


def test_a_dead_run_is_critical_until_recovered(host: Host, bare: Bare) -> None:
    """A VM left on an overlay is critical in status and doctor, both name the remedy, and it helps."""
    host.configure(vms={"defaults": {"quiesce": "never"}, "exclude": [bare.name]})
    journal = Journal(host.state / "journal")
    entry = bare.snapshot()
    journal.write(entry)
    vm = _vm(_status(host, code=2), bare.name)
    assert (vm["health"], vm["remedy"]) == ("critical", f"vmborg recover {bare.name}")
    found = _findings(host, bare.name, code=2)
    assert [each[:3] for each in found] == [("critical", bare.name, "journal")]
    with domain_lock(host.state / "locks", bare.uuid, bare.name):
        assert "being worked on by pid" in _vm(_status(host, code=0), bare.name)["text"]
        assert _findings(host, bare.name, code=0) == []
    journal.write(replace(entry, name="former"))  # as if the VM had been renamed since the run began
    call = host.run("recover", bare.name)
    assert (call.code, "Nothing to recover" in call.stdout) == (0, False)
    assert _vm(_status(host, code=0), bare.name)["health"] == "ok"
    assert _findings(host, bare.name, code=0) == []


def test_an_overlay_without_journal_is_critical(host: Host, bare: Bare) -> None:
    """A VM on an overlay that the journal lost is critical; a file of that kind nobody uses is a warning."""
    entry = bare.snapshot()
    assert "no journal entry knows" in _vm(_status(host, code=2), bare.name)["text"]
    assert ("critical", bare.name, "overlay") in [each[:3] for each in _findings(host, bare.name, code=2)]
    bare.put_back(entry)
    Path(entry.overlays[0].path).touch()
    assert [each[1:3] for each in _findings(host, bare.name, code=1)] == [(bare.name, "leftovers")]


def test_an_unreadable_journal_is_critical(host: Host, web: Domain) -> None:
    """A journal file that means nothing is told, for it may name an overlay in use."""
    host.archive(web, datetime.now(UTC))
    journal = host.state / "journal"
    journal.mkdir(mode=0o700)
    (journal / f"{web.uuid}.json").write_text("{")
    assert [each["subject"] for each in _status(host, code=2)["problems"]] == ["journal"]
    assert ("critical", "host", "journal") in [each[:3] for each in _findings(host, code=2)]


@pytest.mark.usefixtures("web")
def test_a_sound_host_is_ok(host: Host) -> None:
    """When nothing is wrong doctor says so line by line and ends with 0."""
    call = host.run("doctor")
    assert (call.code, call.stderr) == (0, "")
    for part in (
        "host: rights",
        "host: libvirt: libvirt",
        "host: borg",
        "repository main: open",
        "web: disks: covered",
    ):
        assert part in call.stdout
    assert [line for line in call.stdout.splitlines() if not line.startswith("ok ")] == []


@pytest.mark.usefixtures("web")
def test_wrong_modes_are_critical(host: Host) -> None:
    """A state folder or a secret that others can reach is critical, with the chmod that repairs it."""
    host.state.chmod(0o755)
    host.secret.chmod(0o604)
    found = [each[:3] for each in _findings(host, code=2)]
    assert ("critical", "host", "state_dir") in found
    assert ("critical", "repository main", "passphrase") in found
    assert f"chmod 0700 {host.state}" in host.run("doctor").stdout


@pytest.mark.usefixtures("web")
def test_a_key_that_was_never_exported_is_a_warning(host: Host) -> None:
    """Without the exported key a damaged repository would lose everything: a warning."""
    (host.state / "keys" / "main.key").unlink()
    assert [each[:3] for each in _findings(host, code=1)] == [("warning", "repository main", "key")]


def test_disks_are_told_with_reasons(host: Host, hypervisor: Hypervisor, folder: Path) -> None:
    """An uncovered disk is a warning that names the way out; excluded, it is silent; a wrong exclusion is critical."""
    other = folder / "other.vmdk"
    run(["qemu-img", "create", "-q", "-f", "vmdk", str(other), "1M"], timeout=30)
    with defined(hypervisor, "db", [disk(folder), DiskSpec("vdb", other, format="vmdk")]):
        found = _findings(host, "db", code=1)
        assert [each[:3] for each in found] == [("warning", "db", "disks")]
        assert "vdb" in found[0][3]
        host.configure(vms={"overrides": {"db": {"exclude_disks": ["vdb"], "quiesce": "never"}}})
        assert _findings(host, "db", code=0) == []
        host.configure(vms={"overrides": {"db": {"exclude_disks": ["vdx"], "quiesce": "never"}}})
        assert "vdx" in _findings(host, "db", code=2)[0][3]


def test_a_file_that_vanished_is_critical(host: Host, hypervisor: Hypervisor, folder: Path) -> None:
    """A definition that names a file which no longer exists is critical, and the file is named."""
    gone: DiskSpec = disk(folder)
    with defined(hypervisor, "db", [gone]):
        assert gone.path is not None
        gone.path.unlink()
        found = _findings(host, "db", code=2)
        assert ("critical", "db", "files") in [each[:3] for each in found]
        assert str(gone.path) in json.dumps(found)


def test_room_and_agent_are_judged_for_a_running_vm(host: Host, bare: Bare) -> None:
    """A VM that runs needs room for its overlay and, if its policy says so, an agent."""
    policy = {"quiesce": "require", "min_free_start": "1000TiB"}
    host.configure(vms={"overrides": {bare.name: policy}})
    found = [each[:3] for each in _findings(host, bare.name, code=2)]
    assert found == [("critical", bare.name, "agent"), ("critical", bare.name, "space")]
    host.configure(vms={"overrides": {bare.name: {"quiesce": "try"}}})
    assert [each[:3] for each in _findings(host, bare.name, code=1)] == [("warning", bare.name, "agent")]


def test_what_others_left_is_reported(host: Host, bare: Bare, folder: Path) -> None:
    """Another tool's overlay and snapshot metadata are reported and are no reason for alarm; a block job is."""
    host.configure(vms={"defaults": {"quiesce": "never"}})
    overlay = folder / "other.snap1"
    spec = f"vda,file={overlay}"
    virsh(host.uri, "snapshot-create-as", bare.uuid, "theirs", "--disk-only", "--diskspec", spec)
    call = host.run("doctor", bare.name)
    assert call.code == 0
    assert "overlay of another tool" in call.stdout
    assert "snapshots of somebody else: theirs" in call.stdout
    bare.domain.block_commit("vda", base=str(bare.disks[0].path))
    assert [each[:3] for each in _findings(host, bare.name, code=1)] == [("warning", bare.name, "jobs")]


@pytest.mark.parametrize("verb", ["doctor", "backup", "restore", "recover"])
def test_an_unknown_vm_is_told_with_the_likely_one(host: Host, web: Domain, verb: str) -> None:
    """Each verb that takes a VM names those that may be meant, changes nothing, and ends as its table says."""
    host.archive(web, datetime.now(UTC))
    options = ("--as", "new") if verb == "restore" else ()
    call = host.run(verb, "wbe", *options, "--json")
    assert call.code == (3 if verb == "doctor" else 1)
    assert json.loads(call.stdout)
    assert "'web'" in call.stderr or " web" in call.stderr
    assert "What to do:" in call.stderr
