"""TLS under a protocol, with half-closed connections.

asyncio's own TLS ends a connection as soon as the peer has said that it will send no more, but `docker attach` and
`docker run` say just that and then read.  This layer keeps the sending side open until we close it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

_READ_BYTES = 64 << 10


class TlsServer(asyncio.Protocol):
    """The encrypted side of one connection; the protocol above sees a transport of plain bytes."""

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol], context: ssl.SSLContext) -> None:
        self._make_protocol = make_protocol
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._raw: asyncio.Transport
        self._above: PlainTransport | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._raw = transport

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        self._advance()
        return self._above is not None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._above is not None:
            self._above.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._above is not None:
            self._above.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._above is not None:
            self._above.protocol.resume_writing()

    def encrypt(self, data: bytes) -> None:
        """Send plain bytes."""
        self._tls.write(data)
        self._flush()

    def close(self) -> None:
        """Say that we send no more, and close once that is out."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the peer has not answered, and need not
        self._flush()
        self._raw.close()

    def _advance(self) -> None:
        try:
            if self._above is None:
                self._tls.do_handshake()
                self._above = PlainTransport(self, self._raw, self._tls, self._make_protocol())
                self._above.protocol.connection_made(self._above)
            while not self._ended:
                data = self._tls.read(_READ_BYTES)
                if not data:
                    self._end()
                    break
                self._above.protocol.data_received(data)
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            self._end()
        except ssl.SSLError:
            self._flush()  # the alert says what was wrong
            self._raw.close()
            return
        self._flush()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            if self._above is None:
                self._raw.close()
            elif not self._above.protocol.eof_received():
                self.close()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._raw.write(data)


class PlainTransport(asyncio.Transport):
    """What the protocol above writes to."""

    def __init__(
        self, server: TlsServer, raw: asyncio.Transport, tls: ssl.SSLObject, protocol: asyncio.Protocol
    ) -> None:
        super().__init__({"ssl_object": tls})
        self._server = server
        self._raw = raw
        self.protocol = protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._raw.is_closing():
            self._server.encrypt(bytes(data))

    def close(self) -> None:
        if not self._raw.is_closing():
            self._server.close()

    def abort(self) -> None:
        self._raw.abort()

    def can_write_eof(self) -> bool:
        return False

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def pause_reading(self) -> None:
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        found = super().get_extra_info(name)
        return self._raw.get_extra_info(name, default) if found is None else found
