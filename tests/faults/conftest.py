"""What the faults share: daemons, a Prefect server, a VM that counts; and the table at the end."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import rows
from tests.faults.rig import Rig, make_rig
from tests.guests import Boot, Daemons
from tests.guests.fixtures import boot, daemons, images

__all__ = ["boot", "daemons", "images"]

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole_rig(  # noqa: PLR0917 - fixtures
    daemons: Daemons,
    boot: Boot,
    images: Path,
    prefect_server: str,
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> Iterator[Rig]:
    """A VM that counts on three disks and was backed up once, for one file of tests."""
    name = request.module.__name__.rsplit(".", maxsplit=1)[-1].replace("_", "-")
    root = tmp_path_factory.mktemp("site")
    with make_rig(name, daemons.uri, boot=boot, images=images, api=prefect_server, root=root) as rig:
        yield rig


@pytest.fixture
def rig(whole_rig: Rig) -> Iterator[Rig]:
    """The same for one fault: it begins with a running VM on its bases, and ends with the check of every fault."""
    whole_rig.begin()
    yield whole_rig
    whole_rig.end()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test is a row: one without its words is a mistake. Reports carry the row to whoever prints the table."""
    ours = [item for item in items if HERE in item.path.parents]
    for number, item in enumerate(ours):
        item.user_properties.append(("fault", {"number": number, "row": rows.row_of(item)}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table of what was injected; VMBORG_TEST_WRITE_FAULTS=1 puts it into docs/faults.md too."""
    text = rows.table(rows.results(terminalreporter.stats))
    if not text:
        return
    terminalreporter.write_line("")
    terminalreporter.write_line(text)
    terminalreporter.write_line("")
    terminalreporter.write_line(rows.summary(rows.results(terminalreporter.stats)))
    if os.environ.get("VMBORG_TEST_WRITE_FAULTS"):
        rows.write(text)
