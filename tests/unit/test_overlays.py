"""An overlay of ours is recognised by its name alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.hypervisor.overlays import is_overlay, leftovers
from infra.hypervisor.snapshot import overlay_path
from infra.model import Image, ImageKind

_names = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=300)


@given(name=_names, kind=st.sampled_from(ImageKind), run=st.integers(min_value=0, max_value=2**32 - 1))
def test_every_overlay_is_recognised(name: str, kind: ImageKind, run: int) -> None:
    """Whatever an image is called, the overlay that a backup makes for it is known for one."""
    base = Image(path=f"/images/{name}", format="raw", kind=kind, virtual_size=1, size=1)
    assert is_overlay(overlay_path(base, "vda", run_id=f"{run:08x}", overlay_dir=Path("/overlays")))


@pytest.mark.parametrize(
    "path",
    [
        "/images/web.qcow2",
        "/images/vmborg-demo/web.qcow2",
        "/images/web.snap1",
        "/images/.vmborg-00ff00ff.qcow2",
        "/images/web.vda.vmborg-00ff00f.qcow2",
        "/images/web.vda.vmborg-00ff00ff.qcow2.bak",
        "/images/web.vda.vmborg-00ff00ff.qcow2/disk",
    ],
)
def test_other_files_are_not(path: str) -> None:
    """Images, other tools' overlays and files that only look alike are left out."""
    assert not is_overlay(path)


def test_leftovers_are_found_in_folders(tmp_path: Path) -> None:
    """Folders are searched for such files; one that does not exist holds none."""
    for name in ("web.qcow2", "web.qcow2.vda.vmborg-00ff00ff.qcow2"):
        (tmp_path / name).touch()
    assert list(leftovers([tmp_path, tmp_path, tmp_path / "none"])) == [
        str(tmp_path / "web.qcow2.vda.vmborg-00ff00ff.qcow2")
    ]
