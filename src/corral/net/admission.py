"""Send again what the host's input rules have accepted for a published port; see `screen`.

As a packet of the host with the client's address it passes the output hook, where it is rewritten for the container.
"""

from __future__ import annotations

import contextlib
import itertools
import socket

from corral.net import packets
from corral.net.logged import LogGroup

_AT_ONCE = 256  # then others get their turn in the event loop


class Admission:
    """A socket that becomes readable when packets were accepted; in the calling thread's network namespace."""

    def __init__(self) -> None:
        """OSError."""
        self._log = LogGroup()
        self.group = self._log.group
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._sockets: dict[int, socket.socket] = {}
        try:
            self._sockets[4] = socket.socket(socket.AF_INET, kind, socket.IPPROTO_RAW)
            with contextlib.suppress(OSError):  # a host without IPv6
                self._sockets[6] = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_RAW)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """For `add_reader`."""
        return self._log.fileno()

    def close(self) -> None:
        """Stop."""
        self._log.close()
        for one in self._sockets.values():
            one.close()

    def work(self) -> None:
        """Send what has come; what cannot be sent is for the client to send again."""
        for _, packet in itertools.islice(self._log.packets(), _AT_ONCE):
            ready = packets.completed(packet)
            if ready is not None and ready.version in self._sockets:
                with contextlib.suppress(OSError):
                    self._sockets[ready.version].sendto(ready.data, (ready.destination, 0))
