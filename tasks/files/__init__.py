"""Single files of a VM, read out of an archive without extracting its disks."""

from tasks.files.run import Got, Listing, get_files, list_files, mount_files, unmount_files

__all__ = ["Got", "Listing", "get_files", "list_files", "mount_files", "unmount_files"]
