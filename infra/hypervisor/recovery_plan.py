"""What puts a domain back, decided from what was seen. Pure.

`plan` names the next steps; whoever carries them out does the first one, looks again and asks again, so
that a run may die anywhere and another one go on. Three questions decide about each overlay, in this order:

1. Does the running qemu write to it? Then it is committed live, whatever any definition says.
2. Does the definition of the next start name it? Then the running guest's truth (it is on the base already) or an
   offline commit comes first, and the definition is corrected.
3. Does nobody name it? Then it is removed, if that loses nothing: it is empty, or we saw its pivot. What it holds is
   committed only if nothing can have written to the base meanwhile: to commit an overlay that a pivot has already
   emptied of meaning rolls the guest back. Where that cannot be known, a person decides.

An offline commit empties the overlay, so that "committed" is told by the file itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from infra.model import Overlay, Phase


class Place(StrEnum):
    """Where a definition has a disk."""

    OVERLAY = "overlay"  # on our overlay, which lies on the recorded base
    BASE = "base"  # the base is in its chain, our overlay is not
    NONE = "none"  # neither is in its chain, or there is no such definition
    STRANGE = "strange"  # our overlay is in it, but not as we put it


class Job(StrEnum):
    """The block job of a disk."""

    NONE = "none"
    OURS = "ours"  # an active commit into the recorded base, of this run or of a dead one
    FOREIGN = "foreign"


class Content(StrEnum):
    """What is at an overlay's path."""

    MISSING = "missing"
    EMPTY = "empty"  # an image on the recorded base, and it holds nothing that the base lacks
    DATA = "data"  # an image on the recorded base, with what the guest wrote
    UNFINISHED = "unfinished"  # an image whose creation was cut off: never written to
    UNREADABLE = "unreadable"  # what it holds cannot be told
    STRANGE = "strange"  # an image on something else than the recorded base, or no file
    IN_USE = "in use"  # a process that is not this domain's writes to it
    UNSEEN = "unseen"  # not looked at: this domain's qemu has it open


@dataclass(frozen=True, slots=True)
class Seen:
    """One overlay of the journal, and everything about it that matters."""

    overlay: Overlay
    live: Place
    inactive: Place  # the definition of the next start, or of a saved state
    job: Job = Job.NONE
    content: Content = Content.UNSEEN
    settled: bool = False  # its content is in the base for certain
    pivot_asked: bool = False  # some run asked for its pivot, and nobody saw whether it happened
    base_ahead: bool = False  # then: the two differ, and the base was written to last
    base_newer: bool = False  # the base was written to after our own last work on it
    users: tuple[str, ...] | None = None  # domains with the overlay in any chain; None: nobody looked
    base_users: tuple[str, ...] = ()  # domains with the base in any chain


@dataclass(frozen=True, slots=True)
class View:
    """A domain and the overlays of its journal entry, at one moment."""

    phase: Phase
    overlays: tuple[Seen, ...]
    resumable: bool = False  # qemu paused it for an I/O error, and it ran when the backup began


class Act(StrEnum):
    """What can be done next."""

    COMMIT_LIVE = "commit live"  # commit, wait until ready, pivot
    COMMIT_OFFLINE = "commit offline"  # and correct the definition, where there is one
    REDEFINE = "redefine"
    UNLINK = "unlink"
    RESUME = "resume"
    WAIT = "wait"  # somebody's block job holds the disk
    REFUSE = "refuse"  # a person has to look; nothing of this overlay is touched


_ORDER = tuple(Act)


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do; `overlay` is None only for RESUME."""

    act: Act
    overlay: Overlay | None = None
    reason: str = ""


def place(chains: Mapping[str, tuple[str, ...]], overlay: Overlay, *, complete: bool) -> Place:
    """Where a definition has the overlay's disk.

    `chains` gives the paths of each disk target, the active image first; `complete` says that they list
    backing files, as live definitions do.
    """
    if any(overlay.path in chain for target, chain in chains.items() if target != overlay.target):
        return Place.STRANGE
    chain = chains.get(overlay.target, ())
    if overlay.path not in chain:
        return Place.BASE if overlay.base in chain else Place.NONE
    below = chain[1:2]
    on_base = below == (overlay.base,) or (not complete and not below)
    return Place.OVERLAY if chain[0] == overlay.path and on_base else Place.STRANGE


def plan(view: View) -> tuple[Step, ...]:
    """The steps that are due, most urgent first; none when the domain is back and nothing is left over.

    Only the first is certain: the others follow from a view that the first one changes.
    """
    steps = [step for seen in view.overlays if (step := _next(view, seen)) is not None]
    if view.resumable and all(seen.live in (Place.BASE, Place.NONE) for seen in view.overlays):
        # After the unlinks, which give the space back for whose lack it was paused.
        steps.append(Step(Act.RESUME))
    return tuple(sorted(steps, key=lambda step: _ORDER.index(step.act)))


def _next(view: View, seen: Seen) -> Step | None:
    if seen.live is Place.STRANGE:
        return _refuse(seen, "the running guest has another image on it or below it")
    if seen.live is Place.OVERLAY:
        if seen.job is Job.FOREIGN:
            return Step(Act.WAIT, seen.overlay, f"disk {seen.overlay.target} has a block job that is not ours")
        return Step(Act.COMMIT_LIVE, seen.overlay)
    if seen.inactive is Place.STRANGE:
        return _refuse(seen, "the definition has another image on it, or has it on another disk")
    if seen.inactive is Place.OVERLAY:
        return _named_by_definition(seen)
    return _named_by_nobody(view, seen)


def _named_by_definition(seen: Seen) -> Step:
    if seen.live is Place.BASE or seen.settled:
        return Step(Act.REDEFINE, seen.overlay)
    if seen.content is Content.DATA and seen.base_ahead:
        return _refuse(seen, "it differs from its base, which the domain may have been moved to before it ended")
    if seen.content in (Content.EMPTY, Content.DATA):
        return Step(Act.COMMIT_OFFLINE, seen.overlay)
    return _refuse(seen, _CANNOT_COMMIT[seen.content])


def _named_by_nobody(view: View, seen: Seen) -> Step | None:
    if seen.content is Content.MISSING:
        return None
    doubt = _unremovable(view, seen)
    if not doubt and (seen.content is not Content.DATA or seen.settled):
        return Step(Act.UNLINK, seen.overlay)
    doubt = doubt or _doubt(seen)
    return _refuse(seen, doubt) if doubt else Step(Act.COMMIT_OFFLINE, seen.overlay)


def _unremovable(view: View, seen: Seen) -> str:
    """Why the file must stay, whatever it holds; "" if nothing speaks for it but its data."""
    if seen.content in _CANNOT_COMMIT and not (seen.content is Content.UNFINISHED and view.phase is Phase.PREPARED):
        return _CANNOT_COMMIT[seen.content]
    if seen.users is None:
        return "it is not known which domains use it"
    return f"it is used by {', '.join(seen.users)}" if seen.users else ""


def _doubt(seen: Seen) -> str:
    """Why the data of an overlay that nobody names may be older than the base's; "" if it is the newest."""
    if seen.pivot_asked:
        return "it holds data, but the domain ended while it was moved to the base"
    if Place.BASE in (seen.live, seen.inactive):
        return "it holds data, but the domain was moved to the base and not by us"
    if seen.base_users:
        return f"it holds data, but its base is used by {', '.join(seen.base_users)} without it"
    if seen.base_newer:
        return "it holds data, but its base was written to without it"
    return ""


def _refuse(seen: Seen, reason: str) -> Step:
    return Step(Act.REFUSE, seen.overlay, reason)


_CANNOT_COMMIT = {
    Content.MISSING: "it is gone, and with it what the guest wrote during the backup",
    Content.UNFINISHED: "it is no qcow2 image",
    Content.UNREADABLE: "what it holds cannot be read",
    Content.STRANGE: "it is not the overlay that was made: it does not lie on the recorded base",
    Content.IN_USE: "another process has it open",
    Content.UNSEEN: "it was not looked at",
}
