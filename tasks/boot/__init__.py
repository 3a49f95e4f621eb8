"""VMs that run out of an archive: booted at once over a view of it, then kept in files of their own, or thrown away."""

from tasks.boot.end import discard
from tasks.boot.keep import Kept, keep_booted
from tasks.boot.prepare import Choice
from tasks.boot.run import Booted, Wanted, boot

__all__ = ["Booted", "Choice", "Kept", "Wanted", "boot", "discard", "keep_booted"]
