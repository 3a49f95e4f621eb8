"""What the first serial port of a guest says of its boot. Pure."""

import re

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])|[\x00-\x08\x0b-\x1f\x7f]")
_FIRMWARE = re.compile(r"^(?:BdsDxe:|UEFI |SeaBIOS|iPXE|>>|Shell>|EDK II|Booting from|Press )", re.IGNORECASE)
_DEAD = re.compile(
    r"Kernel panic|No bootable (?:device|option|medium)|BdsDxe: failed to load|grub rescue>|error: no such (?:device|"
    r"partition)|VFS: (?:Cannot open|Unable to mount) root|\(initramfs\)|dracut:/|[Ee]mergency mode|Give root password|"
    r"Boot failed|Shell> "
)
_LOCKED = re.compile(r"[Pp]lease unlock disk|Enter passphrase for|Please enter passphrase")


def lines_of(console: str) -> list[str]:
    """What the guest printed, without what its firmware says and without control characters."""
    plain = (_ANSI.sub("", line).strip() for line in console.splitlines())
    return [line for line in plain if line and not _FIRMWARE.match(line)]


def sign_of_death(console: str) -> str:
    """The line that says that it will not boot; "" for none."""
    return _line_with(_DEAD, console)


def asks_for_passphrase(console: str) -> str:
    """The line that asks for the passphrase of an encrypted disk; "" for none."""
    return _line_with(_LOCKED, console)


def _line_with(pattern: re.Pattern[str], console: str) -> str:
    found = (_ANSI.sub("", line).strip() for line in console.splitlines() if pattern.search(line))
    return next(found, "")
