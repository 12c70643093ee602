"""`GET /containers/{name}/attach/ws`: attach over a websocket (RFC 6455), what browsers can speak.

Output comes as binary messages without the frames of a multiplexed stream, as in Docker; messages from the client are
input.  The protocol itself is wsproto's; here are the handshake and the two pumps.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import socket

from corral.api.http import Answer, BadQuery, Request, Taken
from corral.api.services import Services
from corral.engine import attach, logs
from corral.engine.detach import detach_keys
from corral.engine.live import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from wsproto.connection import Connection

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_PIECE = 64 << 10
_FRAME_HEADER_LENGTH = 8


async def attach_(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/attach/ws"""
    live = services.containers.get(request.params["name"])
    query = request.query
    attach.check(live)
    keys = detach_keys(query.text("detachKeys"))
    outputs = [name for name in ("stdout", "stderr") if query.flag(name)]
    token = _accept_token(request)
    past = b""
    if query.flag("logs"):
        wanted = logs.Wanted("stdout" in outputs, "stderr" in outputs, framed=False)
        past = b"".join([piece async for piece in logs.read(services.engine, live, wanted)])
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {token}\r\n\r\n"
    )
    taken = await request.transport.hijack(head.encode())
    ours, theirs = socket.socketpair()
    if query.flag("stream"):
        stdin = attach.stdin_client(live, query.flag("stdin"))
        client = Client(theirs.detach(), stdin, outputs, keys if live.record.config.tty else b"", b"")
        await attach.attach(services.engine, live, client)
    else:
        theirs.close()
    session = _Session(socket.socket(fileno=taken.fd), ours, framed=not live.record.config.tty)
    task = asyncio.get_running_loop().create_task(session.run(taken.initial, past), name=f"websocket {live.id[:12]}")
    services.engine.background.add(task)
    task.add_done_callback(services.engine.background.discard)
    return Taken()


def _accept_token(request: Request) -> str:
    """The answer to the client's key; raises BadQuery for what is no websocket handshake."""
    key = request.headers.get("sec-websocket-key", "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        valid = False
    if request.headers.get("upgrade", "").lower() != "websocket" or not valid:
        raise BadQuery("this endpoint needs a websocket handshake")
    if request.headers.get("sec-websocket-version", "") != "13":
        raise BadQuery("unsupported websocket version: only 13 is known")
    return base64.b64encode(hashlib.sha1(key.encode() + _MAGIC, usedforsecurity=False).digest()).decode()


class _Session:
    """Bytes between a websocket's connection and the container's end of a socket pair."""

    def __init__(self, web: socket.socket, container: socket.socket, *, framed: bool) -> None:
        from wsproto.connection import Connection, ConnectionType

        self._web = web
        self._container = container
        self._framed = framed
        self._protocol: Connection = Connection(ConnectionType.SERVER)
        self._held = b""
        for one in (web, container):
            one.setblocking(False)

    async def run(self, initial: bytes, past: bytes) -> None:
        """Until either side ends."""
        from wsproto.events import BytesMessage

        pumps: list[asyncio.Task[None]] = []
        try:
            with contextlib.suppress(OSError):
                if past:
                    await self._send(BytesMessage(data=past))
                pumps = [asyncio.create_task(self._output()), asyncio.create_task(self._input(initial))]
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._web.close()
            self._container.close()

    async def _output(self) -> None:
        from wsproto.events import BytesMessage, CloseConnection

        loop = asyncio.get_running_loop()
        while data := await loop.sock_recv(self._container, _PIECE):
            plain = self._unframed(data) if self._framed else data
            if plain:
                await self._send(BytesMessage(data=plain))
        await self._send(CloseConnection(code=1000))

    def _unframed(self, data: bytes) -> bytes:
        """The payloads of the frames that are whole by now."""
        held, found = self._held + data, []
        while len(held) >= _FRAME_HEADER_LENGTH:
            end = _FRAME_HEADER_LENGTH + int.from_bytes(held[4:_FRAME_HEADER_LENGTH], "big")
            if len(held) < end:
                break
            found.append(held[_FRAME_HEADER_LENGTH:end])
            held = held[end:]
        self._held = held
        return b"".join(found)

    async def _input(self, initial: bytes) -> None:
        from wsproto.utilities import RemoteProtocolError

        loop = asyncio.get_running_loop()
        data = initial or await loop.sock_recv(self._web, _PIECE)
        while data:
            try:
                self._protocol.receive_data(data)
                if not await self._take_events():
                    return
            except RemoteProtocolError:
                return
            data = await loop.sock_recv(self._web, _PIECE)

    async def _take_events(self) -> bool:
        """Pass on what has come; False once the client has closed."""
        from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

        loop = asyncio.get_running_loop()
        for event in self._protocol.events():
            if isinstance(event, BytesMessage | TextMessage):
                data = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                await loop.sock_sendall(self._container, data)
            elif isinstance(event, Ping):
                await self._send(event.response())
            elif isinstance(event, CloseConnection):
                await self._send(event.response())
                return False
        return True

    async def _send(self, event: object) -> None:
        data = self._protocol.send(event)  # type: ignore[arg-type]
        await asyncio.get_running_loop().sock_sendall(self._web, data)
