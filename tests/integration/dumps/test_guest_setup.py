"""What guest-setup prints, installed on a real sshd: the key can dump and nothing else."""

from pathlib import Path

import pytest

from infra.dumps.guest import SCRIPT
from infra.process import run
from tests.integration.dumps.place import Place
from tests.integration.dumps.servers import Maria, Postgres, Sshd
from tests.integration.dumps.taking import take

pytestmark = pytest.mark.integration


@pytest.fixture
def restricted(place: Place, pg: Postgres, maria: Maria, folder: Path) -> Place:
    """An installation whose key is limited to what guest-setup prints."""
    pg.psql("postgres", "DROP DATABASE IF EXISTS app")
    pg.create("app")
    pg.psql("app", "CREATE TABLE t AS SELECT 1 AS i")
    maria.sql("CREATE DATABASE IF NOT EXISTS app; CREATE TABLE IF NOT EXISTS app.t (i int)")
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "file").write_text("content")
    place.configure([pg.source, maria.source, {"kind": "files", "paths": [str(folder / "conf")]}])
    printed = place.run("--json", "dumps", "guest-setup", "db").document
    script = folder / "forced"
    script.write_text(printed["script"])
    script.chmod(0o755)
    assert printed["path"] == SCRIPT
    place.ssh.authorized.write_text(printed["authorized_keys"].replace(SCRIPT, str(script)) + "\n")
    run(["sh", "-n", str(script)], timeout=10)
    return place


def _ssh(place: Place, *words: str) -> tuple[int, str]:
    """What the ordinary client gets with the same key."""
    known = place.root / "known_hosts"
    key = (place.ssh.root / "host.pub").read_text()
    known.write_text(f"[127.0.0.1]:{place.ssh.port} {key}")
    options = ["-oBatchMode=yes", f"-oUserKnownHostsFile={known}", "-oIdentitiesOnly=yes", "-F", "none"]
    argv = ["ssh", *options, "-i", str(place.ssh.client_key), "-p", str(place.ssh.port), "root@127.0.0.1", *words]
    done = run(argv, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_key_can_dump_and_nothing_else(restricted: Place, ssh: Sshd, tmp_path: Path) -> None:
    """Every source is pulled through the forced command; a shell, other commands, writes and forwarding are refused."""
    sources = take(restricted)
    assert [source.good for source in sources] == [True, True, True]
    assert (restricted.latest / "files").is_dir()
    for words in ((), ("id",), ("exec sh -c id",), ("pg_dump app; id",)):
        code, said = _ssh(restricted, *words)
        assert code == 126
        assert "may not run" in said
        assert "uid=" not in said
    code, _ = _ssh(restricted, "-oExitOnForwardFailure=yes", "-W", f"127.0.0.1:{ssh.port}")
    assert code != 0
    upload = tmp_path / "upload"
    upload.write_text("x")
    batch = tmp_path / "batch"
    batch.write_text(f"put {upload} {tmp_path / 'uploaded'}\n")
    known = restricted.root / "known_hosts"
    options = ["-oBatchMode=yes", f"-oUserKnownHostsFile={known}", "-F", "none", "-b", str(batch)]
    argv = ["sftp", *options, "-i", str(ssh.client_key), "-P", str(ssh.port), "root@127.0.0.1"]
    assert run(argv, timeout=30, check=False).returncode != 0
    assert not (tmp_path / "uploaded").exists()


def test_a_minimal_user_is_enough(place: Place, pg: Postgres, maria: Maria) -> None:
    """Database users with no more than the grants of docs/dumps.md dump everything, routines too."""
    pg.create("plain")
    pg.psql("plain", "CREATE TABLE t AS SELECT 1 AS i")
    pg.psql("postgres", "CREATE ROLE dumper LOGIN; GRANT pg_read_all_data TO dumper")
    rights = "SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, PROCESS"
    maria.sql(f"CREATE USER dumper@localhost; GRANT {rights} ON *.* TO dumper@localhost")
    maria.sql("CREATE DATABASE plain; USE plain; CREATE TABLE t AS SELECT 1 AS i; CREATE PROCEDURE p() SELECT 1")
    sources = [
        {**pg.source, "user": "dumper", "role_passwords": False, "databases": ["plain"]},
        {**maria.source, "user": "dumper"},
    ]
    place.ssh.authorized.write_text(Path(f"{place.ssh.client_key}.pub").read_text())
    place.configure(sources)
    assert [(source.error, source.failures) for source in take(place)] == [("", ()), ("", ())]
    assert "PROCEDURE" in (place.latest / "mariadb" / "plain.sql").read_text()
