"""Archives of dumps that are read back by `check`, and compared with what they promise."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from infra.borg.comment import render_comment
from infra.borg.plain_files import create_files
from infra.config.load import load
from infra.dumps.manifest import render
from infra.errors import ArchiveIncomplete, RepositoryDamaged
from tasks.checking.run import last_check, sample_archives
from tests.integration.dumps.place import Place
from tests.integration.dumps.taking import store, take
from tests.integration.spoiling import flipped_byte, largest_segment

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)


@pytest.fixture(name="kept")
def stored(place: Place, folder: Path) -> Place:
    """An installation with one archive: a dump of 4 MB, and files of odd names, an empty one and a link among them."""
    files = folder / "files"
    files.mkdir(exist_ok=True)
    for name in ("empty", "ü \n'x", "long" * 50, "plain"):
        (files / name).write_text("" if name == "empty" else name)
    if not (files / "link").is_symlink():
        (files / "link").symlink_to("plain")
    place.configure(
        [{"kind": "command", "command": "head -c 4000000 /dev/urandom"}, {"kind": "files", "paths": [str(files)]}]
    )
    store(place)
    return place


def test_every_file_of_an_archive_is_compared(kept: Place) -> None:
    """A whole archive is read to its end; the manifest beside the dumps is counted too."""
    (sample,) = sample_archives(load(kept.config), "main", now=NOW)
    assert (sample.archive, sample.files) == (kept.archives()[0], 6)
    assert sample.size > 4_000_000
    assert not last_check(load(kept.config), "main").said


def test_an_archive_that_breaks_its_promise(kept: Place) -> None:
    """A dump that is not what the manifest says, and one that is missing, are found by reading; borg finds nothing."""
    take(kept)
    (kept.latest / "command.dump").write_bytes(b"x" * 4_000_000)
    plain = next(path for path in kept.latest.rglob("plain") if not path.is_symlink())
    plain.unlink()
    manifest = kept.manifest()
    (kept.latest / "manifest.json").write_text(render(manifest))
    name = f"dump.db@{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    path = f"{kept.latest.parent}/./dumps"
    facts = render_comment({"v": "1", "dump_host": "db", "host": "testhost"})
    create_files(kept.repository, name, path, comment=facts, files_cache_suffix="spoilt")
    with pytest.raises(ArchiveIncomplete) as caught:
        sample_archives(load(kept.config), "main", now=NOW)
    assert "command.dump: 4000000 bytes, sha256" in caught.value.evidence
    assert "plain: 0 bytes, sha256 nothing" in caught.value.evidence
    assert not last_check(load(kept.config), "main").good


def test_a_flipped_byte_is_found_by_reading(kept: Place) -> None:
    """Damage in a segment ends the reading with borg's own error, which is remembered."""
    with flipped_byte(largest_segment(kept.root / "repository")), pytest.raises(RepositoryDamaged):
        sample_archives(load(kept.config), "main", now=NOW)
    assert not last_check(load(kept.config), "main").good
    assert sample_archives(load(kept.config), "main", now=NOW)
