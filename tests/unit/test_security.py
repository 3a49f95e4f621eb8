"""Confinement that is known to deny a block commit is recognised from recorded versions and capabilities."""

import pytest

from infra.errors import HypervisorError
from infra.hypervisor.security import confinement, qemu_owner, security_models

CAPABILITIES = """<capabilities><host><cpu><arch>x86_64</arch></cpu>
<secmodel><model>{model}</model><doi>0</doi></secmodel>
<secmodel><model>dac</model><doi>0</doi><baselabel type='kvm'>+64055:+994</baselabel></secmodel>
</host></capabilities>"""
DEBIAN_12 = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'
UBUNTU = 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n'
MINT = 'NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\n'


@pytest.mark.parametrize(
    ("model", "libvirt", "os_release", "denied"),
    [
        ("apparmor", (9, 0, 0), DEBIAN_12, True),
        ("apparmor", (11, 3, 0), 'ID="debian"\n', True),
        ("apparmor", (12, 0, 0), DEBIAN_12, True),
        ("apparmor", (12, 1, 0), DEBIAN_12, False),
        ("apparmor", (10, 0, 0), UBUNTU, False),
        ("apparmor", (10, 0, 0), MINT, True),
        ("apparmor", (10, 0, 0), "", True),
        ("selinux", (9, 0, 0), "ID=fedora", False),
        ("none", (9, 0, 0), DEBIAN_12, False),
    ],
)
def test_known_combinations(model: str, libvirt: tuple[int, int, int], os_release: str, *, denied: bool) -> None:
    """AppArmor below libvirt 12.1.0 denies the commit, except where Ubuntu patched it."""
    models = security_models(CAPABILITIES.format(model=model))
    assert confinement(models, libvirt, os_release).commit_denied is denied
    assert models == (("dac",) if model == "none" else (model, "dac"))


@pytest.mark.parametrize("text", ["", "<a", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"])
def test_nonsense_is_an_error(text: str) -> None:
    """Capabilities that are no plain XML are a typed error."""
    with pytest.raises(HypervisorError):
        security_models(text)


def test_qemu_s_user_is_the_label_that_libvirt_gives() -> None:
    """By number; root where libvirt has no such label, or speaks of names."""
    found = CAPABILITIES.format(model="apparmor")
    assert qemu_owner(found) == (64055, 994)
    assert qemu_owner(found.replace("kvm", "qemu")) == (64055, 994)
    assert qemu_owner(found.replace("+64055:+994", "qemu:kvm")) == (0, 0)
    assert qemu_owner("<capabilities><host/></capabilities>") == (0, 0)
