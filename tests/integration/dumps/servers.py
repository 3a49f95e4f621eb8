"""Real servers for the tests, each with its own port or socket, data and keys below one folder."""

import os
import pwd
import shutil
import signal
import socket
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.process import Child, Completed, run, spawn
from tests.guests import wait_for

_SSHD = "/usr/sbin/sshd"


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    """Whether something listens there."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def keygen(path: Path, passphrase: str = "") -> Path:
    """A new SSH key."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "test", "-f", str(path)], timeout=30)
    return path


@contextmanager
def server(argv: Sequence[str], log: Path, *, user: str | None = None) -> Generator[Child]:
    """A server for the length of the block, killed with all that it started; as another user if one is named."""
    command = [*(["runuser", "-u", user, "--"] if user else []), *argv]
    with log.open("ab") as output, spawn(command, stdout=output, stderr=output, own_session=True) as child:
        try:
            yield child
        finally:
            kill_tree(child.pid)


def kill_tree(pid: int) -> None:
    """SIGKILL a process and everything below it."""
    try:
        top = psutil.Process(pid)
        family = [*top.children(recursive=True), top]
    except psutil.NoSuchProcess:
        return
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family[:-1], timeout=10)


@dataclass(slots=True)
class Sshd:
    """An OpenSSH server on loopback that lets root in with `client_key`."""

    root: Path
    port: int
    child: Child | None = None

    @property
    def client_key(self) -> Path:
        """The private key that it lets in."""
        return self.root / "client"

    @property
    def authorized(self) -> Path:
        """Its authorized_keys."""
        return self.root / "authorized_keys"

    @property
    def host_key(self) -> Path:
        """Its own key."""
        return self.root / "host"

    def private_keys(self) -> list[Path]:
        """Every private key of server and clients."""
        return [public.with_suffix("") for public in sorted(self.root.glob("*.pub"))]

    def fingerprint(self) -> str:
        """Of its host key, as ssh-keygen says."""
        return run(["ssh-keygen", "-lf", f"{self.host_key}.pub"], timeout=10).stdout.split()[1]

    def sessions(self) -> list[psutil.Process]:
        """The processes that serve connections now."""
        return psutil.Process(self.child.pid).children() if self.child else []

    def cut(self) -> None:
        """End every connection as a power cut would, without a word of SSH; what it ran goes on until it notices."""
        for session in self.sessions():
            for each in [session, *session.children(recursive=True)]:
                if each.name() == "sshd":
                    each.send_signal(signal.SIGKILL)


@contextmanager
def sshd(root: Path, *, options: Sequence[str] = ()) -> Generator[Sshd]:
    """Start one below `root`; keys that are there already are used again."""
    root.mkdir(exist_ok=True)
    Path("/run/sshd").mkdir(exist_ok=True)
    found = Sshd(root, free_port())
    for key in (found.host_key, found.client_key):
        if not key.exists():
            keygen(key)
    if not found.authorized.exists():
        shutil.copyfile(f"{found.client_key}.pub", found.authorized)
    settings = [
        f"Port {found.port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {found.host_key}",
        f"AuthorizedKeysFile {found.authorized}",
        "PidFile none",
        "UsePAM no",
        "StrictModes no",
        "PermitRootLogin yes",
        "PasswordAuthentication no",
        "Subsystem sftp internal-sftp",
        *options,
    ]
    config = root / "sshd_config"
    config.write_text("\n".join(settings) + "\n")
    with server([_SSHD, "-D", "-e", "-f", str(config)], root / "sshd.log") as child:
        found.child = child
        wait_for(lambda: answers(found.port), timeout=20, what="sshd")
        yield found


@dataclass(slots=True)
class Postgres:
    """A PostgreSQL server on a socket of its own, where root is a superuser."""

    root: Path
    port: int
    stack: ExitStack

    @property
    def source(self) -> dict[str, object]:
        """Its source in the configuration."""
        return {"kind": "postgresql", "host": str(self.root), "port": self.port}

    def psql(self, database: str, sql: str) -> str:
        """What SQL answers."""
        env = {"PGHOST": str(self.root), "PGPORT": str(self.port), "PGDATABASE": database}
        argv = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]
        return run(argv, timeout=120, env=env, input_text=sql).stdout.strip()

    def create(self, name: str) -> None:
        """A database of any name."""
        self.psql("postgres", "CREATE DATABASE " + '"' + name.replace('"', '""') + '"')

    def start(self) -> None:
        """Start it."""
        argv = [str(_postgres_bin() / "postgres"), "-D", str(self.root / "data"), "-p", str(self.port)]
        argv += ["-k", str(self.root), "-c", "listen_addresses=", "-c", "fsync=off"]
        self.stack.enter_context(server(argv, self.root / "log", user="postgres"))
        wait_for(self.ready, timeout=30, what="PostgreSQL")

    def ready(self) -> bool:
        """Whether it answers."""
        argv = ["pg_isready", "-q", "-h", str(self.root), "-p", str(self.port)]
        return run(argv, timeout=10, check=False).returncode == 0

    def kill(self) -> None:
        """Kill it in the middle of whatever it does."""
        self.stack.close()
        (self.root / "data" / "postmaster.pid").unlink(missing_ok=True)


def _postgres_bin() -> Path:
    return max(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgres(root: Path) -> Generator[Postgres]:
    """A new cluster below `root`, which its user has to be able to enter."""
    root.mkdir(exist_ok=True)
    owner = pwd.getpwnam("postgres")
    os.chown(root, owner.pw_uid, owner.pw_gid)
    initdb = ["runuser", "-u", "postgres", "--", str(_postgres_bin() / "initdb"), "-D", str(root / "data")]
    run([*initdb, "-A", "trust", "-E", "UTF8", "--locale=C", "-N"], timeout=120)
    with ExitStack() as stack:
        found = Postgres(root, free_port(), stack)
        found.start()
        env = {"PGHOST": str(root), "PGPORT": str(found.port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        run(["psql", "-Xqc", "CREATE ROLE root SUPERUSER LOGIN"], timeout=30, env=env)
        yield found


@dataclass(slots=True)
class Maria:
    """A MariaDB server on a socket of its own, where root is allowed everything."""

    root: Path
    stack: ExitStack

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.root / "socket"

    @property
    def source(self) -> dict[str, object]:
        """Its source in the configuration."""
        return {"kind": "mariadb", "socket": str(self.socket), "user": "root"}

    def sql(self, statements: str, database: str = "") -> str:
        """What SQL answers."""
        argv = ["mariadb", f"--socket={self.socket}", "--user=root", "--default-character-set=utf8mb4", "-BN"]
        return run([*argv, *(["--", database] if database else [])], timeout=120, input_text=statements).stdout.strip()

    def create(self, name: str) -> None:
        """A database of any name."""
        self.sql("CREATE DATABASE `" + name.replace("`", "``") + "`")

    def kill(self) -> None:
        """Kill it in the middle of whatever it does."""
        self.stack.close()


@contextmanager
def mariadb(root: Path) -> Generator[Maria]:
    """A new server below `root`."""
    root.mkdir(exist_ok=True)
    options = ["--no-defaults", f"--datadir={root / 'data'}", "--user=mysql"]
    install = [*options, "--auth-root-authentication-method=normal", "--skip-test-db"]
    (root / "data").mkdir()
    shutil.chown(root, "mysql", "mysql")
    shutil.chown(root / "data", "mysql", "mysql")
    run(["mariadb-install-db", *install], timeout=180)
    with ExitStack() as stack:
        found = Maria(root, stack)
        argv = ["mariadbd", *options, f"--socket={found.socket}", "--skip-networking", f"--pid-file={root / 'pid'}"]
        argv += ["--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=32M"]
        stack.enter_context(server(argv, root / "log"))
        wait_for(lambda: _maria_answers(found), timeout=60, what="MariaDB")
        yield found


def _maria_answers(found: Maria) -> bool:
    argv = ["mariadb-admin", f"--socket={found.socket}", "--user=root", "ping"]
    return run(argv, timeout=20, check=False).returncode == 0


@dataclass(slots=True)
class Redis:
    """A Redis server on a socket of its own."""

    root: Path
    password: str

    @property
    def socket(self) -> Path:
        """Its socket."""
        return self.root / "socket"

    @property
    def source(self) -> dict[str, object]:
        """Its source in the configuration."""
        return {"kind": "redis", "socket": str(self.socket)}

    def cli(self, *arguments: str, socket: Path | None = None) -> Completed:
        """Run redis-cli."""
        env = {"REDISCLI_AUTH": self.password}
        return run(["redis-cli", "-s", str(socket or self.socket), *arguments], timeout=30, env=env)


@contextmanager
def redis(root: Path, password: str, *, rdb: Path | None = None) -> Generator[Redis]:
    """A new server below `root`; `rdb` is what it loads at its start."""
    root.mkdir(exist_ok=True)
    found = Redis(root, password)
    if rdb is not None:
        shutil.copyfile(rdb, root / "dump.rdb")
    config = root / "redis.conf"
    config.touch(mode=0o600)
    config.write_text(f'port 0\nunixsocket {found.socket}\ndir {root}\nrequirepass "{password}"\nsave ""\n')
    with server(["redis-server", str(config)], root / "log"):
        wait_for(found.socket.exists, timeout=20, what="Redis")
        yield found
