"""The standard streams of one process: from its pipes or terminal to the log and to every attached client.

A client is a socket that somebody attached.  It gets frames (stream number, three zero bytes, length, data) or,
with a terminal, raw bytes; what it sends goes to the process's standard input.

Flow control: output is read only while every client has room, so a slow client slows the process down and
memory stays bounded; input is read only while the process takes it.
"""

from __future__ import annotations

import errno
import os
import socket

from corral.shim.loop import HANG_UP, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corral.shim.logs import JsonFile, NoLog
    from corral.shim.loop import Loop

_READ_BYTES = 256 << 10
_CLIENT_QUEUE_BYTES = 1 << 20
_NUMBER = {"stdout": b"\1\0\0\0", "stderr": b"\2\0\0\0"}


class Client:
    """One attached socket."""

    def __init__(self, fd: int, streams: Streams, *, stdin: bool, outputs: list[str], detach_keys: bytes) -> None:
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self.outputs = outputs
        self.queued_bytes = 0
        self._queue: list[memoryview] = []
        self._streams = streams
        self._detach = _DetachKeys(detach_keys) if detach_keys else None
        self._reading = stdin
        self._ending = False
        self._closed = False
        self._arm()

    def send(self, parts: list[bytes]) -> None:
        """Send now what the socket takes, queue the rest."""
        views = [memoryview(part) for part in parts]
        if not self._queue:
            views = self._send_now(views)
        for view in views:
            self._queue.append(view)
            self.queued_bytes += len(view)
        if self._queue:
            self._arm()

    def end(self) -> None:
        """Close once everything queued is sent."""
        self._ending = True
        self._reading = False
        if not self._queue:
            self.close()
        else:
            self._arm()

    def close(self) -> None:
        """Drop the client now."""
        if not self._closed:
            self._closed = True
            self._streams.loop.forget(self._socket.fileno())
            # shutdown first: the daemon may hold another descriptor of this connection for a moment
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._socket.close()
            self._streams.client_gone(self)

    def refresh(self) -> None:
        """The process's input has room again, or has none: read accordingly."""
        if not self._closed:
            self._arm()

    def _arm(self) -> None:
        events = 0
        if self._reading and not self._streams.stdin_full:
            events |= READ
        if self._queue:
            events |= WRITE
        self._streams.loop.watch(self._socket.fileno(), events, self._ready)

    def _ready(self, events: int) -> None:
        if events & WRITE and self._queue:
            self._flush()
        if not self._closed and events & READ:
            self._read()
        if not self._closed and events & HANG_UP and not events & READ:
            self.close()

    def _flush(self) -> None:
        queue, self._queue, self.queued_bytes = self._queue, [], 0
        self._queue = self._send_now(queue)
        self.queued_bytes = sum(map(len, self._queue))
        if self._closed:
            return
        self._streams.client_drained()
        if not self._queue and self._ending:
            self.close()
        elif not self._queue:
            self._arm()

    def _send_now(self, views: list[memoryview]) -> list[memoryview]:
        while views and not self._closed:
            try:
                sent = self._socket.sendmsg(views[:64], (), socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:  # the client has gone; the process does not care
                self.close()
                return []
            while views and sent >= len(views[0]):
                sent -= len(views[0])
                views = views[1:]
            if sent:
                views[0] = views[0][sent:]
        return views

    def _read(self) -> None:
        try:
            data = self._socket.recv(64 << 10)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        if not data:
            self._reading = False
            self._arm()
            self._streams.client_input_ended()
            return
        if self._detach is not None:
            data, detached = self._detach.feed(data)
            self._streams.write_stdin(data)
            if detached:
                self.close()
                self._streams.on_detach()
            return
        self._streams.write_stdin(data)


class _DetachKeys:
    """Finds the detach sequence in typed input; a part of it that comes to nothing is passed on."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The input to pass on, and whether the sequence was completed."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
            else:
                passed.append(byte)
        return bytes(passed), False


class Streams:
    """All standard streams of one process."""

    def __init__(
        self,
        loop: Loop,
        log: NoLog | JsonFile,
        *,
        terminal: bool,
        stdin_once: bool,
        on_log: Callable[[], None],
        on_detach: Callable[[], None],
        on_end: Callable[[], None],
        on_idle: Callable[[], None],
    ) -> None:
        self.loop = loop
        self.terminal = terminal
        self.console = -1
        self.stdin_full = False
        self.on_detach = on_detach
        self._log = log
        self._on_log = on_log
        self._on_end = on_end
        self._on_idle = on_idle
        self._stdin_once = stdin_once
        self._stdin = -1
        self._stdin_queue = b""
        self._stdin_ending = False
        self._outputs: dict[int, str] = {}
        self._paused = False
        self._clients: list[Client] = []

    # -- the process's side ------------------------------------------------------------------------

    def take_console(self, console: int) -> None:
        """Use a terminal: `console` is its master side."""
        self.console = console
        os.set_blocking(console, False)
        self._stdin = os.dup(console)
        self._add_output(console, "stdout")

    def take_pipes(self, stdin: int, stdout: int, stderr: int) -> None:
        """Use pipes (our ends); -1 for one that is not wanted."""
        if stdin >= 0:
            os.set_blocking(stdin, False)
            self._stdin = stdin
        for fd, name in ((stdout, "stdout"), (stderr, "stderr")):
            if fd >= 0:
                os.set_blocking(fd, False)
                self._add_output(fd, name)

    def attach(self, fd: int, *, stdin: bool, outputs: list[str], detach_keys: bytes, initial: bytes = b"") -> None:
        """Serve one more client; `initial` is input that came before the descriptor did."""
        client = Client(fd, self, stdin=stdin, outputs=outputs, detach_keys=detach_keys)
        self._clients.append(client)
        if initial and stdin:
            self.write_stdin(initial)

    def write_stdin(self, data: bytes) -> None:
        """Give input to the process, keeping what it does not take yet."""
        if self._stdin < 0 or self._stdin_ending:
            return
        self._stdin_queue += data
        self._flush_stdin(WRITE)

    def client_input_ended(self) -> None:
        """A client has no more input; with StdinOnce that is the end of the process's input too."""
        if self._stdin_once and not self.terminal:
            self.close_stdin()

    def close_stdin(self) -> None:
        """End the process's input after what is queued."""
        self._stdin_ending = True
        if not self._stdin_queue:
            self._drop_stdin()

    def client_gone(self, client: Client) -> None:
        """A client was closed."""
        if client in self._clients:
            self._clients.remove(client)
        self.client_drained()
        if not self._clients:
            self._on_idle()

    def client_drained(self) -> None:
        """A client has room again."""
        if self._paused and not self._congested():
            self._paused = False
            for fd in self._outputs:
                self._watch_output(fd)

    def drain(self) -> None:
        """Read what the ended process left in its pipes; `on_end` follows, at the end of the last one."""
        for fd in list(self._outputs):
            while fd in self._outputs and not self._paused and self._read_output(fd):
                pass

    @property
    def open_outputs(self) -> bool:
        """Whether output may still come."""
        return bool(self._outputs)

    def close_outputs(self) -> None:
        """Accept no more output and complete the log."""
        for fd in list(self._outputs):
            self._close_output(fd)
        self._log.finish()

    def finish(self) -> None:
        """The process has ended and everybody knows: let every client go."""
        for fd in list(self._outputs):
            self._close_output(fd)
        self._drop_stdin()
        for client in list(self._clients):
            client.end()

    @property
    def has_clients(self) -> bool:
        """Whether a client still has output to fetch."""
        return bool(self._clients)

    # -- inside ------------------------------------------------------------------------------------

    def _add_output(self, fd: int, name: str) -> None:
        self._outputs[fd] = name
        self._watch_output(fd)

    def _watch_output(self, fd: int) -> None:
        self.loop.watch(fd, 0 if self._paused else READ, lambda events: self._output_ready(fd))

    def _output_ready(self, fd: int) -> None:
        if self._paused:
            self.loop.forget(fd)  # hang-up is reported however little is asked for; resumed by client_drained
            return
        self._read_output(fd)
        if not self._outputs:
            self._on_end()

    def _read_output(self, fd: int) -> bool:
        """Pass one piece on; returns whether there may be more at once."""
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EIO:  # how a terminal says that its last process has gone
                raise
            data = b""
        if not data:
            self._close_output(fd)
            return False
        name = self._outputs[fd]
        if self._log.write(name, data):
            self._on_log()
        if self._clients:
            parts = [data] if self.terminal else [_NUMBER[name] + len(data).to_bytes(4, "big"), data]
            for client in list(self._clients):
                if name in client.outputs:
                    client.send(parts)
            if self._congested():
                self._paused = True
                for other in self._outputs:
                    self._watch_output(other)
        return True

    def _congested(self) -> bool:
        return any(client.queued_bytes > _CLIENT_QUEUE_BYTES for client in self._clients)

    def _close_output(self, fd: int) -> None:
        del self._outputs[fd]
        self.loop.forget(fd)
        os.close(fd)
        if fd == self.console:
            self.console = -1

    def _flush_stdin(self, events: int) -> None:
        try:
            while self._stdin_queue:
                written = os.write(self._stdin, self._stdin_queue[: 64 << 10])
                self._stdin_queue = self._stdin_queue[written:]
        except BlockingIOError:
            pass
        except OSError:  # the process closed its input
            self._drop_stdin()
        full = bool(self._stdin_queue)
        if full:
            self.loop.watch(self._stdin, WRITE, self._flush_stdin)
        elif self._stdin >= 0:
            self.loop.forget(self._stdin)
            if self._stdin_ending:
                self._drop_stdin()
        if full != self.stdin_full:
            self.stdin_full = full
            for client in list(self._clients):
                client.refresh()

    def _drop_stdin(self) -> None:
        self._stdin_queue = b""
        if self._stdin >= 0:
            self.loop.forget(self._stdin)
            os.close(self._stdin)
            self._stdin = -1
