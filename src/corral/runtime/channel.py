"""The line between `create` or `exec` and its child: whole messages over a seqpacket socket pair.

Child to parent, by first byte: `E` failure, `J` may I join the cgroup, `M` write my id maps, `P` pid of the second
fork, `H` run the runtime's hooks, `C` console (with a descriptor), `N` number of the seccomp listener, `R` ready.
`J`, `M` and `H` (and `N` of an exec) wait for the answer `G`; an end of file instead means that the parent gave up.
"""

from __future__ import annotations

import array
import os
import socket

_MAX_MESSAGE = 65536


class Channel:
    """One end."""

    __slots__ = ("_socket",)

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, message: bytes, fd: int = -1) -> None:
        if fd < 0:
            self._socket.send(message, socket.MSG_NOSIGNAL)
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self._socket.sendmsg([message], rights, socket.MSG_NOSIGNAL)

    def receive(self) -> tuple[bytes, int]:
        """(message, descriptor or -1); an empty message is the end of file."""
        message, ancillary, _, _ = self._socket.recvmsg(_MAX_MESSAGE, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                return message, int.from_bytes(data[:4], "little")
        return message, -1

    def request(self, message: bytes) -> None:
        """Send and wait for `G`; leaves the process if the other side has gone."""
        self.send(message)
        if self._socket.recv(1) != b"G":
            os._exit(1)


def pair() -> tuple[Channel, Channel]:
    """Two connected ends, both close-on-exec."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(one), Channel(other)
