"""What doctor says of the host, from recorded facts."""

import shlex
from pathlib import Path

import pytest

from infra.process import run
from tasks.doctor_dumps import prover_finding
from tasks.doctor_host import confinement_finding
from tasks.doctor_vm import _bring_back
from tasks.health import Health

MODEL = "<capabilities><host><secmodel><model>{}</model></secmodel></host></capabilities>"


@pytest.mark.parametrize(
    ("model", "health", "said"),
    [
        ("apparmor", Health.CRITICAL, "fixed in 12.1.0"),
        ("selinux", Health.OK, "SELinux"),
        ("dac", Health.OK, "dac"),
        ("none", Health.OK, "none"),
    ],
)
def test_confinement_is_judged_before_any_snapshot(model: str, health: Health, said: str) -> None:
    """A combination known to deny the commit is critical and names the remedy; others are told."""
    finding = confinement_finding(MODEL.format(model), (11, 3, 0), "ID=debian")
    assert (finding.health, said in finding.text) == (health, True)
    assert ("12.1.0" in finding.remedy) is (health is Health.CRITICAL)


def test_the_only_copy_that_a_killed_restore_left_is_brought_back_by_the_remedy(tmp_path: Path) -> None:
    """An image that a killed restore put aside is named by the missing one's remedy, whose command brings it back."""
    image = tmp_path / "o'k 1.qcow2"
    assert not _bring_back(str(image))
    image.with_name(f"{image.name}.vmborg-old-20260101T000000Z").write_text("the only copy")
    run(shlex.split(_bring_back(str(image)).partition(": ")[2]), timeout=10)
    assert image.read_text() == "the only copy"


@pytest.mark.parametrize(
    ("here", "there", "health"),
    [
        ("pg_restore (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)", "pg_dump (PostgreSQL) 15.3", Health.OK),
        ("pg_restore (PostgreSQL) 17.0", "pg_dump (PostgreSQL) 9.6.24", Health.OK),
        ("pg_restore (PostgreSQL) 15.14", "pg_dump (PostgreSQL) 18beta1", Health.CRITICAL),
        ("pg_restore (PostgreSQL) 9.6.24", "pg_dump (PostgreSQL) 10.1", Health.CRITICAL),
    ],
)
def test_what_proves_dumps_must_not_be_older(here: str, there: str, health: Health) -> None:
    """pg_restore here has to be of the major version of pg_dump there, or newer."""
    assert prover_finding(here, there, subject="db", check="source").health is health
