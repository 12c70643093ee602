"""Who was refused: what the packet filter logs to us, read from the kernel's group of log messages.

The filter limits how much it tells (see `listed`); what comes is parsed by `parse`, without trusting the packet.
"""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from corral.net.conntrack import PROTOCOL_NAMES
from corral.net.logged import LogGroup

Address = IPv4Address | IPv6Address


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
        """OSError."""
        self._log = LogGroup()
        self.group = self._log.group

    def fileno(self) -> int:
        """For `add_reader`."""
        return self._log.fileno()

    def close(self) -> None:
        """Stop."""
        self._log.close()

    def read(self) -> list[Refusal]:
        """What has come."""
        found = (parse(key, packet, time.time_ns()) for key, packet in self._log.packets())
        return [refusal for refusal in found if refusal is not None]
