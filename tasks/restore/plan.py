"""What a restore is going to do, decided before anything is done. Pure.

A copy writes only new files. In place, a disk's own image replaces the one the domain has; what lies below it (a
linked clone's template) or is shared with others by habit (a kernel) is kept when it is the same and otherwise put
beside it under a new name, because other domains may use what is there.
"""

import posixpath
from collections.abc import Mapping
from dataclasses import replace

from infra.errors import UnsafeArchive
from infra.hypervisor.domain_xml import parse_domain
from infra.hypervisor.inspect import SWTPM_DIR, tpm_dir
from infra.hypervisor.restore_xml import DiskPlace, RewritePlan
from infra.hypervisor.system_paths import is_system_path
from infra.manifest import Manifest, ManifestDisk, ManifestImage
from infra.model import ImageKind, Layout, Verdict
from tasks.restore.checks import require_agreement, require_distinct, require_free, require_left_out, require_safe
from tasks.restore.model import ChainPlan, DevicePlan, FilePlan, Host, Mode, Plan, Rule, TpmPlan, Wish

IMAGE_DIR = "/var/lib/libvirt/images"
WITHOUT_CONTENT = (Verdict.EXCLUDED, Verdict.UNCOVERED)

_SUFFIXES = {"qcow2": ".qcow2", "raw": ".img"}


def make_plan(manifest: Manifest, xml: str, wish: Wish, host: Host) -> Plan:
    """Decide what goes where.

    Raises UnsafeArchive (manifest and definition disagree, a target is no place for images), ManifestError (two files
    for one place), TargetExists (a file is in the way or in use).
    """
    require_agreement(manifest, xml)
    require_left_out(manifest, xml, wish.leave_out)
    covered = [disk for disk in manifest.disks if disk.chain]
    builder = _Builder(manifest, xml, wish, host)
    for disk in covered:
        builder.add_disk(disk)
    plan = Plan(
        mode=wish.mode,
        name=_final_name(manifest, wish, host),
        uuid=wish.uuid or manifest.uuid,
        files=tuple(builder.files.values()),
        chains=tuple(ChainPlan(disk.target, tuple(disk.chain)) for disk in covered),
        devices=tuple(builder.devices),
        boot_files=builder.boot_files(),
        tpm=builder.tpm(),
        flatten=wish.flatten,
        drop=frozenset(disk.target for disk in manifest.disks if disk.verdict in WITHOUT_CONTENT),
        leave_out=wish.leave_out,
        stands=wish.mode is Mode.IN_PLACE and bool(host.current_xml),
    )
    require_distinct(plan)
    if wish.mode is not Mode.FILES:
        require_safe(plan, wish, host)
        require_free(plan, host)
    return plan


def _final_name(manifest: Manifest, wish: Wish, host: Host) -> str:
    if wish.mode is Mode.COPY:
        return wish.name
    return host.current_name or manifest.vm  # a domain renamed since keeps its new name


class _Builder:
    """Gives every archived file its target. A template that two disks share is restored once."""

    def __init__(self, manifest: Manifest, xml: str, wish: Wish, host: Host) -> None:
        self.manifest, self.xml, self.wish, self.host = manifest, xml, wish, host
        self.files: dict[str, FilePlan] = {}
        self.devices: list[DevicePlan] = []
        self.default_dir = self._default_dir()

    def _default_dir(self) -> str:
        if self.wish.to:
            return self.wish.to
        images = [disk.chain[0] for disk in self.manifest.disks if disk.chain]
        files = [posixpath.dirname(image.source) for image in images if image.kind is ImageKind.FILE]
        return files[0] if files else IMAGE_DIR

    def _directory(self, image: ManifestImage) -> str:
        if self.wish.to or image.kind is ImageKind.BLOCK:
            return self.default_dir
        return posixpath.dirname(image.source)

    def add_disk(self, disk: ManifestDisk) -> None:
        for depth, image in enumerate(disk.chain):
            if self.wish.mode is Mode.IN_PLACE and image.kind is ImageKind.BLOCK and depth == 0:
                self.devices.append(DevicePlan(image.archive_path, image.source, image.size))
            elif image.archive_path not in self.files:
                self.files[image.archive_path] = self._file(disk, image, depth)

    def _file(self, disk: ManifestDisk, image: ManifestImage, depth: int) -> FilePlan:
        own = f"{self.wish.name or self.manifest.vm}-{disk.target}{f'-base{depth}' if depth else ''}"
        own = f"{self._directory(image)}/{own}{_SUFFIXES.get(image.format, '.' + image.format)}"
        target, rule, beside = own, Rule.NEW, ""
        if self.wish.mode is Mode.IN_PLACE:
            target = self.host.resolve(image.source)
            rule = Rule.KEEP if depth else Rule.REPLACE
            beside = self._beside(target, own) if depth else ""
        elif self.wish.mode is Mode.FILES:
            suffix = ".qcow2" if disk.layout is Layout.SEGMENTS else ""
            target = f"{self.wish.to}/{image.archive_path}{suffix}"
        return FilePlan(
            image.archive_path,
            target,
            rule,
            size=image.size,
            allocated=image.allocated,
            extracted=image.extracted,
            beside=beside,
            segments=disk.layout is Layout.SEGMENTS,
        )

    def _beside(self, target: str, elsewhere: str) -> str:
        """Where the archived file goes when another is at `target`, or when none may be written there."""
        if is_system_path(target):
            return elsewhere
        stem, suffix = posixpath.splitext(target)
        return f"{stem}.vmborg-{self.manifest.created:%Y%m%dT%H%M%SZ}{suffix}"

    def boot_files(self) -> tuple[tuple[str, FilePlan], ...]:
        return tuple(
            (file.role, self._boot_file(file.role, index)) for index, file in enumerate(self.manifest.boot_files)
        )

    def _boot_file(self, role: str, index: int) -> FilePlan:
        file = self.manifest.boot_files[index]
        rule, beside = Rule.NEW, ""
        if self.wish.mode is Mode.FILES:
            target = f"{self.wish.to}/{file.archive_path}"
        elif self.wish.mode is Mode.IN_PLACE:
            target = self.host.resolve(file.source)
            rule = Rule.REPLACE if role == "nvram" else Rule.KEEP
            beside = "" if role == "nvram" else self._beside(target, f"{self.default_dir}/{self.manifest.vm}-{role}")
        elif role == "nvram":
            suffix = posixpath.splitext(file.source)[1] or ".fd"
            target = f"{posixpath.dirname(file.source)}/{self.wish.name}_VARS{suffix}"
        else:
            target = f"{self.default_dir}/{self.wish.name}-{role}"
        return FilePlan(
            file.archive_path,
            target,
            rule,
            size=file.size,
            allocated=file.size,
            beside=beside,
            sha256=file.sha256,
        )

    def tpm(self) -> TpmPlan | None:
        tpm = self.manifest.tpm
        if tpm is None:
            return None
        if self.wish.mode is Mode.FILES:
            return TpmPlan(tpm.archive_dir, tuple(tpm.files), f"{self.wish.to}/{tpm.archive_dir}", Rule.NEW)
        device = parse_domain(self.xml).tpm
        if device is None:
            raise UnsafeArchive(
                "The archive holds the state of a TPM, but its definition has none.", evidence=tpm.archive_dir
            )
        if self.wish.mode is Mode.COPY:
            target = tpm_dir(replace(device, source=""), self.wish.uuid, root=SWTPM_DIR)
            return TpmPlan(tpm.archive_dir, tuple(tpm.files), str(target), Rule.NEW)
        target = tpm_dir(device, self.manifest.uuid, root=SWTPM_DIR)
        return TpmPlan(tpm.archive_dir, tuple(tpm.files), str(target), Rule.REPLACE)


def rewrite_plan(
    plan: Plan,
    *,
    paths: Mapping[str, str],
    missing_media: frozenset[str],
) -> RewritePlan:
    """What the definition is to say, once it is known where each archived file ended: `paths` by archive path."""
    disks: dict[str, DiskPlace] = {}
    for chain in plan.chains:
        top = chain.images[0]
        device = any(each.archive_path == top.archive_path for each in plan.devices)
        disks[chain.target] = DiskPlace(
            path=top.source if plan.mode is Mode.IN_PLACE else paths[top.archive_path],
            format=top.format,
            kind=ImageKind.BLOCK if device else ImageKind.FILE,
        )
    return RewritePlan(
        name=plan.name,
        uuid=plan.uuid,
        disks=disks,
        boot_files={role: paths[file.archive_path] for role, file in plan.boot_files},
        copy=plan.mode is Mode.COPY,
        leave_out=_left_out(plan, missing_media) - disks.keys(),
        keep_nvram=plan.stands,
        missing_media=missing_media,
    )


def _left_out(plan: Plan, missing: frozenset[str]) -> frozenset[str]:
    """Disks without content. Where the domain stands its own are left to it, and where it stood those that are here."""
    if plan.mode is not Mode.IN_PLACE:
        return plan.leave_out | plan.drop | missing
    return plan.leave_out if plan.stands else plan.leave_out | (plan.drop & missing)
