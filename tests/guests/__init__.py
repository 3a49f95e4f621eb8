"""Small real guests from distribution packages: build, define, run, read.

A guest mounts every ext4 disk under /data/TARGET and writes one counter to all of them in order, each write on the
disk before the next. So at any consistent point a >= b >= c and a - c <= 1; the number goes on after a restart.
"""

from tests.guests.acceleration import accelerator
from tests.guests.build import CACHE, Boot, build_boot
from tests.guests.daemons import Daemons, ensure_daemons, libvirtd_answers
from tests.guests.disks import image_format, make_disk
from tests.guests.domain import DiskSpec, domain_xml
from tests.guests.guest import Guest
from tests.guests.leftovers import image_dir, remove_leftovers
from tests.guests.offline import OfflineCounters, read_counters_from_images
from tests.guests.virsh import agent_command, virsh
from tests.guests.waiting import GuestError, wait_for

__all__ = [
    "CACHE",
    "Boot",
    "Daemons",
    "DiskSpec",
    "Guest",
    "GuestError",
    "OfflineCounters",
    "accelerator",
    "agent_command",
    "build_boot",
    "domain_xml",
    "ensure_daemons",
    "image_dir",
    "image_format",
    "libvirtd_answers",
    "make_disk",
    "read_counters_from_images",
    "remove_leftovers",
    "virsh",
    "wait_for",
]
