"""What a single value may be: durations and sizes as people write them, paths, locations."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, PlainSerializer, WithJsonSchema

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_PART = re.compile(r"([0-9]+)\s*([smhdwy])")
_DURATION = re.compile(r"(?:[0-9]+\s*[smhdwy]\s*)+")
_COMPRESSION = re.compile(
    r"(auto,)?(none|lz4|zstd(,([1-9]|1\d|2[0-2]))?|zlib(,\d)?|lzma(,\d)?)"
)  # `borg help compression`; obfuscate,SPEC,… is accepted as it is
_REPOSITORY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # it names the file of the exported key
_LONGEST = 1000 * _UNITS["y"]  # timedelta ends at 999,999,999 days; nobody means more than this

DURATION_PATTERN = r"^\s*([0-9]+|([0-9]+\s*[smhdwy]\s*)+)\s*$"
SIZE_PATTERN = r"^\s*\d*\.?\d+\s*([kKmMgGtTpP]?[iI]?[bB]?)\s*$"


def parse_duration(text: str) -> int:
    """`90`, `90s`, `1h30m`, `7d`, `4w`, `1y` (365 days) as seconds. `m` is minutes. Raises ValueError."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        seconds = int(text) if len(text) < 20 else _LONGEST + 1  # noqa: PLR2004 - int() of a huge text is slow
    elif _DURATION.fullmatch(text):
        seconds = sum(int(number[:20]) * _UNITS[unit] for number, unit in _PART.findall(text))
    else:
        raise ValueError("must be a duration such as 90s, 15m, 26h, 7d or 4w")
    if seconds > _LONGEST:
        raise ValueError("must be shorter than 1000 years")
    return seconds


def render_duration(duration: timedelta | float) -> str:
    """The shortest exact text: `26h`, `7d`, `1h30m`. Fractions of a second are dropped."""
    rest = int(duration.total_seconds() if isinstance(duration, timedelta) else duration)
    if rest and rest % _UNITS["h"] == 0 and rest % _UNITS["d"]:
        return f"{rest // _UNITS['h']}h"  # 26h, not 1d2h
    parts: list[str] = []
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, _UNITS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def render_size(size: int) -> str:
    """The largest binary unit that is exact: `1GiB`, `1536MiB`, `1000B`."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return f"{size}B"


def _seconds(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _timedelta(value: Any) -> Any:
    return timedelta(seconds=parse_duration(value)) if isinstance(value, str) else value


_DURATION_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": DURATION_PATTERN}]
}
_SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": SIZE_PATTERN}]
}

Pause = Annotated[
    int,
    Field(ge=0),
    BeforeValidator(_seconds),
    PlainSerializer(render_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]
Seconds = Annotated[Pause, Field(gt=0), WithJsonSchema(_DURATION_SCHEMA)]
Duration = Annotated[
    timedelta,
    Field(gt=timedelta(0)),
    BeforeValidator(_timedelta),
    PlainSerializer(render_duration, return_type=str),
    WithJsonSchema(_DURATION_SCHEMA),
]
Size = Annotated[ByteSize, PlainSerializer(render_size, return_type=str), WithJsonSchema(_SIZE_SCHEMA)]


_SMALLEST_CHUNK, _LARGEST_CHUNK = 64 * 1024, 4 * 1024**2


def _chunk(size: ByteSize) -> ByteSize:
    if not _SMALLEST_CHUNK <= size <= _LARGEST_CHUNK or size & (size - 1):
        raise ValueError("must be a power of two from 64KiB to 4MiB")
    return size


ChunkSize = Annotated[Size, AfterValidator(_chunk)]


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    return path


def _one_line(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("must be one line of printable text, not empty")
    return text


def _location(location: str) -> str:
    """An absolute path or ssh://[user@]host[:port]/path, as in borg's documentation ("Repository URLs")."""
    _one_line(location)
    if location.startswith("/"):
        return location
    if not location.startswith("ssh://"):
        raise ValueError("must be an absolute path or ssh://[user@]host[:port]/path")
    try:
        parts = urlsplit(location)
        complete = bool(parts.hostname) and len(parts.path) > 1 and parts.port != 0
    except ValueError:
        complete, parts = False, None
    if not complete or parts is None:
        raise ValueError("must be ssh://[user@]host[:port]/path")
    if parts.password is not None:
        raise ValueError("must not hold a password: use an SSH key")
    return location


def _repository_name(name: str) -> str:
    if not _REPOSITORY_NAME.fullmatch(name):
        raise ValueError(
            "a repository's name may hold letters, digits, . - and _, and must begin with a letter or digit"
        )
    return name


def _compression(value: str) -> str:
    if not _COMPRESSION.fullmatch(value) and not value.startswith("obfuscate,"):
        raise ValueError("must be none, lz4, zstd[,1-22], zlib[,0-9] or lzma[,0-9], with auto, before it if wanted")
    return value


Location = Annotated[str, AfterValidator(_location)]
Compression = Annotated[str, AfterValidator(_compression)]
RepositoryName = Annotated[str, AfterValidator(_repository_name)]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Text = Annotated[str, AfterValidator(_one_line)]
