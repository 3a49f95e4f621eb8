"""What the steps of one restore share, and the steps that every mode takes: space, extract, check, link."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from infra.borg.client import Repository
from infra.config.models import Config
from infra.errors import VmborgError
from tasks.restore import files
from tasks.restore.archive import LATEST, Opened
from tasks.restore.host import existing_directories
from tasks.restore.model import ChainPlan, Mode, Plan, Wish
from tasks.restore.workspace import Workspace, former_files, leftovers, require_space


@dataclass(frozen=True, slots=True)
class Request:
    """One restore, as asked for."""

    vm: str  # name, or the beginning of a UUID
    wish: Wish
    archive: str = LATEST
    repository: str = ""  # its name in the configuration; "" for that of the VM's policy
    start: bool = False
    stop: bool = False
    keep_old: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One restore under way."""

    config: Config
    request: Request
    repository: Repository
    opened: Opened
    workspace: Workspace
    progress: files.Progress
    warnings: list[str] = field(default_factory=list[str])

    @property
    def wish(self) -> Wish:
        """What was asked for."""
        return self.request.wish


@dataclass(frozen=True, slots=True)
class Done:
    """What a mode brought about."""

    plan: Plan
    disks: Mapping[str, str]  # path by disk target
    definition: str = ""
    started: bool = False
    kept: tuple[str, ...] = ()


def stage(job: Job, plan: Plan) -> dict[str, files.Staged]:
    """Extract and check every image beside its target; nothing of the host's own is touched.

    Raises NoSpace, ArchiveIncomplete, UnsafeArchive, ImageError, StorageError, and borg's typed errors.
    """
    _require_space(plan, reserve=job.config.policy(job.opened.manifest.vm).min_free)
    directories = existing_directories(plan.targets) | {job.config.state_dir}
    job.warnings.extend(
        f"{path} is left over from a restore that was killed; delete it" for path in leftovers(directories)
    )
    for path, former in former_files(directories):
        if former.exists():
            job.warnings.append(f"{path} is what an earlier restore put aside; delete it when you do not need it")
        else:
            job.warnings.append(
                f"{path} is what a restore that was killed put aside, perhaps the only newest copy of {former.name}"
            )
    staged = files.extract_images(job.repository, job.opened.name, plan, workspace=job.workspace, progress=job.progress)
    job.warnings.extend(f"{error.brief} {error.evidence}" for error in files.dig_holes(staged.values()))
    usable = [chain for chain in plan.chains if _check(job, plan, chain, staged)]
    if plan.flatten:
        for chain in usable:
            files.flatten(chain, staged)
        if len(usable) == len(plan.chains):
            files.drop_backing(plan, staged)
    return staged


def _check(job: Job, plan: Plan, chain: ChainPlan, staged: Mapping[str, files.Staged]) -> bool:
    try:
        files.check_chain(chain, staged)
    except VmborgError as error:
        if plan.mode is not Mode.FILES:
            raise
        job.warnings.append(f"{chain.target}: {error.brief} {error.evidence}".strip())
        return False
    return True


def _require_space(plan: Plan, *, reserve: int) -> None:
    needs = [(file.directory, max(file.allocated, file.extracted)) for file in plan.all_files]
    if plan.flatten:
        sizes = {file.archive_path: file for file in plan.files}
        for chain in plan.chains:
            linked = [sizes[image.archive_path] for image in chain.images if image.archive_path in sizes]
            if len(linked) > 1:
                needs.append((linked[0].directory, sum(file.allocated for file in linked)))
    require_space(needs, reserve=reserve, for_images=[file.directory for file in plan.files])


def link(plan: Plan, staged: Mapping[str, files.Staged], final: Mapping[str, str]) -> None:
    """Write into every staged image where the one below it will be. Raises ImageError."""
    if plan.flatten:
        return
    places = {archive_path: str(each.path) for archive_path, each in staged.items()}
    for chain in plan.chains:
        files.link_chain(chain, places, final)
