"""Dumps out of a running guest: its address found by its name, dump and VM as one recovery point."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.config.load import load
from infra.errors import HypervisorError
from infra.hypervisor.codes import AddressSource
from infra.hypervisor.connection import Domain, Hypervisor
from infra.ssh.connection import connect
from infra.ssh.pins import read_pin
from tasks.dumps.hosts import endpoint, pin_path
from tests.e2e.dump_guest import BLOB, SshGuest, ssh_guest
from tests.e2e.site import Site
from tests.guests import Boot, Daemons, wait_for

pytestmark = pytest.mark.e2e

NAME = "vmborg-dumped"


@pytest.fixture(scope="module")
def dumped(daemons: Daemons, boot: Boot, images: Path) -> Iterator[SshGuest]:
    """A running guest with an SSH server."""
    folder = images / "dumped"
    folder.mkdir()
    with ssh_guest(NAME, uri=daemons.uri, boot=boot, folder=folder) as found:
        yield found


def configure(site: Site, guest: SshGuest, command: str) -> None:
    """Let the guest be a dump host that is known by its VM's name alone, dumped before each of its backups."""
    settings = json.loads(site.config.read_text())
    settings["dumps"] = {
        "hosts": {
            "in the guest": {
                "vm": NAME,
                "user": "root",
                "key": str(guest.key),
                "connect_timeout": "60s",
                "before_vm_backup": True,
                "sources": [{"kind": "command", "command": command}],
            }
        }
    }
    site.config.write_text(json.dumps(settings))


def test_dump_and_vm_are_one_recovery_point(site: Site, dumped: SshGuest, tmp_path: Path) -> None:
    """A backup of the VM dumps its guest first, over its own network; `list` shows both archives together."""
    configure(site, dumped, "cat /data/vda/blob")
    site.ok("dumps", "trust", "in the guest", "--yes")
    result = site.backup(NAME)
    (archive,) = result["dumps"]
    listed = site.ok("list", NAME)["archives"]
    assert [each["dumps"] for each in listed] == [[archive]]
    assert archive in site.vmborg("list", NAME).stdout
    (dump,) = site.ok("dumps", "list", "in the guest")["archives"]
    assert (dump["archive"], dump["vm"], dump["good"]) == (archive, NAME, True)
    target = tmp_path / "blob"
    site.ok("dumps", "restore", "in the guest", "command", "--to", str(target))
    assert target.read_bytes() == BLOB
    status = site.vmborg("--json", "status").document  # its exit code is of the whole host
    assert [(each["host"], each["health"]) for each in status["dumps"]] == [("in the guest", "ok")]


def test_a_guest_without_agent_is_found_by_its_lease(site: Site, dumped: SshGuest) -> None:
    """While the agent does not answer, `vm: NAME` is found by the lease that libvirt's DHCP gave, and logged in to."""
    configure(site, dumped, "true")
    config = load(site.config)
    if not read_pin(pin_path(config, "in the guest")):
        site.ok("dumps", "trust", "in the guest", "--yes")
    code, said = dumped.guest.exec(["agent-pause", "20"], 30)
    assert code == 0, said
    try:
        with Hypervisor.open(site.uri) as hypervisor:
            domain = hypervisor.find(NAME)
            domain.agent_timeout(2)
            wait_for(lambda: _is_silent(hypervisor, domain), timeout=30, what="an agent that does not answer")
            assert hypervisor.addresses(domain, agent_timeout=2)[0] == dumped.address
        with connect(endpoint(config, "in the guest")) as connection:
            assert connection.endpoint.address == dumped.address
    finally:
        dumped.guest.wait_agent(120)


def _is_silent(hypervisor: Hypervisor, domain: Domain) -> bool:
    try:
        hypervisor._addresses(domain, AddressSource.AGENT)
    except HypervisorError:
        return True
    return False


def test_a_dump_that_fails_makes_the_backup_partial(site: Site, dumped: SshGuest) -> None:
    """The VM's archive is made all the same; the run is partial (exit 3) and names what was not dumped."""
    configure(site, dumped, "echo no >&2; exit 9")
    call = site.vmborg("--json", "backup", NAME)
    assert call.code == 3, call.stderr
    (entry,) = call.document["backups"]
    assert entry["state"] == "partial"
    assert entry["result"]["archive"]
    (problem,) = entry["result"]["dump_problems"]
    assert "exited with 9; no" in problem
