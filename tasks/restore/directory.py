"""Bring everything of an archive below one directory and define nothing: for another host, or to look into it."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from infra.errors import TargetExists, VmborgError
from infra.hypervisor.restore_trust import packaged_emulators
from infra.manifest import ARCHIVE_DIR
from tasks.restore import files
from tasks.restore.definition import Vouched, fitting_definition
from tasks.restore.job import Done, Job, link, stage
from tasks.restore.model import Host, Plan
from tasks.restore.plan import make_plan
from tasks.restore.workspace import STAGING_PREFIX, leftovers, remove_tree

DEFINITION = "define.xml"


def restore_directory(job: Job) -> Done:
    """Extract, check and link. An image or definition that could not be used as it is only brings a warning here.

    Raises TargetExists unless the directory is new or empty, and what `tasks.restore` raises.
    """
    directory = Path(job.wish.to)
    _require_empty(directory)
    job.workspace.make_directory(directory)  # qemu must be able to pass: a VM may be started from here
    plan = make_plan(job.opened.manifest, job.opened.xml, job.wish, Host())
    staged = stage(job, plan)
    final = files.settle(staged)
    link(plan, staged, final)
    for archive_path, each in staged.items():
        each.path.chmod(0o600)  # the directories let everybody pass
        job.workspace.move(each.path, Path(final[archive_path]))
    metadata = directory / ARCHIVE_DIR
    job.workspace.on_failure(lambda: shutil.rmtree(metadata, ignore_errors=True), f"making {metadata}")
    shutil.copytree(job.opened.directory / ARCHIVE_DIR, metadata)
    _close(metadata)
    definition = _write_definition(job, plan, final, directory)
    job.workspace.keep()
    tops = {chain.target: final[chain.images[0].archive_path] for chain in plan.chains}
    return Done(plan, tops, definition=definition)


def _close(metadata: Path) -> None:
    """Definitions hold passwords, and a TPM's state is a secret; qemu gets its own files when the VM starts."""
    for path in (metadata, *metadata.rglob("*")):
        path.chmod(0o711 if path.is_dir() else 0o600)


def _require_empty(directory: Path) -> None:
    """Raise TargetExists unless the directory is new or empty; what a killed restore staged there is deleted."""
    if not directory.exists():
        return
    abandoned = leftovers([directory, *(path for path in directory.rglob("*") if path.is_dir())])
    others = [path for path in directory.rglob("*") if not any(path.is_relative_to(each) for each in abandoned)]
    in_use = [path for path in others if not path.is_dir() or path.name.startswith(STAGING_PREFIX)]
    if not directory.is_dir() or (others and not abandoned) or in_use:
        raise TargetExists(
            f"{directory} is not an empty directory; nothing was changed.", remedy="Name a new directory with --to."
        )
    for path in abandoned:
        remove_tree(path)


def _write_definition(job: Job, plan: Plan, final: Mapping[str, str], directory: Path) -> str:
    """A definition that names the extracted files; "" when the archived one cannot be used, or is not trusted."""
    xml, wish = job.opened.xml, job.wish
    paths = {**final, **{file.archive_path: file.target for _, file in plan.boot_files}}
    try:
        result = fitting_definition(xml, plan, paths, Vouched(packaged_emulators(xml), allow=wish.allow))
    except VmborgError as error:
        job.warnings.append(f"no definition was written: {error.brief} {error.evidence}".strip())
        return ""
    path = directory / DEFINITION
    job.workspace.on_failure(lambda: path.unlink(missing_ok=True), f"writing {path}")
    path.touch(mode=0o600)
    path.write_text(result.xml, encoding="utf-8")
    job.warnings.extend(result.warnings)
    job.warnings.append(f"{path} has the name and UUID of the original: defining it replaces a VM that has them")
    if job.opened.manifest.tpm is not None:
        job.warnings.append(
            f"the TPM's state is in {directory}/{job.opened.manifest.tpm.archive_dir}; libvirt wants it in "
            f"/var/lib/libvirt/swtpm/{plan.uuid}/tpm2 before the VM is started"
        )
    return str(path)
