"""A guest that can be reached by SSH: what it needs lies on its disk and is started through its agent."""

import json
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.process import run
from tests.guests import Boot, DiskSpec, Guest, domain_xml, wait_for
from tests.guests.build import CACHE
from tests.guests.kernel import BASE, find_kernel, load_order, module_content
from tests.guests.packages import libraries, program
from tests.integration.dumps.servers import keygen

TAP = "vmborgdump0"
HERE, THERE = "10.213.47.1", "10.213.47.2"
BLOB = bytes(range(256)) * 8192
_NET = f"""
<interface type='ethernet'>
  <target dev='{TAP}' managed='no'/><model type='virtio'/><mac address='52:54:00:d0:47:02'/>
</interface>
"""
_START = f"""
cd /data/vda && for module in $(cat modules); do insmod "$module"; done
ifconfig eth0 {THERE} netmask 255.255.255.252 up
mkdir -p /root/.ssh && cp authorized_keys /root/.ssh/ && chmod -R go= /root && chown -R 0:0 /root
echo root::0:0:root:/root:/bin/sh >/etc/passwd
LD_LIBRARY_PATH=/data/vda/lib ./dropbear -r /data/vda/host_key -P /run/dropbear.pid
"""


@dataclass(slots=True)
class SshGuest:
    """A running guest with an SSH server, and the key that it lets in."""

    guest: Guest
    key: Path


@contextmanager
def ssh_guest(name: str, *, uri: str, boot: Boot, folder: Path) -> Generator[SshGuest]:
    """Boot a guest on a network of its own with this host, and start dropbear in it."""
    key = keygen(folder / "client")
    image = _disk(folder, key)
    run(["ip", "tuntap", "add", "dev", TAP, "mode", "tap"], timeout=10)
    try:
        run(["ip", "addr", "add", f"{HERE}/30", "dev", TAP], timeout=10)
        run(["ip", "link", "set", TAP, "up"], timeout=10)
        disk = DiskSpec("vda", image, format="raw")
        xml = domain_xml(name, boot=boot, disks=[disk], serial_log=folder / "console.log", extra_devices=_NET)
        with Guest.define(uri, xml) as guest:
            guest.start()
            guest.wait_agent(180)
            guest.wait_counter_moves(60)
            code, said = guest.exec(["sh", "-c", _START], 120)
            assert code == 0, said
            wait_for(_answers, timeout=60, what="dropbear in the guest")
            yield SshGuest(guest, key)
    finally:
        run(["ip", "link", "del", TAP], timeout=10, check=False)


def _answers() -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((THERE, 22)) == 0


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
    (files / "about.json").write_text(json.dumps({"made": "by the test"}))
    image = folder / "vda.raw"
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(files), str(image), "64M"], timeout=120)
    return image
