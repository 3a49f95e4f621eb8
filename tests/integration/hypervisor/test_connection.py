"""The connection to libvirt, and domains found by any name."""

from collections.abc import Callable
from uuid import uuid4

import libvirt
import pytest

from infra.errors import (
    DomainExists,
    DomainNotFound,
    DomainXmlError,
    HypervisorError,
    HypervisorUnreachable,
)
from infra.hypervisor import codes
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.inspect import inspect
from infra.model import DomainState
from tests.guests import virsh
from tests.integration.hypervisor.small import TAG, URI, Maker, small_xml

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("code", list(codes.Code), ids=lambda code: code.name)
def test_error_numbers_are_libvirts(code: codes.Code) -> None:
    """Every error number repeated here is the installed binding's."""
    assert getattr(libvirt, f"VIR_ERR_{code.name}") == code


@pytest.mark.parametrize(
    ("prefix", "flags"),
    [
        ("VIR_DOMAIN_XML_", codes.Xml),
        ("VIR_DOMAIN_SNAPSHOT_CREATE_", codes.Snapshot),
        ("VIR_DOMAIN_UNDEFINE_", codes.Undefine),
    ],
)
def test_flags_are_libvirts(prefix: str, flags: type[codes.Xml | codes.Snapshot | codes.Undefine]) -> None:
    """Every flag repeated here is the installed binding's, where the binding is new enough to know it."""
    theirs = {flag: getattr(libvirt, prefix + str(flag.name), flag) for flag in flags}
    assert theirs == {flag: flag.value for flag in flags}


def test_single_numbers_are_libvirts() -> None:
    """Constants, job types and operations repeated here are the installed binding's."""
    names = {
        "VIR_FROM_RPC": codes.FROM_RPC,
        "VIR_DOMAIN_BLOCK_COMMIT_ACTIVE": codes.BLOCK_COMMIT_ACTIVE,
        "VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC": codes.BLOCK_JOB_ABORT_ASYNC,
        "VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT": codes.BLOCK_JOB_ABORT_PIVOT,
        "VIR_DOMAIN_START_PAUSED": codes.START_PAUSED,
        "VIR_DOMAIN_CHECKPOINT_DELETE_METADATA_ONLY": codes.CHECKPOINT_METADATA_ONLY,
        "VIR_DOMAIN_PAUSED_IOERROR": codes.PAUSED_IOERROR,
    }
    assert {name: getattr(libvirt, name) for name in names} == names
    jobs = {getattr(libvirt, f"VIR_DOMAIN_BLOCK_JOB_TYPE_{_shout(job)}"): job for job in codes.BLOCK_JOBS.values()}
    assert jobs == codes.BLOCK_JOBS
    operations = {
        getattr(libvirt, f"VIR_DOMAIN_JOB_OPERATION_{_shout(job)}"): job for job in codes.JOB_OPERATIONS.values()
    }
    assert operations == codes.JOB_OPERATIONS


def _shout(words: str) -> str:
    return words.upper().replace(" ", "_")


def test_the_host_tells_of_itself(hypervisor: Hypervisor) -> None:
    """Name, versions and capabilities of the host are what virsh says."""
    assert hypervisor.uri == URI
    assert hypervisor.hostname() == virsh(URI, "hostname")
    versions = virsh(URI, "version", "--daemon")
    assert f"Running hypervisor: QEMU {'.'.join(map(str, hypervisor.versions().hypervisor))}" in versions
    assert f"Running against daemon: {'.'.join(map(str, hypervisor.versions().libvirt))}" in versions
    assert "<capabilities>" in hypervisor.capabilities_xml()


@pytest.mark.parametrize(
    ("uri", "kind", "word"),
    [
        ("qemu+unix:///system?socket=/nowhere/libvirt-sock", HypervisorUnreachable, "systemctl start libvirtd"),
        ("foo:///system", HypervisorError, "hypervisor.uri"),
        ("qemu:///sytem", HypervisorError, "hypervisor.uri"),
    ],
)
def test_a_wrong_uri_is_explained(uri: str, kind: type[HypervisorError], word: str) -> None:
    """A daemon that is not there and a URI that means nothing are told apart, each with its remedy."""
    with pytest.raises(HypervisorError) as caught:
        Hypervisor.open(uri)
    assert type(caught.value) is kind
    assert word in caught.value.remedy
    assert uri in caught.value.brief


def test_libvirt_prints_nothing_by_itself(hypervisor: Hypervisor, capfd: pytest.CaptureFixture[str]) -> None:
    """A failed call raises, and libvirt's own line on stderr does not appear."""
    with pytest.raises(DomainNotFound):
        hypervisor.find(f"read-{TAG}-nobody")
    assert capfd.readouterr() == ("", "")


NAMES = [
    f"read {TAG} blank name",
    f"read-{TAG}-ünïcode-日本",
    f"read-{TAG}-per%cent",
    f"read-{TAG}-at@sign",
    f"-read-{TAG}-dash",
    f"read.{TAG}.dots.in.name",
    f"read-{TAG}-web",
    f"read-{TAG}-web-2",
    f"read-{TAG}-a&b <c> \"d\" 'e'",
    f"read-{TAG}-{{braces}} [x] * ?",
]


def test_domains_of_any_name_are_found(hypervisor: Hypervisor, make: Maker) -> None:
    """Blanks, unicode, signs and leading dashes in names change nothing, and a neighbour's name is another one."""
    made = {name: make.define(name).uuid for name in NAMES}
    for name, uuid in made.items():
        found = hypervisor.find(name)
        assert (found.uuid, found.name) == (uuid, name)
        assert inspect(found, exclude_disks=()).name == name
    listed = {domain.name: domain.uuid for domain in hypervisor.domains()}
    assert listed.items() >= made.items()
    assert list(listed) == sorted(listed)


def test_a_domain_is_found_by_uuid_in_any_form(hypervisor: Hypervisor, make: Maker) -> None:
    """Upper case and missing dashes are the same UUID."""
    domain = make.define(f"read-{TAG}-uuid")
    for form in (domain.uuid, domain.uuid.upper(), domain.uuid.replace("-", "")):
        assert hypervisor.find(form) == domain


def test_a_name_goes_before_a_uuid(hypervisor: Hypervisor, make: Maker) -> None:
    """A domain whose name is another's UUID is found by its name."""
    other = make.define(f"read-{TAG}-other")
    named = make.define(other.uuid)
    assert hypervisor.find(other.uuid) == named
    assert hypervisor.by_uuid(other.uuid) == other


def test_an_unknown_name_suggests_close_ones(hypervisor: Hypervisor, make: Maker) -> None:
    """A misspelt name raises DomainNotFound and names the domain that was probably meant."""
    make.define(f"read-{TAG}-database")
    with pytest.raises(DomainNotFound) as caught:
        hypervisor.find(f"read-{TAG}-databse")
    assert f"'read-{TAG}-database'" in caught.value.remedy
    assert caught.value.code == codes.Code.NO_DOMAIN


def test_a_renamed_domain_is_still_the_same(make: Maker) -> None:
    """A domain that was looked up keeps answering after a rename, under its new name."""
    domain = make.define(f"read-{TAG}-old")
    virsh(URI, "domrename", domain.uuid, f"read-{TAG}-new")
    assert domain.name == f"read-{TAG}-new"
    assert domain.state() is DomainState.SHUT_OFF


def test_an_undefined_domain_is_gone(make: Maker) -> None:
    """Every call on a domain that was undefined meanwhile raises DomainNotFound."""
    domain = make.define(f"read-{TAG}-gone")
    virsh(URI, "undefine", domain.uuid)
    calls: list[Callable[[], object]] = [domain.state, domain.live_xml, domain.inactive_xml, domain.start, domain.job]
    for call in calls:
        with pytest.raises(DomainNotFound):
            call()
    with pytest.raises(DomainNotFound):
        inspect(domain, exclude_disks=())


def test_a_taken_name_is_refused(hypervisor: Hypervisor, make: Maker) -> None:
    """Defining another domain under a name in use raises DomainExists and leaves the first one as it was."""
    domain = make.define(f"read-{TAG}-taken")
    before = domain.inactive_xml()
    with pytest.raises(DomainExists):
        hypervisor.define(small_xml(f"read-{TAG}-taken", "", uuid=str(uuid4())))
    assert domain.inactive_xml() == before


def test_a_broken_definition_is_refused(hypervisor: Hypervisor) -> None:
    """What libvirt cannot read as a domain raises DomainXmlError."""
    for text in ("<domain", "<domain type='qemu'/>"):
        with pytest.raises(DomainXmlError):
            hypervisor.define(text)
