"""What holds for every test: no skips, and nothing of the caller's environment."""

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.e2e.prefect_server import prefect_server
from tests.guests.daemons import Daemons, ensure_daemons
from tests.integration.own_libvirtd import OwnLibvirtd, own_libvirtd

__all__ = ["prefect_server"]  # one for all folders

LEAKS = ("PREFECT_", "VMBORG_", "BORG_", "LIBVIRT_")
"""Prefixes of variables that would point a test at somebody's server, configuration, repository or host."""

OURS = "VMBORG_TEST_"
"""Prefix of the variables that are meant for the tests."""

for _name in [name for name in os.environ if name.startswith(LEAKS) and not name.startswith(OURS)]:
    del os.environ[_name]
os.environ |= {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_PROFILES_PATH": os.devnull,  # a profile in the caller's home may name a server too
}


for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    # `nohup make test` and `make test &` leave them ignored, and so would every program be that a test starts.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

_shared_daemons = pytest.StashKey[Daemons]()


def pytest_configure(config: pytest.Config) -> None:
    """With several workers (-n), whoever gives them their tests starts the daemons: no worker may stop them early."""
    deals_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if deals_out and not all("unit" in Path(argument).parts for argument in config.args):
        config.stash[_shared_daemons] = ensure_daemons()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started for the workers."""
    if _shared_daemons in config.stash:
        config.stash[_shared_daemons].stop()


@pytest.fixture(scope="module")
def daemon(daemons: Daemons) -> Iterator[OwnLibvirtd]:  # noqa: ARG001 - /dev/kvm
    """A libvirtd without other domains, for one file of tests, which may kill it; each test leaves it running."""
    with own_libvirtd() as found:
        yield found


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"{reason}\nA skip fails the run: `make setup` installs what a test needs."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a test's skip into a failure: a green run means that everything ran."""
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure."""
    report = yield
    _fail_if_skipped(report)
    return report
