"""What these tests share: the host's hypervisor, a folder, domains that go away."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from infra.hypervisor.connection import Hypervisor
from tests.guests import Daemons
from tests.integration.hypervisor.small import URI, Maker


@pytest.fixture(scope="module")
def hypervisor(daemons: Daemons) -> Iterator[Hypervisor]:  # noqa: ARG001 - must run
    """The host's own."""
    with Hypervisor.open(URI) as found:
        yield found


@pytest.fixture
def folder(images: Path) -> Path:
    """A folder of the test's own."""
    path = images / uuid4().hex[:8]
    path.mkdir()
    return path


@pytest.fixture
def make(hypervisor: Hypervisor) -> Iterator[Maker]:
    """See Maker."""
    with ExitStack() as cleanup:
        yield Maker(hypervisor, cleanup)
