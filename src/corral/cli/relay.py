"""Bytes between the user's standard streams and a hijacked connection.

One poll loop: nothing blocks on a full connection while there is output to take, so `cat` of a big file through a
container cannot lock up.  Standard input's end is passed on as a half-close.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.cli.transport import Hijacked

_READ_BYTES = 1 << 16
_SHUT_WR = 1
_HEADER_BYTES = 8


class Frames:
    """Takes a multiplexed stream apart and writes its frames to standard output and error."""

    def __init__(self) -> None:
        self._buffer = b""
        self.failure = ""

    def feed(self, data: bytes) -> None:
        """Write every byte that is known to belong to a stream."""
        buffer = self._buffer + data if self._buffer else data
        position = 0
        while len(buffer) - position >= _HEADER_BYTES:
            length = int.from_bytes(buffer[position + 4 : position + 8], "big")
            end = position + _HEADER_BYTES + length
            if end > len(buffer):
                break
            self._write(buffer[position], buffer[position + _HEADER_BYTES : end])
            position = end
        self._buffer = buffer[position:]

    def _write(self, stream: int, data: bytes) -> None:
        if stream == 3:  # an error of the daemon in the middle of the stream
            self.failure = data.decode("utf-8", "replace")
        else:
            write_all(2 if stream == 2 else 1, data)


class RawOutput:
    """A terminal's stream: everything is standard output."""

    failure = ""

    def feed(self, data: bytes) -> None:
        """Write it."""
        write_all(1, data)


def write_all(fd: int, data: bytes) -> None:
    """Write every byte, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            waiter = select.poll()
            waiter.register(fd, select.POLLOUT)
            waiter.poll()


def relay(hijacked: Hijacked, raw: bool, stdin: bool) -> str:
    """Carry bytes until the other side ends its stream; answers the daemon's error text, if it sent one."""
    output: Frames | RawOutput = RawOutput() if raw else Frames()
    if hijacked.early:
        output.feed(hijacked.early)
    sock = hijacked.sock
    sock.setblocking(True)
    _Loop(sock, output, stdin).run()
    return output.failure


class _Loop:
    def __init__(self, sock: Any, output: Frames | RawOutput, stdin: bool) -> None:
        self._sock = sock
        self._output = output
        self._pending = b""
        self._input_open = stdin
        self._poll = select.poll()
        self._tls = hasattr(sock, "pending")
        if stdin:
            self._poll.register(0, select.POLLIN)
        self._poll.register(sock.fileno(), select.POLLIN)

    def run(self) -> None:
        number = self._sock.fileno()
        while True:
            for fd, events in self._poll.poll():
                if fd == 0:
                    self._read_input()
                    continue
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._receive():
                    return
                if events & select.POLLOUT and fd == number:
                    self._send()

    def _receive(self) -> bool:
        """Take output; False at its end."""
        while True:
            try:
                data = self._sock.recv(_READ_BYTES)
            except (ConnectionResetError, BrokenPipeError):
                return False
            if not data:
                return False
            self._output.feed(data)
            if not (self._tls and self._sock.pending()):
                return True

    def _read_input(self) -> None:
        try:
            data = os.read(0, _READ_BYTES)
        except OSError:
            data = b""
        self._poll.unregister(0)  # no more until this is sent
        if data:
            self._pending = data
            self._poll.modify(self._sock.fileno(), select.POLLIN | select.POLLOUT)
            return
        self._input_open = False
        try:
            self._sock.shutdown(_SHUT_WR)
        except OSError:
            pass  # it is closed already

    def _send(self) -> None:
        try:
            sent = self._sock.send(self._pending[:4096])  # what fits is taken; POLLOUT promised that some does
        except (BrokenPipeError, ConnectionResetError):
            sent = len(self._pending)  # the process has closed its input; its output may go on
        self._pending = self._pending[sent:]
        if not self._pending:
            self._poll.modify(self._sock.fileno(), select.POLLIN)
            if self._input_open:
                self._poll.register(0, select.POLLIN)
