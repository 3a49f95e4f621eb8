"""The step that lets the next backup read only what changes from now on."""

import logging

from infra.errors import HypervisorError, JournalError
from infra.hypervisor.checkpoints import drop_checkpoints
from tasks.domains import FrozenPoint
from tasks.job import BackupJob
from tasks.memory import remember
from tasks.policy import step

logger = logging.getLogger("vmborg.backup")


@step("remember")
def remember_reading(job: BackupJob, point: FrozenPoint) -> None:
    """Remember what the verified archive holds, then remove the checkpoints that no later backup needs.

    Raises nothing that could spoil the good archive: what is not remembered is read again.
    """
    reading = point.reading
    if not reading.stood_still:
        logger.warning("nothing is remembered of this backup: an image moved while it was read")
        return
    try:
        reading.doubts = remember(job, reading, archive=job.archive, shut_off=not point.overlays)
        if point.facts.checkpoints or reading.checkpoint:
            drop_checkpoints(job.domain, keep=reading.to_keep)
    except (JournalError, HypervisorError) as error:
        logger.warning("%s", error)
