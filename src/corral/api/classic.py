"""The stream of a classic build: events become the lines that docker's command and its libraries read.

Stages run side by side, but the lines come in the order of the file: what a later step says waits until every step
before it is done.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from corral.build import request as events
from corral.oci.digest import hex_of

_RED, _PLAIN = "\x1b[91m", "\x1b[0m"
_ID_SHOWN = 12
_HELD_MAX_BYTES = 4 << 20
_QUIET_MAX = 1000

Put = Callable[[dict[str, Any]], None]


class Lines:
    """Takes events in any order, gives records in the file's."""

    def __init__(self, put: Put, *, quiet: bool, remove: bool) -> None:
        self._put = put
        self._quiet = quiet
        self._remove = remove
        self._current = 1
        self._waiting: dict[int, list[events.Event]] = {}
        self._held_bytes: dict[int, int] = {}
        self._decoders: dict[tuple[int, int], codecs.IncrementalDecoder] = {}
        self.held: deque[dict[str, Any]] = deque(maxlen=_QUIET_MAX)  # with `quiet`: what a failure shows after all

    def take(self, event: events.Event) -> None:
        """One event of the build."""
        if isinstance(event, events.Warn):
            return  # build checks are not part of the classic stream
        number = event.vertex.number or self._current
        if number != self._current:
            self._hold(number, event)
            return
        self._show(event)
        if isinstance(event, events.Finished) and event.vertex.number:
            self._advance()

    def _hold(self, number: int, event: events.Event) -> None:
        if isinstance(event, events.Wrote):
            held = self._held_bytes.get(number, 0)
            if held > _HELD_MAX_BYTES:
                return
            self._held_bytes[number] = held + len(event.data)
            if self._held_bytes[number] > _HELD_MAX_BYTES:
                event = replace(event, stream=0, data=b"[output clipped: too much of it came before its turn]\n")
        self._waiting.setdefault(number, []).append(event)

    def _advance(self) -> None:
        self._current += 1
        while waiting := self._waiting.pop(self._current, None):
            for event in waiting:
                self._show(event)
            if not isinstance(waiting[-1], events.Finished):
                return
            self._current += 1

    def flush(self, number: int | None = None) -> None:
        """What has waited, after a failure: the failed step's own lines at least."""
        for key in sorted(self._waiting):
            if number is None or key <= number:
                for event in self._waiting.pop(key):
                    self._show(event)

    def say(self, text: str) -> None:
        """A line."""
        self._record({"stream": text})

    def _record(self, record: dict[str, Any]) -> None:
        if self._quiet:
            self.held.append(record)
        else:
            self._put(record)

    def _show(self, event: events.Event) -> None:
        """Print an event; the last step's ` ---> ` is the image, whose id is known only when it is made."""
        if isinstance(event, events.Started):
            vertex = event.vertex
            self.say(f"Step {vertex.number}/{vertex.total} : {vertex.name}")
            self.say("\n")
        elif isinstance(event, events.Cached):
            self.say(" ---> Using cache\n")
        elif isinstance(event, events.Running):
            self.say(f" ---> Running in {event.container[:_ID_SHOWN]}\n")
        elif isinstance(event, events.Ran):
            if self._remove:
                self.say(f"Removing intermediate container {event.container[:_ID_SHOWN]}\n")
        elif isinstance(event, events.Wrote):
            self._output(event)
        elif isinstance(event, events.Pulling):
            self._record(dict(event.record))
        elif isinstance(event, events.Finished) and event.result and event.vertex.number < event.vertex.total:
            self.say(f" ---> {(hex_of(event.result) or event.result)[:_ID_SHOWN]}\n")

    def _output(self, event: events.Wrote) -> None:
        key = (event.vertex.number, event.stream)
        decoder = self._decoders.setdefault(key, codecs.getincrementaldecoder("utf-8")("replace"))
        text = decoder.decode(event.data)
        if text:
            self.say(f"{_RED}{text}{_PLAIN}" if event.stream == 2 else text)
