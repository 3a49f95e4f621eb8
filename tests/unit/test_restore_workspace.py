"""What a restore makes is gone again when it fails, whatever it was."""

import fcntl
import os
from pathlib import Path

import pytest

from infra.errors import ImageError, NoSpace, TargetExists
from infra.qcow2.header import parse_header, read_header
from tasks.restore.workspace import Workspace, former_files, leftovers, require_space


def _tree(root: Path) -> dict[str, str]:
    return {str(path): path.read_text() if path.is_file() else "" for path in root.rglob("*")}


class _Failure(BaseException):
    """Such as KeyboardInterrupt: nothing that `except Exception` would see."""


def _act(root: Path, *, fail: bool) -> None:
    """Make directories, put one file in place of another and one into a new directory."""
    with Workspace("now") as workspace:
        staging = workspace.staging(root / "new" / "deep")
        (staging / "fresh").write_text("fresh")
        beside = workspace.staging(root)
        (beside / "image").write_text("restored")
        workspace.set_aside(root / "image")
        workspace.move(beside / "image", root / "image")
        workspace.move(staging / "fresh", root / "new" / "deep" / "fresh")
        if fail:
            raise _Failure
        workspace.keep()


def test_a_failure_undoes_everything(tmp_path: Path) -> None:
    """Files moved, files set aside and directories made: after a failure the tree is what it was."""
    (tmp_path / "image").write_text("former")
    before = _tree(tmp_path)
    with pytest.raises(_Failure):
        _act(tmp_path, fail=True)
    assert _tree(tmp_path) == before


def test_success_keeps_everything_but_the_staging(tmp_path: Path) -> None:
    """On success the files are in place, the former one is aside, and no staging directory is left."""
    (tmp_path / "image").write_text("former")
    _act(tmp_path, fail=False)
    files = {Path(path).name: text for path, text in _tree(tmp_path).items() if text}
    assert files == {"image": "restored", "image.vmborg-old-now": "former", "fresh": "fresh"}
    assert not list(tmp_path.rglob(".vmborg-restore-*"))


def test_an_undo_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    """When one step cannot be undone the earlier ones still are."""

    def broken() -> None:
        raise OSError("broken")

    def fail() -> None:
        with Workspace("now") as workspace:
            workspace.make_directory(tmp_path / "made")
            workspace.on_failure(broken, "something")
            raise _Failure

    with pytest.raises(_Failure):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_appeared_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    """A file that came to the target after it was looked at stays, also when the restore is undone."""

    def fail() -> None:
        with Workspace("now") as workspace:
            staging = workspace.staging(tmp_path)
            (staging / "image").write_text("restored")
            (tmp_path / "image").write_text("somebody's")
            workspace.move(staging / "image", tmp_path / "image")

    with pytest.raises(TargetExists):
        fail()
    assert _tree(tmp_path) == {str(tmp_path / "image"): "somebody's"}


def test_leftovers_are_those_that_nobody_holds(tmp_path: Path) -> None:
    """A staging directory whose restore was killed is named; one in use is not."""
    (tmp_path / ".vmborg-restore-dead").mkdir()
    (tmp_path / ".vmborg-restore-alive").mkdir()
    descriptor = os.open(tmp_path / ".vmborg-restore-alive", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert leftovers([tmp_path, tmp_path / "absent"]) == (tmp_path / ".vmborg-restore-dead",)
    finally:
        os.close(descriptor)


def test_what_was_put_aside_is_found_with_its_former_name(tmp_path: Path) -> None:
    """A former image that nobody deleted is told with the path that it had, whether that is there or not."""
    (tmp_path / "ok.qcow2.vmborg-old-20260101T000000Z").write_text("the only copy")
    (tmp_path / "other.qcow2").write_text("x")
    assert former_files([tmp_path, tmp_path / "absent"]) == (
        (tmp_path / "ok.qcow2.vmborg-old-20260101T000000Z", tmp_path / "ok.qcow2"),
    )


def test_images_leave_some_space_free(tmp_path: Path) -> None:
    """Where images go, the reserve stays free; small files elsewhere do not ask for it."""
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    require_space([(tmp_path, 1)], reserve=free // 2, for_images=[tmp_path / "new"])
    require_space([(tmp_path, 1)], reserve=2 * free)
    with pytest.raises(NoSpace) as refusal:
        require_space([(tmp_path, free // 2)], reserve=free // 2 + free // 4, for_images=[tmp_path])
    assert "min_free" in refusal.value.evidence


def test_space_is_summed_a_file_system(tmp_path: Path) -> None:
    """Two directories of one file system share its free space, and one that does not exist yet counts too."""
    status = os.statvfs(tmp_path)
    free = status.f_bavail * status.f_frsize
    require_space([(tmp_path, 0), (tmp_path / "new", free // 4)])
    with pytest.raises(NoSpace):
        require_space([(tmp_path, free // 2 + free // 4), (tmp_path / "new", free // 2)])


def test_a_header_that_points_outside_its_image_is_refused(tmp_path: Path) -> None:
    """What is not qcow2, or whose backing file's name lies outside the header, is an error and no crash."""
    header = b"QFI\xfb" + (3).to_bytes(4) + (200).to_bytes(8) + (4).to_bytes(4)
    whole = header.ljust(72, b"\0") + (4).to_bytes(8) + b"\0" * 120 + b"/etc"
    assert (parse_header(whole).backing, parse_header(whole).external_data) == ("/etc", True)
    assert not parse_header(header[:16] + b"\0" * 60).backing
    for broken in (b"", b"QFI\xfb", b"\0" * 200, header.ljust(104, b"\0"), b"QFI\xfb\0\0\0\x09".ljust(200, b"\0")):
        with pytest.raises(ValueError, match=r"qcow2|outside"):
            parse_header(broken)
        path = tmp_path / "image"
        path.write_bytes(broken)
        with pytest.raises(ImageError):
            read_header(path)
