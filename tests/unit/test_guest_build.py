"""What the test guests are packed from."""

import lzma
from pathlib import Path

import pytest

from infra.process import run
from tests.guests.cpio import Archive
from tests.guests.kernel import Kernel, load_order, module_content


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A kernel whose ext4 needs two modules, one of them itself in need."""
    (tmp_path / "modules.dep").write_text(
        "kernel/fs/ext4.ko.xz: kernel/fs/jbd2.ko.xz kernel/lib/crc16.ko.xz\n"
        "kernel/fs/jbd2.ko.xz: kernel/lib/crc16.ko.xz\n"
        "kernel/lib/crc16.ko.xz:\n"
        "kernel/drivers/virtio-pci.ko.xz:\n"
    )
    return Kernel(tmp_path / "vmlinuz", tmp_path)


def test_modules_load_after_what_they_need(kernel: Kernel) -> None:
    """Each module once, needs first, built-in ones left out; dashes and underscores are the same."""
    order = [path.name for path in load_order(kernel, ("virtio_pci", "nls_utf8", "ext4", "jbd2"))]

    assert order == ["virtio-pci.ko.xz", "crc16.ko.xz", "jbd2.ko.xz", "ext4.ko.xz"]


def test_modules_are_unpacked(tmp_path: Path) -> None:
    """A module comes out the same whether the distribution packs it with xz, zstd or not at all."""
    plain = tmp_path / "a.ko"
    plain.write_bytes(b"\x7fELF module")
    (tmp_path / "a.ko.xz").write_bytes(lzma.compress(plain.read_bytes()))
    run(["zstd", "-q", str(plain), "-o", str(tmp_path / "a.ko.zst")], timeout=30)

    assert {module_content(path) for path in tmp_path.iterdir()} == {b"\x7fELF module"}


def test_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    """cpio(1) lists the files, links and parents of an archive, and the same content gives the same bytes."""
    archive = Archive()
    archive.file("/sbin/agent/run", b"#!/bin/sh\n")
    archive.link("init", "bin/busybox")
    (tmp_path / "initrd").write_bytes(archive.to_bytes())

    listed = run(["cpio", "-itv", "-F", str(tmp_path / "initrd")], timeout=30).stdout.splitlines()

    assert [(line.split()[0], line.split(maxsplit=8)[8]) for line in listed] == [
        ("drwxr-xr-x", "sbin"),
        ("drwxr-xr-x", "sbin/agent"),
        ("-rwxr-xr-x", "sbin/agent/run"),
        ("lrwxrwxrwx", "init -> bin/busybox"),
    ]
    assert archive.to_bytes() == (tmp_path / "initrd").read_bytes()
