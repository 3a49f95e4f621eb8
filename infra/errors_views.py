"""Errors of reading single files out of an archive; each with its three voices, as in infra/errors.py.

RestoreError
├── ApplianceFailed             the appliance of libguestfs does not start, or died
├── GuestPathError              no such file in the guest, or it cannot be read
├── GuestEncrypted              the file systems are encrypted inside the guest
└── ViewNotFound                nothing of an archive is mounted there
"""

from infra.errors import RestoreError


class ApplianceFailed(RestoreError):
    """The appliance of libguestfs does not start, or died."""


class GuestPathError(RestoreError):
    """There is no such file in the guest, or it cannot be read."""


class GuestEncrypted(RestoreError):
    """The guest's file systems are encrypted; vmborg has no key."""


class ViewNotFound(RestoreError):
    """Nothing of an archive is mounted there."""
