"""Amounts as people read them. Pure."""

_ADVANCE = 1024.0


def size(count: float) -> str:
    """Bytes in binary units: `0 B`, `1.5 GiB`."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):  # noqa: B007 - used after the loop
        if abs(value) < _ADVANCE:
            break
        value /= _ADVANCE
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
