"""One drill: restore into scratch, boot what was restored where it can touch nothing, look, take all of it away."""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from infra.config.models import Config
from infra.errors import DomainNotFound, NoSpace, VmborgError
from infra.errors_drills import DrillLeft, NotIsolated, NotProvable
from infra.guestfs.session import Drive
from infra.hypervisor import images
from infra.hypervisor.connection import Hypervisor
from infra.hypervisor.domain_xml import ParsedDomain, parse_domain
from infra.hypervisor.isolate import Isolation, console_path, isolate
from infra.hypervisor.isolation_check import require_isolated
from infra.hypervisor.restore_trust import ALLOWABLE
from infra.journal.store import make_private
from infra.manifest import MANIFEST_PATH, Manifest, parse
from infra.model import Consistency
from tasks.drills.files import check_files
from tasks.drills.machine import Machine
from tasks.drills.model import Candidate, Outcome, Verdict
from tasks.drills.plan import too_much_memory
from tasks.drills.proofs import picture_path
from tasks.drills.under_way import UnderWay, under_way
from tasks.restore import Mode, Request, Restored, Wish, restore
from tasks.suits import free_memory, memory_of, no_room, unsupported
from tasks.units import size

logger = logging.getLogger("vmborg.drill")

Mark = Callable[[str], None]
"""Told of each step: journalled, restoring, restored, starting, started, judged."""


def _unmarked(_step: str) -> None:
    pass


@dataclass(slots=True)
class _Found:
    """What is known of a drill so far."""

    outcome: Outcome
    restored: Restored | None = None
    probes: list[str] = field(default_factory=list[str])

    def set(self, **facts: object) -> None:
        self.outcome = replace(self.outcome, **facts)


def drill_vm(config: Config, candidate: Candidate, *, mark: Mark = _unmarked) -> Outcome:
    """Try to bring a VM back. Whatever it finds is in the outcome; nothing of it is left on the host afterwards.

    Raises JournalError before anything is made, DrillLeft when something could not be taken away.
    """
    began = time.monotonic()
    found = _Found(
        Outcome(candidate.vm, candidate.uuid, candidate.archive, candidate.repository, Verdict.FAILED, reason="")
    )
    try:
        with under_way(config, candidate.vm) as drill:
            mark("journalled")
            _try(config, drill, found, mark)
            reason = "; ".join(found.probes)
            found.set(verdict=Verdict.PROVEN, reason=reason)
    except DrillLeft:
        raise
    except VmborgError as error:
        lost = isinstance(error, NotProvable | NoSpace | NotIsolated) or error.transient
        said = f"{error.brief} {' '.join(error.evidence.split())[:300]}".strip()
        found.set(verdict=Verdict.NOT_PROVABLE if lost else Verdict.FAILED, reason=said, remedy=error.remedy)
    found.set(total_s=time.monotonic() - began, probes=tuple(found.probes))
    logger.info("%s: %s: %s", candidate.vm, found.outcome.verdict, found.outcome.reason)
    return found.outcome


def _try(config: Config, drill: UnderWay, found: _Found, mark: Mark) -> None:
    began = time.monotonic()
    restored = _restore(config, drill, found.outcome, mark)
    found.set(restore_s=time.monotonic() - began, size=restored.size)
    mark("restored")
    disks = drill.scratch / "disks"
    manifest = parse((disks / MANIFEST_PATH).read_text("utf-8"))
    xml = Path(restored.definition).read_text("utf-8")
    original = (disks / manifest.domain_xml).read_text("utf-8")
    to = Isolation(drill.name, drill.uuid, str(drill.scratch))
    made = isolate(xml, to)
    require_isolated(made.xml, to, original)
    definition = parse_domain(made.xml)
    _require_own_images(definition, to)
    found.set(memory=memory_of(made.xml), notes=tuple(f"without {each}" for each in made.left_out))
    wanted = config.drills.of(drill.vm)
    with Hypervisor.open(config.hypervisor.uri) as hypervisor:
        _require_able(config, made.xml, hypervisor)
        drives = _drives(definition, restored.disks)
        work, remember = drill.scratch / "appliance", config.state.without_kvm
        found.probes += check_files(wanted.files, drives, work=work, remember=remember)
        mark("starting")
        began = time.monotonic()
        hypervisor.create_transient(made.xml)
        mark("started")
        machine = Machine(
            domain=hypervisor.observed(drill.uuid),
            console_path=Path(console_path(to.folder)),
            wanted=wanted,
            disks=tuple(restored.disks),
            has_agent=definition.has_agent_channel,
            agent_answered=manifest.consistency is Consistency.AGENT,
            boot=config.drills.boot,
            began=began,
        )
        _judge(config, machine, manifest, found)
        mark("judged")


def _drives(definition: ParsedDomain, restored: Mapping[str, str]) -> dict[str, Drive]:
    """The restored disks by target, in the formats of the definition: a raw image may claim to be anything."""
    found = [disk for disk in definition.disks if disk.target in restored]
    return {disk.target: Drive(disk.image.path, disk.image.format) for disk in found}


def _judge(config: Config, machine: Machine, manifest: Manifest, found: _Found) -> None:
    try:
        judged_by, seen = machine.wait_until_up()
        found.set(judged_by=judged_by, boot_s=time.monotonic() - machine.began)
        found.probes += [seen, *machine.probe()]
    except VmborgError as error:
        raise _with_tpm(error, manifest) from error
    finally:
        _keep_picture(config, machine, found)


def _restore(config: Config, drill: UnderWay, outcome: Outcome, mark: Mark) -> Restored:
    """The archive's files below the scratch folder, every image checked. Raises what tasks.restore raises."""
    try:
        config.drills.scratch.mkdir(mode=0o711, parents=True, exist_ok=True)
        drill.scratch.mkdir(mode=0o711)
    except OSError as error:
        raise NotProvable(
            "The scratch folder cannot be made.", evidence=str(error), remedy="Correct drills.scratch."
        ) from error
    # Whatever the definition reaches for is not in the throw-away one; that is asked below.
    wish = Wish(Mode.FILES, to=str(drill.scratch / "disks"), allow=frozenset(ALLOWABLE))
    request = Request(outcome.vm, wish, outcome.archive, outcome.repository)
    restored = restore(config, request, progress=lambda _done, _total: mark("restoring"))
    damage = [each for each in restored.warnings if each.split(":")[0] in restored.disks]
    if damage or not restored.definition:
        raise VmborgError(
            "What was restored cannot be started.",
            evidence="\n".join(damage or restored.warnings),
            remedy="Drill an older archive, and look at this one with vmborg check --verify-data.",
        )
    return restored


def _require_own_images(definition: ParsedDomain, to: Isolation) -> None:
    """Raise NotIsolated for a chain that leads out of the scratch folder."""
    for disk in definition.disks:
        paths = [each.path for each in images.chain(disk.image.path, disk.image.format)] if disk.image.path else []
        outside = [path for path in paths if not path.startswith(f"{to.folder}/")]
        if outside:
            raise NotIsolated(f"Disk {disk.target} leads out of the scratch folder.", evidence="\n".join(outside))


def _require_able(config: Config, xml: str, hypervisor: Hypervisor) -> None:
    """Raise NotProvable for what this host cannot run now."""
    why = unsupported(xml, hypervisor.capabilities_xml()) or too_much_memory(memory_of(xml), config.drills)
    free = free_memory()
    if not why and no_room(memory_of(xml), free):
        why = f"it has {size(memory_of(xml))} of memory, this host has {size(free)} free"
    if why:
        raise NotProvable("This host cannot boot it.", evidence=why, remedy="It was restored whole, and not booted.")


def _with_tpm(error: VmborgError, manifest: Manifest) -> VmborgError:
    """A guest whose disks are sealed to its TPM cannot boot without: that says nothing of its archive."""
    if manifest.tpm is None:
        return error
    said = f"{error.brief} {error.evidence}".strip()
    return NotProvable("It did not come up, perhaps because a drill has no TPM.", evidence=said)


def _keep_picture(config: Config, machine: Machine, found: _Found) -> None:
    """Store its screen and the end of its console, on success and on failure; a lost picture changes no verdict."""
    with suppress(DomainNotFound):
        png = machine.picture()
        path = picture_path(config.state, found.outcome.uuid)
        if png:
            make_private(path.parent)
            path.write_bytes(png)
            found.set(picture=str(path))
    found.set(console=machine.tail)
