"""What doctor says of the host, from recorded facts."""

import pytest

from tasks.doctor_host import confinement_finding
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
