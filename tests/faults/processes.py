"""The processes that a backup depends on, to be killed."""

from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.held import command, numbers
from tests.guests import Guest


def qemu_of(guest: Guest) -> int:
    """The process id of the qemu that runs this VM. Raises LookupError."""
    for pid in numbers():
        argv = command(pid)
        if argv and Path(argv[0]).name.startswith("qemu-system") and guest.uuid in argv:
            return pid
    raise LookupError(f"no qemu runs {guest.name}")


def listeners(api: str) -> list[int]:
    """The processes of the Prefect server with this URL."""
    port = str(urlsplit(api).port)
    return [pid for pid in numbers() if "server" in " ".join(command(pid)) and port in command(pid)]
