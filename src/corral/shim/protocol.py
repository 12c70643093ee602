"""The messages between a shim and the engine: framed JSON objects, each with the descriptors that belong to it.

A frame is a header (body length, number of descriptors) and a JSON object.  Descriptors travel in the ancillary
data of the header's first byte, so they always arrive before their message is whole.

From the engine, answered in order by `{"n": N, "ok": ...}` or `{"n": N, "failure": [stage, errno, path]}`:

    {"n": N, "verb": VERB, ...}        the verbs are the methods of `corral.shim.main.Shim`

From the shim, unasked: `{"event": "exit" | "exec-exit" | "detach" | "log" | ..., ...}`.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

_HEADER_BYTES = 5
MESSAGE_LIMIT_BYTES = 16 << 20
DESCRIPTOR_LIMIT = 64


class ProtocolError(Exception):
    """The peer sent something that is not a frame."""


def encode(message: dict[str, Any], descriptors: int = 0) -> bytes:
    """One frame; the caller sends `descriptors` file descriptors with its first byte."""
    body = json.dumps(message, separators=(",", ":")).encode()
    return len(body).to_bytes(4, "big") + bytes((descriptors,)) + body


class Decoder:
    """Turns what arrives into messages, each with its descriptors."""

    __slots__ = ("_buffer", "_descriptors")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._descriptors: list[int] = []

    def feed(self, data: bytes, descriptors: Sequence[int] = ()) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Add `data` and what came with it; yield every message that is now whole."""
        self._buffer += data
        self._descriptors += descriptors
        while len(self._buffer) >= _HEADER_BYTES:
            length = int.from_bytes(self._buffer[:4], "big")
            count = self._buffer[4]
            if length > MESSAGE_LIMIT_BYTES or count > DESCRIPTOR_LIMIT:
                raise ProtocolError(f"cannot accept a message of {length} bytes with {count} descriptors")
            end = _HEADER_BYTES + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_HEADER_BYTES:end])
            mine, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            if len(mine) != count:
                raise ProtocolError(f"cannot find {count} descriptors, only {len(mine)} came")
            del self._buffer[:end]
            yield json.loads(body), mine
