"""Bring a VM back from an archive. Plain functions: the day they are needed, as little as possible has to work.

Order: choose the archive, read and distrust its metadata, decide what goes where, look at the space, extract beside
the targets, check, and only then touch what is there: stop the guest, move the old images aside and the new ones into
place, define. Whatever fails before the definition stands is undone.
"""

from tasks.restore.archive import LATEST
from tasks.restore.job import Request
from tasks.restore.model import Mode, Wish
from tasks.restore.run import Restored, restore
from tasks.restore.workspace import leftovers

__all__ = ["LATEST", "Mode", "Request", "Restored", "Wish", "leftovers", "restore"]
