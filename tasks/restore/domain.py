"""Bring a VM back as a domain: beside the original, or in its place."""

import uuid as uuids
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.errors import RestoreError, TargetExists, VmborgError
from infra.hypervisor.connection import Domain, Hypervisor
from infra.hypervisor.restore_trust import emulators
from infra.hypervisor.restore_xml import with_identity
from infra.journal.locks import domain_lock
from infra.journal.store import Journal
from tasks.restore import files
from tasks.restore.checks import require_device_consent
from tasks.restore.definition import Vouched, fitting_definition
from tasks.restore.devices import require_devices, write_devices
from tasks.restore.host import (
    Observed,
    by_uuid,
    observe,
    require_name_free,
    require_replaceable,
    stop_domain,
)
from tasks.restore.job import Done, Job, link, stage
from tasks.restore.model import Mode, Plan, Rule
from tasks.restore.plan import make_plan
from tasks.restore.workspace import remove_tree


def restore_domain(job: Job, hypervisor: Hypervisor) -> Done:
    """Extract, place and define. The errors are those of `tasks.restore`."""
    manifest = job.opened.manifest
    if job.wish.mode is not Mode.IN_PLACE:
        return _Restore(job, hypervisor, observe(hypervisor, manifest.uuid)).run()
    with domain_lock(job.config.state.locks, manifest.uuid, manifest.vm):
        observed = observe(hypervisor, manifest.uuid)
        if observed.domain is None:
            require_name_free(hypervisor, manifest.vm, archived=manifest.uuid)
        else:
            require_replaceable(observed.domain, Journal(job.config.state.journal), stop=job.request.stop)
        return _Restore(job, hypervisor, observed).run()


@dataclass(frozen=True, slots=True)
class _Restore:
    """The steps, in their order, with what all of them look at."""

    job: Job
    hypervisor: Hypervisor
    observed: Observed

    @property
    def _in_place(self) -> bool:
        return self.job.wish.mode is Mode.IN_PLACE

    def run(self) -> Done:
        job = self.job
        plan = make_plan(job.opened.manifest, job.opened.xml, job.wish, self.observed.host)
        require_device_consent(plan, job.wish)
        require_devices(plan)
        self._definition(plan, {file.archive_path: file.target for file in plan.all_files})  # before anything is read
        staged = stage(job, plan)
        staged |= files.stage_boot_files(plan, job.opened.directory, job.workspace)
        tpm = files.stage_tpm(plan.tpm, job.opened.directory, job.workspace) if plan.tpm else None
        final = files.settle(staged)
        link(plan, staged, final)
        xml, warnings = self._definition(plan, final)
        if self._in_place:  # before the guest is stopped: it may take as long as the extraction
            files.sync([each.path for each in staged.values() if each.path.exists()])
            self._try(xml)
        was_running = self._stop(plan)
        self._place(staged, final)
        self._place_tpm(plan, tpm)
        overwritten = write_devices(job.repository, job.opened.name, plan, final=final, progress=job.progress)
        domain = self._define(xml, overwritten)
        job.workspace.keep()
        job.warnings.extend(warnings)
        self._start(domain)
        if was_running and not job.request.start:
            job.warnings.append(f"{plan.name} was running; it is shut off now")
        return Done(plan, _disks(plan, final), started=job.request.start, kept=self._drop_old())

    def _definition(self, plan: Plan, paths: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
        """The definition with these paths by archive path, and its warnings. Raises UnsafeArchive."""
        vouched = Vouched(
            emulators(self.hypervisor.capabilities_xml()), self.observed.host.current_xml, self.job.wish.allow
        )
        made = fitting_definition(self.job.opened.xml, plan, paths, vouched)
        return made.xml, made.warnings

    def _try(self, xml: str) -> None:
        """Have libvirt take the definition under a name of its own: what it refuses, no guest is stopped for."""
        passing = str(uuids.uuid4())
        trial = self.hypervisor.define(with_identity(xml, name=f"vmborg-trial-{passing}", uuid=passing))
        trial.undefine(keep_nvram=True)

    def _stop(self, plan: Plan) -> bool:
        """Look at the domain again, for the extraction took its time, and stop it if that was asked for.

        True if it was running.
        """
        if not self._in_place:
            return False
        domain = by_uuid(self.hypervisor, plan.uuid)
        if domain is None:
            require_name_free(self.hypervisor, plan.name, archived=plan.uuid)
            return False
        if self.observed.domain is None:
            raise TargetExists(
                f"The VM {domain.name!r} was defined while its archive was extracted; nothing was changed.",
                remedy="Look at it, then restore again.",
            )
        require_replaceable(domain, Journal(self.job.config.state.journal), stop=self.job.request.stop)
        live = "" if domain.persistent() else domain.live_xml()
        was_running = stop_domain(domain)
        if live:
            self.job.workspace.on_failure(lambda: self.hypervisor.create_transient(live), "stopping the VM")
            self.job.warnings.append(f"{plan.name} was transient; now it stays defined when it is shut off")
        elif was_running:
            self.job.workspace.on_failure(domain.start, "stopping the VM")
        return was_running

    def _place(self, staged: Mapping[str, files.Staged], final: Mapping[str, str]) -> None:
        """Move every file into place; in place, what was there is renamed first."""
        moves = [(each, Path(final[path])) for path, each in staged.items() if each.path.exists()]
        for each, target in moves:
            if each.plan.rule is Rule.REPLACE and target.exists():
                self.job.workspace.set_aside(target)
            self.job.workspace.move(each.path, target)
        if self._in_place:
            files.sync([target for _, target in moves])

    def _place_tpm(self, plan: Plan, state: Path | None) -> None:
        if plan.tpm is None or state is None:
            return
        target = Path(plan.tpm.target)
        if plan.tpm.rule is Rule.REPLACE and target.exists():
            self.job.workspace.set_aside(target)
        self.job.workspace.move(state, target)

    def _define(self, xml: str, overwritten: tuple[str, ...]) -> Domain:
        """Define, or redefine: to undefine first would delete a TPM's state along with the NVRAM."""
        uuid = self.job.wish.uuid or self.job.opened.manifest.uuid
        there = by_uuid(self.hypervisor, uuid)  # a transient one went when it was stopped
        before = there.inactive_xml() if there is not None else ""

        def undo() -> None:
            if before:
                self.hypervisor.define(before)
            elif (made := by_uuid(self.hypervisor, uuid)) is not None:
                made.undefine(keep_nvram=True)

        self.job.workspace.on_failure(undo, "defining the VM")
        try:
            domain = self.hypervisor.define(xml)
            if self._in_place and there is None:
                domain.set_autostart(on=self.job.opened.manifest.autostart)
        except VmborgError as error:
            if overwritten:
                error.evidence += f"\nthese block devices were written over already: {', '.join(overwritten)}"
            raise
        return domain

    def _start(self, domain: Domain) -> None:
        if not self.job.request.start:
            return
        try:
            domain.start()
        except VmborgError as error:
            aside = ", ".join(str(path) for path in self.job.workspace.aside)
            kept = f" The former images are kept: {aside}" if aside else ""
            raise RestoreError(
                f"The VM {domain.name!r} is restored and defined, but it does not start.",
                evidence=error.evidence or error.brief,
                remedy=f"{error.remedy}{kept}".strip(),
            ) from error

    def _drop_old(self) -> tuple[str, ...]:
        aside = self.job.workspace.aside
        if self.job.request.keep_old:
            return tuple(str(path) for path in aside)
        for path in aside:
            remove_tree(path)
        return ()


def _disks(plan: Plan, final: Mapping[str, str]) -> dict[str, str]:
    devices = {device.archive_path: device.device for device in plan.devices}
    tops = {chain.target: chain.images[0].archive_path for chain in plan.chains}
    return {target: devices.get(path) or final[path] for target, path in tops.items()}
