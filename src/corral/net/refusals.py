"""Who was refused: what the packet filter logs to us, read from the kernel's group of log messages.

The filter limits how much it tells (see `listed`); what comes is parsed by `parse`, without trusting the packet.
Formats: the kernel's `nfnetlink_log.h`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from corral.net import nfnetlink
from corral.net.conntrack import PROTOCOL_NAMES

Address = IPv4Address | IPv6Address

_SUBSYSTEM = 4 << 8  # NFNL_SUBSYS_ULOG
_PACKET, _CONFIG = 0, 1
_CFG_CMD, _CFG_MODE, _CFG_QTHRESH = 1, 2, 5
_CMD_BIND, _COPY_PACKET = 1, 2
_PAYLOAD, _PREFIX = 9, 10
_FIRST_GROUP, _GROUPS = 0x4352, 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a container (`key`: its short id) tried; `port` is 0 where there is none, `address` "" for a question."""

    key: str
    time_ns: int
    proto: str  # `dns`: a question for a name
    address: str
    port: int
    name: str = ""


def parse(key: str, packet: bytes, now_ns: int) -> Refusal | None:
    """What a packet, perhaps cut off, wanted; None when it is not IP."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        number, address, start = packet[9], ip_address(packet[16:20]), (packet[0] & 0xF) * 4
    elif version == 6 and len(packet) >= 40:
        number, address, start = packet[6], ip_address(packet[24:40]), 40
    else:
        return None
    proto = PROTOCOL_NAMES.get(number, str(number))
    port = 0
    if proto in ("tcp", "udp", "sctp") and len(packet) >= start + 4:
        (port,) = struct.unpack_from("!H", packet, start + 2)
    return Refusal(key, now_ns, proto, str(address), port)


class Refusals:
    """A socket that becomes readable when something was refused; in the calling thread's network namespace."""

    def __init__(self) -> None:
        """Take a group that nobody has; OSError."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, nfnetlink.NETLINK_NETFILTER)
        try:
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

    def read(self) -> list[Refusal]:
        """What has come."""
        found: list[Refusal] = []
        while True:
            try:
                data = self._socket.recv(1 << 17)
            except (BlockingIOError, InterruptedError):
                return found
            except OSError:
                continue  # ENOBUFS: some were lost, as under the limit of the filter
            for kind, _, body in nfnetlink.messages(data):
                if kind != _SUBSYSTEM | _PACKET:
                    continue
                values = nfnetlink.attributes(body)
                key = values.get(_PREFIX, b"").rstrip(b"\0").decode("ascii", "replace")
                refusal = parse(key, values.get(_PAYLOAD, b""), time.time_ns())
                if refusal is not None:
                    found.append(refusal)
