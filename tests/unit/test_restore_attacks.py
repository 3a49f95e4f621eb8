"""A plain VM passes the trust gate whole; every way of libvirt's schema to name something of the host is refused."""

import re
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from defusedxml.ElementTree import fromstring

from infra.errors import UnsafeArchive
from infra.hypervisor.restore_dangers import PATH_ATTRIBUTES, PATH_TEXTS, TrustFacts, find_dangers
from infra.hypervisor.restore_trust import check_trust
from infra.hypervisor.restore_xml import DiskPlace, RewritePlan, rewrite
from infra.model import ImageKind
from tests.unit.hypervisor.recorded import IMAGES, xml

SCHEMAS = Path("/usr/share/libvirt/schemas")
PATH_TYPES = re.compile(r"(?i)path$|^(deviceName|genericName)$")
GRAMMAR = "{http://relaxng.org/ns/structure/1.0}"
EMULATOR = frozenset({"/usr/bin/qemu-system-x86_64"})
NVRAM = "/var/lib/libvirt/qemu/nvram/plain_VARS.fd"
DISK = f"{IMAGES}/plain.qcow2"
FACTS = TrustFacts(EMULATOR, frozenset({DISK, NVRAM}))
UUID = "99999999-2222-3333-4444-555555555555"


def _plan(name: str, *, copy: bool, nvram: bool = True) -> RewritePlan:
    disks = {"vda": DiskPlace(DISK, "qcow2", ImageKind.FILE)}
    return RewritePlan(name, UUID, disks, boot_files={"nvram": NVRAM} if nvram else {}, copy=copy)


@pytest.mark.parametrize("copy", [False, True], ids=["in-place", "copy"])
@pytest.mark.parametrize("name", ["plain", "plain-live"])
def test_a_plain_vm_comes_back_without_any_allow(name: str, copy: bool) -> None:  # noqa: FBT001 - a parameter
    """What virt-manager makes (OVMF, TPM, agent, SPICE, VNC, consoles, USB, RNG) holds no danger, live or inactive."""
    check_trust(rewrite(xml(name), _plan("new", copy=copy)).xml, FACTS)


def test_a_plain_vm_that_never_ran_comes_back_without_any_allow() -> None:
    """Without archived UEFI variables none are named: libvirt makes them from the template, for each VM its own."""
    result = rewrite(xml("plain"), _plan("new", copy=True, nvram=False)).xml
    assert NVRAM not in result
    assert "OVMF_VARS_4M.fd" in result
    check_trust(result, TrustFacts(EMULATOR, frozenset({DISK})))


def _disk(inner: str, *, kind: str = "file", device: str = "disk", more: str = "") -> str:
    return f"<disk type='{kind}' device='{device}' {more}>{inner}<target dev='vdz'/></disk>"


def _channel(source: str) -> str:
    return f"<channel type='unix'>{source}<target type='virtio' name='x'/></channel>"


# Where it stands in the definition, the kind of its danger, and the element; @ is a path.
ATTACKS = [
    # oshvm, osbootkernel, osexe, acpiTable, bootloader
    ("os", "firmware", "<loader>@</loader>"),
    ("os", "firmware", "<nvram>@</nvram>"),
    ("os", "firmware", "<nvram template='@'/>"),
    ("os", "firmware", "<nvram type='file'><source file='@'/></nvram>"),
    ("os", "firmware", "<nvram type='block'><source dev='@'/></nvram>"),
    ("os", "path", "<kernel>@</kernel>"),
    ("os", "path", "<initrd>@</initrd>"),
    ("os", "path", "<dtb>@</dtb>"),
    ("os", "path", "<root>@</root>"),
    ("os", "path", "<init>@</init>"),
    ("os", "path", "<initdir>@</initdir>"),
    ("os", "path", "<acpi><table type='slic'>@</table></acpi>"),
    ("domain", "path", "<bootloader>@</bootloader>"),
    ("domain", "path", "<blkiotune><device><path>@</path></device></blkiotune>"),
    ("domain", "path", "<sysinfo type='fwcfg'><entry name='opt/x' file='@'/></sysinfo>"),
    # emulator
    ("devices", "emulator", "<emulator>@</emulator>"),
    # diskSource...
    ("devices", "disk", _disk("<source file='@'/>")),
    ("devices", "disk", _disk("<source file='@.iso'/>", device="floppy")),
    ("devices", "disk", _disk("<source file='@.iso'/>", kind="block", device="cdrom")),
    ("devices", "disk", _disk("<source dev='@'/>", kind="block")),
    ("devices", "disk", _disk("<source dir='@'/>", kind="dir")),
    ("devices", "disk", _disk(f"<source file='{DISK}'/><source file='@'/>")),
    ("devices", "disk", _disk(f"<source file='{DISK}'/><mirror file='@'/>")),
    ("devices", "disk", _disk(f"<source file='{DISK}'/><backingStore><source dev='@'/></backingStore>")),
    ("devices", "disk", _disk(f"<source file='{DISK}'><dataStore><source file='@'/></dataStore></source>")),
    ("devices", "disk", _disk("<source protocol='nbd'><host transport='unix' socket='@'/></source>", kind="network")),
    ("devices", "disk", _disk("<source protocol='rbd' name='a/b'><config file='@'/></source>", kind="network")),
    ("devices", "socket", _disk("<source type='unix' path='@'/>", kind="vhostuser")),
    ("devices", "hostdev", _disk("<source type='pci' managed='yes'/>", kind="nvme")),
    ("devices", "hostdev", _disk("<source dev='@'/>", kind="vhostvdpa")),
    # filesystem, fsBinary
    ("devices", "filesystem", "<filesystem><source dir='@'/><target dir='x'/></filesystem>"),
    ("devices", "filesystem", "<filesystem type='file'><source file='@'/><target dir='x'/></filesystem>"),
    ("devices", "filesystem", "<filesystem type='block'><source dev='@'/><target dir='x'/></filesystem>"),
    ("devices", "filesystem", "<filesystem><binary path='@'/><source socket='@'/></filesystem>"),
    # interface, interface-options
    ("devices", "script", "<interface type='ethernet'><script path='@'/></interface>"),
    ("devices", "script", "<interface type='ethernet'><downscript path='@'/></interface>"),
    ("devices", "path", "<interface type='bridge'><backend tap='@'/></interface>"),
    ("devices", "path", "<interface type='bridge'><backend vhost='@'/></interface>"),
    ("devices", "path", "<interface type='user'><backend type='passt' logFile='@'/></interface>"),
    ("devices", "socket", "<interface type='vhostuser'><source type='unix' path='@' mode='client'/></interface>"),
    ("devices", "socket", "<interface type='client'><source address='127.0.0.1' port='22'/></interface>"),
    ("devices", "hostdev", "<interface type='vdpa'><source dev='@'/></interface>"),
    ("devices", "hostdev", "<interface type='hostdev'><source><address type='pci'/></source></interface>"),
    ("devices", "hostdev", "<interface type='direct'><source dev='eno1' mode='passthrough'/></interface>"),
    ("devices", "hostdev", "<interface type='ethernet'><target dev='vnet0' managed='no'/></interface>"),
    # qemucdev, qemucdevSrcDef, unixSocketSource
    ("devices", "chardev", "<serial type='file'><source path='@'/></serial>"),
    ("devices", "chardev", "<parallel type='dev'><source path='@'/></parallel>"),
    ("devices", "chardev", "<serial type='pipe'><source path='@'/></serial>"),
    ("devices", "chardev", "<serial type='unix'><source mode='bind' path='@'/></serial>"),
    ("devices", "socket", "<serial type='unix'><source mode='connect' path='@'/></serial>"),
    ("devices", "socket", "<serial type='unix'><source path='@'/></serial>"),
    ("devices", "socket", "<serial type='tcp'><source mode='connect' host='127.0.0.1' service='6379'/></serial>"),
    ("devices", "chardev", "<serial type='pty'><log file='@'/></serial>"),
    ("devices", "chardev", "<serial type='pty' tty='@'/>"),
    ("devices", "chardev", "<console type='pty' tty='@'/>"),
    ("devices", "chardev", "<serial type='nmdm'><source master='/dev/nmdm0A' slave='/dev/nmdm0B'/></serial>"),
    ("devices", "socket", "<redirdev bus='usb' type='unix'><source mode='connect' path='@'/></redirdev>"),
    ("devices", "socket", "<redirdev bus='usb' type='tcp'><source mode='connect' host='h' service='1'/></redirdev>"),
    ("devices", "hostdev", "<smartcard mode='host'/>"),
    (
        *("devices", "hostdev"),
        "<smartcard mode='host-certificates'><certificate>a</certificate><database>@</database></smartcard>",
    ),
    ("devices", "socket", "<smartcard mode='passthrough' type='unix'><source path='@'/></smartcard>"),
    ("devices", "chardev", "<rng model='virtio'><backend model='random'>@</backend></rng>"),
    (
        *("devices", "socket"),
        "<rng model='virtio'><backend model='egd' type='unix'><source mode='connect' path='@'/></backend></rng>",
    ),
    # tpm-...
    ("devices", "hostdev", "<tpm><backend type='passthrough'><device path='@'/></backend></tpm>"),
    (
        *("devices", "socket"),
        "<tpm><backend type='external'><source type='unix' mode='connect' path='@'/></backend></tpm>",
    ),
    ("devices", "path", "<tpm><backend type='emulator'><source type='dir' path='@'/></backend></tpm>"),
    # graphic, listenElements, video
    ("devices", "path", "<graphics type='vnc' socket='@'/>"),
    ("devices", "path", "<graphics type='spice'><listen type='socket' socket='@'/></graphics>"),
    ("devices", "path", "<graphics type='spice'><gl enable='yes' rendernode='@'/></graphics>"),
    ("devices", "path", "<graphics type='sdl' display=':0' xauth='@'/>"),
    ("devices", "path", "<graphics type='vnc' keymap='@'/>"),
    ("devices", "socket", "<graphics type='dbus' address='unix:path=@'/>"),
    ("devices", "path", "<video><model type='virtio'><acceleration rendernode='@'/></model></video>"),
    # audio
    ("devices", "path", "<audio id='1' type='file' path='@'/>"),
    ("devices", "hostdev", "<audio id='1' type='oss'><input dev='@'/></audio>"),
    ("devices", "hostdev", "<audio id='1' type='alsa'><input dev='@'/></audio>"),
    # shmem, input, hostdev..., rom, memorydev, lease
    ("devices", "socket", "<shmem name='s'><server path='@'/></shmem>"),
    ("devices", "hostdev", "<input type='evdev'><source dev='@'/></input>"),
    ("devices", "hostdev", "<input type='passthrough'><source evdev='@'/></input>"),
    (
        *("devices", "hostdev"),
        "<hostdev mode='capabilities' type='storage'><source><block>@</block></source></hostdev>",
    ),
    ("devices", "hostdev", "<hostdev mode='capabilities' type='misc'><source><char>@</char></source></hostdev>"),
    (
        *("devices", "hostdev"),
        "<hostdev mode='capabilities' type='net'><source><interface>eth0</interface></source></hostdev>",
    ),
    ("devices", "path", "<controller type='scsi'><rom file='@'/></controller>"),
    ("devices", "path", "<memory model='nvdimm'><source><path>@</path></source></memory>"),
    ("devices", "path", "<pstore backend='acpi-erst'><path>@</path></pstore>"),
    ("devices", "path", "<lease><lockspace>l</lockspace><key>k</key><target path='@'/></lease>"),
    # privileges that no path tells of
    ("devices", "hostdev", _disk(f"<source file='{DISK}'/>", more="rawio='yes'")),
    ("devices", "seclabel", _disk(f"<source file='{DISK}'><seclabel><label>root:root</label></seclabel></source>")),
    ("domain", "seclabel", "<seclabel type='dynamic' model='selinux'><baselabel>unconfined</baselabel></seclabel>"),
    ("domain", "commandline", "<q:commandline xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'/>"),
    ("devices", "commandline", _disk(f"<source file='{DISK}'/><x:source xmlns:x='urn:x' name='x'/>")),
    # what lies where libvirt has files of its own, and is another domain's
    ("os", "firmware", "<nvram>/usr/share/OVMF/OVMF_VARS_4M.fd</nvram>"),
    ("os", "firmware", "<nvram>/var/lib/libvirt/qemu/nvram/victim_VARS.fd</nvram>"),
    ("os", "firmware", "<nvram type='network'><source protocol='iscsi' name='x'/></nvram>"),
    ("os", "firmware", "<loader readonly='no' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"),
    ("os", "firmware", "<loader type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>"),
    ("devices", "chardev", "<serial type='file'><source path='/var/lib/libvirt/qemu/nvram/v_VARS.fd'/></serial>"),
    ("devices", "socket", "<serial type='unix'><source mode='connect' path='/run/libvirt/libvirt-sock'/></serial>"),
    (
        *("devices", "chardev"),
        _channel("<source mode='bind' path='/var/lib/libvirt/qemu/domain-1-v/monitor.sock'/>"),
    ),
    (
        *("devices", "socket"),
        _channel("<source mode='connect' path='/var/lib/libvirt/qemu/channel/target/domain-1-v/x'/>"),
    ),
    (
        *("devices", "chardev"),
        "<serial type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channel/target/x'/></serial>",
    ),
    (
        *("devices", "socket"),
        "<redirdev bus='usb' type='unix'><source path='/var/lib/libvirt/qemu/domain-1-v/monitor.sock'/></redirdev>",
    ),
    ("devices", "chardev", "<serial type='pty'><log file='/var/lib/libvirt/qemu/nvram/v_VARS.fd'/></serial>"),
    ("devices", "chardev", "<serial type='pty'><log file='/var/log/libvirt/qemu/../../cron'/></serial>"),
    ("devices", "path", "<graphics type='vnc' socket='/var/lib/libvirt/qemu/v.sock'/>"),
    ("devices", "chardev", "<serial type='dev'><source path='/dev/urandom'/></serial>"),
    ("devices", "disk", _disk(f"<source file='{DISK}' protocol='nbd' name='x'/>", kind="network")),
    ("devices", "disk", _disk(f"<source file='{DISK}' pool='p' volume='v'/>", kind="volume")),
]
CASES = [
    (where, kind, text.replace("@", path))
    for where, kind, text in ATTACKS
    for path in ("/etc/x", "tmp/x")
    if "@" in text or path == "/etc/x"
]


@pytest.mark.parametrize(("where", "kind", "text"), CASES)
def test_each_attack_is_refused(where: str, kind: str, text: str) -> None:
    """Absolute or relative: refused, and only allowing its kind lets it through."""
    end = f"</{where}>"
    hostile = xml("plain").replace(end, text + end)
    with pytest.raises(UnsafeArchive) as refusal:
        check_trust(hostile, FACTS)
    assert refusal.value.evidence.startswith(f"{kind}: ")
    check_trust(hostile, FACTS, allow=frozenset({kind}))
    assert {danger.kind for danger in find_dangers(hostile, FACTS)} == {kind}


REFUSED_WHOLE = ("filesystem", "hostdev")
"""Of these the schema's definitions that begin alike are refused with all that is in them."""

NO_PATH = {
    "diskSourceNetworkNFS": "a network disk, which is refused",
    "diskSourceNetworkProtocolRBD": "a network disk, which is refused",
    "driverFormat": "the name of a format",
    "diskAuth": "the name of a user",
    "osexe": "the name of a user",
    "respartition": "a control group",
    "interface": "a network card",
    "interface-options": "a network card",
    "interface-network-attributes": "a group of ports",
    "interface-port-forwards": "a network card",
    "audioalsa": "refused by its type",
    "audiooss": "refused by its type",
}
"""Definitions of the schema that use a path's type for something else, or inside what is refused anyway."""


def _places(element: Element, within: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The elements and attributes (with @) below a definition of the schema that hold a path or device name."""
    if element.tag in (f"{GRAMMAR}element", f"{GRAMMAR}attribute"):
        sign = "@" if element.tag.endswith("attribute") else ""
        within = (*within, f"{sign}{element.get('name', '')}")
    is_path = element.tag == f"{GRAMMAR}ref" and PATH_TYPES.search(element.get("name", ""))
    return ([within] if is_path and within else []) + [place for child in element for place in _places(child, within)]


def test_every_path_of_libvirts_schema_is_known() -> None:
    """Each element and attribute that the installed schema gives a path's type is one that the gate looks at."""
    unknown: list[str] = []
    seen = 0
    for name in ("domaincommon.rng", "storagecommon.rng", "privatedata.rng"):
        for definition in fromstring((SCHEMAS / name).read_text()).iterfind(f"{GRAMMAR}define"):
            title = definition.get("name", "")
            if title in NO_PATH or title.startswith(REFUSED_WHOLE):
                continue
            for place in _places(definition):
                seen += 1
                last = place[-1]
                known = PATH_ATTRIBUTES | ({"dev", "dir"} if "source" in place else set())
                special = place[-1] in ("backend", "emulator")
                if not (last.removeprefix("@") in known if last.startswith("@") else last in PATH_TEXTS or special):
                    unknown.append(f"{title}: {'/'.join(place)}")
    assert seen > 30
    assert unknown == []
