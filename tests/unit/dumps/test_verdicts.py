"""Archives of dumps as they are listed and judged; host keys; what a forced command allows."""

from datetime import UTC, datetime, timedelta

import pytest

from infra.borg.answers import ArchiveInfo
from infra.borg.names import dump_archive_name, dump_glob, parse_archive_name
from infra.config.load import check
from infra.config.models import Config
from infra.dumps.guest import allowed, authorized_line, forced_script
from infra.dumps.kinds import Command, PostgreSQL
from infra.dumps.manifest import parse
from infra.errors import ConfigError, ManifestError, UsageError
from infra.process import run
from infra.ssh.endpoint import parse_host_key
from tasks.dumps.catalogue import DumpArchive, dump_archives
from tasks.dumps.status import dump_statuses
from tasks.health import Health

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
HOST = (
    "hypervisor: {name: kvm1}\n"
    "repositories: {main: {location: /x, encryption: none}, second: {location: /y, encryption: none}}\n"
    "dumps: {hosts: {db: {%s}}}\n"
)
SOURCE = "address: a, key: /k, sources: [{kind: postgresql}]"


def config(host: str = SOURCE) -> Config:
    """A configuration with one dump host."""
    return check(HOST % host, name="x")


def info(age_h: float, *, bad: str = "", host: str = "db", by: str = "kvm1") -> ArchiveInfo:
    """An archive of the host's dumps so many hours old, made by this hypervisor."""
    when = NOW - timedelta(hours=age_h)
    comment = {"sources": "postgresql:3,a.b-c:1", "size": "77", "bad": bad, "host": by, "vm": "web 1"}
    return ArchiveInfo(dump_archive_name(host, when), when, comment)


def test_an_archive_tells_what_it_holds() -> None:
    """Name and comment of an archive are read back; archives of VMs and foreign ones are passed over."""
    foreign = ArchiveInfo("vm.6f1c2a9e.web@2026-01-31T02:00:00Z", NOW, {})
    (found,) = dump_archives("main", [info(1, host="db 1/x"), foreign, ArchiveInfo("somebody's", NOW, {})])
    assert (found.host, found.size, found.vm) == ("db 1/x", 77, "web 1")
    assert found.sources == (("postgresql", 3), ("a.b-c", 1))
    assert found.time == NOW - timedelta(hours=1)


def test_names_stay_apart() -> None:
    """The glob of a host meets no other host whose name begins alike, and a name that is too long is refused."""
    parsed = parse_archive_name(dump_archive_name("db.1", NOW))
    assert parsed is not None
    assert (parsed.kind, parsed.source) == ("dump", "db.1")
    assert dump_glob("db") == "dump.db@*"
    with pytest.raises(UsageError, match="too long"):
        dump_archive_name("ü" * 100 + "/" * 100, NOW)


@pytest.mark.parametrize(
    ("archives", "health", "said"),
    [
        ([], Health.CRITICAL, "never pulled"),
        ([info(1)], Health.OK, "pulled"),
        ([info(30)], Health.CRITICAL, "older than its objective"),
        ([info(3), info(1, bad="postgresql")], Health.WARNING, "not whole: postgresql"),
        ([info(1, bad="postgresql")], Health.CRITICAL, "never whole"),
        ([info(-2)], Health.WARNING, "from the future"),
    ],
)
def test_a_host_is_judged_by_its_last_whole_archive(archives: list[ArchiveInfo], health: Health, said: str) -> None:
    """Young and whole is ok; stale dumps in the newest, a future time are warnings; too old or none is critical."""
    (status,) = dump_statuses(config(), dump_archives("main", archives), unreadable=(), now=NOW)
    assert (status.health, said in status.text) == (health, True)
    (unknown,) = dump_statuses(config(), [], unreadable=("main",), now=NOW)
    assert unknown.health is Health.UNKNOWN


def judged(*archives: DumpArchive, unreadable: tuple[str, ...] = (), growth: str = "") -> tuple[Health, str]:
    """The verdict on a host with a replica."""
    settings = config(SOURCE + ", replicas: [second]")
    (status,) = dump_statuses(settings, archives, unreadable=unreadable, now=NOW, growth={"db": growth})
    return status.health, status.text


def test_a_replica_that_lags_is_told() -> None:
    """With a replica, one young archive is enough not to be critical; the repository without one is a warning."""
    main, second = dump_archives("main", [info(30), info(1)]), dump_archives("second", [info(30), info(1)])
    assert judged(*main, *second) == (Health.OK, "pulled")
    assert judged(*main, second[0]) == (Health.WARNING, "no good archive within its objective in: second")
    lost = judged(*second, unreadable=("main",))
    assert lost == (Health.WARNING, "no good archive within its objective in: main (cannot be read)")
    assert judged(second[0], unreadable=("main",))[0] is Health.UNKNOWN
    assert judged(*main, *second, growth="1 GiB")[1] == "unexpected growth: 1 GiB"


def test_what_another_hypervisor_pulls_counts_for_nothing() -> None:
    """A host of the same name that another hypervisor pulls does not make ours green."""
    (status,) = dump_statuses(config(), dump_archives("main", [info(1, by="kvm2")]), unreadable=(), now=NOW)
    assert (status.health, status.text) == (Health.CRITICAL, "never pulled")


def test_a_host_that_is_gone_is_told() -> None:
    """A host that we pulled and that the configuration names no more is shown, and is nobody's alarm."""
    archives = dump_archives("main", [info(300, host="old"), info(300, host="theirs", by="kvm2"), info(1)])
    gone = dump_statuses(config(), archives, unreadable=(), now=NOW)[1:]
    assert [(each.host, each.health, each.objective) for each in gone] == [("old", Health.OK, None)]
    assert "no longer in the configuration" in gone[0].text


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("key: /k, sources: [{kind: postgresql}]", "must have an address"),
        ("address: a", "sources: is missing"),
        (
            "address: a, sources: [{kind: mongo}]",
            "dumps.hosts.db.sources.0.kind: must be one of 'postgresql', 'mariadb'",
        ),
        ("address: a, sources: [{paths: [/etc]}]", "dumps.hosts.db.sources.0.kind: is missing"),
        ("address: a, sources: [{kind: redis}, {kind: redis}]", "two sources are called 'redis'"),
        (SOURCE + ", before_vm_backup: true", "before_vm_backup needs vm"),
        (SOURCE + ", passwords: {mysql: {env: X}}", "passwords names 'mysql'"),
        (SOURCE + ", repository: mian", "there is no repository 'mian'"),
        (SOURCE + ", replicas: [secnod]", "there is no repository 'secnod'; did you mean 'second'?"),
        (SOURCE + ", replicas: [main]", "names a repository twice"),
        (SOURCE + ", repository: second, replicas: [main, main]", "names a repository twice"),
        (SOURCE + ", replicas: second", "replicas: must be a list"),
        (SOURCE + ", replicas: [3]", "there is no repository '3'"),
        (SOURCE + ", retention: {last: 0}", "keeps no archive"),
        (SOURCE + ", host_key: x", "must be a public host key"),
        ("address: a, sources: [{kind: files, paths: [etc]}]", "must be an absolute path"),
        ("address: a, sources: [{kind: sqlite, path: /x, floor: 2}]", "less than or equal to 1"),
    ],
)
def test_a_wrong_host_is_refused(host: str, said: str) -> None:
    """Each kind of mistake in a dump host is told with what is wrong."""
    with pytest.raises(ConfigError) as caught:
        config(host)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["a/b", "..", "''", "x" * 101])
def test_a_host_names_a_folder(name: str) -> None:
    """A host's name that could lead out of its folder is refused."""
    with pytest.raises(ConfigError):
        check(HOST.replace("db:", f"{name}:") % SOURCE, name="x")


def test_a_forced_command_holds_what_a_pull_sends() -> None:
    """The script lists each command once, as one word of the shell, and is sh that parses."""
    sources = [PostgreSQL(kind="postgresql"), Command(kind="command", command="echo 'it''s' $x; ls | wc")]
    commands = allowed(sources, {"postgresql": None})
    assert len(commands) == len(set(commands)) == 5
    assert sum("read -r PGPASSWORD" in command for command in commands) == 4
    script = forced_script(sources, {})
    assert "sftp" not in script
    run(["sh", "-n"], timeout=10, input_text=script)
    assert authorized_line("ssh-ed25519 AAAA c\n").startswith('restrict,command="/')


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 ?", "ssh-rsa AAAAC3NzaC1lZDI1NTE5", "a b c d"])
def test_what_is_no_host_key_is_refused(text: str) -> None:
    """A text that is no public key, or of another type than it says, is no pin."""
    with pytest.raises(ValueError, match="key"):
        parse_host_key(text)


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a//b", "", "a/../b"])
def test_a_manifest_leads_nowhere_else(path: str) -> None:
    """A manifest whose paths lead out of the tree is refused."""
    dump = f'{{"role": "dump", "path": "{path}", "size": 1, "sha256": "{"0" * 64}", "taken": "2026-01-01T00:00:00Z"}}'
    source = f'{{"source": "x", "kind": "command", "dumps": [{dump}]}}'
    text = '{"host": "h", "address": "a", "hypervisor": "k", "vmborg": "0", "started": "2026-01-01T00:00:00Z", '
    with pytest.raises(ManifestError):
        parse(f'{text}"sources": [{source}]}}')
