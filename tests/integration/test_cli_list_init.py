"""`init` and `list` as a user runs them, with repositories that are there, missing, or not ours to open."""

import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from infra.hypervisor.connection import Domain, Hypervisor
from infra.process import run
from tests.guests import Daemons
from tests.integration.bare import small_filesystem
from tests.integration.hosting import PASSPHRASE, Host, defined, disk
from tests.integration.vmborg import vmborg

pytestmark = pytest.mark.integration

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def host(tmp_path: Path, images: Path, daemons: Daemons) -> Host:
    """A configured host, nothing initialised."""
    return Host(tmp_path, images, daemons.uri)


@pytest.fixture
def web(host: Host) -> Iterator[Domain]:
    """A VM with one disk."""
    with Hypervisor.open(host.uri) as hypervisor, defined(hypervisor, "clilist web", [disk(host.images)]) as domain:
        yield domain


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_init_makes_everything_once(host: Host) -> None:
    """The first init creates repository, state folder and key for root alone; the second changes no repository."""
    first, second = host.run("init", "--json"), host.run("init", "--json")
    assert (first.code, second.code) == (0, 0)
    assert [call.document["repositories"][0]["created"] for call in (first, second)] == [True, False]
    key = host.state / "keys" / "main.key"
    assert first.document["repositories"][0]["key"] == str(key)
    assert key.read_text().startswith("BORG_KEY ")
    assert (_mode(host.state), _mode(key.parent), _mode(key)) == (0o700, 0o700, 0o600)
    assert "away from this host" in host.run("init").stdout


def test_init_goes_on_after_a_failure(host: Host) -> None:
    """A repository that cannot be made is told with exit code 1; the next one is made all the same."""
    occupied = host.root / "occupied"
    occupied.mkdir()
    (occupied / "README").write_text("not a repository")
    broken = {**host.repository_settings("main"), "location": str(occupied)}
    host.configure(repositories={"broken": broken, "main": host.repository_settings("main")})
    call = host.run("init", "--json")
    results = {each["repository"]: each for each in call.document["repositories"]}
    assert call.code == 1
    assert results["main"]["created"]
    assert results["broken"]["error"]["remedy"]
    assert sorted(path.name for path in occupied.iterdir()) == ["README"]


def test_a_secret_that_everybody_can_read_is_refused(host: Host) -> None:
    """A passphrase file open to others stops everything with exit code 2 and the command that repairs it."""
    host.secret.chmod(0o644)
    for verb in ("init", "list"):
        call = host.run(verb)
        assert call.code == 2
        assert f"chmod 0600 {host.secret}" in call.stderr
    assert not (host.root / "repositories").exists()


def test_a_wrong_passphrase_is_told(host: Host) -> None:
    """A passphrase that does not open the repository is an error with a remedy, and appears nowhere."""
    assert host.run("init").code == 0
    host.secret.write_text("another one\n")
    for verb in ("list", "init"):
        call = host.run(verb, "--json")
        assert call.code == 1
        assert "another one" not in call.stdout + call.stderr
        document = call.document
        error = document["errors"][0] if verb == "list" else document["repositories"][0]["error"]
        assert error["type"] == "PassphraseWrong"
        assert error["evidence"]
        assert "passphrase" in error["remedy"]


def test_list_tells_what_there_is(host: Host, web: Domain) -> None:
    """Archives are listed oldest first with what their comments tell; unfinished and foreign ones are kept apart."""
    assert host.run("init").code == 0
    assert host.run("list", "--json").document == {"archives": [], "errors": []}
    first = host.archive(web, NOON - DAY, uncovered="vdb", consistency="agent", frozen_ms="321")
    second = host.archive(web, NOON)
    third = host.archive(web, NOON + DAY, finished=False)
    content = str(host.root / "content")
    host.repository().create("somebody's own", [content], comment="", files_cache_suffix="x")
    found = host.run("list", "--json").document["archives"]
    assert [each["archive"] for each in found] == [first, second, third]
    assert [each["finished"] for each in found] == [True, True, False]
    assert found[0] == {
        "vm": web.name,
        "uuid": web.uuid,
        "archive": first,
        "repository": "main",
        "time": "2026-11-21T12:00:00Z",
        "finished": True,
        "partial": True,
        "consistency": "agent",
        "frozen_ms": 321,
        "disks": {"vda": 16 * 1024**2},
        "size": 16 * 1024**2,
        "uncovered": ["vdb"],
        "hypervisor": "kvm1",
        "dumps": [],
        "suspect": "",
        "proven": None,
    }
    for selection in (web.name, web.uuid, web.uuid[:8]):
        assert host.run("list", selection, "--json").document["archives"] == found
    text = host.run("list").stdout
    assert "UNFINISHED" in text
    assert "vda (not vdb)" in text


def test_list_of_an_unknown_vm_names_the_likely_one(host: Host, web: Domain) -> None:
    """A misspelt VM is an error that names those that were meant; a beginning of a name is not a name."""
    assert host.run("init").code == 0
    host.archive(web, NOON)
    for wrong in ("clilist wbe", "clilist we"):
        call = host.run("list", wrong, "--json")
        assert (call.code, call.document["error"]["type"]) == (1, "ArchiveNotFound")
        assert repr(web.name) in "\n".join(call.voices())


def test_list_of_an_unknown_repository(host: Host) -> None:
    """A repository that the configuration does not have is a usage error that names those that it has."""
    call = host.run("list", "--repository", "mian", "--json")
    assert (call.code, call.document["error"]["type"]) == (2, "UsageError")
    assert "main" in call.voices()[1]


def test_one_repository_that_is_gone_does_not_hide_the_others(host: Host, web: Domain) -> None:
    """A missing repository is told with exit code 1; the archives of the others are still listed."""
    assert host.run("init").code == 0
    name = host.archive(web, NOON)
    settings = {each: host.repository_settings(each) for each in ("main", "gone")}
    host.configure(repositories=settings)
    call = host.run("list", "--json")
    assert call.code == 1
    assert [each["archive"] for each in call.document["archives"]] == [name]
    assert [(each["repository"], each["type"]) for each in call.document["errors"]] == [("gone", "RepositoryNotFound")]
    assert "repository gone" in call.stderr
    assert "vmborg init" in call.stderr
    only = host.run("list", "--repository", "main", "--json")
    assert (only.code, len(only.document["archives"])) == (0, 1)


def test_a_repository_without_its_encryption_is_refused(host: Host, web: Domain) -> None:
    """One that is not encrypted while the configuration says so is refused by init, doctor and backup."""
    plain = {"location": str(host.root / "repositories" / "main"), "encryption": "none", "lock_wait": 2}
    host.configure(repositories={"main": plain})
    assert host.run("init").code == 0
    host.configure(repositories={"main": host.repository_settings("main")})
    host.configure(vms={"defaults": {"quiesce": "never"}})
    for call in (host.run("init"), host.run("doctor", web.name), host.run("backup", web.name)):
        assert call.code in {1, 2}
        assert "not encrypted" in call.stderr + call.stdout


def test_the_remedy_for_a_moved_repository_works(host: Host) -> None:
    """After the call that the error names, answered with y, the moved repository is used as before."""
    assert host.run("init").code == 0
    assert host.run("list").code == 0
    (host.root / "repositories" / "main").rename(host.root / "moved")
    host.configure(repositories={"main": {**host.repository_settings("main"), "location": str(host.root / "moved")}})
    call = host.run("list", "--json")
    assert call.code == 1
    remedy: str = call.document["errors"][0]["remedy"]
    command = remedy.partition("answer y: ")[2]
    assert command
    env = {"BORG_PASSPHRASE": PASSPHRASE}
    run(["bash", "-c", command], env=env, input_text="y\n", timeout=60)
    assert host.run("list").code == 0


def test_a_full_state_folder_is_told_as_such(host: Host, web: Domain) -> None:
    """Where there is no room for vmborg's own files, list and backup say so, and do not speak of the repository."""
    assert host.run("init").code == 0
    host.archive(web, NOON)
    with small_filesystem(host.root, 4 * 1024**2) as state:
        host.configure(state_dir=str(state / "state"))
        assert host.run("config", "validate").code == 0
        (state / "state").mkdir(mode=0o700)
        with (state / "ballast").open("wb") as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))
                ballast.flush()
        for verb in (("list", "--json"), ("backup", web.name, "--json")):
            call = host.run(*verb)
            assert call.code == 1
            assert "does not know" not in call.stderr
            assert str(state) in call.stderr
            assert "is full. Free space on its" not in call.stderr


def test_a_prefect_server_that_does_not_answer_is_told(host: Host, web: Domain) -> None:
    """A backup whose Prefect server is not there ends at once with an error that names it and what to do."""
    api = "http://127.0.0.1:1/api"
    call = vmborg("backup", web.name, "--json", config=host.config, env={"PREFECT_API_URL": api})
    assert (call.code, call.document["error"]["type"]) == (1, "ProcessError")
    brief, _, remedy = call.voices()
    assert api in brief
    assert "PREFECT_API_URL" in remedy


def test_a_disk_below_the_archives_own_folder_is_uncovered(host: Host) -> None:
    """An image below /vmborg cannot be in an archive: it is named with the reason, before anything is touched."""
    folder = Path("/vmborg")
    assert not folder.exists()
    assert host.run("init").code == 0
    folder.mkdir()
    try:
        with (
            Hypervisor.open(host.uri) as hypervisor,
            defined(hypervisor, "clilist place", [disk(folder), disk(host.images, "vdb")]),
        ):
            host.configure(vms={"defaults": {"quiesce": "never"}})
            call = host.run("backup", "clilist place", "--json")
            assert call.code == 3, call.stderr
            (uncovered,) = call.document["backups"][0]["result"]["uncovered"]
            assert "where an archive keeps its own files" in uncovered
    finally:
        shutil.rmtree(folder)


def test_excluded_disks_of_the_defaults_need_not_exist(host: Host, web: Domain) -> None:
    """`exclude_disks` for all VMs leaves those alone that have no such disk; for one VM it must be right."""
    assert host.run("init").code == 0
    host.configure(vms={"defaults": {"quiesce": "never", "exclude_disks": ["vdc"]}})
    for verb in ("doctor", "backup"):
        assert "vdc" not in host.run(verb, web.name).stderr
    host.configure(vms={"overrides": {web.name: {"exclude_disks": ["vdc"]}}})
    call = host.run("backup", web.name, "clilist none", "--json")
    errors = {each["vm"]: each["error"]["type"] for each in call.document["backups"]}
    assert errors == {web.name: "UsageError", "clilist none": "DomainNotFound"}
    assert call.code == 1
