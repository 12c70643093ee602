"""One connection to the daemon: bytes both ways, in the clear or over TLS, with an end of each way of its own.

TLS is done in memory (`ssl.MemoryBIO`) over the same socket, so that a half-closed connection works with it too.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING

from corral.client.errors import Interrupted, NotConnected, TimedOut
from corral.client.waiting import Waiter
from corral.endpoint import Endpoint, Tls

if TYPE_CHECKING:
    import ssl

_READ_BYTES = 256 << 10
_WRITE_BYTES = 256 << 10
_BACKLOG_PAUSE_S = 0.01


class Channel:
    """A connected socket.  One task may read and another write at the same time."""

    def __init__(self, sock: socket.socket, waiter: Waiter) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._waiter = waiter
        self._pending: deque[memoryview] = deque()
        self.waiting = 0  # how many wait for it now
        self._closed = False
        self.input_refused = False  # the other side takes no more; what it sends may go on

    async def flush(self, timeout_s: float | None = None) -> None:
        """Send what was put; raises Interrupted if the other side takes no more."""
        while self._pending:
            self._write_some()
            if self.input_refused:
                raise Interrupted("the daemon closed the connection while it was sent to")
            if self._pending:
                await self._ready(False, True, timeout_s)

    async def receive(self, timeout_s: float | None = None) -> bytes:
        """At least one byte; empty at the end."""
        while True:
            data = self._read_some()
            if data is not None:
                return data
            await self._ready(True, False, timeout_s)

    async def turn(self, timeout_s: float | None = None) -> bytes | None:
        """Whichever comes first: some bytes (empty at the end), or None after something that was put has been sent."""
        while True:
            had = len(self._pending)
            if had:
                self._write_some()
            data = self._read_some()
            if data is not None:
                return data
            if len(self._pending) < had:
                return None
            await self._ready(True, bool(self._pending), timeout_s)

    def put(self, data: bytes) -> None:
        """Have it sent by the next `flush` or `turn`."""
        if data and not self.input_refused:
            self._pending.append(memoryview(data))

    @property
    def has_pending(self) -> bool:
        """Whether something that was put has not been sent."""
        return bool(self._pending)

    async def end_input(self) -> None:
        """Say that nothing more will come; what the other side sends goes on."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended by itself

    def is_quiet(self) -> bool:
        """Whether a kept connection is still open: one with something to read has been closed, or is out of step."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not self._closed and not poll.poll(0)

    def is_closed(self) -> bool:
        """Whether `close` has been called, perhaps by another thread."""
        return self._closed

    def close(self) -> None:
        """End both ways.  A reader in another thread sees the end of its stream."""
        if self._closed:
            return
        self._closed = True
        self._waiter.wake()
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was first
        if not self.waiting:
            self._sock.close()

    async def _ready(self, reading: bool, writing: bool, timeout_s: float | None) -> None:
        if self.is_closed():
            raise Interrupted("the connection has been closed")
        self.waiting += 1
        try:
            await self._waiter.ready(self._sock.fileno(), reading, writing, timeout_s)
        finally:
            self.waiting -= 1
            if self.is_closed() and not self.waiting:  # meanwhile, by another thread or task
                self._sock.close()

    def _write_some(self) -> None:
        while self._pending:
            first = self._pending[0]
            try:
                sent = self._sock.send(first[:_WRITE_BYTES])
            except BlockingIOError:
                return
            except OSError:
                self._pending.clear()
                self.input_refused = True
                return
            if sent == len(first):
                self._pending.popleft()
            else:
                self._pending[0] = first[sent:]
                return

    def _read_some(self) -> bytes | None:
        """What can be had without waiting: empty at the end, None when there is nothing yet."""
        return self._take()

    def _take(self) -> bytes | None:
        if self.is_closed():
            return b""
        try:
            return self._sock.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return b""


class TlsChannel(Channel):
    """The same, encrypted."""

    def __init__(self, sock: socket.socket, waiter: Waiter, context: ssl.SSLContext, name: str) -> None:
        import _thread
        import ssl

        super().__init__(sock, waiter)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._lock = _thread.allocate_lock()  # a thread that reads and one that writes share the state of TLS
        self._wants_more = ssl.SSLWantReadError
        self._error = ssl.SSLError
        self._over = (ssl.SSLZeroReturnError, ssl.SSLEOFError)
        self._early: deque[bytes] = deque()  # decrypted before anybody has asked for it

    async def shake_hands(self, timeout_s: float | None) -> None:
        """Before anything else; raises ssl.SSLError or Interrupted."""
        while True:
            try:
                self._tls.do_handshake()
            except self._wants_more:
                self._collect()
                await self.flush(timeout_s)
                while (data := self._take()) is None:
                    await self._ready(True, False, timeout_s)
                self._feed(data)
            else:
                self._collect()
                await self.flush(timeout_s)
                return

    def put(self, data: bytes) -> None:
        if data and not self.input_refused:
            with self._lock:
                self._tls.write(data)
                self._collect()

    async def end_input(self) -> None:
        with self._lock:
            # OpenSSL looks for the other side's end at once, and throws away a record of data that it finds instead.
            try:
                while data := self._tls.read(_READ_BYTES):
                    self._early.append(data)
            except OSError:
                pass  # no more yet, or its end: whoever reads will see
            try:
                self._tls.unwrap()
            except OSError:
                pass  # the other side has not answered, and need not
            self._collect()
        try:
            await self.flush()
        except Interrupted:
            pass  # it has ended by itself

    def _read_some(self) -> bytes | None:
        while True:
            try:
                with self._lock:
                    return self._early.popleft() if self._early else self._tls.read(_READ_BYTES)
            except self._wants_more:
                data = self._take()
                if data is None:
                    return None
                self._feed(data)
            except self._over:
                return b""
            except self._error as error:  # with TLS 1.3 also a certificate that the daemon does not take
                raise NotConnected(f"the daemon ended the TLS connection: {error}") from error

    def _feed(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _collect(self) -> None:
        if data := self._outgoing.read():
            super().put(data)


async def connect(endpoint: Endpoint, waiter: Waiter, timeout_s: float | None) -> Channel:
    """A connection to the daemon; raises NotConnected."""
    scheme, separator, rest = endpoint.host.partition("://")
    if not separator:
        scheme, rest = ("unix", endpoint.host) if endpoint.host.startswith("/") else ("tcp", endpoint.host)
    if scheme == "unix":
        return Channel(await _unix(endpoint.host, rest, waiter, timeout_s), waiter)
    if scheme not in ("tcp", "http", "https"):
        raise NotConnected(f"cannot connect to {endpoint.host}: only unix:// and tcp:// addresses are known here")
    host, _, port = rest.rstrip("/").rpartition(":")
    if not host:
        host, port = rest.rstrip("/"), "2376" if endpoint.tls else "2375"
    host = host.strip("[]") or "127.0.0.1"
    sock = await _tcp(endpoint.host, host, port, waiter, timeout_s)
    if endpoint.tls is None:
        return Channel(sock, waiter)
    return await _secured(sock, host, endpoint, endpoint.tls, waiter, timeout_s)


async def _unix(shown: str, path: str, waiter: Waiter, timeout_s: float | None) -> socket.socket:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        while True:
            try:
                sock.connect(path)
                return sock
            except BlockingIOError:  # its backlog is full, and poll(2) does not tell of room
                if deadline is not None and time.monotonic() > deadline:
                    raise TimedOut(f"{shown} takes no more connections") from None
                await waiter.pause(_BACKLOG_PAUSE_S)
    except PermissionError as error:
        sock.close()
        raise NotConnected(f"permission denied while trying to connect to the daemon at {shown}") from error
    except OSError as error:
        sock.close()
        raise NotConnected(f"cannot connect to the daemon at {shown}: {error.strerror}. Is it running?") from error
    except BaseException:
        sock.close()
        raise


async def _tcp(shown: str, host: str, port: str, waiter: Waiter, timeout_s: float | None) -> socket.socket:
    try:
        addresses = await waiter.addresses(host, int(port))
    except (OSError, ValueError) as error:
        raise NotConnected(f"cannot connect to the daemon at {shown}: {error}") from error
    reason = "no address"
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            code = sock.connect_ex(address)
            if code == errno.EINPROGRESS:
                await waiter.ready(sock.fileno(), False, True, timeout_s)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            reason = os.strerror(code)
        except TimedOut as error:
            reason = str(error)
        except BaseException:
            sock.close()
            raise
        sock.close()
    raise NotConnected(f"cannot connect to the daemon at {shown}: {reason}. Is it running?")


async def _secured(
    sock: socket.socket, host: str, endpoint: Endpoint, tls: Tls, waiter: Waiter, timeout_s: float | None
) -> Channel:
    import ssl

    channel: TlsChannel | None = None
    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key or None)
        channel = TlsChannel(sock, waiter, context, host)
        await channel.shake_hands(timeout_s)
        return channel
    except BaseException as error:
        if channel is None:
            sock.close()
        else:
            channel.close()
        if isinstance(error, OSError | Interrupted):  # ssl.SSLError is an OSError
            raise NotConnected(f"cannot connect to the daemon at {endpoint.host}: {error}") from error
        raise
