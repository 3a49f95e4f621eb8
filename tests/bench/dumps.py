"""Dumps against `ssh host dump > file`, and what it costs borg to store them: python -m tests.bench dumps.

The server is an sshd on loopback. The dump is a file of 2 GiB, so both ways send what comes from the page cache. Both
write to the same file system, in turn, five times; ours digests too.
"""

import gzip
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.borg.client import Repository
from infra.borg.plain_files import create_files
from infra.ssh.connection import connect
from infra.ssh.endpoint import Endpoint, parse_host_key
from tests.bench.figures import Figure, absolute, conclude
from tests.bench.figures import speed as ratio_of
from tests.bench.world import BIN, MIB, timed
from tests.integration.dumps.servers import Sshd, sshd

SIZE = 2048 * MIB
ROUNDS = 5
LONG = 3 * 1024 * MIB
LONG_ROUNDS = 10
CIPHER = "aes128-gcm@openssh.com"
MARKS = ("<!-- dumps begin -->", "<!-- dumps end -->")


def main(target: Path | None) -> int:
    """Measure, print, write the table; exit code 1 when a bound is missed."""
    with tempfile.TemporaryDirectory(prefix="vmborg-bench-dumps-", dir="/var/tmp") as name:
        root = Path(name)
        with sshd(root / "sshd") as server:
            figures = [*speed(root, server), *memory(root, server), long_streams(server)]
        figures.append(storing(root))
    return conclude(figures, target, MARKS, theirs="others")


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
    """Our stream, written and digested, against ssh: with its defaults, and with the cipher that we choose."""
    _content(root / "dump")
    ours: list[float] = []
    theirs: list[float] = []
    chosen: list[float] = []
    for number in range(ROUNDS):
        _say(f"stream {number + 1} of {ROUNDS}")
        theirs.append(_by_ssh(root, server))
        ours.append(_by_us(root, server)[0])
        chosen.append(_by_ssh(root, server, f"-oCiphers={CIPHER}"))
    print(f"MiB/s: ours: {_rates(ours)}; ssh: {_rates(theirs)}; ssh with {CIPHER}: {_rates(chosen)}")
    return [
        ratio_of(
            "stream of 2 GiB, speed against `ssh HOST dump > file`", list(zip(ours, theirs, strict=True)), bound=0.6
        ),
        # What a second transport could win; nothing is promised of it.
        ratio_of(f"the same against ssh with {CIPHER}", list(zip(ours, chosen, strict=True)), bound=0.0),
    ]


def _rates(seconds: list[float]) -> str:
    return " ".join(f"{SIZE / MIB / each:.0f}" for each in seconds)


def _by_ssh(root: Path, server: Sshd, *options: str) -> float:
    known = root / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {Path(f'{server.host_key}.pub').read_text(encoding='utf-8')}")
    options = ("-oBatchMode=yes", f"-oUserKnownHostsFile={known}", "-F", "none", "-i", str(server.client_key), *options)
    argv = ["ssh", *options, "-p", str(server.port), "root@127.0.0.1", f"cat {root / 'dump'}"]
    target = root / "theirs"
    os.sync()
    begun = time.monotonic()
    with target.open("wb") as file:
        subprocess.run(argv, check=True, stdout=file)
    seconds = time.monotonic() - begun
    target.unlink()
    return seconds


def _by_us(root: Path, server: Sshd) -> tuple[float, float]:
    """Seconds of the stream, and the peak memory in MB of a process that does nothing else."""
    os.sync()
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
        absolute("peak memory of vmborg dumps pull, Prefect in it", whole.peak_mb, bound=150, unit="MB"),
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


TABLES, ROWS = 10, 150_000


def storing(root: Path) -> Figure:
    """What the second dump adds to a repository: as it is, and compressed before.

    The dump has ten tables, a hundred megabytes in all. Between the two, one row in a hundred changed, all of them in
    the newest tenth of each table, and each table grew by half a percent.
    """
    _say("what borg stores")
    stored: dict[str, int] = {}
    for way in ("plain", "gzip"):
        folder = root / way
        folder.mkdir()
        repository = Repository(
            name="main",
            location=str(root / f"repository-{way}"),
            passphrase=None,
            encryption="none",
            compression="lz4",
            base_dir=root / "borg",
            lock_wait=5,
        )
        repository.init()
        for turn in range(2):
            text = _rows(changed=bool(turn))
            (folder / "dump").write_bytes(text if way == "plain" else gzip.compress(text, 6, mtime=0))
            done = create_files(repository, str(turn), str(folder), comment="", files_cache_suffix=way)
            stored[f"{way} {turn}"] = done.deduplicated_size
    print("stored, MB: " + ", ".join(f"{name}: {size / 1e6:.1f}" for name, size in stored.items()))
    share = stored["plain 1"] / stored["gzip 1"]
    return absolute("second dump in borg: new data, uncompressed against gzip", share, bound=1, unit="x")


def _rows(*, changed: bool) -> bytes:
    chance = random.Random(1)
    lines: list[str] = []
    for base in range(0, TABLES * 10 * ROWS, 10 * ROWS):
        hot = {chance.randrange(ROWS * 9 // 10, ROWS) for _ in range(ROWS // 100)} if changed else set[int]()
        count = ROWS + ROWS // 200 * changed
        lines += [_row(base + number, number in hot) for number in range(count)]
    return "".join(lines).encode()


def _row(number: int, version: int) -> str:
    noise = hashlib.md5(f"{number}/{version}".encode(), usedforsecurity=False).hexdigest()
    return (
        f"{number}\t{noise[:8]}\t2026-01-31 12:22:33\tcustomer {noise[8:12]} of some town\t{int(noise[:4], 16) / 100}\n"
    )
