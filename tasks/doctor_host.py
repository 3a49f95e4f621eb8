"""What `doctor` looks at on the host itself: rights, daemons, programs, folders, confinement, secrets, repositories."""

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from infra.borg.command import binary
from infra.config.models import Config, RepositoryConfig
from infra.config.secrets import file_problem
from infra.errors import RepositoryLocked, VmborgError
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.security import APPARMOR_FIXED, confinement, security_models
from infra.journal.store import Journal
from infra.model import StateDir
from infra.process import run
from tasks.doctor_reading import reading_finding
from tasks.health import Finding, Health, failed
from tasks.repositories import open_repository
from tasks.units import size

HOST = "host"
OLDEST_LIBVIRT = (9, 0, 0)  # the oldest that vmborg is tested with (Debian 12)
_STATE_LOW, _STATE_EMPTY = 1024**3, 64 * 1024**2  # bytes; borg's caches and a run's metadata live there
_REPOSITORY_LOW = 0.05  # share of the file system that is free
_OS_RELEASE = Path("/etc/os-release")
_SELINUX = "SELinux confines the guests; an overlay beside its base gets the label of an image from libvirt"
_APPARMOR_REMEDY = (
    "Upgrade libvirt to 12.1.0 or newer. Until then exclude these guests from AppArmor (security_driver in "
    "/etc/libvirt/qemu.conf, or <seclabel type='none' model='apparmor'/> in a guest), which takes a protection "
    "away, and try a backup of a VM that does not matter first."
)


def host_findings(config: Config) -> Iterator[Finding]:
    """Everything that needs neither libvirt nor a repository."""
    root = os.geteuid() == 0
    yield Finding(
        Health.OK if root else Health.CRITICAL,
        HOST,
        "rights",
        "running as root" if root else f"running as user {os.geteuid()}, who cannot read disk images",
        "" if root else "Run vmborg as root.",
    )
    for name, program in (("qemu-img", "qemu-img"), ("borg", binary())):
        yield _program(name, [program, "--version"])
    yield from _state_dir(config.state)
    yield reading_finding(config, HOST)


def _program(name: str, argv: list[str]) -> Finding:
    try:
        lines = run(argv, timeout=30).stdout.splitlines()
    except VmborgError as error:
        return failed(error, subject=HOST, check=name)
    return Finding(Health.OK, HOST, name, lines[0] if lines else "installed")


def _state_dir(state: StateDir) -> Iterator[Finding]:
    check = "state_dir"
    try:
        facts = state.root.stat()
    except FileNotFoundError:
        yield Finding(Health.WARNING, HOST, check, f"{state.root} does not exist yet", "vmborg init")
        return
    except OSError as error:
        yield Finding(Health.CRITICAL, HOST, check, f"{state.root}: {error.strerror}", "Run as root.")
        return
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = f"{stat.S_IMODE(facts.st_mode):04o}"
        yield Finding(
            Health.CRITICAL, HOST, check, f"{state.root} is open to others (mode {mode})", f"chmod 0700 {state.root}"
        )
    yield _free(state.root)
    for problem in Journal(state.journal).entries().problems:
        yield failed(problem, subject=HOST, check="journal")


def _free(path: Path) -> Finding:
    free = shutil.disk_usage(path).free
    health = Health.CRITICAL if free < _STATE_EMPTY else Health.WARNING if free < _STATE_LOW else Health.OK
    remedy = "" if health is Health.OK else "Free some space there; borg's caches and the journal need it."
    return Finding(health, HOST, "state_dir", f"{path}: {size(free)} free", remedy)


def libvirt_findings(hypervisor: Hypervisor) -> Iterator[Finding]:
    """Versions and confinement. Raises HypervisorError."""
    versions = hypervisor.versions()
    text = f"libvirt {_dotted(versions.libvirt)}, qemu {_dotted(versions.hypervisor)} at {hypervisor.uri}"
    old = versions.libvirt < OLDEST_LIBVIRT
    yield Finding(
        Health.WARNING if old else Health.OK,
        HOST,
        "libvirt",
        text,
        f"vmborg is not tested below libvirt {_dotted(OLDEST_LIBVIRT)}." if old else "",
    )
    try:
        os_release = _OS_RELEASE.read_text("utf-8", "replace")
    except OSError:
        os_release = ""
    yield confinement_finding(hypervisor.capabilities_xml(), versions.libvirt, os_release)


def confinement_finding(capabilities: str, libvirt: tuple[int, int, int], os_release: str) -> Finding:
    """Whether confinement lets a block commit happen. Pure. Raises HypervisorError."""
    found = confinement(security_models(capabilities), libvirt, os_release)
    names = ", ".join(found.models) or "none"
    if found.commit_denied:
        text = (
            f"AppArmor with libvirt {_dotted(libvirt)} is known to deny the block commit that ends a backup "
            f"(fixed in {_dotted(APPARMOR_FIXED)}): the VM would stay on its overlay"
        )
        return Finding(Health.CRITICAL, HOST, "confinement", text, _APPARMOR_REMEDY)
    if "selinux" in found.models:
        return Finding(Health.OK, HOST, "confinement", _SELINUX)
    return Finding(Health.OK, HOST, "confinement", f"security models: {names}")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def repository_findings(config: Config, name: str) -> Iterator[Finding]:
    """One repository: its secret's file, whether it opens, its exported key, its free space."""
    settings = config.repositories[name]
    subject = f"repository {name}"
    yield from _secret(subject, settings)
    try:
        open_repository(config, name).probe()
    except RepositoryLocked as error:  # so it is while a backup runs
        yield failed(error, subject=subject, check="open", health=Health.WARNING)
        return
    except VmborgError as error:
        yield failed(error, subject=subject, check="open")
        return
    yield Finding(Health.OK, subject, "open", f"{settings.location} opens with its passphrase")
    yield from _key(config.state, name, settings)
    if not settings.is_remote:
        yield _repository_space(subject, Path(settings.location))


def _secret(subject: str, settings: RepositoryConfig) -> Iterator[Finding]:
    ref = settings.passphrase
    if ref is None:
        yield Finding(
            Health.WARNING, subject, "passphrase", "not encrypted: whoever reads the repository reads every VM"
        )
    elif ref.file is not None:
        try:
            problem = file_problem(ref.file)
        except OSError as error:
            problem = error.strerror or str(error)
        if problem:
            yield Finding(Health.CRITICAL, subject, "passphrase", f"{ref.file}: {problem}", f"chmod 0600 {ref.file}")


def _key(state: StateDir, name: str, settings: RepositoryConfig) -> Iterator[Finding]:
    if settings.encryption == "none" or settings.encryption.startswith("authenticated"):
        return
    path = state.keys / f"{name}.key"
    if path.exists():
        yield Finding(Health.OK, f"repository {name}", "key", f"exported to {path}; a copy must lie elsewhere")
        return
    text = "its key was not exported: a damaged repository config would lose every archive"
    yield Finding(Health.WARNING, f"repository {name}", "key", text, "vmborg init, then store the key elsewhere.")


def _repository_space(subject: str, path: Path) -> Finding:
    usage = shutil.disk_usage(path)
    low = usage.free < usage.total * _REPOSITORY_LOW
    return Finding(
        Health.WARNING if low else Health.OK,
        subject,
        "space",
        f"{size(usage.free)} of {size(usage.total)} free",
        "Give it more room, or keep fewer archives; borg needs free space even to delete." if low else "",
    )
