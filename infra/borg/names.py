"""Archive names: `vm.<uuid8>.<encoded name>@<UTC time>`, and `.unfinished` behind them until they are verified.

`@` cannot stand in an encoded name, so a glob of one source never meets a neighbour whose name begins alike.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.errors import UsageError

UNFINISHED = ".unfinished"
LONGEST = 255
"""Characters of an archive's name. borg 1.4.5 checks it when it saves the archive: after the whole copy."""

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_UNSAFE = re.compile(r"[^\w.+=,~-]|^-|^\.", re.UNICODE)
_NAME = re.compile(
    r"(?:vm\.(?P<uuid8>[0-9a-f]{8})|dump)\.(?P<source>[^@]+)"
    r"@(?P<when>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)(?P<unfinished>\.unfinished)?"
)


@dataclass(frozen=True, slots=True)
class ArchiveName:
    """What an archive's name tells."""

    kind: str  # vm or dump
    uuid8: str  # the first eight digits of the VM's UUID; "" for a dump
    source: str  # the VM's or host's name, decoded
    when: datetime
    finished: bool


def encode(name: str) -> str:
    """A source's name as it stands in archive names; `decode` reverses it.

    Letters and digits of any script and `_ . + = , ~ -` stay; every other character, and a leading `-` or `.`,
    becomes %XX for each byte of its UTF-8 form. borg reads `{` and `}` as placeholders, refuses `/`, takes
    `* ? [` as patterns (borg help patterns), and `::` as the border between repository and archive: 1.4.5 creates
    an archive of such a name and then refuses to rename it.
    """
    return _UNSAFE.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape")), name
    )


def decode(encoded: str) -> str:
    """The name that `encode` was given. Raises ValueError for what `encode` never makes."""
    name = re.sub(
        r"(?:%[0-9A-F]{2})+",
        lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogateescape"),
        encoded,
    )
    if encode(name) != encoded:
        raise ValueError(f"{encoded!r} is not an encoded name")
    return name


def archive_name(uuid: str, name: str, when: datetime) -> str:
    """The name of a VM's archive; seconds count, fractions do not. Raises UsageError for a name that is too long."""
    archive = f"vm.{uuid[:8]}.{encode(name)}@{when.astimezone(UTC).strftime(_TIME)}"
    excess = len(archive) + len(UNFINISHED) - LONGEST
    if excess > 0:
        raise UsageError(
            "The VM's name is too long for the name of an archive.",
            evidence=f"{name!r} takes {len(encode(name))} characters there, {excess} too many",
            remedy="Give it a shorter one: virsh domrename.",
        )
    return archive


def dump_archive_name(host: str, when: datetime) -> str:
    """The name of an archive of a host's dumps. Raises UsageError for a name that is too long."""
    archive = f"dump.{encode(host)}@{when.astimezone(UTC).strftime(_TIME)}"
    if len(archive) + len(UNFINISHED) > LONGEST:
        raise UsageError(
            "The dump host's name is too long for the name of an archive.",
            evidence=f"{host!r} takes {len(encode(host))} characters there",
            remedy="Give it a shorter one in dumps.hosts.",
        )
    return archive


def dump_glob(host: str) -> str:
    """A glob that matches the archives of this host's dumps, finished or not, and no others."""
    return f"dump.{encode(host)}@*"


def unfinished(name: str) -> str:
    """The name that an archive has until it is verified."""
    return name + UNFINISHED


def parse_archive_name(text: str) -> ArchiveName | None:
    """Read an archive's name; None if it is none of ours."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    try:
        source = decode(found["source"])
        when = datetime.strptime(found["when"], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
    uuid8 = found["uuid8"]
    return ArchiveName("vm" if uuid8 else "dump", uuid8 or "", source, when, found["unfinished"] is None)


def archive_glob(uuid: str, name: str) -> str:
    """A glob for borg's --glob-archives that matches the archives of this VM under this name, and no others."""
    return f"vm.{uuid[:8]}.{encode(name)}@*"


def unfinished_glob(uuid: str) -> str:
    """A glob that matches the unfinished archives of this VM, under whatever name it had."""
    return f"vm.{uuid[:8]}.*@*{UNFINISHED}"
