"""Three hypervisors on one machine, as docs/security.md and docs/scheduling.md set them up.

Each has a name, a libvirtd, files of libvirt's, a configuration, an SSH key and a worker of its own. They share a
Prefect server with PostgreSQL, a password, CSRF protection and TLS in front, and a repository behind `borg serve`.
"""

import json
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.checks import sources
from tests.e2e.dashboard import Dashboard
from tests.e2e.held import command, numbers, parent
from tests.e2e.prefect_server import PrefectServer
from tests.e2e.site import Site
from tests.e2e.tls_proxy import TlsProxy, tls_proxy
from tests.e2e.units import confined, unit_environment
from tests.e2e.webhook import Receiver, receiving
from tests.e2e.worker import Worker
from tests.guests import Boot, DiskSpec, Guest, domain_xml, image_dir, make_disk
from tests.integration.dumps.servers import Postgres, Sshd, keygen, postgres, sshd
from tests.integration.own_libvirtd import OwnLibvirtd, own_libvirtd

MIB = 1024**2
BORG = Path(sys.executable).with_name("borg")
NAMES = ("kvm1", "kvm2", "kvm3")


@dataclass(frozen=True, slots=True)
class Secrets:
    """Every secret of the estate; each is random, so that finding one anywhere means something."""

    passphrase: str = field(default_factory=secrets.token_hex)
    api: str = field(default_factory=secrets.token_hex)
    database: str = field(default_factory=secrets.token_hex)
    token: str = field(default_factory=secrets.token_hex)
    hook: str = field(default_factory=secrets.token_hex)  # in the address of the webhook
    ping: str = field(default_factory=secrets.token_hex)


@dataclass(slots=True)
class KvmHost:
    """One hypervisor: its libvirtd, its installation, its guest and its worker."""

    name: str
    libvirtd: OwnLibvirtd
    site: Site
    guest: Guest
    worker: Worker
    images: Path
    bases: dict[str, str]

    @property
    def vm(self) -> str:
        """The name of its guest."""
        return self.guest.name

    @property
    def image(self) -> Path:
        """The guest's first disk."""
        return Path(self.bases["vda"])


@dataclass(slots=True)
class Estate:
    """All of it."""

    root: Path
    known: Secrets
    database: Postgres
    server: PrefectServer
    proxy: TlsProxy
    receiver: Receiver
    ssh: Sshd
    dashboard: Dashboard
    hosts: list[KvmHost] = field(default_factory=list[KvmHost])
    began: float = field(default_factory=time.time)
    said: set[str] = field(default_factory=set[str])  # command lines that were seen
    most_writers: int = 0

    def look(self) -> None:
        """Look at all processes once: how many borgs write to the repository, and what command lines say."""
        seen = {pid: " ".join(command(pid)) for pid in numbers()}
        self.said |= set(seen.values())
        writing = {pid for pid, said in seen.items() if f"{self.repository}::" in said and " create " in said}
        # Until it becomes ssh, what borg forks has the command line of borg.
        self.most_writers = max(self.most_writers, len([pid for pid in writing if parent(pid) not in writing]))

    @property
    def repository(self) -> str:
        """Where all hosts back up to."""
        return f"ssh://root@127.0.0.1:{self.ssh.port}{self.root}/repository"

    @property
    def hook(self) -> str:
        """The path of the webhook."""
        return f"/{self.known.hook}"

    @property
    def ping(self) -> str:
        """The path of the watchdog."""
        return f"/{self.known.ping}"


def logged_in(api: str, password: str) -> Dashboard:
    """Someone who knows the password, and has the token against forged requests."""
    name, _, word = password.partition(":")
    client = secrets.token_hex(8)
    answer = httpx.get(f"{api}/csrf-token", params={"client": client}, auth=(name, word), timeout=30).raise_for_status()
    basic = httpx.BasicAuth(name, word)
    request = next(basic.auth_flow(httpx.Request("GET", api)))
    csrf = {"Prefect-Csrf-Token": answer.json()["token"], "Prefect-Csrf-Client": client}
    return Dashboard(api, {"Authorization": request.headers["Authorization"], **csrf})


# ------------------------------------------------------------------------------------------------ what all share


def _prepared(database: Postgres, known: Secrets) -> str:
    """The database for the server, as docs/scheduling.md has it made: its address."""
    hba = database.root / "data/pg_hba.conf"
    hba.write_text(f"local prefect prefect scram-sha-256\n{hba.read_text(encoding='utf-8')}", encoding="utf-8")
    database.psql("postgres", f"SELECT pg_reload_conf(); CREATE ROLE prefect LOGIN PASSWORD '{known.database}'")
    database.psql("postgres", "CREATE DATABASE prefect OWNER prefect")
    where = f"host={database.root}&port={database.port}"
    return f"postgresql+asyncpg://prefect:{known.database}@/prefect?{where}"


def _settings(home: Path, database: Postgres, known: Secrets, *, outside: str) -> Mapping[str, str | None]:
    """What the units and the docs have the server know; whoever it calls outside, it would have to ask `outside`."""
    return {
        **unit_environment("vmborg-server.service"),
        "HTTPS_PROXY": outside,
        "NO_PROXY": "127.0.0.1",
        "CI": None,  # on a CI host Prefect calls nobody anyway
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_API_AUTH_STRING": f"vmborg:{known.api}",
        "PREFECT_API_AUTH_STRING": f"vmborg:{known.api}",
        "PREFECT_API_DATABASE_CONNECTION_URL": _prepared(database, known),
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
    }


@contextmanager
def estate(boot: Boot) -> Iterator[Estate]:
    """Three hosts with a running guest and a worker each; nothing is backed up yet."""
    known = Secrets()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmborg-estate-", dir="/var/tmp")))
        root.chmod(0o755)  # PostgreSQL's own user has to come through
        places = {name: root / name for name in ("server", "proxy", "ssh")}
        for place in places.values():
            place.mkdir(mode=0o700)
        receiver = stack.enter_context(receiving())
        database = stack.enter_context(postgres(root / "database"))
        server = PrefectServer(places["server"], _settings(places["server"], database, known, outside=receiver.url))
        # All of this boots side by side. Its threads go on to the end: a program dies with the thread that started it.
        pool = ThreadPoolExecutor(4)
        stack.callback(pool.shutdown)
        started = pool.submit(server.start)
        stack.callback(server.stop)
        booting = [pool.submit(_boot, stack, name, boot) for name in NAMES]
        booted = [each.result() for each in booting]
        started.result()
        proxy = stack.enter_context(tls_proxy(places["proxy"], server.port))
        ssh = stack.enter_context(sshd(places["ssh"]))
        dashboard = logged_in(server.api, f"vmborg:{known.api}")
        found = Estate(root, known, database, server, proxy, receiver, ssh, dashboard)
        _authorize(found)
        for libvirtd, guest, images in booted:
            found.hosts.append(_install(found, libvirtd, guest, images))
        for host in found.hosts:
            stack.callback(host.worker.stop)
        # Prefect makes its encryption key when the first secret is saved: two first ones at once and one of them fails.
        first = pool.submit(_serve, found.hosts[0])
        found.hosts[0].site.ok("init")
        first.result()
        list(pool.map(_serve, found.hosts[1:]))
        yield found


# ---------------------------------------------------------------------------------------------------- one host


def _boot(stack: ExitStack, name: str, boot: Boot) -> tuple[OwnLibvirtd, Guest, Path]:
    """A hypervisor and its guest, which answers."""
    images = stack.enter_context(image_dir(name))
    libvirtd = stack.enter_context(own_libvirtd(name))
    disk = DiskSpec("vda", make_disk(images / "vda.qcow2", size=64 * MIB, data=16 * MIB, seed=NAMES.index(name)))
    guest = Guest.define(
        libvirtd.uri, domain_xml(f"guest-{name}", boot=boot, disks=[disk], serial_log=images / "console.log")
    )
    guest.start()
    guest.wait_agent(120)
    guest.wait_counter_moves()
    return libvirtd, guest, images


def _authorize(estate: Estate) -> None:
    """The lines of docs/security.md: hosts may append, the maintainer's key may delete."""
    lines: list[str] = []
    for name in (*NAMES, "maintainer"):
        append = "" if name == "maintainer" else " --append-only"
        public = keygen(estate.ssh.root / name).with_suffix(".pub").read_text(encoding="utf-8")
        serve = f"{BORG} serve{append} --restrict-to-repository {estate.root}/repository"
        lines.append(f'command="{serve}",restrict {public}')
    estate.ssh.authorized.write_text("".join(lines), encoding="utf-8")


def _install(estate: Estate, libvirtd: OwnLibvirtd, guest: Guest, images: Path) -> KvmHost:
    """Its configuration, and a worker that is not started yet."""
    name = guest.name.removeprefix("guest-")
    root = estate.root / name
    root.mkdir(mode=0o700)
    receiver, known = estate.receiver, estate.known
    kept = {"passphrase": known.passphrase, "token": known.token}
    kept |= {"hook": f"{receiver.url}{estate.hook}", "ping": f"{receiver.url}{estate.ping}"}
    for what, secret in kept.items():
        (root / what).touch(mode=0o600)
        (root / what).write_text(secret, encoding="utf-8")
    (root / "vmborg.yaml").write_text(json.dumps(_configuration(estate, name, libvirtd.uri)), encoding="utf-8")
    env = {
        "PREFECT_API_AUTH_STRING": f"vmborg:{known.api}",
        "PREFECT_API_SSL_CERT_FILE": str(estate.proxy.certificate),
        "DO_NOT_TRACK": "1",
    }
    site = Site(root, libvirtd.uri, estate.proxy.api, env)
    worker = Worker(
        estate.proxy.api,
        site.config,
        root,
        prefix=[*libvirtd.entering, *confined()],
        env=env,
        dashboard=estate.dashboard,
    )
    return KvmHost(name, libvirtd, site, guest, worker, images, sources(guest))


def _configuration(estate: Estate, name: str, uri: str) -> Mapping[str, Any]:
    root = estate.root / name
    maintains = {"maintainer_key": str(estate.ssh.root / "maintainer")} if name == NAMES[0] else {}
    files = {what: {"file": str(root / what)} for what in ("passphrase", "token", "hook", "ping")}
    trusted = f"-oBatchMode=yes -oUserKnownHostsFile={root}/known_hosts -oStrictHostKeyChecking=accept-new"
    return {
        "state_dir": str(root / "state"),
        "hypervisor": {"name": name, "uri": uri},
        "repositories": {
            "main": {
                "location": estate.repository,
                "passphrase": files["passphrase"],
                "compression": "lz4",
                "rsh": f"ssh -i {estate.ssh.root / name} {trusted}",
                "remote_path": str(BORG),
                "maintainer": NAMES[0],
                "capacity": "100GiB",
                **maintains,
            }
        },
        "vms": {"defaults": {"min_free": "64MiB", "min_free_start": "128MiB", "quiesce": "require"}},
        "alerts": {
            "receivers": {"ops": {"url": files["hook"], "token": files["token"]}},
            "ping": files["ping"],
            "dead_run": "1m",
            "silent": "1m" if name == NAMES[-1] else "3h",
        },
    }


def _serve(host: KvmHost) -> None:
    host.worker.deploy()
    host.worker.unschedule()
    host.worker.ensure()


def archives(host: KvmHost) -> Sequence[Mapping[str, Any]]:
    """What `vmborg list` says on this host."""
    found: list[dict[str, Any]] = host.site.ok("list")["archives"]
    return found
