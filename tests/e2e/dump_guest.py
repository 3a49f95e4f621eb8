"""A guest that can be reached by SSH: what it needs lies on its disk and is started through its agent.

It is on a network of libvirt's, which gives it its address by DHCP, and from which no packet leaves this host.
"""

import json
import re
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from infra.errors import CommandFailed
from infra.process import run
from tests.guests import Boot, DiskSpec, Guest, domain_xml, virsh, wait_for
from tests.guests.build import CACHE
from tests.guests.kernel import BASE, find_kernel, load_order, module_content
from tests.guests.packages import libraries, program
from tests.integration.dumps.servers import keygen

NETWORK = "vmborg-dumped"
BLOB = bytes(range(256)) * 8192
# The mode `open` leaves the firewall of this host as it is.
_NETWORK = f"""
<network>
  <name>{NETWORK}</name><forward mode='open'/><bridge name='vmborgdump0' stp='off' delay='0'/><dns enable='no'/>
  <ip address='10.213.47.1' netmask='255.255.255.248'><dhcp><range start='10.213.47.2' end='10.213.47.6'/></dhcp></ip>
</network>
"""
_NET = f"<interface type='network'><source network='{NETWORK}'/><model type='virtio'/></interface>"
_UDHCPC = """#!/bin/sh
[ "$1" != bound ] || ifconfig "$interface" "$ip" netmask "$subnet"
"""
_START = """
cd /data/vda && for module in $(cat modules); do insmod "$module"; done
ifconfig eth0 up && udhcpc -i eth0 -n -q -s /data/vda/udhcpc.sh
mkdir -p /root/.ssh && cp authorized_keys /root/.ssh/ && chmod -R go= /root && chown -R 0:0 /root
echo root::0:0:root:/root:/bin/sh >/etc/passwd
LD_LIBRARY_PATH=/data/vda/lib ./dropbear -r /data/vda/host_key -P /run/dropbear.pid
"""


@dataclass(slots=True)
class SshGuest:
    """A running guest with an SSH server, and the key that it lets in."""

    guest: Guest
    key: Path
    address: str  # by its lease


@contextmanager
def ssh_guest(name: str, *, uri: str, boot: Boot, folder: Path) -> Generator[SshGuest]:
    """Boot a guest on a network of its own with this host, and start dropbear in it."""
    key = keygen(folder / "client")
    image = _disk(folder, key)
    network = folder / "network.xml"
    network.write_text(_NETWORK)
    with suppress(CommandFailed):  # of a run that was killed
        virsh(uri, "net-destroy", NETWORK)
    virsh(uri, "net-create", str(network))
    try:
        disk = DiskSpec("vda", image, format="raw")
        xml = domain_xml(name, boot=boot, disks=[disk], serial_log=folder / "console.log", extra_devices=_NET)
        with Guest.define(uri, xml) as guest:
            guest.start()
            guest.wait_agent(180)
            guest.wait_counter_moves(60)
            code, said = guest.exec(["sh", "-c", _START], 120)
            assert code == 0, said
            address = wait_for(lambda: _lease(uri, name), timeout=30, what="the lease of the guest")
            wait_for(lambda: _answers(address), timeout=60, what="dropbear in the guest")
            yield SshGuest(guest, key, address)
    finally:
        virsh(uri, "net-destroy", NETWORK)


def _lease(uri: str, name: str) -> str:
    found = re.search(r"ipv4 +([0-9.]+)/", virsh(uri, "domifaddr", name, "--source", "lease"))
    return found[1] if found else ""


def _answers(address: str) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((address, 22)) == 0


def _disk(folder: Path, key: Path) -> Path:
    """A raw disk with dropbear, its libraries, the modules of the network card, and something to dump."""
    files = folder / "files"
    (files / "lib").mkdir(parents=True)
    dropbear = program("dropbear")
    shutil.copy(dropbear, files / "dropbear")
    for library in libraries(dropbear):
        shutil.copy(library, files / "lib")
    run(["dropbearkey", "-t", "ed25519", "-f", str(files / "host_key")], timeout=30)
    shutil.copy(f"{key}.pub", files / "authorized_keys")
    kernel = find_kernel(CACHE)
    names: list[str] = []
    for module in load_order(kernel, ("virtio_net",)):
        if module not in load_order(kernel, BASE):
            names.append(module.name.split(".")[0] + ".ko")
            (files / names[-1]).write_bytes(module_content(module))
    (files / "modules").write_text("\n".join(names) + "\n")
    (files / "blob").write_bytes(BLOB)
    (files / "udhcpc.sh").write_text(_UDHCPC)
    (files / "udhcpc.sh").chmod(0o755)
    (files / "about.json").write_text(json.dumps({"made": "by the test"}))
    image = folder / "vda.raw"
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(files), str(image), "64M"], timeout=120)
    return image
