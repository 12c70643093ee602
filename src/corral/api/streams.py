"""What flows in long answers: multiplexed output frames and lines of JSON."""

from __future__ import annotations

from typing import Any

import msgspec

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"

STDOUT, STDERR = 1, 2

encode = msgspec.json.Encoder().encode


def frame(stream: int, data: bytes) -> bytes:
    """One frame of a multiplexed stream: stream number, three zero bytes, length, data."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def json_line(record: Any) -> bytes:
    """One record of a JSON stream (progress, events, stats)."""
    return encode(record) + b"\r\n"


def error_line(message: str, code: int | None = None) -> bytes:
    """The record that ends a JSON stream when something failed after it had begun."""
    detail: dict[str, Any] = {"message": message}
    if code is not None:
        detail["code"] = code
    return json_line({"errorDetail": detail, "error": message})
