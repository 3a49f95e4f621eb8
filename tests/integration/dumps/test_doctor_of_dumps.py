"""What doctor says of dump hosts, and that it does nothing else there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.doctor_dumps import dump_host_findings
from tasks.health import Finding, Health
from tasks.job import load_config
from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import Maria, Postgres, Sshd, free_port, keygen, sshd
from tests.integration.dumps.taking import take

pytestmark = pytest.mark.integration

NOWHERE = "qemu+unix:///system?socket=/nonexistent"


@pytest.fixture(scope="module")
def bare(folder: Path) -> Iterator[Sshd]:
    """An SSH server on whose host no dump program is installed."""
    programs = folder / "bare-bin"
    programs.mkdir()
    (programs / "sh").symlink_to("/bin/sh")
    with sshd(folder / "bare", options=[f"SetEnv PATH={programs}"]) as found:
        yield found


def findings(place: Place) -> list[Finding]:
    """Everything that doctor finds about the host `db`."""
    return list(dump_host_findings(load_config(str(place.config)), "db"))


def wrong(place: Place) -> Finding:
    """The one finding that is not ok; it says what to do."""
    (found,) = [each for each in findings(place) if each.health is not Health.OK]
    assert found.health is Health.CRITICAL
    assert found.remedy
    return found


def test_a_host_that_is_well_is_told_so_and_left_alone(place: Place, pg: Postgres, maria: Maria) -> None:
    """Way, key, login and each source are ok, by the command; no dump is taken and no command of a source is run."""
    marker = place.root / "it ran"
    place.configure(
        [
            pg.source,
            maria.source,
            {"kind": "files", "paths": [str(place.ssh.root)]},
            {"kind": "command", "command": f"touch '{marker}'; echo x"},
        ]
    )
    place.write({"db": place.host}, hypervisor={"name": "testhost", "uri": NOWHERE})
    shown = place.run("--json", "doctor").document["findings"]
    mine = [each for each in shown if each["subject"] == "dump host db"]
    checks = {each["check"] for each in mine}
    assert checks == {"login", *(f"source {label}" for label in ("postgresql", "mariadb", "files", "command"))}
    assert {each["health"] for each in mine} == {"ok"}
    text = "\n".join(each["text"] for each in mine)
    assert "pg_dump (PostgreSQL)" in text
    assert "postgres" in text
    assert "pg_restore (PostgreSQL)" in text
    assert not marker.exists()
    assert [path.name for path in (place.state / "dumps" / "db").iterdir()] == ["host_key"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"port": 0}, "cannot be reached"),
        ({"host_key": "another"}, "shows another host key"),
        ({"key": "stranger"}, "does not let 'root' in"),
        ({"key": "missing"}, "cannot be used"),
    ],
)
def test_a_way_that_is_barred_is_told(place: Place, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    """A host that is down, shows another key or refuses ours, and a key that is missing: one finding each."""
    stranger = keygen(tmp_path / "stranger")
    real = {
        "port": free_port(),
        "host_key": Path(f"{stranger}.pub").read_text().strip(),
        "key": str(tmp_path / changed.get("key", "")),
    }
    place.configure([{"kind": "command", "command": "true"}], **{key: real[key] for key in changed})
    found = wrong(place)
    assert found.check == "login"
    assert said in found.text


def test_a_host_that_is_not_trusted_is_told(place: Place) -> None:
    """Without a pinned key the remedy is to compare and trust."""
    (place.state / "dumps" / "db" / "host_key").unlink()
    assert "vmborg dumps trust" in wrong(place).remedy


def test_programs_that_are_missing_there_are_told(place: Place, bare: Sshd) -> None:
    """Each source whose program is not installed on the dump host is critical by itself; the others are looked at."""
    place.configure(
        [{"kind": "mysql"}, {"kind": "redis"}, {"kind": "files", "paths": ["/etc/hostname"]}],
        port=bare.port,
        key=str(bare.client_key),
        host_key=Path(f"{bare.host_key}.pub").read_text().strip(),
    )
    bad = [each for each in findings(place) if each.health is not Health.OK]
    assert [each.check for each in bad] == ["source mysql", "source redis"]
    assert {each.remedy for each in bad} == {"Install the program on the dump host."}


def test_sources_that_cannot_be_dumped_are_told(place: Place, pg: Postgres, maria: Maria, tmp_path: Path) -> None:
    """A server that is down, a wrong password and a path that is not there: told as the pull would tell them."""
    secret = tmp_path / "password"
    secret.touch(mode=0o600)
    secret.write_text("wrong")
    maria.sql("CREATE USER IF NOT EXISTS guarded@localhost IDENTIFIED BY 'right'")
    for source, said in (
        ({**pg.source, "port": free_port()}, "failed"),
        ({**maria.source, "user": "guarded"}, "Access denied"),
        ({"kind": "files", "name": "mariadb", "paths": [str(tmp_path / "none")]}, "cannot be fetched"),
    ):
        passwords = {"mariadb": {"file": str(secret)}} if "user" in source else {}
        place.configure([source], passwords=passwords)
        found = wrong(place)
        assert said in found.text
        assert "source" in found.check


def test_a_forced_command_that_is_too_old_is_told(place: Place, pg: Postgres, maria: Maria, folder: Path) -> None:
    """With a key that may only dump doctor works; a source that its script does not know names guest-setup."""
    before = place.ssh.authorized.read_text()
    place.configure([pg.source])
    printed = place.run("--json", "dumps", "guest-setup", "db").document
    script = folder / "forced-doctor"
    script.write_text(printed["script"])
    script.chmod(0o755)
    place.ssh.authorized.write_text(printed["authorized_keys"].replace(printed["path"], str(script)) + "\n")
    try:
        assert {each.health for each in findings(place)} == {Health.OK}
        place.configure([pg.source, maria.source])
        found = wrong(place)
    finally:
        place.ssh.authorized.write_text(before)
    assert found.check == "source mariadb"
    assert "vmborg dumps guest-setup" in found.remedy


def test_room_for_the_next_pull_is_looked_at(place: Place) -> None:
    """What the last dumps took is compared with the free space of the state folder."""
    place.configure([{"kind": "command", "command": "echo whole"}])
    take(place)
    (space,) = [each for each in findings(place) if each.check == "space"]
    assert space.health is Health.OK
    assert "the last dumps took 6 B" in space.text
    manifest = place.latest / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"size": 6,', f'"size": {2**60},'))
    (space,) = [each for each in findings(place) if each.check == "space"]
    assert space.health is Health.WARNING
