"""Where a host keeps itself. Pure."""

import posixpath

_SYSTEM_DIRS = (
    *(
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/proc",
        "/root",
        "/run",
        "/sbin",
    ),
    *("/sys", "/usr", "/var/cache", "/var/log", "/var/mail", "/var/run", "/var/spool"),
    *("/var/lib/dbus", "/var/lib/dpkg", "/var/lib/polkit-1", "/var/lib/systemd"),
)


def is_system_path(path: str) -> bool:
    """Whether a path lies where the host keeps itself: a restore writes nothing there unasked."""
    normal = posixpath.normpath(path)
    if normal != path or not path.startswith("/"):
        return True
    hidden = any(part.startswith(".") and part != ".local" for part in path.split("/"))
    return hidden or any(path == each or path.startswith(f"{each}/") for each in _SYSTEM_DIRS)
