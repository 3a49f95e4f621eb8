"""A green run means that every test ran."""

import shutil
import sys
from pathlib import Path

from infra.process import run

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"
SOURCES = {
    "mark": "import pytest\n@pytest.mark.skip(reason='no daemon')\ndef test_it(): pass\n",
    "condition": "import pytest\n@pytest.mark.skipif(True, reason='no daemon')\ndef test_it(): pass\n",
    "call": "import pytest\ndef test_it(): pytest.skip('no daemon')\n",
    "module": "import pytest\npytest.skip('no daemon', allow_module_level=True)\n",
    "xfail": "import pytest\n@pytest.mark.xfail\ndef test_it(): raise ValueError\n",
    "good": "def test_it(): pass\n",
}


def test_a_skip_fails_the_run(tmp_path: Path) -> None:
    """However a test is skipped, it fails and gives the reason; an expected failure stays what it is."""
    shutil.copy(CONFTEST, tmp_path)
    for name, source in SOURCES.items():
        (tmp_path / f"test_{name}.py").write_text(source)
    # On a CI host (`CI` in the environment) pytest's own summary gives each reason a second time, so none is asked for.
    command = [sys.executable, "-m", "pytest", "-q", "-rN", "-c", "/dev/null", "-p", "no:cacheprovider"]
    done = run(
        [*command, "--continue-on-collection-errors", f"--rootdir={tmp_path}", str(tmp_path)],
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed, 3 errors" in done.stdout.splitlines()[-1]
    assert done.stdout.count("no daemon\nA skip fails the run") == len(("mark", "condition", "call", "module"))
