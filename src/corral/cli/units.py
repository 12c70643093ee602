"""Sizes for people."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")


def human_size(size: float, digits: int = 4) -> str:
    """Units of 1,000 with so many significant digits, as Docker shows sizes: `77.8MB`."""
    return _scaled(size, 1000, _UNITS, digits)


def binary_size(size: float, digits: int = 4) -> str:
    """Units of 1,024: `64MiB`."""
    return _scaled(size, 1024, _BINARY_UNITS, digits)


def _scaled(size: float, base: int, units: tuple[str, ...], digits: int) -> str:
    index = 0
    while size >= base and index < len(units) - 1:
        size /= base
        index += 1
    return f"{size:.{digits}g}{units[index]}"
