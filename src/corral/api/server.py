"""HTTP/1.1 over asyncio: sockets to requests, answers to bytes, and connections given away.

h11 keeps the protocol's state, this module does its I/O.  One task serves a connection.  A handler whose answer
flows is cancelled when its client goes away; any other runs to its end, as the work it does was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

import h11

from corral.api.http import Answer, Hijacked, Query, Request, Response, Stream, Taken
from corral.api.tls import TlsServer
from corral.api.versions import NEWEST

_log = logging.getLogger(__name__)

_BODY_AHEAD_BYTES = 1 << 20
_LINGER_S = 0.5  # as Go's server: closing while the client still sends would reset the connection under our answer
_SKIPPED_BYTES = 8 << 20
_SKIP_S = 5.0
_FIXED_HEADERS = (
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", "Corral (linux)"),
)

Dispatch = Callable[[Request], Awaitable[Answer]]


class ClientGone(Exception):
    """The client closed before its request was whole."""


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, dispatch: Dispatch, connections: set[Connection]) -> None:
        self._dispatch = dispatch
        self._connections = connections
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=256 << 10)
        self._transport: asyncio.Transport
        self._task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._unread = 0
        self._lost = False
        self._streaming = False
        self._taken = False
        self._head_only = False
        self._discarding = False

    # -- asyncio's side ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if self._discarding:
            return
        self._http.receive_data(data)
        self._unread += len(data)
        if self._unread > _BODY_AHEAD_BYTES:
            self._transport.pause_reading()
        self._arrived.set()

    def eof_received(self) -> bool:
        if self._discarding:
            return False
        self._http.receive_data(b"")
        self._arrived.set()
        if self._streaming and self._task is not None:
            self._task.cancel()
        return True  # the client may still read

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._connections.discard(self)
        self._writable.set()
        self._arrived.set()
        if self._streaming and self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def close(self) -> None:
        """Drop the connection, for the daemon's end."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()

    # -- serving -----------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            while not self._lost and await self._serve_one():
                self._http.start_next_cycle()
        except (ClientGone, asyncio.CancelledError):
            pass
        except h11.RemoteProtocolError as error:
            if not self._lost and self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = f'{{"message":"{error.error_status_hint} bad request"}}'.encode()
                await self._send_whole(Response(error.error_status_hint, body))
        except Exception:  # noqa: BLE001  one connection must not end the daemon
            _log.exception("cannot serve a connection")
        finally:
            if not self._taken:
                if self._http.their_state in (h11.SEND_BODY, h11.ERROR) and not self._lost:
                    self._linger()
                else:
                    self._transport.close()

    def _linger(self) -> None:
        """Answered before the request was whole: let the client read that before it finds the connection closed."""
        self._discarding = True
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(_LINGER_S, self._transport.close)

    async def _serve_one(self) -> bool:
        """Serve the next request; returns whether the connection can take another."""
        event = await self._next_event()
        if not isinstance(event, h11.Request):
            return False
        self._head_only = event.method == b"HEAD"
        answer = await self._dispatch(self._request(event))
        if isinstance(answer, Taken):
            return False
        if isinstance(answer, Stream):
            await self._send_stream(answer)
        else:
            await self._send_whole(answer)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SKIP_S):
                await self._skip_body()
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _skip_body(self) -> None:
        """Read what the handler left of a body, within reason: a client that still writes would miss our answer.

        The answer went out before: a client that waits for it before it writes on must get it.
        """
        if self._http.they_are_waiting_for_100_continue:
            return
        skipped = 0
        async for part in self.read_body():
            skipped += len(part)
            if skipped > _SKIPPED_BYTES:
                return

    def _request(self, event: h11.Request) -> Request:
        target = event.target.decode("latin-1")
        path, _, query = target.partition("?")
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
        return Request(
            event.method.decode("latin-1"),
            unquote(path),
            NEWEST,
            Query(parse_qs(query, keep_blank_values=True)),
            headers,
            self,
        )

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is h11.PAUSED or isinstance(event, h11.Event):
                return event
            if self._lost:
                raise ClientGone
            if self._unread > _BODY_AHEAD_BYTES:
                self._transport.resume_reading()
            self._unread = 0
            self._arrived.clear()
            await self._arrived.wait()

    async def read_body(self) -> AsyncIterator[bytes]:
        """The pieces of the present request's body; raises ClientGone when it is cut short."""
        if self._http.they_are_waiting_for_100_continue:
            self._write(h11.InformationalResponse(status_code=100, headers=[]))
        while self._http.their_state is h11.SEND_BODY:
            try:
                event = await self._next_event()
            except h11.RemoteProtocolError as error:
                raise ClientGone from error
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.ConnectionClosed):
                raise ClientGone
            else:
                return

    async def hijack(self, head: bytes) -> Hijacked:
        """Write `head` and give the connection away."""
        async for _ in self.read_body():
            pass
        self._transport.pause_reading()
        self._transport.write(head)
        initial, _ = self._http.trailing_data
        self._taken = True
        if self._transport.get_extra_info("ssl_object") is not None:
            return Hijacked(self._relay(bytes(initial)), b"")
        self._transport.set_write_buffer_limits(0)
        await self._writable.wait()
        if self._lost:
            raise ClientGone
        ours = self._transport.get_extra_info("socket")
        fd = os.dup(ours.fileno())
        self._transport.abort()  # closes our descriptor; the connection lives on in the copy
        return Hijacked(fd, bytes(initial))

    def _relay(self, initial: bytes) -> int:
        """For TLS, whose state cannot be handed over: bytes go through us.  Returns the other end's descriptor."""
        ours, theirs = socket.socketpair()
        relay = _Relay(self._transport, initial)
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(relay.run(ours))
        return theirs.detach()

    async def _send_whole(self, answer: Response) -> None:
        headers = [*self._common_headers(), *answer.headers]
        if answer.content_type:
            headers.append(("Content-Type", answer.content_type))
        if answer.status not in (204, 304):
            headers.append(("Content-Length", str(len(answer.body))))
        data = self._http.send(_head(answer.status, headers)) or b""
        if answer.body and not self._head_only and answer.status not in (204, 304):
            data += self._http.send(h11.Data(data=answer.body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        if not self._lost:
            self._transport.write(data)
            await self._writable.wait()

    async def _send_stream(self, answer: Stream) -> None:
        headers = [*self._common_headers(), *answer.headers, ("Content-Type", answer.content_type)]
        self._streaming = True
        try:
            self._write(_head(answer.status, headers))
            async for part in answer.parts:
                if part:
                    self._write(h11.Data(data=part))
                    await self._writable.wait()
                if self._lost or self._transport.is_closing():
                    raise ClientGone
            self._write(h11.EndOfMessage())
        finally:
            self._streaming = False
            close = getattr(answer.parts, "aclose", None)
            if close is not None:
                await close()

    def _write(self, event: h11.Event) -> None:
        for part in self._http.send_with_data_passthrough(event) or ():
            if not self._lost and not self._transport.is_closing():
                self._transport.write(part)

    def _common_headers(self) -> list[tuple[str, str]]:
        version = f"{NEWEST[0]}.{NEWEST[1]}"
        return [("Api-Version", version), *_FIXED_HEADERS, ("Date", email.utils.formatdate(usegmt=True))]


class _Relay:
    """Bytes between a transport of ours and a socket pair, both ways, with each side's end passed on."""

    def __init__(self, transport: asyncio.Transport, initial: bytes) -> None:
        self._transport = transport
        self._initial = initial

    async def run(self, ours: socket.socket) -> None:
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        writer.write(self._initial)
        protocol = _RelayProtocol(self._transport, writer)
        self._transport.set_protocol(protocol)
        self._transport.resume_reading()
        try:
            while data := await reader.read(64 << 10):
                self._transport.write(data)
                await protocol.writable.wait()
        finally:
            self._transport.close()
            writer.close()


def _head(status: int, headers: list[tuple[str, str]]) -> h11.Response:
    """The head of an answer, with the reason phrase that clients put into their messages."""
    return h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase)


class _RelayProtocol(asyncio.Protocol):
    """What the client sends, passed on; it is read only as fast as the other side takes it."""

    def __init__(self, transport: asyncio.Transport, writer: asyncio.StreamWriter) -> None:
        self._transport = transport
        self._writer = writer
        self._draining: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self._writer.write(data)
        if self._draining is None and self._writer.transport.get_write_buffer_size() > 0:
            self._transport.pause_reading()
            self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self._writer.drain()
        except OSError:
            return
        self._draining = None
        self._transport.resume_reading()

    def eof_received(self) -> bool:
        self._writer.write_eof()
        return True

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.writable.set()
        self._writer.close()


class Server:
    """The listening sockets and their connections."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Serve a bound socket, in the clear or over TLS."""

        def plain() -> asyncio.Protocol:
            return Connection(self._dispatch, self._connections)

        def encrypted() -> asyncio.Protocol:
            assert tls is not None
            return TlsServer(plain, tls)

        loop = asyncio.get_running_loop()
        make = encrypted if tls is not None else plain
        self._servers.append(await loop.create_server(make, sock=sock, backlog=1024))

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.close()
