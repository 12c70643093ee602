"""What a handler sees: the request, and the kinds of answer it can give."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from corral.api.versions import Version
from corral.errors import InvalidParameter
from corral.wire import common

JSON_LIMIT_BYTES = 4 << 20

T = TypeVar("T")


class BadQuery(InvalidParameter):
    """A query parameter that cannot be read."""


class BadContentType(InvalidParameter):
    """A body that is not declared as JSON."""


class BodyTooLarge(InvalidParameter):
    """A body beyond what the operation takes."""


class Transport(Protocol):
    """What a request needs of its connection."""

    def read_body(self) -> AsyncIterator[bytes]: ...

    async def hijack(self, head: bytes) -> Hijacked: ...


@dataclass(frozen=True)
class Hijacked:
    """A connection that left HTTP: a descriptor that the receiver owns, and bytes that came early."""

    fd: int
    initial: bytes


class Query:
    """Query parameters, read as Docker reads them."""

    def __init__(self, values: Mapping[str, list[str]]) -> None:
        self._values = values

    def text(self, name: str, default: str = "") -> str:
        """The first value, or `default`."""
        found = self._values.get(name)
        return found[0] if found else default

    def all(self, name: str) -> list[str]:
        """Every value."""
        return list(self._values.get(name, ()))

    def has(self, name: str) -> bool:
        """Whether the parameter is present at all."""
        return name in self._values

    def flag(self, name: str, default: bool = False) -> bool:
        """Docker's booleans: absent, empty, 0, no, false and none are false, everything else is true."""
        if name not in self._values:
            return default
        return self.text(name).strip().lower() not in ("", "0", "no", "false", "none")

    def number(self, name: str, default: int | None = None) -> int | None:
        """A whole number; raises BadQuery."""
        value = self.text(name)
        if not value:
            return default
        try:
            return int(value)
        except ValueError:
            raise BadQuery(f'strconv.Atoi: parsing "{value}": invalid syntax') from None

    def filters(self) -> dict[str, list[str]]:
        """The `filters` parameter: `{"name": ["a"]}`, or the old form `{"name": {"a": true}}`."""
        value = self.text("filters")
        if not value:
            return {}
        try:
            raw = msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise BadQuery(f"invalid filter: {error}") from error
        if not isinstance(raw, dict):
            raise BadQuery("invalid filter: not an object")
        found = {}
        for name, values in raw.items():
            if isinstance(values, dict):
                values = [key for key, wanted in values.items() if wanted]
            if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
                raise BadQuery(f"invalid filter '{name}'")
            found[name] = values
        return found


@dataclass(slots=True)
class Request:
    """One request.  `path` has no version; `params` holds what the route's pattern matched."""

    method: str
    path: str
    version: Version
    query: Query
    headers: Mapping[str, str]
    transport: Transport
    params: Mapping[str, str] = field(default_factory=dict)
    route: str = ""  # the pattern that the path fits, once it is known

    async def body(self, limit_bytes: int = JSON_LIMIT_BYTES) -> bytes:
        """The whole body; raises BodyTooLarge past the limit."""
        parts, size = [], 0
        if int(self.headers.get("content-length", "0")) > limit_bytes:
            raise BodyTooLarge("http: request body too large")
        async for part in self.transport.read_body():
            size += len(part)
            if size > limit_bytes:
                raise BodyTooLarge("http: request body too large")
            parts.append(part)
        return b"".join(parts)

    def stream(self) -> AsyncIterator[bytes]:
        """The body as it arrives."""
        return self.transport.read_body()

    async def json(self, kind: type[T], *, default: Callable[[], T] | None = None) -> T:
        """The JSON body as `kind`; `default` makes the value of an empty body, if that is allowed."""
        body = await self.body()
        if not body.strip():
            if default is not None:
                return default()
            raise common.InvalidBody("invalid JSON: got EOF while reading request body")
        declared = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if declared != "application/json":
            raise BadContentType(
                f"unsupported Content-Type header ({self.headers.get('content-type', '')}): must be 'application/json'"
            )
        return common.read(body, kind)

    async def hijack(self, content_type: str) -> Hijacked:
        """Answer that the connection changes protocol, and take it."""
        if self.headers.get("upgrade"):
            head = (
                f"HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
        else:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n\r\n"
        return await self.transport.hijack(head.encode())


@dataclass(slots=True)
class Response:
    """An answer that is known whole."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Stream:
    """An answer that flows; it is cancelled when the client goes away."""

    parts: AsyncIterator[bytes]
    content_type: str = "application/json"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()


class Taken:
    """The connection was hijacked; there is nothing more to answer."""


Answer = Response | Stream | Taken
Handler = Callable[[Any, Request], Awaitable[Answer]]


def json(value: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(status, msgspec.json.encode(value) + b"\n")


def empty(status: int = 204) -> Response:
    """An answer without a body."""
    return Response(status, content_type="")
