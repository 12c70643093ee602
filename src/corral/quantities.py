"""Sizes and durations as people write them in flags, options and configuration files.  Pure."""

from __future__ import annotations

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes of `20m`, `64M`, `1.5 gb`, `4KiB` or `-1`; units are powers of 1024, as Docker reads them.

    Raises ValueError.
    """
    stripped = text.strip().lower()
    if stripped == "-1":
        return -1
    number = stripped.rstrip("bikmgt").removesuffix(" ")
    unit = stripped[len(number) :].lstrip(" ").removesuffix("b").removesuffix("i")
    whole, dot, fraction = number.partition(".")
    if unit not in _UNITS or not whole.isdecimal() or not number.isascii() or bool(dot) != fraction.isdecimal():
        raise ValueError(f"invalid size: '{text}'")
    return int(float(number) * _UNITS[unit])


_DURATION_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}


def duration_ns(text: str) -> int:
    """A duration as Go writes it (`1m30s`, `1.5h`, `-2s`, `0`), in nanoseconds."""
    wrong = ValueError(f'time: invalid duration "{text}"')
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0
    if not rest or not (rest[0].isdigit() or rest[0] == "."):
        raise wrong
    total = 0
    while rest:
        length = len(rest) - len(rest.lstrip("0123456789."))
        number, rest = rest[:length], rest[length:]
        end = next((index for index, char in enumerate(rest) if char.isdigit() or char == "."), len(rest))
        unit, rest = rest[:end], rest[end:]
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _DURATION_NS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        front, _, fraction = number.partition(".")
        if not (front + fraction).isdigit() or not number.isascii():
            raise wrong
        total += int(front + fraction) * _DURATION_NS[unit] // 10 ** len(fraction)
    return -total if text[0] == "-" else total
