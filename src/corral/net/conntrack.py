"""Forget UDP flows whose way has changed.

The kernel looks a flow's destination up once.  A client that keeps sending would go on reaching the container that
had the port before, or the host itself, for as long as it does not pause; TCP notices by itself, UDP does not.
Formats: the kernel's `nfnetlink_conntrack.h`.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from corral.net import nfnetlink

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK; IPCTNL_MSG_CT_GET and _DELETE
_ACK, _DUMP = 0x4, 0x300
_ERROR, _DONE = 2, 3
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_ID, _CTA_FILTER = 1, 2, 12, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO, _CTA_PROTO_NUM, _CTA_PROTO_DST_PORT = 1, 2, 1, 3
_CTA_IP_SRC = {4: 1, 6: 3}
_CTA_FILTER_ORIG_FLAGS, _CTA_FILTER_F_PROTO_NUM = 1, 1 << 3
_NESTED = 0x8000
_UDP = socket.IPPROTO_UDP
PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp", 132: "sctp"}


_log = logging.getLogger(__name__)


def forget(host_ports: Collection[int], containers: Collection[str] = ()) -> None:
    """Forget UDP flows that began before a port was published, or that still lead to a container that goes."""
    if not host_ports:
        return
    flows = Flows()
    try:
        flows.forget_udp(host_ports=host_ports, containers=containers)
    except OSError as error:
        _log.warning("cannot forget UDP flows: %s", error)  # clients that never pause keep their old way
    finally:
        flows.close()


def _tuple(
    data: bytes, family: int
) -> tuple[IPv4Address | IPv6Address | None, IPv4Address | IPv6Address | None, str, int]:
    """(source, destination, protocol, destination port) of a flow's one direction."""
    parts = nfnetlink.attributes(data)
    places, service = (
        nfnetlink.attributes(parts.get(_CTA_TUPLE_IP, b"")),
        nfnetlink.attributes(parts.get(_CTA_TUPLE_PROTO, b"")),
    )
    first = _CTA_IP_SRC[4 if family == socket.AF_INET else 6]
    ends = [ip_address(places[kind]) if kind in places else None for kind in (first, first + 1)]
    number = int.from_bytes(service.get(_CTA_PROTO_NUM, b""), "big")
    port = int.from_bytes(service.get(_CTA_PROTO_DST_PORT, b""), "big")
    return ends[0], ends[1], PROTOCOL_NAMES.get(number, str(number)), port


class Flows:
    """The table of flows of the namespace of the thread that opens it."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, nfnetlink.NETLINK_NETFILTER)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def forget_udp(self, *, host_ports: Collection[int] = (), containers: Collection[str] = ()) -> int:
        """Drop the UDP flows towards these ports of the host, and those answered by these addresses; how many."""
        addresses = {ip_address(text) for text in containers}
        dropped = 0
        for family in (socket.AF_INET, socket.AF_INET6):
            doomed = [
                (original, number)
                for original, number, port, answering in self._udp(family)
                if port in host_ports or answering in addresses
            ]
            for original, number in doomed:
                dropped += self._delete(family, original, number)
        return dropped

    def forget_sent(self, senders: Collection[str], keep: Callable[[IPv4Address | IPv6Address, str, int], bool]) -> int:
        """Drop the flows that senders began and that `keep` (destination, protocol, port) does not want; how many."""
        addresses = {ip_address(text) for text in senders}
        dropped = 0
        for family in (socket.AF_INET, socket.AF_INET6):
            doomed = []
            self._send(_GET, _DUMP, family, b"")
            for message in self._messages():
                values = nfnetlink.attributes(message)
                original = values.get(_CTA_TUPLE_ORIG, b"")
                source, destination, proto, port = _tuple(original, family)
                if source in addresses and destination is not None and not keep(destination, proto, port):
                    doomed.append((original, values.get(_CTA_ID, b"")))
            for original, number in doomed:
                dropped += self._delete(family, original, number)
        return dropped

    def _udp(self, family: int) -> Iterator[tuple[bytes, bytes, int, IPv4Address | IPv6Address]]:
        """(original tuple, id, original destination port, who answers) of each UDP flow."""
        protocol = nfnetlink.attribute(_CTA_TUPLE_PROTO | _NESTED, nfnetlink.attribute(_CTA_PROTO_NUM, bytes((_UDP,))))
        flags = nfnetlink.attribute(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", _CTA_FILTER_F_PROTO_NUM))
        # The kernel picks UDP (from 5.8 on; before, everything comes and is looked through here).
        body = nfnetlink.attribute(_CTA_TUPLE_ORIG | _NESTED, protocol) + nfnetlink.attribute(
            _CTA_FILTER | _NESTED, flags
        )
        self._send(_GET, _DUMP, family, body)
        version = 4 if family == socket.AF_INET else 6
        for message in self._messages():
            values = nfnetlink.attributes(message)
            original, reply = values.get(_CTA_TUPLE_ORIG, b""), values.get(_CTA_TUPLE_REPLY, b"")
            sent, answered = nfnetlink.attributes(original), nfnetlink.attributes(reply)
            protocol_values = nfnetlink.attributes(sent.get(_CTA_TUPLE_PROTO, b""))
            source = nfnetlink.attributes(answered.get(_CTA_TUPLE_IP, b"")).get(_CTA_IP_SRC[version])
            if protocol_values.get(_CTA_PROTO_NUM) != bytes((_UDP,)) or source is None:
                continue
            port = int.from_bytes(protocol_values.get(_CTA_PROTO_DST_PORT, b""), "big")
            yield original, values.get(_CTA_ID, b""), port, ip_address(source)

    def _delete(self, family: int, original: bytes, number: bytes) -> int:
        body = nfnetlink.attribute(_CTA_TUPLE_ORIG | _NESTED, original)
        if number:
            body += nfnetlink.attribute(_CTA_ID, number)  # not a newer flow of the same addresses
        self._send(_DELETE, _ACK, family, body)
        try:
            for _ in self._messages():
                continue
        except FileNotFoundError:
            return 0  # it ended by itself
        return 1

    def _send(self, kind: int, flags: int, family: int, body: bytes) -> None:
        self._socket.send(nfnetlink.message(kind, flags, family, 0, body))

    def _messages(self) -> Iterator[bytes]:
        """Bodies up to the end or the acknowledgement; OSError."""
        while True:
            data = self._socket.recv(1 << 17)
            offset = 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", data, offset + 16)[0]
                    if number:
                        raise OSError(number, os.strerror(number), "connection tracking")
                    return
                yield data[offset + 20 : offset + length]
                offset += (length + 3) & ~3
