"""Tar streams that nobody vouches for: whatever they say, nothing is written outside of the folder they go to."""

import io
import stat
import tarfile
from pathlib import Path

import pytest

from infra.errors import StorageError, UnsafeArchive, VmborgError
from infra.guestfs.untar import Unpacked, Unpacker

KINDS = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "pipe": tarfile.FIFOTYPE}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """The folder that is unpacked to; `secret` lies beside it."""
    (tmp_path / "secret").write_text("host's")
    folder = tmp_path / "to"
    folder.mkdir()
    return folder


def stream(*members: tuple[str, str, str]) -> io.BytesIO:
    """A stream of (kind, name, content or link's target)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for kind, name, rest in members:
            member = tarfile.TarInfo(name)
            member.type = KINDS.get(kind, tarfile.REGTYPE)
            member.mode = 0o4755 if kind == "setuid" else 0o755
            if member.isreg():
                member.size = len(rest)
            else:
                member.linkname = rest
            archive.addfile(member, io.BytesIO(rest.encode()))
    made.seek(0)
    return made


def unpack(target: Path, *members: tuple[str, str, str], owners: bool = False) -> Unpacked:
    """Unpack them below target/in."""
    unpacker = Unpacker(target, owners=owners)
    try:
        unpacker.stream(stream(*members), below="in")
    finally:
        unpacker.close()
    return unpacker.done


@pytest.mark.parametrize(
    "members",
    [
        [("file", "../../secret", "guest's")],
        [("file", "a/../../../secret", "guest's")],
        [("link", "out", "../.."), ("file", "out/secret", "guest's")],
        [("link", "out", "/etc"), ("dir", "out/new", "")],
        [("link", "a", ".."), ("link", "b", "a/.."), ("file", "b/secret", "guest's")],
        [("hard", "mine", "../../secret")],
        [("link", "out", "../.."), ("hard", "mine", "out/secret")],
        [("file", "a", "x"), ("dir", "a", "")],
        [("file", "a", "x"), ("file", "a/b", "y")],
    ],
)
def test_what_leads_out_is_refused(target: Path, members: list[tuple[str, str, str]]) -> None:
    """By its parts, through a link, or by a hard link: refused, and the host's file is as it was."""
    with pytest.raises(UnsafeArchive):
        unpack(target, *members)
    assert sorted(path.name for path in target.parent.iterdir()) == ["secret", "to"]
    assert (target.parent / "secret").read_text() == "host's"
    assert (target.parent / "secret").stat().st_nlink == 1


@pytest.mark.parametrize(
    "members",
    [
        [("link", "secret", "../../secret"), ("file", "secret", "guest's")],
        [("file", "twice", "a"), ("file", "twice", "b")],
        [("hard", "a", "missing")],
    ],
)
def test_what_cannot_be_is_an_error(target: Path, members: list[tuple[str, str, str]]) -> None:
    """A name that is there already is never opened again, whatever it is."""
    with pytest.raises(VmborgError):
        unpack(target, *members)
    assert (target.parent / "secret").read_text() == "host's"


def test_full_paths_stay_below(target: Path) -> None:
    """A path from the root on is one from the folder on; what was told first may be linked to."""
    done = unpack(
        target, ("file", "/etc/passwd", "root"), ("hard", "/same", "/etc/passwd"), ("link", "l", "/etc/shadow")
    )
    assert (target / "in/etc/passwd").read_text() == "root"
    assert (target / "in/same").samefile(target / "in/etc/passwd")
    assert (target / "in/l").readlink() == Path("/etc/shadow")
    assert (done.files, done.left_out) == (3, [])


def test_devices_and_set_user_id_stay_out(target: Path) -> None:
    """A pipe is left out and named; a program that is set-user-ID would be so for another user here."""
    done = unpack(target, ("pipe", "dev/log", ""), ("setuid", "su", "#!"))
    assert done.left_out == ["in/dev/log"]
    assert stat.S_IMODE((target / "in/su").stat().st_mode) == 0o755


def test_a_link_to_a_link_is_not_followed(target: Path) -> None:
    """A hard link to a symbolic one is one more name of that, and the folder's mode is not given to what it shows."""
    before = stat.S_IMODE(target.parent.stat().st_mode)
    unpack(target, ("link", "up", "../.."), ("hard", "again", "up"), ("dir", "d", ""))
    assert (target / "in/again").is_symlink()
    assert stat.S_IMODE(target.parent.stat().st_mode) == before


def test_a_stream_that_breaks_off(target: Path) -> None:
    """What is no tar, or half of one, is an error and no empty success."""
    whole = stream(("file", "a", "x" * 100_000)).getvalue()
    for part in (whole[:50_000], b"no tar" * 200):
        unpacker = Unpacker(target, owners=False)
        with pytest.raises(StorageError):
            unpacker.stream(io.BytesIO(part), below="in")
        unpacker.close()


def test_zeros_are_holes(target: Path) -> None:
    """A file of zeros with a byte at its end takes a few blocks."""
    size = 8 * 1024**2
    unpack(target, ("file", "sparse", "\0" * (size - 1) + "x"))
    found = (target / "in/sparse").stat()
    assert found.st_size == size
    assert found.st_blocks * 512 < size // 8
