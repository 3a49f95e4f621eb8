"""An archive's disks as files of this host, without extracting them: to read single files, or to boot at once."""

from tasks.views.view import View, ViewDisk, ViewImage, close_view, open_view

__all__ = ["View", "ViewDisk", "ViewImage", "close_view", "open_view"]
