"""One client's socket: heads and bodies in, answers out; blocking, with limits on silence and on slowness.

A body never passes through small Python objects: it is received into one buffer of a MiB, and its pieces are views of
that.  (The kernel times out, by SO_RCVTIMEO, which costs no `poll` for each read as Python's own time limits do.)
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import time
from collections.abc import Iterator

from corral.registry.http.head import HEAD_MAX_BYTES, BadRequest, Head

IDLE_S = 60.0
_HEAD_S = 20.0
_SILENCE_S = 60.0
_BODY_GRACE_S = 30.0
_SLOWEST_BYTES_PER_S = 1024
_BUFFER_BYTES = 1 << 20
_SMALL_BYTES = 64 << 10
_CHUNK_LINE_MAX = 256
_SENDFILE_BYTES = 4 << 20
_MSG_MORE = getattr(socket, "MSG_MORE", 0)
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ClientGone(Exception):
    """The client closed the connection before its request was whole, or does not take the answer."""


class ClientSilent(Exception):
    """The client sends nothing, or too little, for too long."""


class Wire:
    """A connection of a client."""

    def __init__(self, sock: socket.socket, peer: str) -> None:
        self.sock = sock
        self.peer = peer
        self.idle_since: float | None = None  # without a whole request since then: may be closed for a newer client
        self._pending = b""
        self._buffer = memoryview(b"")
        self._receive_s = 0.0
        self._secure = isinstance(sock, ssl.SSLSocket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_SILENCE_S))

    @property
    def secure(self) -> bool:
        """Whether the connection is TLS."""
        return self._secure

    # -- in ----------------------------------------------------------------------------------------

    def handshake(self) -> None:
        """TLS's beginning; raises ClientGone or ClientSilent."""
        if isinstance(self.sock, ssl.SSLSocket):
            self._patience(_HEAD_S)
            self._expect_tls(self.sock)
            try:
                self.sock.do_handshake()
            except ssl.SSLWantReadError as error:
                raise ClientSilent from error
            except OSError as error:
                raise ClientGone from error

    def _expect_tls(self, sock: ssl.SSLSocket) -> None:
        """Tell a client that speaks plain HTTP so: clients learn from the 400 which of both it is."""
        try:
            first = socket.socket.recv(sock, 1, socket.MSG_PEEK)
            if first and first.isupper():
                socket.socket.recv(sock, _SMALL_BYTES)
                text = b"Client sent an HTTP request to an HTTPS server.\n"
                head = f"HTTP/1.0 400 Bad Request\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
                socket.socket.send(sock, head.encode() + text)
                raise ClientGone
        except OSError as error:
            raise ClientGone from error

    def read_head(self) -> bytes | None:
        """The next head without its end; None when the client has ended.  Raises BadRequest or ClientSilent."""
        self.idle_since = time.monotonic()
        try:
            data = self._begin_head()
            return self._rest_of_head(data) if data else None
        finally:
            self.idle_since = None

    def _begin_head(self) -> bytes:
        """What came already, or comes next; "" at the end."""
        data = self._pending.lstrip(b"\r\n")
        self._pending = b""
        if not data:
            if len(self._buffer) > _SMALL_BYTES:
                self._buffer = memoryview(b"")  # thousands of idle connections must not keep a MiB each
            self._patience(IDLE_S)
            try:
                data = self._receive().lstrip(b"\r\n")
            except ClientSilent:
                return b""
        if data and not data[:1].isupper():
            raise BadRequest(400, "this is not HTTP")  # such as the beginning of TLS: its client waits for an answer
        return data

    def _rest_of_head(self, data: bytes) -> bytes | None:
        deadline = time.monotonic() + _HEAD_S
        while (end := data.find(b"\r\n\r\n")) < 0:
            if len(data) > HEAD_MAX_BYTES:
                raise BadRequest(431, "the request's head is too large")
            self._patience(_HEAD_S)
            more = self._receive()
            if not more:
                return None
            if time.monotonic() > deadline:
                raise ClientSilent
            data += more
        if end > HEAD_MAX_BYTES:
            raise BadRequest(431, "the request's head is too large")
        self._pending = data[end + 4 :]
        return data[:end]

    def _receive(self) -> bytes:
        """What is there, "" at the end."""
        try:
            return self.sock.recv(_SMALL_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError) as error:
            raise ClientSilent from error
        except OSError:
            return b""

    def receive_into(self, view: memoryview) -> int:
        """Bytes of a body; raises ClientGone or ClientSilent."""
        if self._pending:
            count = min(len(view), len(self._pending))
            view[:count] = self._pending[:count]
            self._pending = self._pending[count:]
            return count
        self._patience(_SILENCE_S)
        try:
            count = self.sock.recv_into(view)
        except (BlockingIOError, ssl.SSLWantReadError) as error:
            raise ClientSilent from error
        except OSError as error:
            raise ClientGone from error
        if count == 0:
            raise ClientGone
        return count

    def give_back(self, data: bytes) -> None:
        """Bytes that were read and belong to the next request."""
        self._pending = data + self._pending

    def buffer(self, wanted: int) -> memoryview:
        """The connection's buffer: at least a small one, a large one for a large body."""
        size = min(max(wanted, _SMALL_BYTES), _BUFFER_BYTES)
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        return self._buffer

    def _patience(self, seconds: float) -> None:
        if self._receive_s != seconds:
            self._receive_s = seconds
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    # -- out ---------------------------------------------------------------------------------------

    def send(self, data: bytes, more: bool = False) -> None:
        """All of it; raises ClientGone."""
        try:
            if self._secure:
                self.sock.sendall(data)
            else:
                self.sock.sendall(data, _MSG_MORE if more else 0)
        except OSError as error:  # ssl.SSLError too
            raise ClientGone from error

    def send_file(self, fd: int, offset: int, count: int) -> None:
        """A part of a file; raises ClientGone."""
        began, end, start = time.monotonic(), offset + count, offset
        out = self.sock.fileno()
        while offset < end:
            try:
                if self._secure:
                    data = os.pread(fd, min(_BUFFER_BYTES, end - offset), offset)
                    self.sock.sendall(data)
                    sent = len(data)
                else:
                    sent = os.sendfile(out, fd, offset, min(_SENDFILE_BYTES, end - offset))
            except OSError as error:
                raise ClientGone from error
            if sent == 0:
                raise ClientGone  # the file is shorter than it was: nothing else can tell the client
            offset += sent
            if time.monotonic() - began > _BODY_GRACE_S + (offset - start) / _SLOWEST_BYTES_PER_S:
                raise ClientGone

    def linger(self) -> None:
        """Let the client read an answer that came before its request was whole, then end."""
        try:
            if not self._secure:
                self.sock.shutdown(socket.SHUT_WR)
            self._patience(2.0)
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline and self._receive():
                pass
        except (OSError, ClientSilent):
            pass

    def interrupt(self) -> None:
        """End the connection from another thread."""
        try:
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # SSLSocket's own would pull TLS from under its thread
        except OSError:
            pass


class Body:
    """The body of one request, read once."""

    def __init__(self, wire: Wire, head: Head) -> None:
        self._wire = wire
        self._left = head.length
        self._wait_for_go = head.expects_continue and head.length != 0
        self.length = head.length
        self.received = 0
        self.done = head.length == 0

    def pieces(self) -> Iterator[memoryview]:
        """Views of what arrives, each valid until the next; raises ClientGone, ClientSilent or BadRequest."""
        if self.done:
            return
        if self._wait_for_go:
            self._wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._wait_for_go = False
        began = time.monotonic()
        for piece in self._chunks() if self._left is None else self._fixed():
            self.received += len(piece)
            if time.monotonic() - began > _BODY_GRACE_S + self.received / _SLOWEST_BYTES_PER_S:
                raise ClientSilent
            yield piece
        self.done = True

    def _fixed(self) -> Iterator[memoryview]:
        assert self._left is not None
        buffer = self._wire.buffer(self._left)
        while self._left:
            count = self._wire.receive_into(buffer[: self._left] if self._left < len(buffer) else buffer)
            self._left -= count
            yield buffer[:count]

    def _chunks(self) -> Iterator[memoryview]:
        """Chunked transfer coding (RFC 9112, section 7.1), with trailers read and forgotten."""
        buffer = self._wire.buffer(_BUFFER_BYTES)
        store = buffer.obj
        assert isinstance(store, bytearray)
        start = end = 0
        while True:
            while (line := store.find(b"\r\n", start, end)) < 0:
                if end - start > _CHUNK_LINE_MAX:
                    raise BadRequest(400, "malformed chunk")
                buffer[: end - start] = bytes(buffer[start:end])
                start, end = 0, end - start
                end += self._wire.receive_into(buffer[end:])
            left = _chunk_size(bytes(buffer[start:line]))
            start = line + 2
            if left == 0:
                break
            while left:
                if start == end:
                    start, end = 0, self._wire.receive_into(buffer)
                count = min(left, end - start)
                yield buffer[start : start + count]
                start += count
                left -= count
            while end - start < 2:
                buffer[: end - start] = bytes(buffer[start:end])
                start, end = 0, end - start
                end += self._wire.receive_into(buffer[end:])
            if bytes(buffer[start : start + 2]) != b"\r\n":
                raise BadRequest(400, "malformed chunk")
            start += 2
        self._wire.give_back(bytes(buffer[start:end]))
        self._trailers()

    def _trailers(self) -> None:
        data = b""
        scratch = memoryview(bytearray(1))
        while not data.endswith(b"\r\n") or (data != b"\r\n" and not data.endswith(b"\r\n\r\n")):
            self._wire.receive_into(scratch)
            data += bytes(scratch)
            if len(data) > HEAD_MAX_BYTES:
                raise BadRequest(431, "too many trailers")

    def skip(self, most: int) -> bool:
        """Read what is left and forget it; whether that was not too much."""
        if self.done:
            return True
        if self._wait_for_go:
            return False  # the client may send the body or not: only a new connection is clear about it
        if self._left is not None and self._left > most:
            return False
        skipped = 0
        for piece in self.pieces():
            skipped += len(piece)
            if skipped > most:
                return False
        return True


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].rstrip(b" \t")
    if not digits or len(digits) > 16 or not _HEX.issuperset(digits):
        raise BadRequest(400, "malformed chunk")
    return int(digits, 16)


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
