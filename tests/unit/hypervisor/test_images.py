"""qemu-img and files, for real; no daemon."""

import os
from pathlib import Path

import pytest

from infra.errors import DiskMissing, ImageError
from infra.hypervisor import images
from infra.hypervisor.image_info import obstacle
from infra.model import Image, ImageKind
from infra.process import run

MIB = 1 << 20


def qcow2(path: Path, *options: str, size: str = "4M") -> str:
    """A new qcow2 image."""
    run(["qemu-img", "create", "-q", "-f", "qcow2", *options, str(path), size], timeout=30)
    return str(path)


def overlay(path: Path, backing: str, *, backing_format: str = "qcow2") -> str:
    """A new overlay that names its backing file as given, unchecked."""
    options = ["-F", backing_format] if backing_format else []
    run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", *options, "-b", backing, str(path), "4M"], timeout=30)
    return str(path)


def write(path: str, pattern: int, *, offset: int = 0, length: int = MIB, image_format: str = "qcow2") -> None:
    """Write one byte all over a part of an image."""
    run(["qemu-io", "-f", image_format, "-c", f"write -P {pattern} {offset} {length}", path], timeout=30)


def holds(path: str, pattern: int, *, offset: int = 0, length: int = MIB, image_format: str = "qcow2") -> bool:
    """Whether a part of an image reads as that byte."""
    argv = ["qemu-io", "-r", "-U", "-f", image_format, "-c", f"read -P {pattern} {offset} {length}", path]
    done = run(argv, timeout=30, check=False)
    return done.returncode == 0 and "verification failed" not in done.stdout


def test_an_image_is_measured(tmp_path: Path) -> None:
    """Virtual size, file length, kind and format of a qcow2 image are right."""
    path = qcow2(tmp_path / "a.qcow2", size="3M")
    found = images.info(path, "qcow2").image
    size = Path(path).stat().st_size
    assert found == Image(path=path, format="qcow2", kind=ImageKind.FILE, virtual_size=3 * MIB, size=size)


def test_raw_content_is_never_probed(tmp_path: Path) -> None:
    """A raw disk into which a guest wrote a qcow2 header with a backing file stays a raw disk without one."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * MIB)
    trap = overlay(tmp_path / "trap.raw", str(secret), backing_format="raw")
    found = images.walk(trap, "raw")
    assert [each.image.path for each in found] == [trap]
    assert found[0].image.virtual_size == -(-Path(trap).stat().st_size // 512) * 512
    below = overlay(tmp_path / "top.qcow2", trap, backing_format="raw")
    assert [each.path for each in images.chain(below, "qcow2")] == [below, trap]


def test_a_whole_chain_is_followed(tmp_path: Path) -> None:
    """Absolute and relative backing files are followed to the end, each in its recorded format."""
    base = tmp_path / "base.raw"
    base.write_bytes(b"b" * 4 * MIB)
    middle = overlay(tmp_path / "middle.qcow2", "base.raw", backing_format="raw")
    top = overlay(tmp_path / "top.qcow2", middle)
    found = images.chain(top, "qcow2")
    assert [(each.path, each.format) for each in found] == [(top, "qcow2"), (middle, "qcow2"), (str(base), "raw")]


def test_a_relative_backing_file_is_relative_to_its_image(tmp_path: Path) -> None:
    """Not to the working directory, and through a link relative to where the link is, as qemu does it."""
    (tmp_path / "real").mkdir()
    base = qcow2(tmp_path / "base.qcow2")
    overlay(tmp_path / "real" / "top.qcow2", "base.qcow2")
    link = tmp_path / "link.qcow2"
    link.symlink_to("real/top.qcow2")
    assert [each.path for each in images.chain(str(link), "qcow2")] == [str(link), base]


def test_a_link_names_the_file_that_holds_the_bytes(tmp_path: Path) -> None:
    """borg stores a symbolic link as a link, so an image behind one tells where its content is."""
    path = qcow2(tmp_path / "real.qcow2")
    link = tmp_path / "link.qcow2"
    link.symlink_to("real.qcow2")
    assert images.info(str(link), "qcow2").image.content_path == path
    assert images.info(path, "qcow2").image.content_path == path
    assert images.info(str(link), "qcow2").image.path == str(link)


@pytest.mark.parametrize("written", ["a//real.qcow2", "a/./real.qcow2", "a/../a/real.qcow2"])
def test_a_path_is_stored_in_its_plainest_form(written: str, tmp_path: Path) -> None:
    """borg stores no `//`, `/./` or `..`, so an image whose path has one tells the path that borg will use."""
    (tmp_path / "a").mkdir()
    path = qcow2(tmp_path / "a" / "real.qcow2")
    image = images.info(f"{tmp_path}/{written}", "qcow2").image
    assert (image.path, image.content_path) == (f"{tmp_path}/{written}", path)


def test_a_missing_backing_file_is_named(tmp_path: Path) -> None:
    """The error names the file that is gone and the image that needs it."""
    top = overlay(tmp_path / "top.qcow2", str(tmp_path / "gone.qcow2"))
    with pytest.raises(DiskMissing) as caught:
        images.chain(top, "qcow2")
    assert "gone.qcow2" in caught.value.brief
    assert "top.qcow2" in caught.value.brief


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    """The error names the path, whatever its format."""
    for image_format in ("raw", "qcow2"):
        with pytest.raises(DiskMissing, match="nothing-here"):
            images.info(str(tmp_path / "nothing-here"), image_format)


def test_a_loop_is_found(tmp_path: Path) -> None:
    """Backing files that lead back to themselves end in an error, also through another name of the file."""
    first, second = tmp_path / "first.qcow2", tmp_path / "second.qcow2"
    overlay(first, str(tmp_path / "alias.qcow2"))
    (tmp_path / "alias.qcow2").hardlink_to(overlay(second, str(first)))
    with pytest.raises(ImageError, match="loop"):
        images.walk(str(first), "qcow2")


@pytest.mark.parametrize(
    "backing",
    [
        'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/hostname"}}',
        "nbd://localhost:1/export",
        "http://example.com/base.raw",
    ],
)
def test_a_backing_file_elsewhere_is_refused_without_a_look(tmp_path: Path, backing: str) -> None:
    """Pseudo paths and addresses are not followed; the chain is refused and names them."""
    top = overlay(tmp_path / "top.qcow2", backing, backing_format="raw")
    with pytest.raises(ImageError) as caught:
        images.chain(top, "qcow2")
    assert backing in caught.value.evidence


def test_an_unrecorded_format_is_not_guessed(tmp_path: Path) -> None:
    """A backing file of unrecorded format is refused, unless a live definition settled the format."""
    base = qcow2(tmp_path / "base.qcow2")
    # qemu-img has refused to make such an image since 6.1: the format is taken out of the header again.
    top = overlay(tmp_path / "top.qcow2", base)
    with Path(top).open("r+b") as file:
        content = file.read(4096)
        at = content.index(b"\xe2\x79\x2a\xca")
        file.seek(at)
        file.write(b"\x12\x34\x56\x78")  # an extension that nobody knows
    assert "does not record the format" in obstacle(images.walk(top, "qcow2"))
    assert [each.path for each in images.chain(top, "qcow2", formats={base: "qcow2"})] == [top, base]


def test_an_external_data_file_is_an_obstacle(tmp_path: Path) -> None:
    """An image whose clusters are in another file is not whole by itself."""
    path = qcow2(tmp_path / "a.qcow2", "-o", f"data_file={tmp_path / 'data.raw'}")
    assert "data.raw" in obstacle(images.walk(path, "qcow2"))


def test_a_wrong_format_is_a_typed_error(tmp_path: Path) -> None:
    """A file that is not what the definition says raises ImageError with qemu-img's words."""
    path = tmp_path / "plain"
    path.write_bytes(b"x" * MIB)
    with pytest.raises(ImageError) as caught:
        images.info(str(path), "qcow2")
    assert "not in qcow2 format" in caught.value.evidence
    assert caught.value.remedy


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    """What is neither file nor block device is refused."""
    with pytest.raises(ImageError, match="neither"):
        images.info(str(tmp_path), "raw")


def test_names_that_qemu_could_misread_are_read(tmp_path: Path) -> None:
    """Colons, blanks, commas, quotes, unicode and leading dashes in a name are only characters."""
    for name in ("nbd:x.qcow2", "a b.qcow2", "a,b=c.qcow2", "a'b\"c.qcow2", "ünï.qcow2", "-U.qcow2"):
        run(["qemu-img", "create", "-q", "-f", "qcow2", f"{tmp_path}/{name}", "1M"], timeout=30)
        assert images.info(str(tmp_path / name), "qcow2").image.virtual_size == MIB


def test_commit_writes_into_the_base_and_nothing_below(tmp_path: Path) -> None:
    """The base takes the overlay's content, the template below stays as it was, and a second commit changes nothing."""
    template = qcow2(tmp_path / "template.qcow2")
    base = overlay(tmp_path / "base.qcow2", template)
    top = overlay(tmp_path / "top.qcow2", base)
    write(top, 7)
    before = Path(template).read_bytes()
    for _ in range(2):
        images.commit(top, base=base, base_format="qcow2", timeout=60)
        assert holds(base, 7)
        assert Path(template).read_bytes() == before
        assert [each.path for each in images.chain(top, "qcow2")] == [top, base, template]


@pytest.mark.parametrize("change", ["path", "format"])
def test_commit_refuses_what_does_not_lie_on_the_base(tmp_path: Path, change: str) -> None:
    """An overlay on another file, or recorded with another format, is not committed, and nothing is written."""
    base = qcow2(tmp_path / "base.qcow2")
    other = qcow2(tmp_path / "other.qcow2")
    top = overlay(tmp_path / "top.qcow2", base)
    write(top, 7)
    before = Path(base).read_bytes(), Path(other).read_bytes()
    named, named_format = (other, "qcow2") if change == "path" else (base, "raw")
    with pytest.raises(ImageError, match="not committed"):
        images.commit(top, base=named, base_format=named_format, timeout=60)
    assert (Path(base).read_bytes(), Path(other).read_bytes()) == before


def test_check_tells_damage_from_soundness(tmp_path: Path) -> None:
    """A sound image is clean, a damaged one is not, a raw one has nothing to check."""
    path = qcow2(tmp_path / "a.qcow2")
    assert images.check(path, "qcow2", timeout=60).clean
    with Path(path).open("r+b") as file:
        file.seek(3 * 65536)
        file.write(b"\xff" * 64)
    assert not images.check(path, "qcow2", timeout=60).clean
    plain = tmp_path / "plain"
    plain.write_bytes(b"x")
    assert images.check(str(plain), "raw", timeout=60).clean


def test_check_of_what_is_no_image_is_an_error(tmp_path: Path) -> None:
    """qemu-img refusing to look is not a clean image."""
    plain = tmp_path / "plain"
    plain.write_bytes(b"x" * MIB)
    with pytest.raises(ImageError, match="cannot check"):
        images.check(str(plain), "qcow2", timeout=60)


def test_convert_flattens_a_chain(tmp_path: Path) -> None:
    """The copy holds the content of all images and needs none of them; holes stay holes."""
    base = qcow2(tmp_path / "base.qcow2", size="64M")
    write(base, 1)
    top = str(tmp_path / "top.qcow2")
    images.create_overlay(top, backing=base, backing_format="qcow2")
    write(top, 2, offset=2 * MIB)
    flat = str(tmp_path / "flat.raw")
    images.convert(top, "qcow2", target=flat, target_format="raw", timeout=60)
    assert holds(flat, 1, image_format="raw")
    assert holds(flat, 2, offset=2 * MIB, image_format="raw")
    assert images.size_of(flat) == 64 * MIB
    assert images.allocated(flat) < 4 * MIB


def test_rebase_changes_the_name_alone(tmp_path: Path) -> None:
    """A moved backing file is found again, and an empty name detaches it."""
    base = qcow2(tmp_path / "base.qcow2")
    top = overlay(tmp_path / "top.qcow2", "/elsewhere/base.qcow2")
    images.rebase_unsafe(top, backing=base, backing_format="qcow2")
    assert [each.path for each in images.chain(top, "qcow2")] == [top, base]
    images.rebase_unsafe(top, backing="", backing_format="")
    assert [each.path for each in images.chain(top, "qcow2")] == [top]


def test_an_overlay_overwrites_nothing(tmp_path: Path) -> None:
    """An existing file, even a dangling link, is refused and left alone."""
    base = qcow2(tmp_path / "base.qcow2")
    there, link = tmp_path / "there", tmp_path / "link"
    there.write_text("keep")
    link.symlink_to(tmp_path / "nowhere")
    for path in (there, link):
        with pytest.raises(ImageError, match="exists"):
            images.create_overlay(str(path), backing=base, backing_format="qcow2")
    assert there.read_text() == "keep"
    assert not (tmp_path / "nowhere").exists()


def test_holes_are_seen(tmp_path: Path) -> None:
    """The data of a sparse file is found with its place and length, and an empty file has none."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.seek(8 * MIB)
        file.write(b"d" * MIB)
        file.truncate(32 * MIB)
    assert list(images.data_extents(str(path))) == [(8 * MIB, MIB)]
    assert images.size_of(str(path)) == 32 * MIB
    assert MIB <= images.allocated(str(path)) < 2 * MIB
    assert images.data_in_blocks(str(path), MIB) == MIB
    assert images.data_in_blocks(str(path), 4 * MIB) == 4 * MIB
    empty = tmp_path / "empty"
    empty.touch()
    assert list(images.data_extents(str(empty))) == []
    os.truncate(empty, MIB)
    assert list(images.data_extents(str(empty))) == []
