"""What all objects of one client share: the daemon's address, kept connections, the version, and how to ask."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from corral.client import channel, streams
from corral.client.channel import Channel
from corral.client.errors import Ended, Interrupted, Refusal, UnreadableAnswer, refusal
from corral.client.http import Answer, Body, Connection
from corral.client.waiting import Waiter
from corral.endpoint import Endpoint

T = TypeVar("T")
U = TypeVar("U")

NEWEST_API = (1, 51)  # what the requests of this client are written for
_KEPT_CONNECTIONS = 8

Query = Mapping[str, Any]


class Session:
    """Safe to share among threads, and among tasks; what streams belongs to who opened it."""

    def __init__(self, endpoint: Endpoint, waiter: Callable[[], Waiter], timeout_s: float | None) -> None:
        """`timeout_s` bounds each wait for the daemon in calls that have no reason to take long."""
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self.new_waiter = waiter
        self._kept: list[Connection] = []
        self._version = os.environ.get("DOCKER_API_VERSION", "").removeprefix("v")
        self._owner = os.getpid()
        self._closed = False

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        await self.new_waiter().pause(seconds)

    def close(self) -> None:
        """Give up the kept connections; nothing more can be asked."""
        self._closed = True
        while self._kept:
            self._kept.pop().channel.close()

    async def version(self) -> str:
        """The API's version that both sides know, asked for once."""
        if not self._version:
            answer = await self._ask("HEAD", "/_ping", _headers(None, None), None, self.timeout_s)
            await answer.whole()
            try:
                major, minor = answer.headers.get("api-version", "1.24").split(".")
                self._version = "{}.{}".format(*min((int(major), int(minor)), NEWEST_API))
            except ValueError:
                raise UnreadableAnswer("the other side does not say which version of the API it has") from None
        return self._version

    async def open(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        patient: bool = False,
    ) -> Answer:
        """An answer that was no refusal; `patient` waits for as long as it takes."""
        target = f"/v{await self.version()}{path}{_query(query)}"
        timeout_s = None if patient else self.timeout_s
        answer = await self._ask(method, target, _headers(body, headers), body, timeout_s)
        if answer.status >= 400:
            raise await _refused(answer)
        return answer

    async def get(self, path: str, kind: type[T], query: Query | None = None, *, patient: bool = False) -> T:
        """GET, and its JSON as `kind`."""
        answer = await self.open("GET", path, query, patient=patient)
        return streams.read(await answer.whole(), kind)

    async def post(
        self, path: str, kind: type[T], query: Query | None = None, body: Any = None, *, patient: bool = False
    ) -> T:
        """POST `body` as JSON, and the answer's JSON as `kind`."""
        answer = await self.open("POST", path, query, _json(body), _JSON_HEADERS, patient=patient)
        return streams.read(await answer.whole(), kind)

    async def do(
        self, method: str, path: str, query: Query | None = None, body: Any = None, *, patient: bool = False
    ) -> None:
        """A request whose answer says no more than that it was done (or, with 304, that it was so already)."""
        content = None if body is None else _json(body)
        answer = await self.open(method, path, query, content, _JSON_HEADERS if content else None, patient=patient)
        await answer.whole()

    async def hijack(self, path: str, query: Query | None = None, body: Any = None) -> Hijacked:
        """POST, and take the connection over."""
        target = f"/v{await self.version()}{path}{_query(query)}"
        content = _json(body)
        headers = _headers(content, {**_JSON_HEADERS, "Connection": "Upgrade", "Upgrade": "tcp"})
        connection = await self._connected()
        try:
            head = await connection.ask("POST", target, headers, content, self.timeout_s)
            answer = Answer(connection, head, self._keep, self.timeout_s)
            if answer.status >= 400:
                raise await _refused(answer)
            if answer.status != 101:
                raise UnreadableAnswer(f"the daemon answered {answer.status} where it had to change the protocol")
        except BaseException:
            connection.channel.close()
            raise
        framed = answer.headers.get("content-type", "").endswith("multiplexed-stream")
        return Hijacked(connection.channel, connection.taken_over(), framed)

    async def _ask(
        self, method: str, target: str, headers: list[tuple[str, str]], body: Body | None, timeout_s: float | None
    ) -> Answer:
        while True:
            connection = self._reusable() or await self._connected()
            reused = connection.used
            try:
                head = await connection.ask(method, target, headers, body, timeout_s)
            except Interrupted:
                connection.channel.close()
                if reused and method in ("GET", "HEAD"):
                    continue  # it was closed as we wrote: nothing was done
                raise
            except BaseException:
                connection.channel.close()
                raise
            return Answer(connection, head, self._keep, timeout_s)

    async def _connected(self) -> Connection:
        if self._closed:
            raise Ended("the client has been closed")
        return Connection(await channel.connect(self.endpoint, self.new_waiter(), self.timeout_s))

    def _reusable(self) -> Connection | None:
        if self._owner != os.getpid():  # after a fork they are still the parent's
            self._kept, self._owner = [], os.getpid()
        while True:
            try:
                connection = self._kept.pop()
            except IndexError:
                return None
            if connection.channel.is_quiet():
                return connection
            connection.channel.close()

    def _keep(self, connection: Connection) -> None:
        if self._closed or len(self._kept) >= _KEPT_CONNECTIONS or self._owner != os.getpid():
            connection.channel.close()
        else:
            self._kept.append(connection)


class Hijacked:
    """A connection that left HTTP: bytes that came early, and whether its output comes in frames."""

    def __init__(self, channel: Channel, early: bytes, framed: bool) -> None:
        self.channel = channel
        self.early = early
        self.framed = framed


_JSON_HEADERS = {"Content-Type": "application/json"}


def _json(body: Any) -> bytes:
    return msgspec.json.encode({} if body is None else body)


def _headers(body: Body | None, more: Mapping[str, str] | None) -> list[tuple[str, str]]:
    headers = [("Host", "corral.localhost"), ("User-Agent", "Corral-Python/0.1.0"), *(more or {}).items()]
    if isinstance(body, bytes):
        headers.append(("Content-Length", str(len(body))))
    elif body is not None:
        headers.append(("Transfer-Encoding", "chunked"))
    else:
        headers.append(("Content-Length", "0"))
    return headers


def _query(query: Query | None) -> str:
    """`?a=b`: None is left out, booleans are 1 and 0, maps are JSON, a sequence repeats its name."""
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        for item in value if isinstance(value, list | tuple) else (value,):
            if item is None:
                continue
            if isinstance(item, Mapping):
                pairs.append((name, msgspec.json.encode(item).decode()))
            else:
                pairs.append((name, ("1" if item else "0") if isinstance(item, bool) else str(item)))
    return f"?{urlencode(pairs, quote_via=quote)}" if pairs else ""


def segment(text: str) -> str:
    """A name as a part of a path."""
    return quote(text, safe="")


async def _refused(answer: Answer) -> Refusal:
    data = await answer.whole()
    try:
        message = str(msgspec.json.decode(data)["message"])
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        message = data.decode("utf-8", "replace").strip() or f"status {answer.status}"
    return refusal(answer.status, message)


class Pieces(Generic[T]):
    """A Source: an answer's body, taken apart by a decoder."""

    def __init__(self, answer: Answer, decoder: streams.Decoder[T]) -> None:
        self._answer = answer
        self._decoder = decoder
        self._ready: deque[T] = deque()
        self._ended = False

    async def next(self) -> T:
        while not self._ready:
            if self._ended:
                raise StopAsyncIteration
            part = await self._answer.part()
            self._ended = part is None
            try:
                self._ready.extend(self._decoder.end() if part is None else self._decoder.feed(part))
            except BaseException:
                self.close()
                raise
        return self._ready.popleft()

    async def all(self) -> list[T]:
        """Everything that is left."""
        found = []
        while True:
            try:
                found.append(await self.next())
            except StopAsyncIteration:
                return found

    def through(self, make: Callable[[streams.Decoder[T]], streams.Decoder[U]]) -> Pieces[U]:
        """The same answer, taken further apart; in place of this."""
        return Pieces(self._answer, make(self._decoder))

    def close(self) -> None:
        self._ended = True
        self._answer.close()
