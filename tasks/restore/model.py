"""The words of a restore: what was asked for, what the host is like, what is going to be done. Sizes are bytes."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from infra.manifest import ManifestImage


class Mode(StrEnum):
    """The three ways of bringing a VM back."""

    COPY = "as"
    IN_PLACE = "in-place"
    FILES = "files-only"


class Rule(StrEnum):
    """What happens to a file that is at the target already."""

    NEW = "new"  # it must not be there
    REPLACE = "replace"  # it is the domain's own and makes way
    KEEP = "keep"  # it stays; a different one from the archive goes beside it


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for. `to` is absolute or empty; `allow` holds keys of restore_trust.ALLOWABLE."""

    mode: Mode
    name: str = ""  # of the copy
    uuid: str = ""  # of the copy
    to: str = ""
    flatten: bool = False
    overwrite_devices: bool = False
    allow: frozenset[str] = frozenset()
    leave_out: frozenset[str] = frozenset()  # disk targets that the definition is to be without


def _behind_link(path: str) -> str:
    """The file that a symbolic link leads to: that one is replaced, and the link stays."""
    return os.path.realpath(path) if Path(path).is_symlink() else path


@dataclass(frozen=True, slots=True)
class Host:
    """What is on this host, as far as a restore must not break it."""

    current_name: str = ""  # of the domain with the archived UUID; "" when there is none
    current_xml: str = ""
    own_paths: frozenset[str] = frozenset()  # images, firmware state that only this domain uses
    other_users: Mapping[str, str] = field(default_factory=dict[str, str])  # path -> name of another domain
    exists: Callable[[str], bool] = field(default=os.path.lexists)
    resolve: Callable[[str], str] = field(default=_behind_link)


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One file out of the archive. Bytes."""

    archive_path: str
    target: str
    rule: Rule
    size: int  # its length
    allocated: int  # what it takes of a file system in the end
    extracted: int = 0  # what it takes until its holes are dug, if more
    beside: str = ""  # where it goes when a different one is kept
    segments: bool = False  # it is made of the segments of a disk; `size` is what the guest sees
    sha256: str = ""

    @property
    def only_beside(self) -> bool:
        """Whether nothing is written at the target: one that is the same is used, and that is all."""
        return bool(self.beside) and Path(self.beside).parent != Path(self.target).parent

    @property
    def written(self) -> tuple[str, ...]:
        """Where it may be written."""
        return tuple(
            path for path in (self.target, self.beside) if path and not (path == self.target and self.only_beside)
        )

    @property
    def directory(self) -> Path:
        """Where it is staged: on the file system that it may be written to."""
        return Path(self.beside or self.target).parent


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """One block device that is written over."""

    archive_path: str
    device: str
    size: int


@dataclass(frozen=True, slots=True)
class ChainPlan:
    """One disk's images, the active one first."""

    target: str
    images: tuple[ManifestImage, ...]


@dataclass(frozen=True, slots=True)
class TpmPlan:
    """A TPM's state directory."""

    archive_dir: str
    files: tuple[str, ...]
    target: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a restore. File targets are final paths, except with Mode.FILES, where they lie below the directory."""

    mode: Mode
    name: str
    uuid: str
    files: tuple[FilePlan, ...]
    chains: tuple[ChainPlan, ...]
    devices: tuple[DevicePlan, ...] = ()
    boot_files: tuple[tuple[str, FilePlan], ...] = ()  # role and file
    tpm: TpmPlan | None = None
    flatten: bool = False
    drop: frozenset[str] = frozenset()  # targets named by the archive without content
    leave_out: frozenset[str] = frozenset()  # targets that were asked to be left out
    stands: bool = False  # in place, and the domain is defined here

    @property
    def all_files(self) -> tuple[FilePlan, ...]:
        """Images and boot files."""
        return (*self.files, *(file for _, file in self.boot_files))

    @property
    def written(self) -> frozenset[str]:
        """Every path that may be written."""
        paths = [path for file in self.all_files for path in file.written]
        return frozenset(
            [*paths, *(device.device for device in self.devices), *([self.tpm.target] if self.tpm else [])]
        )

    def found_at(self, final: Mapping[str, str]) -> frozenset[str]:
        """Every path that holds what was archived; `final` are the places of the files by archive path."""
        named = [chain.images[0].source for chain in self.chains] if self.mode is Mode.IN_PLACE else []
        tpm = [self.tpm.target] if self.tpm else []
        return frozenset([*final.values(), *named, *tpm, *(device.device for device in self.devices)])

    @property
    def targets(self) -> frozenset[str]:
        """Every path of the host that may be written, or kept because it is the same."""
        paths = [path for file in self.all_files for path in (file.target, file.beside) if path]
        return self.written | frozenset(paths)
