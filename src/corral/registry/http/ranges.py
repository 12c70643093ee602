"""Byte ranges: of a GET (RFC 9110, section 14) and of an upload's chunk (distribution specification).  Pure."""

from __future__ import annotations

import re

_ONE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)
_CHUNK = re.compile(r"(?:bytes[ =])?\s*(\d{1,18})-(\d{1,18})(?:/(?:\d{1,18}|\*))?", re.ASCII)


class Unsatisfiable(Exception):
    """No byte of the content is in the range (416)."""


def parse_range(text: str, size: int) -> tuple[int, int] | None:
    """Offset and length of the bytes asked for; None for the whole; raises Unsatisfiable.

    Several ranges at once, and what cannot be read, are answered with the whole, as the RFC allows.
    """
    found = _ONE.fullmatch(text)
    if not found or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        count = min(int(last), size)
        if count == 0:
            raise Unsatisfiable
        return size - count, count
    start = int(first)
    end = int(last) if last else size - 1
    if last and end < start:
        return None
    if start >= size:
        raise Unsatisfiable
    return start, min(end, size - 1) - start + 1


def parse_chunk(text: str) -> tuple[int, int] | None:
    """Start and length that a chunk's Content-Range states; None when it cannot be read."""
    found = _CHUNK.fullmatch(text.strip())
    if not found:
        return None
    start, end = int(found[1]), int(found[2])
    return (start, end - start + 1) if end >= start else None
