"""The errors of retention, health checks and cloud copies; the others, and what all have in common: infra/errors.py.

VmborgError
├── RetentionError
│   ├── NotMaintainer           another host prunes this repository
│   ├── ArchiveHeld             a hold forbids the deletion
│   └── NotRetired              the VM is not gone
├── BorgError
│   ├── RepositoryAppendOnly    the server refuses deletions
│   └── KeyMismatch             the exported key does not belong to the repository
└── CloudError                  rclone failed, or a copy would do harm
    ├── CheckStale              no fresh, good check of the repository
    ├── SourceUnfit             the repository is empty, not mounted, shrunken, or not on this host
    ├── SourceSwapped           the copy is of another repository
    ├── SegmentChanged          the content of a segment is not what was copied
    ├── RemoteGone              the copy, or a part of it, is not there any more
    ├── RemoteFull
    ├── RemoteDenied            credentials are missing, wrong or revoked
    ├── RemoteUnreachable       transient
    ├── ClockSkewed             our clock and the remote's differ
    ├── CopyDiffers             what is there after the copy is not what was copied
    └── GenerationNotFound      there is no copy of that date
"""

from infra.errors import BorgError, VmborgError


class RetentionError(VmborgError):
    """Retention cannot do what was asked."""


class NotMaintainer(RetentionError):
    """Another host is the one that prunes this repository."""


class ArchiveHeld(RetentionError):
    """An archive that was to be deleted is held."""


class NotRetired(RetentionError):
    """The source is not gone: its archives are not forgotten."""


class RepositoryAppendOnly(BorgError):
    """The repository's server takes deletions and does not carry them out."""


class KeyMismatch(BorgError):
    """The key that was exported is not that of the repository."""


class CloudError(VmborgError):
    """rclone failed, or a copy would do harm. The remote's generations are as before."""


class CheckStale(CloudError):
    """The repository has no good check that is fresh enough for a copy."""


class SourceUnfit(CloudError):
    """The repository is not what should be copied: empty, not mounted, shrunken, not on this host."""


class SourceSwapped(CloudError):
    """The remote holds a copy of another repository."""


class SegmentChanged(CloudError):
    """A segment, which borg writes once, is not what was copied before."""


class RemoteGone(CloudError):
    """The copy that was made before, or a part of it, is not on the remote any more."""


class RemoteFull(CloudError):
    """The remote has no space left, or its quota is used up."""


class RemoteDenied(CloudError):
    """The remote refuses our credentials."""


class RemoteUnreachable(CloudError):
    """The remote does not answer, or the connection broke."""

    is_transient = True


class ClockSkewed(CloudError):
    """This host's clock and that of the remote do not agree."""


class CopyDiffers(CloudError):
    """The copy is not equal to the repository, or what was fetched from it is not whole."""


class GenerationNotFound(CloudError):
    """There is no copy of the date that was asked for."""
