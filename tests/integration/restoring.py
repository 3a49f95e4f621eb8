"""A host to restore on: a repository, a configuration, and domains without an operating system."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from infra.config.load import load
from infra.config.models import Config
from infra.errors import DomainNotFound
from infra.hypervisor.connection import Domain, Hypervisor
from infra.model import DomainState
from infra.process import run
from tasks.repositories import open_repository
from tasks.restore import Mode, Request, Restored, Wish, restore
from tasks.restore.host import named_domains
from tests.guests import DiskSpec
from tests.integration.archive_factory import ArchiveFactory
from tests.integration.bare import URI, domain_xml

MIB = 1024**2


@dataclass(slots=True)
class RestoreHost:
    """Everything lies below `root`; domains whose name begins with `prefix` are removed at the end."""

    root: Path
    hypervisor: Hypervisor
    config: Config
    config_path: Path
    factory: ArchiveFactory
    prefix: str = field(default_factory=lambda: f"restore-{uuid4().hex[:6]}")

    @property
    def images(self) -> Path:
        """Where the originals' images are."""
        return self.root / "images"

    def image(self, name: str, *, image_format: str = "qcow2", fill: int = 7, backing: Path | None = None) -> Path:
        """A 16 MiB image whose first MiB is filled with a byte; a linked clone if `backing` is given."""
        path = self.images / name
        linked = ["-b", str(backing), "-F", "qcow2"] if backing else []
        size = [] if backing else [str(16 * MIB)]
        run(["qemu-img", "create", "-q", "-f", image_format, *linked, str(path), *size], timeout=60)
        if not backing:
            write(path, image_format, fill)
        return path

    def define(self, disks: Sequence[DiskSpec], *, name: str = "vm", edit: Sequence[tuple[str, str]] = ()) -> Domain:
        """A shut-off domain with these disks; `edit` replaces text in its definition."""
        xml = domain_xml(f"{self.prefix}-{name}", str(uuid4()), disks)
        for old, new in edit:
            assert old in xml
            xml = xml.replace(old, new)
        return self.hypervisor.define(xml)

    def simple(self, *, fill: int = 7, name: str = "vm") -> Domain:
        """A shut-off domain with one qcow2 disk."""
        return self.define([DiskSpec("vda", self.image(f"{name}.qcow2", fill=fill))], name=name)

    def restore(self, vm: str, mode: Mode, *, archive: str = "latest", **options: object) -> Restored:
        """Restore with these fields of Wish and Request."""
        wishes = {key: options.pop(key) for key in list(options) if key in Wish.__dataclass_fields__}
        if mode is Mode.COPY:
            wishes = {"name": f"{self.prefix}-copy", "uuid": str(uuid4())} | wishes
        wish = Wish(mode, **wishes)  # type: ignore[arg-type]
        return restore(self.config, Request(vm, wish, archive, **options))  # type: ignore[arg-type]

    def find(self, name: str) -> Domain:
        """The domain of this name."""
        return self.hypervisor.find(name)

    def names(self) -> set[str]:
        """The domains of this test."""
        return {name for name, _ in named_domains(self.hypervisor) if name.startswith(self.prefix)}

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file and directory below the root outside borg's and vmborg's own, with inode and time of change."""
        # Not even looked into: borg's locks there come and go.
        tops = [path for path in self.root.iterdir() if path.name not in {"repository", "state"}]
        kept = [*tops, *(path for top in tops for path in top.rglob("*"))]
        return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in kept if path.is_file()} | {
            str(path): (path.stat().st_ino, 0) for path in kept if path.is_dir()
        }

    def clean(self) -> None:
        """Remove the domains."""
        for name, domain in named_domains(self.hypervisor):
            if not name.startswith(self.prefix):
                continue
            try:
                if domain.state() is not DomainState.SHUT_OFF:
                    domain.destroy()
                domain.undefine(keep_nvram=False)
            except DomainNotFound:
                continue  # a transient one was gone with its destroy


def write(path: Path, image_format: str, byte: int, *, offset: int = 0) -> None:
    """Fill a MiB of an image that nobody has open."""
    run(["qemu-io", "-f", image_format, "-c", f"write -P {byte} {offset} {MIB}", str(path)], timeout=60)


@contextmanager
def restore_host(root: Path) -> Iterator[RestoreHost]:
    """Make one below `root`, with an empty repository."""
    (root / "images").mkdir()
    config_path = root / "vmborg.yaml"
    secret = root / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("a secret of the test suite\n", encoding="utf-8")
    repository = {
        "location": str(root / "repository"),
        "passphrase": {"file": str(secret)},
        "compression": "lz4",
        "lock_wait": 5,
    }
    settings = {
        "state_dir": str(root / "state"),
        "hypervisor": {"name": "here", "uri": URI},
        "repositories": {"main": repository},
        "vms": {"defaults": {"repository": "main"}},
    }
    config_path.write_text(json.dumps(settings), encoding="utf-8")
    config = load(config_path)
    (root / "state").mkdir()
    main = open_repository(config, "main")
    main.init()
    with Hypervisor.open(URI) as hypervisor:
        host = RestoreHost(root, hypervisor, config, config_path, ArchiveFactory(main, root / "state"))
        try:
            yield host
        finally:
            host.clean()
