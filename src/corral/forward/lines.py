"""Output of a container, as the shim sends it to a client, cut into lines.  Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

LINE_LIMIT_BYTES = 16 << 10
_HEADER_LENGTH = 8
_NAMES = {1: "stdout", 2: "stderr"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its newline, or a piece of a long one (`partial`); `time_ns` since the epoch."""

    stream: str
    text: bytes
    time_ns: int
    partial: bool = False


class Splitter:
    """Bytes in, lines out; with a terminal there are no frames, and everything is standard output."""

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._held = b""
        self._rest = {"stdout": b"", "stderr": b""}

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that are whole now."""
        if self._terminal:
            yield from self._lines("stdout", data)
            return
        held = self._held + data
        while len(held) >= _HEADER_LENGTH:
            end = _HEADER_LENGTH + int.from_bytes(held[4:_HEADER_LENGTH], "big")
            if len(held) < end:
                break
            stream = _NAMES.get(held[0])
            if stream is not None:
                yield from self._lines(stream, held[_HEADER_LENGTH:end])
            held = held[end:]
        self._held = held

    def finish(self) -> Iterator[Line]:
        """What never got its newline."""
        for stream, rest in self._rest.items():
            if rest:
                yield Line(stream, rest, time.time_ns())

    def _lines(self, stream: str, data: bytes) -> Iterator[Line]:
        now = time.time_ns()
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        for line in lines:
            while len(line) > LINE_LIMIT_BYTES:
                yield Line(stream, line[:LINE_LIMIT_BYTES], now, partial=True)
                line = line[LINE_LIMIT_BYTES:]
            yield Line(stream, line, now)
        while len(rest) >= LINE_LIMIT_BYTES:
            yield Line(stream, rest[:LINE_LIMIT_BYTES], now, partial=True)
            rest = rest[LINE_LIMIT_BYTES:]
        self._rest[stream] = rest
