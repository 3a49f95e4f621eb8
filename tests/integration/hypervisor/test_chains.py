"""Chains as they change: overlays, commits, users of an image."""

from pathlib import Path

import pytest

from infra.errors import (
    DomainBusy,
    HypervisorError,
)
from infra.hypervisor import codes
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.inspect import inspect
from infra.hypervisor.references import users_of
from tests.guests import virsh, wait_for
from tests.integration.hypervisor.small import TAG, URI, Maker, disk, qcow2, small_xml

pytestmark = pytest.mark.integration


def _snapshot(domain: Domain, overlay: Path) -> None:
    disk = f"<disk name='vda' snapshot='external'><driver type='qcow2'/><source file='{overlay}'/></disk>"
    domain.snapshot(f"<domainsnapshot><disks>{disk}</disks></domainsnapshot>")


def _ready(domain: Domain) -> bool:
    live = domain.live()
    disk = live.disk("vda") if live else None
    return disk is not None and disk.mirror is not None and disk.mirror.ready


def _asked_to_pivot(domain: Domain) -> bool:
    try:
        domain.pivot("vda")
    except DomainBusy:
        return False  # "not ready for pivot yet", as libvirt says of a small overlay for a moment
    return True


def test_a_commit_is_seen_from_begin_to_end(make: Maker, folder: Path) -> None:
    """Overlay, block job and ready mirror are all seen, and after the pivot both definitions name the base."""
    base, overlay = qcow2(folder / "base.qcow2"), folder / "base.run.qcow2"
    domain = make.define(f"read-{TAG}-commit", disk("vda", base), start=True)
    assert (domain.block_job("vda"), domain.job()) == (None, "")
    _snapshot(domain, overlay)
    facts = inspect(domain, exclude_disks=())
    assert [image.path for image in facts.disks[0].chain] == [str(overlay), str(base)]
    assert facts.block_jobs == ()
    domain.block_commit("vda", base=str(base))
    wait_for(lambda: _ready(domain), timeout=30, what="the commit")
    job = domain.block_job("vda")
    assert job is not None
    assert job.kind == "active commit"
    assert inspect(domain, exclude_disks=()).block_jobs == ("vda",)
    with pytest.raises(DomainBusy) as caught:
        domain.block_commit("vda", base=str(base))
    assert caught.value.code == codes.Code.BLOCK_COPY_ACTIVE
    wait_for(lambda: _asked_to_pivot(domain), timeout=30, what="the pivot")
    wait_for(lambda: domain.block_job("vda") is None, timeout=30, what="the end of the job")
    facts = inspect(domain, exclude_disks=())
    assert (facts.disks[0].source, facts.block_jobs) == (str(base), ())
    assert domain.inactive().disks[0].image.path == str(base)


def test_a_commit_names_its_base(make: Maker, folder: Path) -> None:
    """A commit without a base, which libvirt would carry down to the template, is refused at once."""
    template = qcow2(folder / "template.qcow2")
    clone = qcow2(folder / "clone.qcow2", backing=template)
    domain = make.define(f"read-{TAG}-baseless", disk("vda", clone), start=True)
    _snapshot(domain, folder / "overlay.qcow2")
    before = template.read_bytes()
    with pytest.raises(ValueError, match="template"):
        domain.block_commit("vda", base="")
    assert domain.block_job("vda") is None
    assert template.read_bytes() == before


def test_a_job_can_be_cancelled(make: Maker, folder: Path) -> None:
    """After a cancelled commit the disk is on its overlay still and has no job."""
    base, overlay = qcow2(folder / "base.qcow2"), folder / "overlay.qcow2"
    domain = make.define(f"read-{TAG}-cancelled", disk("vda", base), start=True)
    _snapshot(domain, overlay)
    domain.block_commit("vda", base=str(base))
    wait_for(lambda: _ready(domain), timeout=30, what="the commit")
    domain.abort_job("vda")
    wait_for(lambda: domain.block_job("vda") is None, timeout=30, what="the end of the job")
    assert [image.path for image in inspect(domain, exclude_disks=()).disks[0].chain] == [str(overlay), str(base)]


def test_a_snapshot_that_fails_is_a_typed_error(make: Maker, folder: Path) -> None:
    """A snapshot that libvirt refuses raises, and the domain stays on its base."""
    base = qcow2(folder / "base.qcow2")
    domain = make.define(f"read-{TAG}-refused", disk("vda", base), start=True)
    with pytest.raises(HypervisorError) as caught:
        _snapshot(domain, folder / "no such folder" / "overlay.qcow2")
    assert "overlay.qcow2" in caught.value.evidence
    assert inspect(domain, exclude_disks=()).disks[0].source == str(base)


def test_users_of_an_image_are_found_wherever_they_are(hypervisor: Hypervisor, make: Maker, folder: Path) -> None:
    """Live chains, the chains of shut-off clones and other names of a file all count as use."""
    template = qcow2(folder / "template.qcow2")
    clone, other = (qcow2(folder / f"{name}.qcow2", backing=template) for name in ("clone", "other"))
    link = folder / "link.qcow2"
    link.symlink_to(other)
    unused = qcow2(folder / "unused.qcow2")
    running = make.define(f"read-{TAG}-running", disk("vda", clone), start=True)
    _snapshot(running, folder / "overlay.qcow2")
    make.define(f"read-{TAG}-resting", disk("vda", link))
    paths = [str(path) for path in (template, clone, other, unused, folder / "overlay.qcow2", folder / "nowhere")]
    assert users_of(hypervisor, paths) == {
        str(template): (f"read-{TAG}-resting", f"read-{TAG}-running"),
        str(clone): (f"read-{TAG}-running",),
        str(other): (f"read-{TAG}-resting",),
        str(unused): (),
        str(folder / "overlay.qcow2"): (f"read-{TAG}-running",),
        str(folder / "nowhere"): (),
    }


def test_a_saved_state_is_a_user(hypervisor: Hypervisor, make: Maker, folder: Path) -> None:
    """An image that only a managed save image names is in use: the next start needs it."""
    saved_on, named = qcow2(folder / "saved-on.qcow2"), qcow2(folder / "named.qcow2")
    name = f"read-{TAG}-sleeper"
    domain = make.define(name, disk("vda", saved_on), start=True)
    virsh(URI, "managedsave", domain.uuid)
    hypervisor.define(small_xml(name, disk("vda", named), uuid=domain.uuid))
    assert users_of(hypervisor, [str(saved_on), str(named)]) == {str(saved_on): (name,), str(named): (name,)}
