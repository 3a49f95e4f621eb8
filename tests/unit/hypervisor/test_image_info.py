"""Reading what qemu-img prints."""

import json

import pytest

from infra.errors import ImageError
from infra.hypervisor.image_info import CheckResult, is_local_path, parse_check, parse_info


def test_an_overlay_is_read() -> None:
    """The full name and recorded format of a backing file are taken from qemu's own resolution."""
    found = parse_info(
        json.dumps(
            {
                "virtual-size": 4194304,
                "filename": "sub/l.qcow2",
                "format": "qcow2",
                "backing-filename": "base.qcow2",
                "full-backing-filename": "/images/base.qcow2",
                "backing-filename-format": "raw",
                "snapshots": [{"name": "before"}, {"name": "after"}],
                "encrypted": True,
                "format-specific": {"type": "qcow2", "data": {"corrupt": True, "data-file": "d.raw"}},
            }
        )
    )
    assert (found.virtual_size, found.backing, found.backing_format) == (4194304, "/images/base.qcow2", "raw")
    assert (found.data_file, found.encrypted, found.corrupt) == ("d.raw", True, True)
    assert found.snapshots == ("before", "after")


def test_a_plain_image_has_nothing_beside_itself() -> None:
    """Absent keys read as nothing."""
    found = parse_info('{"virtual-size": 512, "format": "raw", "dirty-flag": false}')
    assert (found.backing, found.backing_format, found.data_file, found.encrypted, found.corrupt, found.snapshots) == (
        "",
        "",
        "",
        False,
        False,
        (),
    )


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "null", "{"])
def test_garbage_is_a_typed_error(text: str) -> None:
    """Whatever is no JSON object raises ImageError."""
    with pytest.raises(ImageError):
        parse_info(text)
    with pytest.raises(ImageError):
        parse_check(text)


def test_leaks_are_no_damage_and_corruptions_are() -> None:
    """An image with leaked clusters is clean; one with corruptions or unchecked places is not."""
    assert parse_check('{"check-errors": 0, "leaks": 7}') == CheckResult(corruptions=0, leaks=7, errors=0)
    assert parse_check('{"check-errors": 0, "leaks": 7}').clean
    assert not parse_check('{"check-errors": 0, "corruptions": 1}').clean
    assert not parse_check('{"check-errors": 1}').clean


@pytest.mark.parametrize(
    ("name", "local"),
    [("/a/b", True), ("/a:b", True), ("nbd://h/x", False), ('json:{"driver":"file"}', False), ("rbd:a/b", False)],
)
def test_only_absolute_paths_are_local(name: str, local: bool) -> None:  # noqa: FBT001
    """A full backing file name is a path of this host only when it begins with a slash."""
    assert is_local_path(name) is local
