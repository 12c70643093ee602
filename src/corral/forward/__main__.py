"""The forwarder: one process per container whose log goes elsewhere, started by the daemon, independent of it.

Standard input is a socket on which the shim sends the container's output as it does to any attached client, so the
shim's flow control is the driver's: in blocking mode the container waits for the receiver, in non-blocking mode the
forwarder goes on reading and drops the oldest lines beyond `max-buffer-size`.  Standard output is a pipe to the daemon:
one line, `ok` or why the driver could not be opened.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from typing import Protocol

import msgspec

from corral.forward.details import Described
from corral.forward.lines import Line, Splitter

_PIECE = 256 << 10


class Settings(msgspec.Struct):
    """What the daemon says; `buffer_bytes` 0 means blocking mode."""

    driver: str
    options: dict[str, str]
    container: Described
    tag: str
    extras: dict[str, str]
    terminal: bool
    buffer_bytes: int
    daemon_pid: int


class Sink(Protocol):
    """Where lines go."""

    def write(self, line: Line) -> None: ...

    def close(self) -> None: ...


def open_sink(settings: Settings) -> Sink:
    """The driver; raises OSError."""
    options, container, tag, extras = settings.options, settings.container, settings.tag, settings.extras
    if settings.driver == "syslog":
        from corral.forward.syslog import Syslog

        return Syslog(options, tag, settings.daemon_pid)
    if settings.driver == "journald":
        from corral.forward.journald import Journald

        return Journald(container, tag, extras)
    if settings.driver == "gelf":
        from corral.forward.gelf import Gelf

        return Gelf(options, container, tag, extras)
    from corral.forward.fluentd import Fluentd

    return Fluentd(options, container, tag, extras)


class Ring:
    """A sink that never waits: lines beyond `limit_bytes` push out the oldest."""

    def __init__(self, sink: Sink, limit_bytes: int) -> None:
        self._sink = sink
        self._limit = limit_bytes
        self._size = 0
        self._lines: deque[Line] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def write(self, line: Line) -> None:
        """Keep a line until it is sent."""
        with self._changed:
            self._lines.append(line)
            self._size += len(line.text)
            while self._size > self._limit and len(self._lines) > 1:
                self._size -= len(self._lines.popleft().text)
            self._changed.notify()

    def close(self) -> None:
        """Send what is kept, then close the sink."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join()
        self._sink.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    if self._ending:
                        return
                    self._changed.wait()
                line = self._lines.popleft()
                self._size -= len(line.text)
            self._sink.write(line)


def main() -> int:
    """Forward until the output ends."""
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    try:
        sink = open_sink(settings)
    except OSError as error:
        print(error.strerror or error, flush=True)
        return 1
    print("ok", flush=True)
    os.close(1)
    if settings.buffer_bytes:
        sink = Ring(sink, settings.buffer_bytes)
    splitter = Splitter(terminal=settings.terminal)
    while data := _read():
        for line in splitter.feed(data):
            sink.write(line)
    for line in splitter.finish():
        sink.write(line)
    sink.close()
    return 0


def _read() -> bytes:
    try:
        return os.read(0, _PIECE)
    except ConnectionResetError:
        return b""


if __name__ == "__main__":
    sys.exit(main())
