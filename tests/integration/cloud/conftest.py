"""A repository that was made once, copied for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cloud.servers import Cloud
from tests.integration.cloud.site import Site


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two archives, and what this host knows of it; tests work on copies."""
    root = tmp_path_factory.mktemp("cloud-template")
    made = Site(root, Cloud(root / "cloud"))
    made.make()
    made.back_up(1)
    made.back_up(2)
    return root


@pytest.fixture
def still(tmp_path: Path, template: Path) -> Site:
    """The repository; no server runs."""
    shutil.copytree(template / "repository", tmp_path / "repository")
    return Site(tmp_path, Cloud(tmp_path / "cloud"))


@pytest.fixture
def site(still: Site) -> Iterator[Site]:
    """The repository and an S3 server."""
    with still.cloud.serving():
        yield still
