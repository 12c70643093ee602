"""What a handler gets and gives: a request, and the answer to it.  Nothing here knows of sockets."""

from __future__ import annotations

import http
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from corral.registry.http.head import Head

REASONS = {status.value: status.phrase for status in http.HTTPStatus}


class TooLarge(Exception):
    """A body beyond what the operation takes (413)."""


class Content(Protocol):
    """A request's body: `wire.Body`, or a test's."""

    length: int | None

    def pieces(self) -> Iterator[memoryview]: ...


@dataclass(slots=True)
class Request:
    """One request."""

    head: Head
    body: Content
    peer: str
    secure: bool = False
    user: str = ""  # filled in when known, for the log

    def read(self, most: int) -> bytes:
        """The whole body; raises TooLarge."""
        if self.body.length is not None and self.body.length > most:
            raise TooLarge
        parts, size = [], 0
        for piece in self.body.pieces():
            size += len(piece)
            if size > most:
                raise TooLarge
            parts.append(bytes(piece))
        return b"".join(parts)


@dataclass(slots=True)
class FilePart:
    """Bytes of a file, whose descriptor the sender closes."""

    fd: int
    offset: int
    count: int


@dataclass(slots=True)
class Flow:
    """Bytes that are still arriving from elsewhere; their number is known."""

    parts: Iterator[bytes]
    count: int


@dataclass(slots=True)
class Answer:
    """An answer; for a HEAD the body is left out, not its length."""

    status: int
    body: bytes | FilePart | Flow = b""
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = ""

    @property
    def length(self) -> int:
        """The body's bytes."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.count


def json(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An answer in JSON."""
    return Answer(status, msgspec.json.encode(value) + b"\n", headers, "application/json")


def refusal(
    status: int, code: str, message: str, detail: Any = None, headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    """An error as the distribution specification wants it."""
    return json({"errors": [{"code": code, "message": message, "detail": detail}]}, status, headers)


def encode_head(answer: Answer, keep_alive: bool, date: str) -> bytes:
    """The answer's head as bytes."""
    lines = [f"HTTP/1.1 {answer.status} {REASONS.get(answer.status, 'Unknown')}", f"Date: {date}"]
    lines.append("Docker-Distribution-Api-Version: registry/2.0")
    lines.append("X-Content-Type-Options: nosniff")
    lines.extend(f"{name}: {value}" for name, value in answer.headers)
    if answer.content_type:
        lines.append(f"Content-Type: {answer.content_type}")
    if answer.status not in (204, 304):
        lines.append(f"Content-Length: {answer.length}")
    if not keep_alive:
        lines.append("Connection: close")
    lines.append("\r\n")
    return "\r\n".join(lines).encode("latin-1", "replace")
