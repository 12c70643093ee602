"""Past events on disk, so that `events --since` reaches beyond a restart of the daemon.

    DATA_ROOT/events/current     one JSON object per line, oldest first
    DATA_ROOT/events/previous    the file before, dropped when `current` is full again

Lines are written as events happen and not brought to disk one by one: they survive the daemon, not a power cut.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any

import msgspec

_log = logging.getLogger(__name__)
_FILE_MAX_BYTES = 8 << 20

Event = dict[str, Any]


class EventLog:
    """The files below `folder`.  Writing is quick; reading is for a thread."""

    def __init__(self, folder: str, limit: int = _FILE_MAX_BYTES) -> None:
        """`limit` bounds each of the two files, in bytes."""
        self._folder = folder
        self._limit = limit
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._fd = -1
        self._size = 0
        self._open()
        if self._size and not _ends_a_line(self._current):
            os.write(self._fd, b"\n")  # a machine that went down in the middle of a line

    @property
    def _current(self) -> str:
        return os.path.join(self._folder, "current")

    @property
    def _previous(self) -> str:
        return os.path.join(self._folder, "previous")

    def append(self, event: Event) -> None:
        """Keep an event; a disk that takes none costs the event its place here, nothing else."""
        line = msgspec.json.encode(event) + b"\n"
        try:
            if self._size + len(line) > self._limit:
                os.rename(self._current, self._previous)
                os.close(self._fd)
                self._open()
            self._size += os.write(self._fd, line)
        except OSError as error:
            _log.warning("cannot keep an event: %s", error)

    def read(self, since_ns: int, until_ns: int | None) -> list[Event]:
        """Kept events within the bounds, oldest first."""
        return [
            event
            for event in self._lines()
            if event["timeNano"] >= since_ns and (until_ns is None or event["timeNano"] <= until_ns)
        ]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> None:
        self._fd = os.open(self._current, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _lines(self) -> Iterator[Event]:
        for path in (self._previous, self._current):
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                for line in file:
                    try:
                        event = msgspec.json.decode(line)
                    except msgspec.DecodeError:  # torn by a full disk or a power cut
                        continue
                    if isinstance(event, dict) and isinstance(event.get("timeNano"), int):
                        yield event


def _ends_a_line(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
