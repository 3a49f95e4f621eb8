"""Hostile definitions are refused by name; what the host's own definition has already is not."""

import pytest

from infra.errors import UnsafeArchive
from infra.hypervisor.restore_dangers import TrustFacts, find_dangers
from infra.hypervisor.restore_trust import ALLOWABLE, check_trust, emulators, packaged_emulators
from infra.hypervisor.system_paths import is_system_path

EMULATOR = "/usr/bin/qemu-system-x86_64"
DISK = "/srv/vm/web.qcow2"

PLAIN = f"""
<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web</name><uuid>11111111-2222-3333-4444-555555555555</uuid>
  <metadata><note xmlns='http://example.org/'>/etc/passwd</note></metadata>
  <description>/etc/passwd</description>
  <resource><partition>/machine</partition></resource>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
    <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/web_VARS.fd</nvram>
    <cmdline>root=/dev/vda1 init=/bin/sh</cmdline>
    <!--os-->
  </os>
  <sysinfo type='smbios'><bios><entry name='vendor'>/usr</entry></bios></sysinfo>
  <devices>
    <emulator>{EMULATOR}</emulator>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{DISK}'/>
      <target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><source file='/srv/iso/debian.iso'/><target dev='sda' bus='sata'/>
      <readonly/></disk>
    <disk type='file' device='cdrom'><target dev='sdb' bus='sata'/></disk>
    <interface type='bridge'><source bridge='br0'/><!--interface--></interface>
    <interface type='direct'><source dev='eno1' mode='bridge'/></interface>
    <serial type='pty'><log file='/var/log/libvirt/qemu/web-serial.log'/><target port='0'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
    <graphics type='vnc' port='-1' autoport='yes'><listen type='address' address='127.0.0.1'/></graphics>
    <input type='tablet' bus='usb'><address type='usb' bus='0' port='1'/></input>
    <!--devices-->
  </devices>
  <!--domain-->
</domain>
"""

FACTS = TrustFacts(emulators=frozenset({EMULATOR}), placed=frozenset({DISK, "/var/lib/libvirt/qemu/nvram/web_VARS.fd"}))

HOSTDEV = """<hostdev mode='subsystem' type='pci'>
  <source><address domain='0' bus='1' slot='0' function='0'/></source></hostdev>"""
COMMANDLINE = """<qemu:commandline>
  <qemu:arg value='-chardev'/><qemu:arg value='file,path=/etc/cron.d/x'/></qemu:commandline>"""


def _disk(source: str, *, kind: str = "file", device: str = "disk") -> str:
    return f"<disk type='{kind}' device='{device}'>{source}<target dev='vdz' bus='virtio'/></disk>"


HOSTILE = [
    ("hostdev", "devices", HOSTDEV),
    ("hostdev", "devices", "<interface type='hostdev'><source><address type='pci'/></source></interface>"),
    ("hostdev", "devices", "<tpm><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>"),
    ("hostdev", "devices", "<input type='evdev'><source dev='/dev/input/event0'/></input>"),
    ("hostdev", "devices", _disk("<source type='pci' managed='yes' namespace='1'/>", kind="nvme")),
    ("commandline", "domain", COMMANDLINE),
    ("commandline", "domain", "<qemu:override><qemu:device alias='x'/></qemu:override>"),
    ("filesystem", "devices", "<filesystem type='mount'><source dir='/'/><target dir='all'/></filesystem>"),
    ("filesystem", "devices", "<filesystem><source socket='/run/fs.sock'/><target dir='x'/></filesystem>"),
    ("disk", "devices", _disk("<source file='/etc/shadow'/>")),
    ("disk", "devices", _disk("<source file='/etc/shadow'/>", device="cdrom")),
    ("disk", "devices", _disk("<source file='/etc/keys.iso'/>", device="cdrom")),
    ("disk", "devices", _disk("<source file='/srv/vm/../../etc/x.iso'/>", device="cdrom")),
    ("disk", "devices", _disk("<source file='/srv/vm/other.qcow2'/>", device="cdrom")),
    ("disk", "devices", _disk("<source dev='/dev/sda'/>", kind="block")),
    ("disk", "devices", _disk("<source dir='/etc'/>", kind="dir")),
    ("disk", "devices", _disk("<source protocol='nbd' name='x'><host name='h'/></source>", kind="network")),
    ("disk", "devices", _disk("<source pool='p' volume='v'/>", kind="volume")),
    (
        "disk",
        "devices",
        _disk(f"<source file='{DISK}'/><backingStore><source file='/etc/shadow'/></backingStore>"),
    ),
    (
        "disk",
        "devices",
        _disk(f"<source file='{DISK}'><reservations><source path='/x.sock'/></reservations></source>"),
    ),
    ("socket", "devices", _disk("<source type='unix' path='/run/vhost.sock'/>", kind="vhostuser")),
    ("socket", "devices", "<interface type='vhostuser'><source path='/run/v.sock'/></interface>"),
    ("socket", "devices", "<shmem name='s'><server path='/run/s.sock'/></shmem>"),
    ("chardev", "devices", "<serial type='file'><source path='/etc/cron.d/x'/></serial>"),
    ("chardev", "devices", "<serial type='file'><source path='relative'/></serial>"),
    ("chardev", "devices", "<console type='dev'><source path='/dev/mem'/></console>"),
    ("socket", "devices", "<channel type='unix'><source path='/run/libvirt/../docker.sock'/></channel>"),
    ("chardev", "devices", "<serial type='pty'><log file='/etc/cron.d/x'/></serial>"),
    ("chardev", "devices", "<rng><backend model='random'>/etc/shadow</backend></rng>"),
    ("firmware", "os", "<loader>/tmp/evil.fd</loader>"),
    ("firmware", "os", "<nvram template='/etc/shadow'/>"),
    ("path", "os", "<kernel>/boot/vmlinuz</kernel>"),
    ("path", "os", "<acpi><table type='slic'>/etc/shadow</table></acpi>"),
    ("path", "devices", "<memory model='nvdimm'><source><path>/etc/shadow</path></source></memory>"),
    ("path", "devices", "<graphics type='vnc' socket='/etc/x.sock'/>"),
    ("path", "domain", "<sysinfo type='fwcfg'><entry name='opt/x' file='/etc/shadow'/></sysinfo>"),
    ("seclabel", "domain", "<seclabel type='none'/>"),
    ("seclabel", "domain", "<seclabel type='static' model='dac'><label>root:root</label></seclabel>"),
    ("script", "interface", "<script path='/tmp/evil.sh'/>"),
    ("path", "interface", "<backend type='passt' logFile='/etc/cron.d/x'/>"),
]


def _with(where: str, text: str) -> str:
    return PLAIN.replace(f"<!--{where}-->", text)


def test_an_ordinary_definition_holds_no_danger() -> None:
    """Nothing in a usual definition is refused: firmware, media, bridges, libvirt's own logs, free text."""
    assert find_dangers(PLAIN, FACTS) == ()


@pytest.mark.parametrize(("kind", "where", "text"), HOSTILE)
def test_each_danger_is_refused_by_name(kind: str, where: str, text: str) -> None:
    """The refusal names the danger's kind and how to allow it, and allowing exactly it lets it through."""
    xml = _with(where, text)
    with pytest.raises(UnsafeArchive) as refusal:
        check_trust(xml, FACTS)
    assert refusal.value.evidence.startswith(f"{kind}: ")
    assert f"--allow {kind}" in refusal.value.remedy
    check_trust(xml, FACTS, allow=frozenset({kind}))
    with pytest.raises(UnsafeArchive):
        check_trust(xml, FACTS, allow=frozenset(ALLOWABLE) - {kind})


@pytest.mark.parametrize(("kind", "where", "text"), HOSTILE)
def test_in_place_what_the_host_has_already_is_trusted(kind: str, where: str, text: str) -> None:
    """In place, what the domain's current definition holds too was put there by the administrator."""
    xml = _with(where, text)
    assert find_dangers(xml, FACTS)[0].kind == kind
    check_trust(xml, TrustFacts(FACTS.emulators, FACTS.placed, current_xml=xml))


def test_a_copy_does_not_inherit_devices_and_directories() -> None:
    """A copy is refused the original's host device, although the original has it."""
    xml = _with("devices", HOSTDEV)
    with pytest.raises(UnsafeArchive, match="unasked"):
        check_trust(xml, TrustFacts(FACTS.emulators, FACTS.placed, current_xml=xml, copy=True))


def test_a_copy_may_use_the_originals_medium() -> None:
    """A copy may read the CD-ROM that the original has, whatever its name; another file it may not."""
    original = _with("devices", _disk("<source file='/srv/vm/tools'/>", device="cdrom"))
    facts = TrustFacts(FACTS.emulators, FACTS.placed, current_xml=original, copy=True)
    check_trust(original, facts)
    with pytest.raises(UnsafeArchive, match="unasked"):
        check_trust(original.replace("/srv/vm/tools", "/srv/vm/other"), facts)


def test_an_unexpected_emulator_is_refused() -> None:
    """An emulator that the host's capabilities do not offer is refused, and named."""
    with pytest.raises(UnsafeArchive) as refusal:
        check_trust(PLAIN.replace(EMULATOR, "/tmp/evil"), FACTS)
    assert "emulator: devices: /tmp/evil" in refusal.value.evidence


def test_every_danger_is_listed_at_once() -> None:
    """A definition with several dangers names all of them in one refusal."""
    xml = _with("devices", HOSTDEV).replace("<!--domain-->", COMMANDLINE).replace(EMULATOR, "/tmp/evil")
    with pytest.raises(UnsafeArchive) as refusal:
        check_trust(xml, FACTS)
    assert len(refusal.value.evidence.splitlines()) == 3


def test_a_disk_that_is_only_read_here_is_not_written_by_the_archives_word() -> None:
    """What the host's definition only reads, the archived one may not write to, in place and beside it."""
    reading = _with("devices", _disk("<source file='/srv/shared.img'/><readonly/>"))
    writing = reading.replace("<readonly/>", "")
    for copy in (False, True):
        check_trust(reading, TrustFacts(FACTS.emulators, FACTS.placed, current_xml=reading, copy=copy))
        with pytest.raises(UnsafeArchive, match="unasked"):
            check_trust(writing, TrustFacts(FACTS.emulators, FACTS.placed, current_xml=reading, copy=copy))
    check_trust(reading, TrustFacts(FACTS.emulators, FACTS.placed, current_xml=writing))


@pytest.mark.parametrize(
    ("here", "archived"),
    [
        ("<source dir='/srv/x'/><readonly/>", "<source dir='/srv/x'/>"),
        ("<source dir='/srv/x'/>", "<binary path='/tmp/evil'/><source dir='/srv/x'/>"),
    ],
)
def test_a_directory_of_this_host_is_trusted_as_it_is(here: str, archived: str) -> None:
    """A shared directory with more rights, or another program behind it, is not the one that stands here."""
    facts = TrustFacts(FACTS.emulators, FACTS.placed, current_xml=_with("devices", f"<filesystem>{here}</filesystem>"))
    check_trust(facts.current_xml, facts)
    with pytest.raises(UnsafeArchive, match="unasked"):
        check_trust(_with("devices", f"<filesystem>{archived}</filesystem>"), facts)


def test_an_addition_to_a_disk_of_this_host_is_found() -> None:
    """A disk that stands here already vouches for its own source, not for what the archive adds to it."""
    facts = TrustFacts(FACTS.emulators, FACTS.placed, current_xml=_with("devices", _disk("<source dev='/dev/x'/>")))
    more = _disk("<source dev='/dev/x'><reservations managed='no'><source path='/run/x'/></reservations></source>")
    with pytest.raises(UnsafeArchive) as refusal:
        check_trust(_with("devices", more), facts)
    assert "/run/x" in refusal.value.evidence
    assert "/dev/x" not in refusal.value.evidence


def test_a_copy_trusts_the_loader_of_its_original_and_not_its_variables() -> None:
    """The firmware's code from an odd place is shared with the original; its variables, which are written, are not."""
    odd = PLAIN.replace("/usr/share/OVMF/OVMF_CODE_4M.fd", "/opt/fw.fd")
    facts = TrustFacts(FACTS.emulators, FACTS.placed, current_xml=odd, copy=True)
    check_trust(odd, facts)
    with pytest.raises(UnsafeArchive, match="unasked"):
        check_trust(odd.replace("readonly='yes' type", "readonly='no' type"), facts)
    with pytest.raises(UnsafeArchive, match="unasked"):
        check_trust(odd, TrustFacts(FACTS.emulators, frozenset({DISK}), current_xml=odd, copy=True))


def test_packaged_emulators_are_known_by_their_place() -> None:
    """Where no host can be asked, an emulator counts if it lies where distributions put them."""
    assert packaged_emulators(PLAIN) == {EMULATOR}
    assert packaged_emulators(PLAIN.replace(EMULATOR, "/usr/libexec/qemu-kvm")) == {"/usr/libexec/qemu-kvm"}
    for evil in ("/tmp/evil", "/usr/bin/qemu-system-x86_64/../sh", "/usr/bin/sh", "qemu-system-x86_64"):
        assert packaged_emulators(PLAIN.replace(EMULATOR, evil)) == set()


def test_emulators_come_from_the_capabilities() -> None:
    """Emulators are read from every architecture and domain type of the capabilities."""
    xml = """<capabilities><host/><guest><arch name='x86_64'><emulator>/usr/bin/a</emulator>
      <domain type='kvm'><emulator>/usr/bin/b</emulator></domain></arch></guest></capabilities>"""
    assert emulators(xml) == {"/usr/bin/a", "/usr/bin/b"}


@pytest.mark.parametrize(
    "path",
    [
        "/etc/cron.d/x",
        "/root/.ssh/authorized_keys",
        "/usr/bin/ls",
        "/srv/../etc/x",
        "/home/u/.ssh/x",
        "x",
        "/dev/sda",
    ],
)
def test_system_paths(path: str) -> None:
    """Places that make the host what it is, hidden directories and paths that are not plain are system paths."""
    assert is_system_path(path)


@pytest.mark.parametrize(
    "path",
    ["/var/lib/libvirt/images/a.qcow2", "/srv/vm/a", "/home/kvm/templates/a", "/etcetera/a", "/data/a b.img"],
)
def test_places_for_images(path: str) -> None:
    """Usual places of images are no system paths, nor is a name that only begins like one."""
    assert not is_system_path(path)
