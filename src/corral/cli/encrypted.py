"""A TLS connection whose one side can end while the other goes on, which the standard library's sockets cannot.

`run -i` and `attach` say when their input has ended, and then read what the program still has to say.
"""

from __future__ import annotations

import ssl
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_READ_BYTES = 64 << 10
_NOTHING_YET = ssl.SSLWantReadError
_OVER = (ssl.SSLZeroReturnError, ssl.SSLEOFError)


class Encrypted:
    """What the client uses of a socket, over TLS.  Raises OSError (ssl.SSLError is one)."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._early: deque[bytes] = deque()  # decrypted before it was asked for
        while True:
            try:
                self._tls.do_handshake()
                break
            except _NOTHING_YET:
                self._flush()
                self._fetch()
        self._flush()

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)

    def recv(self, size: int) -> bytes:
        """At least one byte; empty at the end."""
        while not self._early:
            try:
                return self._tls.read(size)
            except _NOTHING_YET:
                self._fetch()
            except _OVER:
                return b""
        return self._early.popleft()

    def pending(self) -> bool:
        """Whether `recv` has something without waiting."""
        self._decrypt()
        return bool(self._early)

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def sendall(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def shutdown(self, how: int) -> None:
        """Say that nothing more will come, which is all that TLS can say before the end."""
        self._decrypt()  # OpenSSL looks for the other side's end at once, and throws away data that it finds instead
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the other side has not answered, and need not
        self._flush()

    def close(self) -> None:
        self._sock.close()

    def _decrypt(self) -> None:
        try:
            while data := self._tls.read(_READ_BYTES):
                self._early.append(data)
        except ssl.SSLError:
            pass  # nothing more yet, or the end: `recv` will see

    def _fetch(self) -> None:
        if data := self._sock.recv(_READ_BYTES):
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._sock.sendall(data)
