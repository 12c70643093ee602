"""Records of a pull, push, load or import, drawn as lines with bars on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time

from corral.cli.problems import CliError
from corral.cli.terminal import is_terminal
from corral.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, TextIO

_REDRAW_S = 0.05
_METER_EVERY_S, _METER_AFTER_S = 0.1, 0.3  # what takes less than a blink needs no meter


def bar(current: int, total: int, width: int, elapsed_s: float) -> str:
    """`[====>    ]  3.1MB/29MB  12MB/s  2s`, as much of it as fits in `width`."""
    numbers = f"{human_size(current):>8}/{human_size(total)}" if total else f"{human_size(current):>8}"
    if elapsed_s > 0.5 and current and (not total or current < total):
        rate = current / elapsed_s
        numbers += f"  {human_size(rate, 3)}/s"
        if total:
            numbers += f"  {int((total - current) / rate) + 1}s"
    if not total or current > total:
        return numbers
    share = min(50, 50 * current // total)
    drawn = "[" + ("=" * share + ">").ljust(50)[:50] + "] "
    if width < len(drawn) + len(numbers):
        return numbers
    return drawn + numbers


class Display:
    """What the records have said so far, one line for every id."""

    def __init__(self, out: TextIO, terminal: bool) -> None:
        self._out = out
        self._terminal = terminal
        self._lines: dict[str, str] = {}
        self._drawn = 0
        self._next_draw = 0.0
        self._began: dict[tuple[str, str], float] = {}
        self.aux: list[dict[str, Any]] = []

    def show(self, record: dict[str, Any]) -> None:
        """Take one record; raises CliError if it is an error."""
        if "errorDetail" in record or "error" in record:
            self.finish()
            detail = record.get("errorDetail") or {}
            raise CliError(str(detail.get("message") or record.get("error")))
        if "aux" in record:
            self.aux.append(record["aux"])
        elif "stream" in record:
            self.finish()
            self._out.write(record["stream"])
        elif "status" in record:
            self._status(record)

    def _status(self, record: dict[str, Any]) -> None:
        identity, status = str(record.get("id") or ""), str(record["status"])
        detail = record.get("progressDetail") or {}
        if not self._terminal:
            if not (detail.get("current") or detail.get("total")):
                self._out.write(f"{identity}: {status}\n" if identity else f"{status}\n")
            return
        if not identity:
            self.finish()
            self._out.write(f"{status}\n")
            return
        text = f"{identity}: {status} "
        if detail.get("current"):
            began = self._began.setdefault((identity, status), time.monotonic())
            width = max(20, _columns() - len(text) - 1)
            text += bar(int(detail["current"]), int(detail.get("total") or 0), width, time.monotonic() - began)
        self._lines[identity] = text
        if time.monotonic() >= self._next_draw:
            self._draw()

    def _draw(self) -> None:
        width = _columns()
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{line[:width]}\r\n" for line in self._lines.values())
        self._out.write(up + body)
        self._out.flush()
        self._drawn = len(self._lines)
        self._next_draw = time.monotonic() + _REDRAW_S

    def finish(self) -> None:
        """Leave the lines as they are and go on below them."""
        if self._lines:
            self._draw()
        self._lines, self._drawn, self._next_draw = {}, 0, 0.0
        self._out.flush()


def metered(parts: Iterator[bytes], label: str, total: int = 0, quiet: bool = False) -> Iterator[bytes]:
    """The same bytes, counted on the last line of the terminal while they pass; nothing is left of that line."""
    if quiet or not is_terminal(2):
        return parts
    return _metered(parts, label, total)


def _metered(parts: Iterator[bytes], label: str, total: int) -> Iterator[bytes]:
    began = time.monotonic()
    next_draw, passed = began + _METER_AFTER_S, 0
    try:
        for part in parts:
            yield part
            passed += len(part)
            now = time.monotonic()
            if now >= next_draw:
                next_draw = now + _METER_EVERY_S
                width = _columns() - 1
                shown = f"{label} {bar(passed, total, width - len(label) - 1, now - began)}"
                sys.stderr.write(f"\r\x1b[2K{shown[:width]}")
                sys.stderr.flush()
    finally:
        if next_draw > began + _METER_AFTER_S:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def _columns() -> int:
    try:
        return os.get_terminal_size().columns or 80
    except OSError:
        return 80


def show(records: Iterable[dict[str, Any]], out: TextIO | None = None) -> list[dict[str, Any]]:
    """Draw all records; answers their `aux` values; raises CliError for an error among them."""
    out = out or sys.stdout
    display = Display(out, out.isatty())
    for record in records:
        display.show(record)
    display.finish()
    return display.aux


def silently(records: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Read all records without showing them; answers their `aux` values; raises CliError."""
    import io

    return show(records, io.StringIO())
