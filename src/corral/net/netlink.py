"""rtnetlink: link, address and route messages, sent many at a time and acknowledged one by one.

A `Socket` stays in the network namespace in which it was opened, whatever its thread does afterwards; that is how
one thread configures many namespaces.  Formats are those of rtnetlink(7) and the kernel's `if_link.h`; only what
Corral needs is here (docs/decisions/0003-netlink.md says why there is no library underneath).
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
RTM_NEWQDISC = 36

IFF_UP = 0x1
IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_NET_NS_FD, IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 28, 1, 2, 1
IFLA_LINK, IFLA_MODE, IFLA_IPVLAN_FLAGS, IFLA_VLAN_ID = 5, 1, 2, 1
IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA, IFLA_BRPORT_MODE = 4, 5, 4
IFLA_STATS64 = 23
IFLA_AF_SPEC, IFLA_INET6_ADDR_GEN_MODE = 26, 8
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_F_NODAD = 1, 2, 4, 8, 0x02
RTA_DST, RTA_OIF, RTA_GATEWAY = 1, 4, 5
RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RT_SCOPE_LINK, RTN_UNICAST = 254, 3, 0, 253, 1
NLA_F_NESTED = 0x8000
TCA_KIND, TCA_OPTIONS, TC_H_ROOT = 1, 2, 0xFFFFFFFF
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST, TC_LINKLAYER_ETHERNET = 1, 4, 6, 1

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst length, src length, tos, table, protocol, scope, type, flags
_RATESPEC = struct.Struct("=BBHhHI")  # cell log, link layer, overhead, cell align, mpu, rate
_U32 = struct.Struct("=I")
_U16 = struct.Struct("=H")


@dataclass(frozen=True, slots=True)
class Message:
    """One request; `about` names its object in errors."""

    type: int
    flags: int
    body: bytes
    about: str


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface as the kernel lists it; `master` is an index or 0."""

    index: int
    name: str
    master: int
    flags: int
    mac: str
    mtu: int
    kind: str


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, _U32.pack(value))


def _attributes(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def _family(address: Address | Interface) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def veth(name: str, *, master: int, mtu: int, peer: str, peer_mac: str, peer_netns: int) -> Message:
    """Create a pair: `name` here, enslaved to `master`; `peer` directly in the namespace of fd `peer_netns`."""
    peer_body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, peer) + _number(IFLA_MTU, mtu)
    peer_body += _attribute(IFLA_ADDRESS, _mac(peer_mac)) + _number(IFLA_NET_NS_FD, peer_netns)
    data = _attribute(IFLA_INFO_DATA | NLA_F_NESTED, _attribute(VETH_INFO_PEER | NLA_F_NESTED, peer_body))
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + _number(IFLA_MTU, mtu)
    body += _number(IFLA_MASTER, master)
    body += _attribute(IFLA_LINKINFO | NLA_F_NESTED, _text(IFLA_INFO_KIND, "veth") + data)
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, name)


def _kind(kind: str, data: bytes) -> bytes:
    inner = _text(IFLA_INFO_KIND, kind) + (_attribute(IFLA_INFO_DATA | NLA_F_NESTED, data) if data else b"")
    return _attribute(IFLA_LINKINFO | NLA_F_NESTED, inner)


def child(name: str, kind: str, *, parent: int, mode: int, flag: int, mtu: int, mac: str, netns: int) -> Message:
    """Create a macvlan or ipvlan interface of `parent` in the namespace of fd `netns`; mtu 0: the parent's."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + _number(IFLA_LINK, parent)
    body += _number(IFLA_NET_NS_FD, netns) + (_number(IFLA_MTU, mtu) if mtu else b"")
    if mac:
        body += _attribute(IFLA_ADDRESS, _mac(mac))
    if kind == "macvlan":
        data = _number(IFLA_MODE, mode)
    else:
        data = _attribute(IFLA_MODE, _U16.pack(mode)) + _attribute(IFLA_IPVLAN_FLAGS, _U16.pack(flag))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + _kind(kind, data), name)


def vlan(name: str, *, parent: int, number: int) -> Message:
    """Create a VLAN's sub-interface."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + _number(IFLA_LINK, parent)
    data = _attribute(IFLA_VLAN_ID, _U16.pack(number))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body + _kind("vlan", data), name)


def plain(name: str, kind: str) -> Message:
    """Create an interface of a kind that needs nothing else."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + _kind(kind, b"")
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, name)


def port_up(name: str) -> Message:
    """Bring a bridge port up, without an IPv6 address of its own: nobody speaks to a port."""
    inet6 = _attribute(socket.AF_INET6 | NLA_F_NESTED, _attribute(IFLA_INET6_ADDR_GEN_MODE, b"\1"))
    body = _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + _text(IFLA_IFNAME, name)
    return Message(RTM_NEWLINK, 0, body + _attribute(IFLA_AF_SPEC | NLA_F_NESTED, inet6), name)


def hairpin(name: str) -> Message:
    """Let a bridge send frames back through the port `name` that they came from."""
    slave = _text(IFLA_INFO_SLAVE_KIND, "bridge")
    slave += _attribute(IFLA_INFO_SLAVE_DATA | NLA_F_NESTED, _attribute(IFLA_BRPORT_MODE, b"\1"))
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + _attribute(IFLA_LINKINFO | NLA_F_NESTED, slave)
    return Message(RTM_NEWLINK, 0, body, name)


def bridge(name: str, *, mac: str, mtu: int) -> Message:
    """Create a bridge; its address is fixed so that it does not follow that of its ports."""
    body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name) + _number(IFLA_MTU, mtu)
    body += _attribute(IFLA_ADDRESS, _mac(mac))
    body += _attribute(IFLA_LINKINFO | NLA_F_NESTED, _text(IFLA_INFO_KIND, "bridge"))
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, name)


def link_up(index: int) -> Message:
    """Bring an interface up."""
    return Message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP), f"link {index}")


def link_rename(index: int, name: str) -> Message:
    """Rename an interface."""
    return Message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + _text(IFLA_IFNAME, name), name)


def link_delete(index: int) -> Message:
    """Delete an interface (and the other end of a pair)."""
    return Message(RTM_DELLINK, 0, _IFINFO.pack(0, 0, index, 0, 0), f"link {index}")


def link_delete_named(name: str) -> Message:
    """Delete an interface by name."""
    return Message(RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name), name)


def address_add(index: int, interface: Interface) -> Message:
    """Give an interface an address; IPv6 without duplicate detection (IPAM has seen to that), so usable at once."""
    packed = interface.ip.packed
    body = _IFADDR.pack(_family(interface), interface.network.prefixlen, 0, 0, index)
    body += _attribute(IFA_LOCAL, packed) + _attribute(IFA_ADDRESS, packed)
    if isinstance(interface, IPv4Interface):
        body += _attribute(IFA_BROADCAST, interface.network.broadcast_address.packed)
    else:
        body += _number(IFA_FLAGS, IFA_F_NODAD)
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, body, str(interface))


def default_route(index: int, gateway: Address) -> Message:
    """Route everything over `gateway`, replacing an earlier default."""
    body = _ROUTE.pack(_family(gateway), 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST, 0)
    body += _attribute(RTA_GATEWAY, gateway.packed) + _number(RTA_OIF, index)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body, f"default via {gateway}")


def shape(index: int, rate: int) -> Message:
    """Let an interface send `rate` bytes a second: a token bucket (tc-tbf(8)) that queues a tenth of a second."""
    burst = max(rate // 50, 1 << 16)  # 20 ms, and not less than the largest packet that is segmented later
    specification = _RATESPEC.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(rate, 0xFFFFFFFF))
    parameters = specification + bytes(_RATESPEC.size) + struct.pack("=III", max(rate // 10, 1 << 17), 0, 0)
    options = _attribute(TCA_TBF_PARMS, parameters) + _attribute(TCA_TBF_RATE64, struct.pack("=Q", rate))
    options += _number(TCA_TBF_BURST, burst)
    body = struct.pack("=BxxxiIII", 0, index, 0, TC_H_ROOT, 0) + _text(TCA_KIND, "tbf")
    body += _attribute(TCA_OPTIONS | NLA_F_NESTED, options)
    return Message(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, f"rate of link {index}")


def default_device_route(index: int, family: int) -> Message:
    """Send everything of an IP version (4, 6) straight to an interface."""
    number = socket.AF_INET if family == 4 else socket.AF_INET6
    scope = RT_SCOPE_LINK if family == 4 else RT_SCOPE_UNIVERSE
    body = _ROUTE.pack(number, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0)
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body + _number(RTA_OIF, index), "default")


def _dump(kind: int) -> Message:
    return Message(kind, NLM_F_DUMP, _IFINFO.pack(0, 0, 0, 0, 0), "dump")


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    values = _attributes(body[_IFINFO.size :])
    info = _attributes(values.get(IFLA_LINKINFO, b""))
    return Link(
        index,
        values.get(IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        _U32.unpack(values[IFLA_MASTER])[0] if IFLA_MASTER in values else 0,
        flags,
        values.get(IFLA_ADDRESS, b"").hex(":"),
        _U32.unpack(values[IFLA_MTU])[0] if IFLA_MTU in values else 0,
        info.get(IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
    )


class Socket:
    """An rtnetlink socket in the network namespace of the thread that opens it."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def execute(self, messages: Sequence[Message]) -> None:
        """Do `messages` in order, in one system call; OSError names the first that failed (the others were tried)."""
        first = self._send(messages, NLM_F_ACK)
        failure: OSError | None = None
        with contextlib.closing(self._answers()) as answers:
            for _ in messages:
                sequence, _, error = next(answers)
                if error and failure is None:
                    failure = OSError(error, os.strerror(error), messages[sequence - first].about)
        if failure is not None:
            raise failure

    def links(self) -> list[Link]:
        """All interfaces of the namespace."""
        return [_link(body) for body in self._query(_dump(RTM_GETLINK))]

    def counters(self) -> dict[str, tuple[int, int, int, int]]:
        """By interface: packets received, packets sent, bytes received, bytes sent."""
        found = {}
        for body in self._query(_dump(RTM_GETLINK)):
            values = _attributes(body[_IFINFO.size :])
            if IFLA_STATS64 in values:
                name = values.get(IFLA_IFNAME, b"").rstrip(b"\0").decode()
                found[name] = struct.unpack_from("=QQQQ", values[IFLA_STATS64])
        return found

    def find_link(self, name: str) -> Link | None:
        """The interface called `name`."""
        body = _IFINFO.pack(0, 0, 0, 0, 0) + _text(IFLA_IFNAME, name)
        try:
            return next((_link(found) for found in self._query(Message(RTM_GETLINK, 0, body, name))), None)
        except OSError as error:
            if error.errno == 19:  # ENODEV
                return None
            raise

    def addresses(self) -> list[tuple[int, Interface]]:
        """(interface index, address with its prefix) of the namespace."""
        found: list[tuple[int, Interface]] = []
        for body in self._query(_dump(RTM_GETADDR)):
            family, prefix, _, _, index = _IFADDR.unpack_from(body)
            values = _attributes(body[_IFADDR.size :])
            packed = values.get(IFA_LOCAL, values.get(IFA_ADDRESS, b""))
            if family == socket.AF_INET:
                found.append((index, IPv4Interface((packed, prefix))))
            elif family == socket.AF_INET6:
                found.append((index, IPv6Interface((packed, prefix))))
        return found

    def routes4(self) -> list[tuple[bytes, int, int]]:
        """(destination, prefix length, interface index) of the main table's IPv4 routes; the default is (b'', 0, _)."""
        found: list[tuple[bytes, int, int]] = []
        for body in self._query(Message(RTM_GETROUTE, NLM_F_DUMP, _ROUTE.pack(2, 0, 0, 0, 0, 0, 0, 0, 0), "routes")):
            family, length, _, _, table, _, _, _, _ = _ROUTE.unpack_from(body)
            if family != socket.AF_INET or table != RT_TABLE_MAIN:
                continue
            values = _attributes(body[_ROUTE.size :])
            oif = _U32.unpack(values[RTA_OIF])[0] if RTA_OIF in values else 0
            found.append((values.get(RTA_DST, b""), length, oif))
        return found

    def _send(self, messages: Iterable[Message], extra: int) -> int:
        parts: list[bytes] = []
        first = self._sequence + 1
        for message in messages:
            self._sequence += 1
            flags = message.flags | NLM_F_REQUEST | extra
            parts.append(_HEADER.pack(16 + len(message.body), message.type, flags, self._sequence, 0) + message.body)
        self._socket.send(b"".join(parts))
        return first

    def _query(self, message: Message) -> Iterator[bytes]:
        """The bodies that answer a GET."""
        self._send([message], 0)
        with contextlib.closing(self._answers()) as answers:
            for _, body, error in answers:
                if error:
                    raise OSError(error, os.strerror(error), message.about)
                if body is None:
                    return
                yield body
                if not message.flags & NLM_F_DUMP:
                    return

    def _answers(self) -> Generator[tuple[int, bytes | None, int], None, None]:
        """(sequence, body or None at the end, errno or 0) of each message of one datagram after another."""
        while True:
            data = self._socket.recv(1 << 17)
            offset = 0
            while offset + 16 <= len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
                body = data[offset + 16 : offset + length]
                offset += (length + 3) & ~3
                if kind == NLMSG_ERROR:
                    yield sequence, None, -struct.unpack_from("=i", body)[0]
                elif kind == NLMSG_DONE:
                    yield sequence, None, 0
                else:
                    yield sequence, body, 0
