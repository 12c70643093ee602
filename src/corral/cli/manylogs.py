"""Logs of several containers as one: each line with its container's name in front, in the order of time.

Every log is asked for with timestamps, which merge them and are taken off again.  While following, a line waits a
moment for older ones of slower streams, never longer.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time

from corral.cli import colours
from corral.cli.problems import CliError
from corral.cli.relay import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from corral.cli.command import Session

_PATIENCE_S = 0.1
_WAITING_LINES = 1000
_HEADER_BYTES = 8


class Line:
    """A line of a log: its time as the daemon writes it, its container's number, 1 or 2, and the rest."""

    __slots__ = ("arrived", "number", "stamp", "stream", "text")

    def __init__(self, stamp: bytes, number: int, stream: int, text: bytes) -> None:
        self.stamp = stamp
        self.number = number
        self.stream = stream
        self.text = text
        self.arrived = time.monotonic()

    def __lt__(self, other: Line) -> bool:
        return self.stamp.rstrip(b"Z") < other.stamp.rstrip(b"Z")


def _frames(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The frames of a multiplexed stream."""
    rest = b""
    for data in chunks:
        rest += data
        while len(rest) >= _HEADER_BYTES and len(rest) >= (end := _HEADER_BYTES + int.from_bytes(rest[4:8], "big")):
            yield rest[0], rest[_HEADER_BYTES:end]
            rest = rest[end:]


def _rows(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines of a terminal's stream."""
    rest = b""
    for data in chunks:
        *rows, rest = (rest + data).split(b"\n")
        yield from ((1, row + b"\n") for row in rows)
    if rest:
        yield 1, rest


def _split(piece: bytes) -> Iterator[bytes]:
    """The lines of a frame, with their ends; a daemon may put several into one."""
    start = 0
    while start < len(piece):
        end = piece.find(b"\n", start) + 1 or len(piece)
        yield piece[start:end]
        start = end


def lines(number: int, chunks: Iterable[bytes], terminal: bool) -> Iterator[Line]:
    """What a log holds, line by line; raises CliError for an error of the daemon in the middle."""
    begun: dict[int, Line] = {}  # a long line comes in several pieces, each with a time
    for stream, piece in _rows(chunks) if terminal else _frames(chunks):
        if stream == 3:
            raise CliError(piece.decode("utf-8", "replace"))
        for part in _split(piece):
            stamp, _, text = part.partition(b" ")
            line = begun.pop(stream, None)
            if line is None:
                line = Line(stamp, number, stream, text)
            else:
                line.text += text
            if line.text.endswith(b"\n"):
                yield line
            else:
                begun[stream] = line
    for line in begun.values():
        line.text += b"\n"
        yield line


class Printer:
    """Writes lines with their containers' names; `stamps` keeps the times."""

    def __init__(self, names: Sequence[str], stamps: bool) -> None:
        width = max(map(len, names))
        self._stamps = stamps
        self._fronts = {}
        for fd in (1, 2):
            codes = [
                colours.WHEEL[index % len(colours.WHEEL)] if colours.wanted(fd) else "" for index in range(len(names))
            ]
            fronts = [colours.paint(f"{name:<{width}} |", code) for name, code in zip(names, codes, strict=True)]
            self._fronts[fd] = [f"{front} ".encode() for front in fronts]

    def write(self, line: Line) -> None:
        """Write one."""
        fd = 2 if line.stream == 2 else 1
        stamp = line.stamp + b" " if self._stamps else b""
        write_all(fd, self._fronts[fd][line.number] + stamp + line.text)


def show(session: Session, names: Sequence[str], query: dict[str, Any]) -> int:
    """Print the logs; 1 if one of the containers could not be asked to the end."""
    opened = [_open(session, number, name, query) for number, name in enumerate(names)]
    printer = Printer(names, bool(query["timestamps"]))
    if not query["follow"]:
        for line in heapq.merge(*opened):
            printer.write(line)
        return 0
    return _follow(opened, printer)


def _open(session: Session, number: int, name: str, query: dict[str, Any]) -> Iterator[Line]:
    """One container's log, on a connection of its own; raises CliError if there is no such container."""
    from corral.cli.transport import Client

    client = Client(session.globals.endpoint())
    found = client.get(f"/containers/{name}/json")
    answer = client.request("GET", f"/containers/{found['Id']}/logs", {**query, "timestamps": True})
    return lines(number, answer.chunks(), found["Config"]["Tty"])


def _follow(opened: Sequence[Iterator[Line]], printer: Printer) -> int:
    arrived: queue.Queue[Line | CliError | None] = queue.Queue(_WAITING_LINES)

    def read(log: Iterator[Line]) -> None:
        try:
            for line in log:
                arrived.put(line)
            arrived.put(None)
        except CliError as error:
            arrived.put(error)

    for log in opened:
        threading.Thread(target=read, args=(log,), daemon=True).start()
    held: list[Line] = []
    running, status = len(opened), 0
    while running or held:
        item: Line | CliError | None = None
        try:
            item = arrived.get(timeout=_PATIENCE_S if held else None) if running else None
        except queue.Empty:
            pass
        else:
            if isinstance(item, Line):
                heapq.heappush(held, item)
            elif running:
                running -= 1
                status |= _told(item)
        due = time.monotonic() - _PATIENCE_S
        while held and (held[0].arrived <= due or not running):
            printer.write(heapq.heappop(held))
    return status


def _told(problem: CliError | None) -> int:
    from corral.cli.command import error_line

    if problem is None:
        return 0
    error_line(str(problem))
    return 1
