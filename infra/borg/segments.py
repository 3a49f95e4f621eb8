"""Disks that are mounted as segments, as borg is to read them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SegmentSource:
    """A mount that borg sees if it is started with `prefix`. Bytes."""

    path: str  # what of it goes into the archive
    prefix: tuple[str, ...]
    block: int
    alone: bool  # no image goes into the archive beside it

    @property
    def options(self) -> tuple[str, ...]:
        """Of `borg create`.

        A segment is all data or one hole: there --sparse moves no block, and spares reading zeros. Names of unchanged
        segments are not listed: there are hundreds of thousands.
        """
        return ("--filter", "AMCE", "--chunker-params", f"fixed,{self.block}", *(["--sparse"] if self.alone else []))
