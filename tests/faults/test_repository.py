"""Faults of the repository: what a backup finds there, and what happens to it under a running copy."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.borg.command import binary, environment, run_borg
from infra.config.load import load
from infra.process import spawn
from tasks.repositories import open_repository
from tests.e2e.checks import sources
from tests.e2e.held import children, hold_borg, let_go
from tests.e2e.site import PASSPHRASE, Site
from tests.faults.rig import MIB, Rig, kill, make_rig
from tests.faults.settings import settings
from tests.faults.volumes import Volume, volume
from tests.guests import Boot, Daemons, wait_for

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Volume]:
    """The file system of the repository."""
    site = tmp_path_factory.mktemp("repository") / "site"
    site.mkdir()
    with volume(site / "repository", 2048 * MIB) as mounted:  # borg wants half a GiB free
        yield mounted


@pytest.fixture(scope="module")
def whole_rig(  # noqa: PLR0917 - fixtures
    daemons: Daemons, boot: Boot, images: Path, prefect_server: str, storage: Volume
) -> Iterator[Rig]:
    """Its repository is a file system of its own."""
    root = storage.folder.parents[1]
    site = Site(root / "site", daemons.uri, prefect_server)
    site.configure()
    site.repository.init()
    with make_rig("test-repository", daemons.uri, boot=boot, images=images, api=prefect_server, root=root) as rig:
        yield rig


def fails(rig: Rig) -> dict[str, str]:
    """A backup that ends before the guest is touched: its definitions are as before. Returns the error."""
    before = definitions(rig)
    error: dict[str, str] = rig.backup(code=1)["error"]
    assert definitions(rig) == before
    rig.check()
    return error


def definitions(rig: Rig) -> tuple[dict[str, str], dict[str, str]]:
    """The images that the VM has, live and inactive."""
    return sources(rig.guest), sources(rig.guest, inactive=True)


def check_error(rig: Rig, error: dict[str, str], kind: str, *words: str) -> None:
    """Of this class, with these words somewhere and a remedy; no archive was made and the run is not green."""
    assert error["type"] == kind, error
    assert error["remedy"], error
    for word in words:
        assert word in "\n".join(error.values()), error
    assert rig.archives() == rig.earlier
    assert rig.dashboard.last_run(rig.guest.name)["state_type"] == "FAILED"


@pytest.mark.fault(
    "the repository's file system fills up while borg writes to it",
    seen="run Failed with RepositoryFull",
    does="ends the copy, puts the VM back; earlier archives are whole",
    must="make room: a new archive needs some",
)
def test_full(rig: Rig, storage: Volume) -> None:
    """The copy fails, the VM is back; with space the next backup goes through."""
    with rig.running() as run:
        borg = rig.hold()
        storage.fill()
        let_go(borg)
        call = run.wait()
    rig.check()
    storage.free()
    rig.check_failed(call, "RepositoryFull")


@pytest.mark.fault(
    "borg killed in mid-copy into a replica",
    seen="run Partial: it names the repository that has no archive, and why",
    does="keeps the archive in the VM's own repository, puts the VM back; nothing is left in the replica",
)
def test_replica_fails_in_mid_copy(rig: Rig, tmp_path: Path) -> None:
    """The first archive stands and is whole, the replica holds nothing, and its error is the run's."""
    with settings(rig.site, replica=tmp_path / "second"):
        rig.site.ok("init")
        with rig.running() as run:
            kill(hold_borg(tmp_path / "second", Path(rig.bases["vdb"])), signal.SIGKILL)
            call = run.wait()
        second = open_repository(load(rig.site.config), "second").archives()
    assert call.code == 3, call.stderr
    result = call.document["backups"][0]["result"]
    lacking = [each["repository"] for each in result["repositories"] if each["error"]]
    assert (result["repository"], lacking, second) == ("main", ["second"], [])
    assert rig.dashboard.last_run(rig.guest.name)["state_name"] == "Partial"
    assert rig.archives() == [*rig.earlier, result["archive"]]
    rig.check_extracts(result["archive"])
    rig.check()


@pytest.mark.fault(
    "the repository's file system is read-only",
    seen="run Failed with RepositoryInvalid",
    does="nothing: it fails before the guest is touched",
    must="make it writable: vmborg does not mend file systems",
)
def test_read_only(rig: Rig, storage: Volume) -> None:
    """The preflight finds it out."""
    storage.remount("ro")
    try:
        error = fails(rig)
    finally:
        storage.remount("rw")
    check_error(rig, error, "RepositoryInvalid", "Read-only file system", "writable")


@pytest.mark.fault(
    "the repository is missing: its file system is not mounted",
    seen="run Failed with RepositoryNotFound",
    does="nothing: it fails before the guest is touched, and creates no repository in the empty folder",
    must="mount it",
)
def test_missing(rig: Rig, storage: Volume) -> None:
    """The preflight finds it out, and the mount point stays empty."""
    storage.unmount()
    try:
        error = fails(rig)
        assert not list(storage.folder.iterdir())
    finally:
        storage.mount()
    check_error(rig, error, "RepositoryNotFound", "mounted")


@contextmanager
def locked(site: Site, *, host_id: str = "") -> Iterator[int]:
    """Another borg holds the repository during the block; with `host_id` it says that it is of another host.

    Yields its process id.
    """
    target = site.repository.target
    env = environment(target) | ({"BORG_HOST_ID": host_id} if host_id else {})
    argv = [binary(), "with-lock", target.location, "sleep", "600"]
    lock = site.repository_path / "lock.exclusive"
    with spawn(argv, env=env, secrets={"BORG_PASSPHRASE_FD": PASSPHRASE}, own_session=True) as holder:
        wait_for(lambda: children(holder.pid) and list(lock.glob("*.*")), timeout=60, what="the lock")
        try:
            yield holder.pid
        finally:
            os.killpg(holder.pid, signal.SIGCONT)
            os.killpg(holder.pid, signal.SIGTERM)
            holder.wait(30)


@pytest.mark.fault(
    "the repository is locked by another borg on this host",
    seen="run Failed with RepositoryLocked, after three tries; the evidence names the process",
    does="waits for `lock_wait`; never breaks a lock; fails before the guest is touched",
)
def test_locked_by_another_borg(rig: Rig) -> None:
    """It fails as long as that borg goes on, and needs nobody afterwards."""
    with settings(rig.site, repository={"lock_wait": 1}), locked(rig.site) as holder:
        error = fails(rig)
    check_error(rig, error, "RepositoryLocked", f"held by process {holder} on ")


@pytest.mark.fault(
    "the repository is locked by a borg of another host that died",
    seen="run Failed with RepositoryLocked; the evidence names host and process",
    does="never breaks a lock; fails before the guest is touched",
    must="`borg break-lock`: only a person can know that no borg of that host runs",
)
def test_locked_by_a_dead_borg_of_another_host(rig: Rig) -> None:
    """The lock stays until somebody breaks it."""
    with locked(rig.site, host_id="elsewhere@20015998341888") as holder:
        kill(holder, signal.SIGKILL)
        with settings(rig.site, repository={"lock_wait": 1}):
            error = fails(rig)
    assert list((rig.site.repository_path / "lock.exclusive").iterdir())
    target = rig.site.repository.target
    run_borg(target, ["break-lock", target.location])
    check_error(rig, error, "RepositoryLocked", f"held by process {holder} on elsewhere", "borg break-lock")


@pytest.mark.fault(
    "the passphrase is wrong",
    seen="run Failed with PassphraseWrong",
    does="nothing: it fails before the guest is touched",
    must="correct the secret",
)
def test_wrong_passphrase(rig: Rig) -> None:
    """The preflight finds it out; neither passphrase is shown."""
    secret = rig.site.root / "passphrase"
    right = secret.read_text(encoding="utf-8")
    secret.write_text("a wrong secret\n", encoding="utf-8")
    try:
        error = fails(rig)
    finally:
        secret.write_text(right, encoding="utf-8")
    check_error(rig, error, "PassphraseWrong")
    assert "a wrong secret" not in str(error)


@pytest.mark.fault(
    "a damaged segment that holds the repository's list of archives",
    seen="run Failed with RepositoryDamaged",
    does="nothing: it fails before the guest is touched",
    must="`borg check --repair`, and look at the storage: what is lost there, only a person can judge",
)
def test_damaged_segment(rig: Rig) -> None:
    """The preflight finds it out; after borg's repair everything is there."""
    damage(manifest_segment(rig.site))
    error = fails(rig)
    target = rig.site.repository.target
    run_borg(target, ["check", "--repair", target.location], env={"BORG_CHECK_I_KNOW_WHAT_I_AM_DOING": "YES"})
    check_error(rig, error, "RepositoryDamaged", "borg check")


def manifest_segment(site: Site) -> Path:
    """The newest file with more in it than the mark of a finished transaction: borg writes its manifest last."""
    segments = (path for path in (site.repository_path / "data").glob("*/*") if path.stat().st_size > 20)
    return max(segments, key=lambda path: int(path.name))


def damage(segment: Path) -> None:
    """Flip a bit in its middle."""
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)


@contextmanager
def by_ssh(rig: Rig, down: Path) -> Iterator[str]:
    """The repository as another host's: by a stand-in for ssh that starts `borg serve` here. Yields the location.

    As long as there is a file `down`, no new connection comes about.
    """
    rsh = down.with_name("rsh")
    rsh.write_text(f'#!/bin/sh\nwhile [ -e {down} ]; do sleep 0.2; done\nshift\nexec "$@"\n', encoding="ascii")
    rsh.chmod(0o755)
    location = f"ssh://there{rig.site.repository_path}"
    try:
        with settings(rig.site, repository={"location": location, "rsh": str(rsh), "remote_path": binary()}):
            accept(rig.site)
            yield location
    finally:
        accept(rig.site)


def accept(site: Site) -> None:
    """Answer borg's question whether the repository was moved."""
    target = site.repository.target
    run_borg(target, ["info", target.location], env={"BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"})


@pytest.mark.fault(
    "the repository hangs in mid-copy: its server stands still and takes no new connection",
    seen="run Failed with WindowExceeded",
    does="ends the copy at `create_deadline` and puts the VM back without the repository",
)
def test_hangs(rig: Rig, tmp_path: Path) -> None:
    """The VM is back while the repository still hangs: between create and pivot nobody waits for it."""
    down = tmp_path / "down"
    with (
        by_ssh(rig, down) as location,
        settings(rig.site, policy={"create_deadline": "5s"}),
        rig.running() as run,
    ):
        borg = hold_borg(location, Path(rig.bases["vdb"]))
        server = children(borg)[0]
        down.touch()
        os.kill(server, signal.SIGSTOP)
        let_go(borg)
        try:
            wait_for(lambda: definitions(rig) == (rig.bases, rig.bases), timeout=60, what="the VM on its bases")
        finally:
            down.unlink()
            kill(server, signal.SIGCONT)
        call = run.wait()
    rig.check_failed(call, "WindowExceeded")
    rig.check()
