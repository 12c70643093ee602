"""Send and receive protocol frames, with descriptors, over a stream socket."""

from __future__ import annotations

import array
import socket

from corral.shim import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_READ_BYTES = 256 << 10


def receive(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """What has arrived, or None at the end; BlockingIOError when a non-blocking socket has nothing."""
    item = array.array("i").itemsize
    data, ancillary, _, _ = connection.recvmsg(
        _READ_BYTES, socket.CMSG_SPACE(protocol.DESCRIPTOR_LIMIT * item), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(payload[: len(payload) - len(payload) % item])
    if not data:
        return None
    return data, list(descriptors)


def send_some(connection: socket.socket, frame: memoryview, descriptors: Sequence[int] = ()) -> int:
    """Send what the socket takes now of an encoded frame, its descriptors with the first byte."""
    ancillary = []
    if descriptors:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    return connection.sendmsg([frame], ancillary, socket.MSG_NOSIGNAL)


def send(connection: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message whole, waiting for room if need be; the caller keeps (and closes) its descriptors."""
    frame = memoryview(protocol.encode(message, len(descriptors)))
    sent = send_some(connection, frame, descriptors)
    if sent < len(frame):
        connection.sendall(frame[sent:], socket.MSG_NOSIGNAL)
