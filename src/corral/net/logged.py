"""A group of the packet filter's log (`log group N`): packets that rules tell a program.

Formats: the kernel's `nfnetlink_log.h`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from corral.net import nfnetlink

_SUBSYSTEM = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIG = 0, 1
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_CMD_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10
_FIRST_GROUP, _GROUPS = 0x4352, 64
_RCVBUFFORCE, _BUFFER_BYTES = 33, 4 << 20


class LogGroup:
    """A socket that becomes readable when something was logged; in the calling thread's network namespace."""

    def __init__(self) -> None:
        """Take a group that nobody has; OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, nfnetlink.NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, _BUFFER_BYTES)  # for a burst of connections
            self._socket.bind((0, 0))
            self.group = self._take_group()
            mode = struct.pack("!IBB", 0xFFFF, _COPY_PACKET, 0)
            self._configure(self.group, nfnetlink.attribute(_CFG_MODE, mode))
            # Each at once: the kernel would collect a hundred of them, or those of a second.
            self._configure(self.group, nfnetlink.attribute(_CFG_QTHRESH, struct.pack("!I", 1)))
        except BaseException:
            self._socket.close()
            raise
        self._socket.setblocking(False)

    def _take_group(self) -> int:
        for group in range(_FIRST_GROUP, _FIRST_GROUP + _GROUPS):
            try:
                self._configure(group, nfnetlink.attribute(_CFG_CMD, bytes((_CMD_BIND,))))
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.EPERM):
                    raise
                continue  # another program's, or another daemon's
            return group
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), "groups of log messages")

    def _configure(self, group: int, body: bytes) -> None:
        self._socket.send(nfnetlink.message(_SUBSYSTEM | _CONFIG, nfnetlink.ACK, 0, group, body))
        for kind, number, _ in nfnetlink.messages(self._socket.recv(1 << 16)):
            if kind == nfnetlink.ERROR and number:
                raise OSError(number, os.strerror(number), f"log group {group}")

    def fileno(self) -> int:
        """For `add_reader`."""
        return self._socket.fileno()

    def close(self) -> None:
        """Stop."""
        self._socket.close()

    def packets(self) -> Iterator[tuple[str, bytes]]:
        """(prefix, packet, perhaps cut off) of what has come."""
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # ENOBUFS: some were lost, as under the limit of the filter
            for kind, _, body in nfnetlink.messages(data):
                if kind == _SUBSYSTEM | _PACKET:
                    values = nfnetlink.attributes(body)
                    prefix = values.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
                    yield prefix, values.get(_PAYLOAD, b"")
