"""What flows in the daemon's answers, taken apart.  Pure: bytes in, as they come; pieces out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

import msgspec

from corral.client.errors import Failed, UnreadableAnswer
from corral.errors import InvalidParameter
from corral.wire import common
from corral.wire.shown.images import Progress

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_HEADER_BYTES = 8
_RECORD_LIMIT_BYTES = 16 << 20
_STDERR, _ERROR = 2, 3


class Output(msgspec.Struct, frozen=True):
    """A piece of what a program has written; pieces are as the kernel handed them over, not lines."""

    data: bytes
    stderr: bool = False


class Decoder(Protocol[T_co]):
    """Takes a body apart."""

    def feed(self, data: bytes) -> Iterable[T_co]:
        """What is complete by now."""

    def end(self) -> Iterable[T_co]:
        """What was left, at the end of the body."""


class Whole:
    """Bytes as they come."""

    def feed(self, data: bytes) -> Iterable[bytes]:
        return (data,)

    def end(self) -> Iterable[bytes]:
        return ()


class Raw:
    """The output of a terminal: one stream."""

    def feed(self, data: bytes) -> Iterable[Output]:
        return (Output(data),)

    def end(self) -> Iterable[Output]:
        return ()


class Frames:
    """A multiplexed stream: frames of stream number, three zero bytes, length, data.

    A frame's data is handed on as it comes, so that memory does not depend on the lengths that the other side claims.
    Stream 3 is the daemon's own word about what went wrong: raises Failed.
    """

    def __init__(self) -> None:
        self._header = b""
        self._stream = 0
        self._left = 0
        self._trouble = b""

    def feed(self, data: bytes) -> Iterable[Output]:
        found = []
        position = 0
        while position < len(data):
            if not self._left:
                taken = data[position : position + _HEADER_BYTES - len(self._header)]
                self._header += taken
                position += len(taken)
                if len(self._header) < _HEADER_BYTES:
                    break
                self._stream, self._left = self._header[0], int.from_bytes(self._header[4:], "big")
                if self._stream > _ERROR or self._header[1:4] != b"\0\0\0":
                    raise UnreadableAnswer("the daemon's stream is not made of frames")
                self._header = b""
                continue
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            if self._stream == _ERROR:
                self._complain(piece)
            else:
                found.append(Output(piece, self._stream == _STDERR))
        return found

    def _complain(self, piece: bytes) -> None:
        self._trouble += piece
        if not self._left or len(self._trouble) > _RECORD_LIMIT_BYTES:
            raise Failed(self._trouble.decode("utf-8", "replace").strip())

    def end(self) -> Iterable[Output]:
        if self._trouble:
            raise Failed(self._trouble.decode("utf-8", "replace").strip())
        if self._left or self._header:
            raise UnreadableAnswer("the daemon's stream ended in the middle of a frame")
        return ()


class Lines:
    """Lines of text, without their ends, of the pieces that another decoder makes; each stream has lines of its own."""

    def __init__(self, pieces: Decoder[Output]) -> None:
        self._pieces = pieces
        self._rest = {False: b"", True: b""}

    def feed(self, data: bytes) -> Iterable[str]:
        return self._cut(self._pieces.feed(data))

    def _cut(self, pieces: Iterable[Output]) -> list[str]:
        found = []
        for piece in pieces:
            *lines, rest = (self._rest[piece.stderr] + piece.data).split(b"\n")
            if len(rest) > _RECORD_LIMIT_BYTES:
                lines, rest = [*lines, rest], b""
            self._rest[piece.stderr] = rest
            found += [_text(line) for line in lines]
        return found

    def end(self) -> Iterable[str]:
        found = self._cut(self._pieces.end())
        return found + [_text(rest) for rest in self._rest.values() if rest]


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").removesuffix("\r")


class Records(Generic[T]):
    """JSON values, one a line, each read as `kind`."""

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._rest = b""

    def feed(self, data: bytes) -> Iterable[T]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _RECORD_LIMIT_BYTES:
            raise UnreadableAnswer("the daemon's record does not end")
        return [self._read(line) for line in lines if line.strip()]

    def _read(self, line: bytes) -> T:
        return read(line, self._kind)

    def end(self) -> Iterable[T]:
        rest, self._rest = self._rest, b""
        return [self._read(rest)] if rest.strip() else []


class Advance(Records[Progress]):
    """The records of a pull, push, load or build; one that tells of an error is raised as Failed."""

    def __init__(self) -> None:
        super().__init__(Progress)

    def _read(self, line: bytes) -> Progress:
        record = super()._read(line)
        if record.error or record.error_detail.message:
            raise Failed(record.error or record.error_detail.message)
        return record


def read(data: bytes, kind: type[T]) -> T:
    """JSON as `kind`; raises UnreadableAnswer."""
    try:
        return common.read(data, kind)
    except InvalidParameter as error:
        raise UnreadableAnswer(f"the daemon's answer cannot be read: {error}") from error
