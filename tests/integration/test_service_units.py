"""The systemd units: what they load, what they may do, and that systemd understands them."""

import json
import re
from pathlib import Path

import pytest

from infra.process import run
from tests.e2e.units import confined
from tests.integration.vmborg import VMBORG, vmborg

pytestmark = pytest.mark.integration

EXPOSURE = {"vmborg-server.service": 20, "vmborg-worker.service": 42, "vmborg-recover.service": 40}
"""The highest exposure that systemd-analyze may find, in tenths. The worker is root, as images are, and mounts."""
ENVIRONMENT = "etc/vmborg/prefect.env"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all units were installed for a configuration with awkward words."""
    root = tmp_path_factory.mktemp("units")
    settings = {
        "hypervisor": {"name": "kvm 1 %h"},
        "repositories": {"main": {"location": "/srv/borg", "passphrase": {"credential": "borg-passphrase"}}},
        "alerts": {"receivers": {"ops": {"url": {"credential": "alert-url"}}}},
        "state_dir": str(root / "state"),
    }
    (root / "vmborg.yaml").write_text(json.dumps(settings), encoding="utf-8")
    call = vmborg("install-service", "--server", "--worker", "--root", root, config=root / "vmborg.yaml")
    assert call.code == 0, call.stderr
    return root


def unit(root: Path, name: str) -> Path:
    """Where a unit was written."""
    return root / "etc/systemd/system" / name


@pytest.mark.parametrize("name", EXPOSURE)
def test_systemd_understands_it(root: Path, name: str) -> None:
    """No unknown key, no missing program, no wrong value."""
    run(["systemd-analyze", "verify", "--recursive-errors=yes", "--man=no", str(unit(root, name))], timeout=60)


@pytest.mark.parametrize("name", EXPOSURE)
def test_it_may_do_little(root: Path, name: str) -> None:
    """systemd's own measure of what a unit could do if somebody took it over."""
    threshold = f"--threshold={EXPOSURE[name]}"
    run(["systemd-analyze", "security", "--offline=yes", threshold, str(unit(root, name))], timeout=60)


def test_the_worker_may_show_disks_to_borg(root: Path) -> None:
    """With what the unit leaves to root, and nothing else, a mount can be made and entered."""
    argv = [*confined(), str(VMBORG), "--config", str(root / "vmborg.yaml"), "--json", "doctor"]
    told = json.loads(run(argv, timeout=120, check=False).stdout)["findings"]
    assert [each["text"] for each in told if each["check"] == "read"] == [
        "disks can be mounted for borg (read: changed)"
    ]


def test_secrets_are_loaded_by_systemd(root: Path) -> None:
    """Whoever runs flows gets each credential that the configuration names; the server gets none."""
    loaded = {
        name: re.findall(r"^LoadCredential=(.+)$", unit(root, name).read_text(encoding="utf-8"), re.MULTILINE)
        for name in EXPOSURE
    }
    wanted = [f"{name}:/etc/vmborg/credentials/{name}" for name in ("alert-url", "borg-passphrase")]
    assert loaded == {
        "vmborg-server.service": [],
        "vmborg-worker.service": wanted,
        "vmborg-recover.service": wanted,
    }


def test_the_pool_is_the_host_whatever_its_name(root: Path) -> None:
    """What systemd would read as a specifier is written so that it does not."""
    assert 'worker start --pool "kvm 1 %%h"' in unit(root, "vmborg-worker.service").read_text(encoding="utf-8")


def test_the_environment_is_for_root_alone_and_stays(root: Path) -> None:
    """It may hold the server's password; a second call replaces units and leaves it."""
    path = root / ENVIRONMENT
    for file in (path, path.with_name("server.env")):
        assert file.stat().st_mode & 0o777 == 0o600
    path.write_text("PREFECT_API_URL=http://elsewhere/api\n", encoding="utf-8")
    call = vmborg("install-service", "--worker", "--root", root, config=root / "vmborg.yaml")
    assert call.code == 0, call.stderr
    assert path.read_text(encoding="utf-8") == "PREFECT_API_URL=http://elsewhere/api\n"
