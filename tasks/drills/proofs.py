"""What the drills of this host found: one file of facts a VM."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.errors import JournalError
from infra.journal.facts import read_facts, write_facts
from infra.model import StateDir
from tasks.drills.model import Outcome, Verdict
from tasks.upkeep import moment, stamp


@dataclass(frozen=True, slots=True)
class Proof:
    """The last drills of one VM."""

    proven: datetime | None = None  # the last that was proven
    archive: str = ""  # of that one
    tried: datetime | None = None  # the last of any verdict
    verdict: Verdict | None = None  # of the last one
    reason: str = ""
    seconds: float = 0.0  # that the last one took
    size: int = 0  # bytes that it restored, 0 if it came to none
    memory: int = 0  # of the VM, bytes

    @property
    def failed(self) -> bool:
        """Whether the last drill found that the archive does not restore."""
        return self.verdict is Verdict.FAILED


NONE = Proof()


def read_proof(state: StateDir, uuid: str) -> Proof:
    """What is remembered of a VM. Raises JournalError."""
    facts = read_facts(_path(state, uuid))
    try:
        verdict = Verdict(facts["verdict"]) if facts.get("verdict") else None
        return Proof(
            proven=moment(facts.get("proven")),
            archive=str(facts.get("archive", "")),
            tried=moment(facts.get("tried")),
            verdict=verdict,
            reason=str(facts.get("reason", "")),
            seconds=float(facts.get("seconds", 0)),
            size=int(facts.get("size", 0)),
            memory=int(facts.get("memory", 0)),
        )
    except (TypeError, ValueError) as error:
        raise JournalError(
            "What is remembered of a drill means nothing.",
            evidence=f"{_path(state, uuid)}: {error}",
            remedy="Move the file away; the next drill writes it again.",
        ) from error


def remember_outcome(state: StateDir, outcome: Outcome, *, now: datetime) -> Proof:
    """Add what a drill found. Raises JournalError."""
    before = read_proof(state, outcome.uuid)
    proof = replace(
        before,
        tried=now,
        verdict=outcome.verdict,
        reason=outcome.reason,
        seconds=outcome.total_s,
        size=outcome.size or before.size,
        memory=outcome.memory or before.memory,
    )
    if outcome.verdict is Verdict.PROVEN:
        proof = replace(proof, proven=now, archive=outcome.archive)
    write_facts(_path(state, outcome.uuid), _facts(proof))
    return proof


def picture_path(state: StateDir, uuid: str) -> Path:
    """Where the picture of a VM's last drill is kept."""
    return state.drills / "pictures" / f"{uuid}.png"


def _facts(proof: Proof) -> dict[str, Any]:
    return {
        "proven": stamp(proof.proven) if proof.proven else "",
        "archive": proof.archive,
        "tried": stamp(proof.tried) if proof.tried else "",
        "verdict": proof.verdict.value if proof.verdict else "",
        "reason": proof.reason,
        "seconds": proof.seconds,
        "size": proof.size,
        "memory": proof.memory,
    }


def _path(state: StateDir, uuid: str) -> Path:
    return state.drills / "proofs" / f"{uuid}.json"
