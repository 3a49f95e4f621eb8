"""Amounts and times as people read them. Pure."""

from datetime import UTC, datetime, timedelta

_ADVANCE = 1024.0


def size(count: float) -> str:
    """Bytes in binary units: `0 B`, `1.5 GiB`."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):  # noqa: B007 - used after the loop
        if abs(value) < _ADVANCE:
            break
        value /= _ADVANCE
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def duration(span: timedelta) -> str:
    """Two units at most: `45s`, `12m`, `3h 20m`, `2d 4h`."""
    seconds = max(int(span.total_seconds()), 0)
    days, seconds = divmod(seconds, 86_400)
    hours, seconds = divmod(seconds, 3600)
    minutes, seconds = divmod(seconds, 60)
    if days:
        return f"{days}d {hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h {minutes}m" if minutes else f"{hours}h"
    return f"{minutes}m" if minutes else f"{seconds}s"


def moment(when: datetime | None) -> str:
    """A time in UTC, which is what archives are named by: `2026-11-22 03:10:05Z`."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if when else "never"
