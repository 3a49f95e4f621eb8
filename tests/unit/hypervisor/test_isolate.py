"""A throw-away definition holds nothing of the original's and nothing of the host's."""

import pytest
from defusedxml.ElementTree import fromstring
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.errors_drills import NotIsolated
from infra.hypervisor.isolate import Isolation, isolate
from infra.hypervisor.isolation_check import require_isolated

FOLDER = "/scratch/vmborg-drill-1"
TO = Isolation("vmborg-drill-1", "99999999-8888-7777-6666-555555555555", FOLDER)
OLD_UUID = "11111111-2222-3333-4444-555555555555"
AGENT = "<channel type='unix'><source mode='bind' path='/run/x.sock'/><target type='virtio' name='{}'/></channel>"
DANGEROUS = [
    "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>",
    "<filesystem type='mount'><source dir='/srv'/><target dir='srv'/></filesystem>",
    "<shmem name='x'><model type='ivshmem-plain'/></shmem>",
    "<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/></interface>",
    "<interface type='network'><mac address='52:54:00:11:22:33'/><source network='default'/></interface>",
    "<interface type='user'><backend type='passt' logFile='/var/log/x'/></interface>",
    "<disk type='block' device='disk'><source dev='/dev/sda'/><target dev='vdx'/></disk>",
    "<disk type='file' device='disk'><source file='/srv/vm/other.img'/><target dev='vdx'/></disk>",
    f"<disk type='file' device='disk'><source file='{FOLDER}x/o.img'/><target dev='vdx'/></disk>",
    "<disk type='network' device='disk'><source protocol='rbd' name='a/b'/><target dev='vdx'/></disk>",
    "<disk type='file' device='cdrom'><source file='/srv/x.iso'/><target dev='sdx' bus='sata'/><readonly/></disk>",
    "<disk type='volume' device='lun'><source pool='p' volume='v'/><target dev='sdx'/></disk>",
    AGENT.format("org.qemu.guest_agent.0"),
    AGENT.format("com.redhat.spice.0"),
    "<serial type='tcp'><source mode='connect' host='h' service='1'/></serial>",
    "<serial type='dev'><source path='/dev/ttyS0'/></serial>",
    "<console type='file'><source path='/srv/log'/></console>",
    "<parallel type='dev'><source path='/dev/parport0'/></parallel>",
    "<redirdev bus='usb' type='tcp'><source mode='connect' host='h' service='1'/></redirdev>",
    "<smartcard mode='host'/>",
    "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
    "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>",
    "<rng model='virtio'><backend model='egd' type='unix'><source mode='connect' path='/run/egd'/></backend></rng>",
    "<graphics type='vnc' port='5900' autoport='no'><listen type='socket' socket='/run/vnc'/></graphics>",
    "<graphics type='spice' autoport='yes'><gl enable='yes' rendernode='/dev/dri/renderD128'/></graphics>",
    "<video><driver name='vhostuser'/><model type='virtio'><acceleration rendernode='/dev/dri/r'/></model></video>",
    "<input type='evdev'><source dev='/dev/input/event0'/></input>",
    "<input type='passthrough' bus='virtio'><source evdev='/dev/input/event0'/></input>",
    "<vsock model='virtio'><cid auto='no' address='3'/></vsock>",
    "<memory model='nvdimm'><source><path>/dev/pmem0</path></source><target/></memory>",
    "<sound model='ich9'/>",
    "<audio id='1' type='alsa'><input dev='/dev/snd'/></audio>",
    "<lease><lockspace>a</lockspace><key>b</key><target path='/srv/lease'/></lease>",
    "<emulator>/srv/my-qemu</emulator>",
    "<watchdog model='itco' action='poweroff'/>",
    "<crypto model='virtio' type='qemu'><backend model='builtin'/></crypto>",
    "<not-known-yet path='/srv/new'/>",
]


def domain(devices: str, root: str = "") -> str:
    """A UEFI domain with one restored disk and these devices."""
    return f"""<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <name>web</name><uuid>{OLD_UUID}</uuid><memory unit='MiB'>256</memory>
      <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type><loader>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
        <nvram template='/usr/share/OVMF/VARS.fd'>/var/lib/libvirt/qemu/nvram/web.fd</nvram></os>
      <memoryBacking><source type='memfd'/></memoryBacking>
      <seclabel type='none'/><resource><partition>/machine</partition></resource>
      <sysinfo type='smbios'><system><entry name='uuid'>{OLD_UUID}</entry></system></sysinfo>
      <sysinfo type='fwcfg'><entry name='x' file='/etc/shadow'/></sysinfo>{root}
      <qemu:commandline><qemu:arg value='-fsdev'/></qemu:commandline>
      <devices>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2' io='native' cache='none' iothread='2'/>
          <source file='{FOLDER}/disks/a.qcow2' startupPolicy='optional'><seclabel relabel='no'/></source>
          <backingStore type='file'><source file='/srv/template.qcow2'/></backingStore>
          <target dev='vda' bus='virtio'/></disk>{devices}
      </devices></domain>"""


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(DANGEROUS), max_size=6))
def test_whatever_the_original_has_the_throw_away_is_alone(devices: list[str]) -> None:
    """Its definition passes the check that is made before the start, with the restored disk and nothing else."""
    original = domain("".join(devices))
    made = isolate(original, TO)
    require_isolated(made.xml, TO, original)
    root = fromstring(made.xml)
    with_media = [disk for disk in root.iterfind("devices/disk") if disk.find("source") is not None]
    assert [disk.find("target").get("dev") for disk in with_media] == ["vda"]  # type: ignore[union-attr]
    assert root.findtext("os/nvram") == f"{FOLDER}/nvram.fd"
    assert len(root.findall("devices/video")) == 1
    assert OLD_UUID not in made.xml


@pytest.mark.parametrize("device", [each for each in DANGEROUS if "device='cdrom'" not in each])
def test_the_check_sees_what_isolation_would_have_missed(device: str) -> None:
    """Each device, put into a definition that was isolated, is refused; a harmless one is not in the list."""
    if "watchdog" in device or "type='qemu'" in device:
        device = "<crypto model='virtio'/>"
    made = isolate(domain(""), TO).xml
    require_isolated(made, TO, domain(""))
    with pytest.raises(NotIsolated):
        require_isolated(made.replace("</devices>", f"{device}</devices>"), TO, domain(device))


def test_the_originals_identity_is_refused() -> None:
    """Its UUID, its name or a path of it is not started a second time."""
    made = isolate(domain(""), TO).xml
    for old, new in ((TO.uuid, OLD_UUID), (TO.name + "<", "web<"), (f"{FOLDER}/disks", f"{FOLDER}/../web")):
        with pytest.raises(NotIsolated):
            require_isolated(made.replace(old, new), TO, domain(""))


def test_a_network_is_the_drills_own_with_a_new_address() -> None:
    """With a network there is one card, on that network, with another MAC address."""
    card = "<interface type='bridge'><mac address='52:54:00:11:22:33'/><source bridge='br0'/></interface>"
    to = Isolation(TO.name, TO.uuid, FOLDER, network="drill-net")
    made = isolate(domain(card), to).xml
    require_isolated(made, to, domain(card))
    assert "br0" not in made
    with pytest.raises(NotIsolated, match="throw-away"):
        require_isolated(isolate(domain(card), to, new_mac=lambda: "52:54:00:11:22:33").xml, to, domain(card))
    with pytest.raises(NotIsolated, match="throw-away"):
        require_isolated(made, TO, domain(card))
