"""`vmborg restore` as a user calls it: modes, names, output, and being ended or killed in the middle."""

import json
import os
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from infra.config.load import load
from infra.hypervisor.domain_xml import disk_sources
from infra.process import Child, run, spawn
from tasks.restore import Mode, Request, Wish, restore
from tests.guests import Daemons, DiskSpec, image_dir, wait_for
from tests.integration.bare import digest, image_holds
from tests.integration.restoring import RestoreHost, restore_host
from tests.integration.vmborg import VMBORG, Call, vmborg

pytestmark = pytest.mark.integration


@pytest.fixture
def host(daemons: Daemons) -> Iterator[RestoreHost]:
    """A host with an empty repository."""
    assert daemons is not None
    with image_dir("cli") as root, restore_host(root) as place:
        yield place


def _call(host: RestoreHost, *arguments: str | Path) -> Call:
    return vmborg(*arguments, config=host.config_path, timeout=120)


def test_exactly_one_mode(host: RestoreHost) -> None:
    """No mode, two modes, or an option that does nothing in the mode is a usage error with exit code 2."""
    host.factory.make(host.define([DiskSpec("vda", host.image("vm.qcow2"))]))
    for options in (
        [],
        ["--as", "x", "--in-place"],
        ["--files-only"],
        ["--as", "x", "--stop"],
        ["--in-place", "--to", "/x"],
        ["--files-only", "--to", "/x", "--start"],
        ["--in-place", "--allow", "everything"],
        ["--as", ""],
        ["--as", "."],
        ["--in-place", "--leave-out", "vdz"],
    ):
        call = _call(host, "restore", f"{host.prefix}-vm", *options)
        assert call.code == 2, options
        assert "Error: " in call.stderr
        assert call.stdout == ""


def test_a_copy_with_a_name_that_begins_with_a_dash(host: RestoreHost) -> None:
    """VM names with a leading dash, blanks and a percent sign work; --json gives one document that says all."""
    domain = host.simple(fill=3)
    xml = domain.inactive_xml()
    domain.undefine()
    odd = f"-{host.prefix} 100% ü"
    domain = host.hypervisor.define(xml.replace(f"<name>{host.prefix}-vm</name>", f"<name>{odd}</name>"))
    try:
        archive = host.factory.make(domain)
        call = _call(host, "--json", "restore", f"--as={host.prefix}@a b", "--", odd)
        assert call.code == 0, call.stderr
        document = call.document
        assert (document["vm"], document["archive"], document["mode"]) == (odd, archive, "as")
        copy = host.find(f"{host.prefix}@a b")
        assert disk_sources(copy.inactive_xml()) == document["disks"]
        assert image_holds(document["disks"]["vda"], "qcow2", 3)
    finally:
        domain.undefine()


def test_plain_lines_tell_what_was_done_and_what_comes_next(host: RestoreHost) -> None:
    """Without a terminal the result is plain lines: the archive, each disk, and the command that starts the VM."""
    domain = host.simple()
    archive = host.factory.make(domain)
    call = _call(host, "restore", domain.name, "--as", f"{host.prefix}-copy")
    assert call.code == 0, call.stderr
    copy = host.find(f"{host.prefix}-copy")
    assert archive in call.stdout
    assert f"virsh start {copy.uuid}" in call.stdout
    assert "\x1b" not in call.stdout + call.stderr
    out = host.root / "out"
    call = _call(host, "restore", domain.name, "--files-only", "--to", out)
    assert f"virsh define {out}/define.xml" in call.stdout
    assert domain.uuid in call.stdout


def test_an_error_has_three_voices(host: RestoreHost) -> None:
    """An unknown archive exits with 1, says what there is and what to do."""
    domain = host.simple()
    archive = host.factory.make(domain)
    call = _call(host, "restore", domain.name, "--as", "x", "--archive", "nonsense")
    assert call.code == 1
    _, evidence, _ = call.voices()
    assert archive in evidence


@contextmanager
def _under_way(host: RestoreHost, *arguments: str) -> Iterator[Child]:
    """`vmborg restore` while borg writes into the staging directory."""

    def writing() -> bool:
        places = [path for path in host.root.iterdir() if path.name not in {"repository", "state"}]
        try:
            found = [path for place in places for path in place.glob("**/.vmborg-restore-*/**/*.img")]
            return any(path.stat().st_blocks > 0 for path in found)
        except FileNotFoundError:  # moved while it was looked at
            return False

    with spawn([str(VMBORG), "--config", str(host.config_path), "restore", *arguments]) as child:
        wait_for(lambda: writing() or child.poll() is not None, timeout=60, what="extraction", interval=0.01)
        assert child.poll() is None, child.stderr.read()
        yield child


@pytest.fixture
def big(host: RestoreHost) -> str:
    """The name of a VM with 300 MiB that do not compress, archived."""
    path = host.images / "big.img"
    run(["dd", "if=/dev/urandom", f"of={path}", "bs=1M", "count=300", "status=none"], timeout=120)
    domain = host.define([DiskSpec("vda", path, format="raw")])
    host.factory.make(domain)
    return domain.name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_restore_that_is_ended_leaves_nothing(host: RestoreHost, big: str, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C in the middle of the extraction: no file, directory or domain of it remains."""
    before = host.files()
    with _under_way(host, big, "--as", f"{host.prefix}-copy", "--to", str(host.root / "new/place")) as child:
        assert (host.root / "new").is_dir()
        child.popen.send_signal(number)
        assert child.wait(60) == 128 + number
    assert host.files() == before
    assert host.names() == {big}


def test_a_killed_restore_leaves_a_directory_that_the_next_one_names(host: RestoreHost, big: str) -> None:
    """After kill -9 the original is untouched and only a staging directory is left; the next restore names it."""
    before = digest(host.images / "big.img")
    with _under_way(host, big, "--in-place") as child:
        os.kill(child.pid, signal.SIGKILL)
        child.wait(60)
    (left,) = host.images.glob(".vmborg-restore-*")
    assert digest(host.images / "big.img") == before
    wait_for(lambda: _readers(left) == [], timeout=30, what="borg's end")
    call = _call(host, "restore", big, "--in-place")
    assert call.code == 0, call.stderr
    assert str(left) in call.stderr
    assert digest(host.images / "big.img") == before
    assert sorted(path.name for path in host.images.iterdir()) == [left.name, "big.img"]


def _readers(directory: Path) -> list[str]:
    """Processes that work in a directory."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(directory):
                found.append(process.name)
        except OSError:
            continue  # it ended meanwhile
    return found


def test_files_only_goes_on_where_one_was_killed(host: RestoreHost, big: str) -> None:
    """After kill -9 the same call with the same directory succeeds, and of the killed one nothing is left in it."""
    out = host.root / "o'ut"
    with _under_way(host, big, "--files-only", "--to", str(out)) as child:
        os.kill(child.pid, signal.SIGKILL)
        child.wait(60)
    (left,) = out.rglob(".vmborg-restore-*")
    wait_for(lambda: _readers(left) == [], timeout=30, what="borg's end")
    call = _call(host, "restore", big, "--files-only", "--to", out)
    assert call.code == 0, call.stderr
    assert shlex.quote(f"{out}/define.xml") in call.stdout
    assert list(out.rglob(".vmborg-restore-*")) == []
    assert digest(Path(f"{out}{host.images}/big.img")) == digest(host.images / "big.img")
    (out / "mine").write_text("somebody's")
    assert _call(host, "restore", big, "--files-only", "--to", out).code == 1


def test_a_restore_says_what_it_waits_for(host: RestoreHost) -> None:
    """While another borg holds the repository that is told, with the holder; when it ends the restore goes on."""
    domain = host.simple()
    host.factory.make(domain)
    settings = json.loads(host.config_path.read_text())
    settings["repositories"]["main"]["lock_wait"] = 120
    host.config_path.write_text(json.dumps(settings))
    gate = host.root / "gate"
    os.mkfifo(gate)
    repository = host.root / "repository"
    secrets = {"BORG_BASE_DIR": str(host.root / "state/borg"), "BORG_PASSCOMMAND": f"cat {host.root}/passphrase"}
    heard: list[str] = []

    def say(text: str) -> None:
        heard.append(text)
        gate.write_text("")  # the holder's command ends

    holder = [str(VMBORG.with_name("borg")), "with-lock", str(repository), "cat", str(gate)]
    with spawn(holder, env=secrets) as child:
        wait_for((repository / "lock.exclusive").exists, timeout=60, what="borg's lock")
        wish = Wish(Mode.COPY, name=f"{host.prefix}-copy", uuid=str(uuid4()))
        result = restore(load(host.config_path), Request(domain.name, wish), say=say)
        assert child.wait(60) == 0
    assert result.name == f"{host.prefix}-copy"
    (text,) = heard
    assert "waiting for the repository 'main'" in text
    assert f"held by process {child.pid}" in text


def test_a_repository_that_cannot_be_written_is_read(host: RestoreHost) -> None:
    """From a repository on a file system mounted read-only, archives are listed and a VM is restored."""
    domain = host.simple(fill=5)
    archive = host.factory.make(domain)
    repository = str(host.root / "repository")
    run(["mount", "--bind", repository, repository], timeout=30)
    try:
        run(["mount", "-o", "remount,bind,ro", repository], timeout=30)
        listed = _call(host, "--json", "list", domain.name)
        assert [each["archive"] for each in listed.document["archives"]] == [archive]
        call = _call(host, "--json", "restore", domain.name, "--as", f"{host.prefix}-copy")
        assert call.code == 0, call.stderr
        assert image_holds(call.document["disks"]["vda"], "qcow2", 5)
    finally:
        run(["umount", repository], timeout=30)


def test_a_uuid_finds_the_archive_in_the_repository_of_its_vm(host: RestoreHost) -> None:
    """A VM whose policy names another repository is restored by the beginning of its UUID, also when it is gone."""
    domain = host.simple(fill=3)
    settings = json.loads(host.config_path.read_text())
    settings["repositories"]["empty"] = {"location": str(host.root / "empty"), "encryption": "none"}
    settings["vms"] = {"defaults": {"repository": "empty"}, "overrides": {domain.name: {"repository": "main"}}}
    host.config_path.write_text(json.dumps(settings))
    assert _call(host, "init").code == 0
    host.factory.make(domain)
    uuid = domain.uuid
    call = _call(host, "--json", "restore", uuid[:8], "--as", f"{host.prefix}-a")
    assert call.code == 0, call.stderr
    assert (call.document["repository"], call.document["source_uuid"]) == ("main", uuid)
    domain.undefine()
    call = _call(host, "--json", "restore", uuid[:8], "--as", f"{host.prefix}-b")
    assert call.code == 0, call.stderr
    assert call.document["hypervisor"] == "here"
