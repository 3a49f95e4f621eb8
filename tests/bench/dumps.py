"""Dumps against `ssh host dump > file`, and what it costs borg to store them: python -m tests.bench dumps.

The server is an sshd on loopback. The dump is a file of 2 GiB, so both ways send what comes from the page cache. Both
write to the same file system, in turn, five times; ours digests too.
"""

import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.ssh.connection import connect
from infra.ssh.endpoint import Endpoint, parse_host_key
from tests.bench.figures import Figure, absolute
from tests.bench.world import BIN, MIB, timed
from tests.integration.dumps.servers import Sshd, sshd

SIZE = 2048 * MIB
ROUNDS = 5
LONG = 3 * 1024 * MIB
LONG_ROUNDS = 10


def main() -> int:
    """Measure and print; exit code 1 when a bound is missed."""
    with tempfile.TemporaryDirectory(prefix="vmborg-bench-dumps-", dir="/var/tmp") as name:
        root = Path(name)
        with sshd(root / "sshd") as server:
            figures = [*speed(root, server), *memory(root, server), long_streams(server)]
        figures.append(storing(root))
    for figure in figures:
        sign = "at least" if figure.at_least else "at most"
        verdict = "kept" if figure.kept else "MISSED"
        print(f"{figure.name}: {figure.value:.2f} {figure.unit} ({sign} {figure.bound:g}): {verdict}")
    return 0 if all(figure.kept for figure in figures) else 1


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _content(path: Path) -> None:
    block = os.urandom(MIB // 2) + bytes(MIB // 2)
    with path.open("wb") as file:
        for number in range(SIZE // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])


def endpoint(server: Sshd) -> Endpoint:
    """The server, its key pinned."""
    pinned = parse_host_key(Path(f"{server.host_key}.pub").read_text(encoding="utf-8"))
    return Endpoint("bench", "127.0.0.1", server.port, "root", server.client_key, pinned=pinned)


def speed(root: Path, server: Sshd) -> list[Figure]:
    """Our stream, written and digested, against ssh with its defaults, written."""
    _content(root / "dump")
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(ROUNDS):
        _say(f"stream {number + 1} of {ROUNDS}")
        theirs.append(_by_ssh(root, server))
        ours.append(_by_us(root, server)[0])
    ratio = statistics.median(their / our for their, our in zip(theirs, ours, strict=True))
    print(f"ours: {_rates(ours)} MiB/s; ssh: {_rates(theirs)} MiB/s")
    return [Figure("throughput against ssh host dump > file", 0, None, ratio, 0.6, "x", at_least=True)]


def _rates(seconds: list[float]) -> str:
    return " ".join(f"{SIZE / MIB / each:.0f}" for each in seconds)


def _by_ssh(root: Path, server: Sshd) -> float:
    known = root / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {Path(f'{server.host_key}.pub').read_text(encoding='utf-8')}")
    options = ["-oBatchMode=yes", f"-oUserKnownHostsFile={known}", "-F", "none", "-i", str(server.client_key)]
    argv = ["ssh", *options, "-p", str(server.port), "root@127.0.0.1", f"cat {root / 'dump'}"]
    target = root / "theirs"
    begun = time.monotonic()
    with target.open("wb") as file:
        subprocess.run(argv, check=True, stdout=file)
    seconds = time.monotonic() - begun
    target.unlink()
    return seconds


def _by_us(root: Path, server: Sshd) -> tuple[float, float]:
    """Seconds of the stream, and the peak memory in MB of a process that does nothing else."""
    settings = {"port": server.port, "root": str(root), "key": str(server.client_key), "host": f"{server.host_key}.pub"}
    done = timed([sys.executable, "-m", "tests.bench.dump_stream", json.dumps(settings)], cwd=Path.cwd())
    return float(done.stdout), done.peak_mb


def memory(root: Path, server: Sshd) -> list[Figure]:
    """The peak of a process that streams, and of the whole command with Prefect in it."""
    _say("memory")
    peak = _by_us(root, server)[1]
    config = root / "vmborg.yaml"
    host = {"address": "127.0.0.1", "port": server.port, "user": "root", "key": str(server.client_key)}
    host["host_key"] = Path(f"{server.host_key}.pub").read_text(encoding="utf-8").strip()
    host["sources"] = [{"kind": "command", "command": f"cat {root / 'dump'}"}]
    repository = {"location": str(root / "repository"), "encryption": "none"}
    settings = {
        "state_dir": str(root / "state"),
        "repositories": {"main": repository},
        "dumps": {"hosts": {"db": host}},
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    call = [str(BIN / "vmborg"), "--config", str(config), "--json"]
    timed([*call, "init"])
    whole = timed([*call, "dumps", "pull"])
    source = json.loads(whole.stdout)["pulls"][0]["result"]["sources"][0]
    print(f"vmborg dumps pull of 2 GiB: {whole.seconds:.1f} s in all, {source['seconds']:.1f} s of them the dump")
    shutil.rmtree(root / "state")
    shutil.rmtree(root / "repository")
    return [
        absolute("peak memory of a process that streams 2 GiB", peak, bound=150, unit="MB"),
        absolute("peak memory of vmborg dumps pull, Prefect in it", whole.peak_mb, bound=250, unit="MB"),
    ]


def long_streams(server: Sshd) -> Figure:
    """3 GiB, ten times: how many of them failed."""
    failed = 0
    for number in range(LONG_ROUNDS):
        _say(f"3 GiB, {number + 1} of {LONG_ROUNDS}")
        count = 0

        def sink(block: bytes) -> None:
            nonlocal count
            count += len(block)

        with connect(endpoint(server)) as link:
            ended = link.receive(f"head -c {LONG} /dev/zero", sink, stall_s=60, deadline_s=600)
        failed += (ended.exit_code, count) != (0, LONG)
    return absolute(f"failures in {LONG_ROUNDS} streams of 3 GiB", failed, bound=0, unit="")


def storing(root: Path) -> Figure:
    """What the second dump adds to a repository when 1 % of the rows changed: as it is, and compressed before."""
    _say("what borg stores")
    rows = [
        f"{number}\t{hash(('row', number)) & 0xFFFFFFFF:08x}\tsome text that all rows have\n"
        for number in range(2_000_000)
    ]
    stored: dict[str, int] = {}
    for way in ("plain", "gzip"):
        folder = root / way
        folder.mkdir()
        environment = {"BORG_BASE_DIR": str(root / "borg"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        repository = str(root / f"repository-{way}")
        timed([str(BIN / "borg"), "init", "-e", "none", repository], env=environment)
        for turn in range(2):
            changed = list(rows)
            for place in range(0, len(rows), 100 * 50):
                changed[place : place + 50 * turn] = [f"{place}\tnew\n"] * (50 * turn)
            text = "".join(changed).encode()
            (folder / "dump").write_bytes(text if way == "plain" else gzip.compress(text, 6, mtime=0))
            argv = [str(BIN / "borg"), "create", "--json", "-C", "lz4", f"{repository}::{turn}", str(folder)]
            stats = json.loads(timed(argv, env=environment).stdout)["archive"]["stats"]
            stored[f"{way} {turn}"] = stats["deduplicated_size"]
    print("stored, MB: " + ", ".join(f"{name}: {size / 1e6:.1f}" for name, size in stored.items()))
    return absolute(
        "second dump, stored uncompressed / compressed", stored["plain 1"] / stored["gzip 1"], bound=1, unit="x"
    )
