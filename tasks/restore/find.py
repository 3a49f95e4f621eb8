"""Which repository and archive a restore takes: what was typed may be a name, or the beginning of a UUID."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from infra.borg.client import Repository
from infra.config.models import Config
from infra.errors import ArchiveNotFound, BorgError, UsageError, VmborgError
from infra.hypervisor.connection import Hypervisor
from tasks.repositories import open_repository
from tasks.restore.archive import archive_names, choose
from tasks.restore.host import named_domains
from tasks.restore.job import Request

_SHORTEST = 4  # digits of a UUID; fewer meet a neighbour


@dataclass(frozen=True, slots=True)
class Found:
    """Where the archive is."""

    repository: Repository
    archive: str


def find_archive(
    config: Config, request: Request, hypervisor: Hypervisor | None, *, say: Callable[[str], None]
) -> Found:
    """The archive that is asked for: in the repository named, else that of the VM's policy, else the one that has any.

    A replica is taken by itself only when the policy's own repository answers and has none: the newest there may be
    older.

    `say` is told when a repository has to be waited for. Raises ArchiveNotFound, UsageError (several VMs or
    repositories may be meant), ArchiveIncomplete, and borg's typed errors.
    """
    name, uuid = _domain(request.vm, hypervisor)

    def look(repository_name: str) -> Found:
        repository = open_repository(config, repository_name)
        repository.on_wait, repository.only_reads = say, True
        names = archive_names(repository.archives())
        return Found(repository, choose(names, request.vm, request.archive, uuid=uuid, repository=repository_name).name)

    policy = config.policy(name)
    first = request.repository or policy.repository
    try:
        return look(first)
    except ArchiveNotFound as error:
        known = dict.fromkeys((*policy.replicas, *config.repositories))
        others = [] if request.repository else [each for each in known if each != first]
        found, unread = _look_everywhere(others, look)
        if not found:
            error.evidence = "\n".join([error.evidence, *unread])
            raise
        replica = next((each for each in found if each.repository.name in policy.replicas), None)
        if replica is not None or len(found) == 1:
            return replica or found[0]
        raise UsageError(
            f"Several repositories have archives of {request.vm!r}, and not the one of its policy, {first!r}.",
            evidence="\n".join(f"{each.repository.name}: {each.archive}" for each in found),
            remedy="Name the repository: --repository NAME.",
        ) from error
    except BorgError as error:
        if policy.replicas and not request.repository:
            error.remedy += f" Or restore from a replica: --repository {policy.replicas[0]}."
        raise


def _look_everywhere(names: list[str], look: Callable[[str], Found]) -> tuple[list[Found], list[str]]:
    """What repositories have, and why others could not be read."""
    found: list[Found] = []
    unread: list[str] = []
    for name in names:
        try:
            found.append(look(name))
        except ArchiveNotFound:
            continue
        except UsageError:
            raise  # archives of several VMs
        except VmborgError as error:
            unread.append(f"{name} was not read: {error.brief}")
    return found, unread


def _domain(vm: str, hypervisor: Hypervisor | None) -> tuple[str, str]:
    """Name and UUID of the domain that is meant; what was typed, and "", if it is not defined here."""
    if hypervisor is None:
        return vm, ""
    domains = [(name, domain.uuid) for name, domain in named_domains(hypervisor)]
    meant = list(_called(vm, domains)) or [each for each in domains if _begins(each[1], vm)]
    return meant[0] if len(meant) == 1 else (vm, "")


def _called(vm: str, domains: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    yield from (each for each in domains if each[0] == vm)


def _begins(uuid: str, vm: str) -> bool:
    return len(vm) >= _SHORTEST and uuid.startswith(vm.lower())
