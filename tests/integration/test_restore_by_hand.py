"""docs/restore-by-hand.md works: its shell lines are run as they stand, with borg and virsh and nothing of vmborg."""

import json
import os
import re
import shlex
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from infra.hypervisor import images
from infra.hypervisor.domain_xml import disk_sources, parse_domain
from infra.hypervisor.inspect import SWTPM_DIR
from infra.model import DomainState
from infra.process import run
from tests.guests import Boot, Daemons, DiskSpec, image_dir
from tests.integration.bare import digest, image_holds, loop_device
from tests.integration.restoring import MIB, RestoreHost, restore_host, write
from tests.integration.segments.images import content_of
from tests.integration.vmborg import vmborg

pytestmark = pytest.mark.integration

DOCUMENT = Path(__file__).parents[2] / "docs" / "restore-by-hand.md"
UEFI = """<os><type arch='x86_64' machine='q35'>hvm</type>
  <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>
  <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>{nvram}</nvram></os><features><acpi/></features>"""
UEFI_SOURCE = UEFI.replace(">{nvram}</nvram>", " type='file'><source file='{nvram}'/></nvram>")
TPM = "<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm><controller type='usb'"
OS = "<os><type arch='x86_64' machine='q35'>hvm</type></os>"


def _blocks() -> dict[str, list[str]]:
    """The shell blocks of the document by heading; those before the first heading under ""."""
    found: dict[str, list[str]] = {"": []}
    heading = ""
    for part in re.split(r"(?m)^(## .*|```sh\n(?:.*\n)*?```)$", DOCUMENT.read_text(encoding="utf-8")):
        if part.startswith("## "):
            heading = part.removeprefix("## ")
            found[heading] = []
        elif part.startswith("```sh\n"):
            found[heading].append(part.removeprefix("```sh\n").removesuffix("```"))
    return found


BLOCKS = _blocks()
ASSIGNMENT = re.compile(r"(?m)^(?:export )?([A-Z_]+)=")


@pytest.fixture
def host(daemons: Daemons) -> Iterator[RestoreHost]:
    """A host with an empty repository."""
    assert daemons is not None
    with image_dir("hand") as root, restore_host(root) as place:
        yield place


def _run(host: RestoreHost, *headings: str, **variables: str | Path) -> str:
    """Run the blocks under these headings in one shell, with these variables instead of the first block's."""
    (first,) = BLOCKS[""]
    defaults = dict.fromkeys(ASSIGNMENT.findall(first), "/nowhere")
    ours: Mapping[str, str | Path] = {
        "BORG_REPO": host.root / "repository",
        "BORG_PASSCOMMAND": f"cat {host.root}/passphrase",
        "WORK": host.root / "work",
        **variables,
    }
    assert set(ours) <= set(defaults), "a variable that the document does not name"
    values = "\n".join(f"export {name}={shlex.quote(str(value))}" for name, value in {**defaults, **ours}.items())
    script = "\n".join([values, *(block for heading in headings for block in BLOCKS[heading])])
    environment = {
        "BORG_BASE_DIR": str(host.root / "state/borg"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return run(["bash", "-euo", "pipefail", "-c", script], timeout=300, env=environment).stdout


def test_the_document_has_the_blocks_that_are_tested_here() -> None:
    """Every heading with shell lines is one that a test below runs."""
    assert {heading for heading, blocks in BLOCKS.items() if blocks} == {
        "",
        "Find the archive",
        "Extract",
        "Disks in segments",
        "The VM is gone: back to where it was",
        "Beside the original",
        "A linked clone beside the original",
        "One disk",
        "One disk in segments",
        "A block device",
    }


def test_every_block_is_run() -> None:
    """To name a heading in the list above is not enough: a call of `_run` names it as well."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert [heading for heading in BLOCKS if BLOCKS[heading] and heading and source.count(f'"{heading}"') < 2] == []


def test_a_vm_that_is_gone_comes_back(host: RestoreHost) -> None:
    """A linked clone with UEFI, TPM and a kernel, lost with all its files, is defined and started again as it was."""
    template = host.image("template.qcow2", fill=5)
    clone = host.image("clone.qcow2", backing=template)
    write(clone, "qcow2", 6, offset=MIB)
    nvram = Path(f"/var/lib/libvirt/qemu/nvram/{host.prefix}-vm_VARS.fd")
    edits = [(OS, UEFI.format(nvram=nvram)), ("<controller type='usb'", TPM)]
    domain = host.define([DiskSpec("vda", clone)], edit=edits)
    domain.start(paused=True)
    domain.destroy()
    name, uuid = domain.name, domain.uuid
    host.factory.make(domain)
    tpm = SWTPM_DIR / uuid / "tpm2" / "tpm2-00.permall"
    before = digest(template), digest(nvram), digest(tpm)
    domain.undefine(keep_nvram=False)
    template.unlink()
    clone.unlink()
    for neighbour in (f"{uuid[:8]}.{name}-2", f"22222222.www.{name}", f"22222222.22222222.{name}"):
        host.factory.repository.create(  # a VM whose name begins or ends alike is no candidate
            f"vm.{neighbour}@2030-01-01T00:00:00Z",
            [str(host.config_path)],
            comment="",
            files_cache_suffix="other",
        )
    printed = _run(host, "Find the archive", "Extract", "The VM is gone: back to where it was", VM=name)
    assert host.factory.names[0] in printed
    again = host.find(name)
    assert (again.uuid, again.state()) == (uuid, DomainState.RUNNING)
    again.destroy()
    assert digest(template) == before[0]
    assert nvram.stat().st_size == 540672
    assert tpm.is_file()
    assert [image.path for image in images.chain(str(clone), "qcow2")] == [str(clone), str(template)]
    assert image_holds(clone, "qcow2", 5)
    assert image_holds(clone, "qcow2", 6, offset=MIB)


def test_a_kernel_comes_back(host: RestoreHost, boot: Boot) -> None:
    """Kernel and initrd that are gone are put where the definition names them."""
    kernel, initrd = host.root / "vmlinuz", host.root / "initrd.img"
    shutil.copyfile(boot.kernel, kernel)
    initrd.write_bytes(b"initrd")
    direct = OS.replace("</os>", f"<kernel>{kernel}</kernel><initrd>{initrd}</initrd></os>")
    disk = host.image("vm.qcow2")
    domain = host.define([DiskSpec("vda", disk)], edit=[(OS, direct)])
    name = domain.name
    host.factory.make(domain)
    domain.undefine()
    for path in (kernel, initrd, disk):
        path.unlink()
    _run(host, "Find the archive", "Extract", "The VM is gone: back to where it was", VM=name)
    assert (digest(kernel), initrd.read_bytes()) == (digest(boot.kernel), b"initrd")
    assert host.find(name).state() is DomainState.RUNNING


def test_a_copy_beside_the_original(host: RestoreHost) -> None:
    """A copy of a linked clone has its own name, UUID, MAC address and chain; the original is untouched."""
    template = host.image("template.qcow2", fill=5)
    clone = host.image("clone.qcow2", backing=template)
    mac = "52:54:00:11:22:33"
    interface = f"<interface type='user'><mac address='{mac}'/></interface><controller type='usb'"
    domain = host.define([DiskSpec("vda", clone)], edit=[("<controller type='usb'", interface)])
    host.factory.make(domain)
    before = digest(template), digest(clone)
    copy, directory = f"{host.prefix}-copy", host.root / "copy"
    headings = ("Find the archive", "Extract", "Beside the original", "A linked clone beside the original")
    names = {"CLONE": clone.name, "TEMPLATE": template.name}
    _run(host, *headings, VM=domain.name, NEW=copy, DIR=directory, **names)
    made = host.find(copy)
    assert made.uuid != domain.uuid
    assert disk_sources(made.inactive_xml()) == {"vda": f"{directory}/clone.qcow2"}
    assert mac not in made.inactive_xml()
    chain = [image.path for image in images.chain(f"{directory}/clone.qcow2", "qcow2")]
    assert chain == [f"{directory}/clone.qcow2", f"{directory}/template.qcow2"]
    assert image_holds(chain[0], "qcow2", 5)
    assert (digest(template), digest(clone)) == before


@pytest.mark.parametrize("uefi", [UEFI, UEFI_SOURCE], ids=["text", "source"])
def test_a_copy_has_its_own_firmware_state(host: RestoreHost, uefi: str) -> None:
    """NVRAM and TPM state of a copy lie under its own name and UUID with what was archived, in both ways to name it."""
    nvram = Path(f"/var/lib/libvirt/qemu/nvram/{host.prefix}-vm_VARS.fd")
    edits = [(OS, uefi.format(nvram=nvram)), ("<controller type='usb'", TPM)]
    domain = host.define([DiskSpec("vda", host.image("vm.qcow2"))], edit=edits)
    domain.start(paused=True)
    domain.destroy()
    host.factory.make(domain)
    copy = f"{host.prefix}-copy"
    headings = ("Find the archive", "Extract", "Beside the original")
    _run(host, *headings, VM=domain.name, NEW=copy, DIR=host.root / "copy")
    assert stat.S_IMODE((host.root / "work/copy.xml").stat().st_mode) == 0o600
    made = host.find(copy)
    own = parse_domain(made.inactive_xml()).nvram
    assert own is not None
    assert own.path != str(nvram)
    assert digest(Path(own.path)) == digest(nvram)
    state = Path("tpm2/tpm2-00.permall")
    assert digest(SWTPM_DIR / made.uuid / state) == digest(SWTPM_DIR / domain.uuid / state)
    made.start(paused=True)


def test_one_disk(host: RestoreHost) -> None:
    """A single disk comes out under its path, byte for byte, and no other."""
    paths = [host.image("a.qcow2"), host.image("b.qcow2", fill=2)]
    domain = host.define([DiskSpec("vda", paths[0]), DiskSpec("vdb", paths[1])])
    host.factory.make(domain)
    disk = str(paths[1]).lstrip("/")
    _run(host, "Find the archive", "One disk", VM=domain.name, DISK=disk)
    found = [path for path in (host.root / "work").rglob("*") if path.is_file()]
    assert found == [host.root / "work" / disk]
    assert digest(found[0]) == digest(paths[1])


def test_disks_in_segments(host: RestoreHost, prefect_server: str) -> None:
    """The raw disk comes out of its segments, and a VM that is gone comes back on images made of them."""
    settings = json.loads(host.config_path.read_text("utf-8"))
    settings["vms"]["defaults"]["read"] = "changed"
    host.config_path.write_text(json.dumps(settings), encoding="utf-8")
    paths = {target: host.image(f"{target}.qcow2", fill=fill) for target, fill in (("vda", 3), ("vdb", 4))}
    write(paths["vdb"], "qcow2", 5, offset=9 * MIB)
    domain = host.define([DiskSpec(target, path) for target, path in paths.items()])
    name, before = domain.name, {target: content_of(path) for target, path in paths.items()}
    call = vmborg("backup", name, config=host.config_path, timeout=120, env={"PREFECT_API_URL": prefect_server})
    assert call.code == 0, call.stdout + call.stderr
    printed = _run(host, "Find the archive", "One disk in segments", VM=name, TARGET="vdb", WORK=host.root / "one")
    assert "disks/vdb" in printed
    assert (host.root / "one/vdb.raw").read_bytes() == before["vdb"]
    domain.undefine()
    for path in paths.values():
        path.unlink()
    _run(host, "Find the archive", "Extract", "Disks in segments", "The VM is gone: back to where it was", VM=name)
    assert host.find(name).state() is DomainState.RUNNING
    host.find(name).destroy()
    assert {target: content_of(path) for target, path in paths.items()} == before


def test_a_block_device(host: RestoreHost) -> None:
    """A block device gets its archived content back."""
    with loop_device(host.root / "device.img", 16 * MIB) as device:
        write(device, "raw", 4)
        domain = host.define([DiskSpec("vda", device, format="raw", kind="block")])
        host.factory.make(domain)
        write(device, "raw", 9)
        _run(host, "Find the archive", "A block device", VM=domain.name, DEVICE=device)
        assert image_holds(device, "raw", 4)
