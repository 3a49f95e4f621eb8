"""Errors of what is shown of an archive without extracting it; each with its three voices, as in infra/errors.py.

RestoreError
├── ApplianceFailed             the appliance of libguestfs does not start, or died
├── GuestPathError              no such file in the guest, or it cannot be read
├── GuestEncrypted              the file systems are encrypted inside the guest
├── ViewNotFound                nothing of an archive is mounted there
├── ViewDead                    a mount of the archive died under a VM that runs from it
├── HostUnfit                   this host lacks the VM's architecture, acceleration or machine type
├── NotBooted                   no VM of this name was booted out of an archive
├── CopyEnded                   a booted VM could not be copied into files of its own; it goes on as it is
└── BootLeft                    what was made for a booted VM could not be taken away
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


class ViewDead(RestoreError):
    """A mount of the archive died under a VM that runs from it. What its guest wrote is in its overlay."""


class HostUnfit(RestoreError):
    """This host lacks what the VM's definition asks for; nothing was made."""


class NotBooted(RestoreError):
    """No VM of this name was booted out of an archive; nothing was touched."""


class CopyEnded(RestoreError):
    """The copy of a booted VM into files of its own ended early; the VM goes on as it is."""


class BootLeft(RestoreError):
    """What was made for a VM that was booted out of an archive could not be taken away."""
