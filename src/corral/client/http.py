"""HTTP/1.1 on a channel: h11 keeps the protocol's state, the channel does the I/O."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, Protocol

import h11

from corral.client.channel import Channel
from corral.client.errors import BadArgument, Interrupted, UnreadableAnswer

_HEAD_LIMIT_BYTES = 256 << 10
_PIECE_BYTES = 256 << 10


class Readable(Protocol):
    """A file that is open for reading bytes."""

    def read(self, size: int, /) -> bytes: ...


Body = bytes | Readable | Iterable[bytes] | AsyncIterable[bytes]


class Connection:
    """A connection that may be used for one request after another."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.used = False
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_LIMIT_BYTES)

    async def ask(
        self, method: str, target: str, headers: list[tuple[str, str]], body: Body | None, timeout_s: float | None
    ) -> h11.Response | h11.InformationalResponse:
        """Send a request; the head of its answer.  Raises Interrupted, which `was_refused_unread` explains."""
        try:
            request = h11.Request(method=method, target=target, headers=headers)
        except h11.LocalProtocolError as error:
            raise BadArgument(f"cannot send the request: {error}") from error
        self._send(request)
        try:
            if isinstance(body, bytes):
                self._send(h11.Data(data=body))
            elif body is not None:
                async for part in _parts(body):
                    self._send(h11.Data(data=part))
                    await self.channel.flush(timeout_s)
            self._send(h11.EndOfMessage())
            await self.channel.flush(timeout_s)
        except Interrupted:
            if isinstance(body, bytes) or body is None:
                raise
            # refused before its end: the answer says why
        while True:
            event = await self._event(timeout_s)
            if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
                continue
            if isinstance(event, h11.Response | h11.InformationalResponse):
                self.used = True
                return event
            raise Interrupted("the daemon closed the connection before it answered")

    def _send(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self.channel.put(data)

    async def _event(self, timeout_s: float | None) -> h11.Event | type[h11.PAUSED]:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if self._http.their_state is h11.ERROR and self.channel_ended:
                    raise Interrupted("the daemon closed the connection in the middle of an answer") from error
                raise UnreadableAnswer(f"the other side does not speak HTTP as a daemon does: {error}") from error
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]
            data = await self.channel.receive(timeout_s)
            self.channel_ended = not data
            self._http.receive_data(data)

    channel_ended = False

    async def part(self, timeout_s: float | None) -> bytes | None:
        """A piece of the answer's body; None at its end."""
        while True:
            event = await self._event(timeout_s)
            if isinstance(event, h11.Data):
                if event.data:
                    return bytes(event.data)
                continue
            return None

    def renew(self) -> bool:
        """After an answer: whether there can be another request."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            return True
        return False

    def taken_over(self) -> bytes:
        """After 101: what came behind the head and belongs to the other protocol."""
        return bytes(self._http.trailing_data[0])


class Answer:
    """A status below 400, headers, and a body to be read once.  `released` gets the connection when it is over."""

    def __init__(
        self,
        connection: Connection,
        head: h11.Response | h11.InformationalResponse,
        released: Callable[[Connection], None],
        timeout_s: float | None,
    ) -> None:
        self.status = head.status_code
        self.headers: dict[str, str] = {name.decode("latin-1"): value.decode("latin-1") for name, value in head.headers}
        self._connection = connection
        self._released = released
        self._timeout_s = timeout_s
        self._deadline: float | None = None
        self._over = False

    def limit(self, seconds: float | None) -> None:
        """From now on the whole body must be here within this time."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def _left(self) -> float | None:
        return self._timeout_s if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    async def part(self) -> bytes | None:
        """The next piece; None at the end.  Whatever goes wrong ends the connection."""
        if self._over:
            return None
        try:
            part = await self._connection.part(self._left())
        except BaseException:
            self.close()
            raise
        if part is None:
            self._over = True
            if self._connection.renew():
                self._released(self._connection)
            else:
                self._connection.channel.close()
        return part

    async def whole(self) -> bytes:
        """All of the body."""
        parts = []
        while (part := await self.part()) is not None:
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Want no more."""
        if not self._over:
            self._over = True
            self._connection.channel.close()


async def _parts(body: Any) -> AsyncIterator[bytes]:
    if isinstance(body, AsyncIterable):
        async for part in body:
            yield bytes(part)
    elif hasattr(body, "read"):
        while part := body.read(_PIECE_BYTES):
            yield part
    else:
        for part in body:
            yield bytes(part)
