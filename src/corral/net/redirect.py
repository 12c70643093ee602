"""The two rules that lead a container's DNS queries to our server, sent to the kernel as they are.

Not through libnftables, because that opens a context, with a socket of its own, per namespace, and waits on it with
select(2): in a process with more than 1,024 descriptors it aborts the process.  Formats: the kernel's `nf_tables.h`.
"""

from __future__ import annotations

import os
import socket
import struct

from corral.net import nfnetlink

_NFTABLES = 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = (_NFTABLES << 8 | number for number in (0, 2, 3, 6))
_ACK, _EXCL, _CREATE, _APPEND = 0x4, 0x200, 0x400, 0x800
_NESTED = 0x8000
_HOOK_OUTPUT, _PRIORITY_DSTNAT = 3, -100
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_L4PROTO = 16
_NAT_DNAT = 1
_TABLE, _CHAIN = b"engine_dns\0", b"output\0"


def _number(kind: int, value: int) -> bytes:
    return nfnetlink.attribute(kind, struct.pack("!i", value))


def _nested(kind: int, *parts: bytes) -> bytes:
    return nfnetlink.attribute(kind | _NESTED, b"".join(parts))


def _expression(name: bytes, *parts: bytes) -> bytes:
    return _nested(1, nfnetlink.attribute(1, name + b"\0"), _nested(2, *parts))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression(b"payload", _number(1, 1), _number(2, base), _number(3, offset), _number(4, length))


def _equals(value: bytes) -> bytes:
    return _expression(b"cmp", _number(1, 1), _number(2, 0), _nested(3, nfnetlink.attribute(1, value)))


def _immediate(register: int, value: bytes) -> bytes:
    return _expression(b"immediate", _number(1, register), _nested(2, nfnetlink.attribute(1, value)))


def _rule(address: bytes, protocol: int, port: int) -> bytes:
    """`ip daddr ADDRESS PROTOCOL dport 53 dnat to ADDRESS:PORT`"""
    expressions = (
        _payload(_NETWORK_HEADER, 16, 4),
        _equals(address),
        _expression(b"meta", _number(1, 1), _number(2, _META_L4PROTO)),
        _equals(bytes((protocol,))),
        _payload(_TRANSPORT_HEADER, 2, 2),
        _equals(struct.pack("!H", 53)),
        _immediate(1, address),
        _immediate(2, struct.pack("!H", port)),
        _expression(b"nat", _number(1, _NAT_DNAT), _number(2, socket.AF_INET), _number(3, 1), _number(5, 2)),
    )
    return nfnetlink.attribute(1, _TABLE) + nfnetlink.attribute(2, _CHAIN) + _nested(4, *expressions)


def _message(kind: int, flags: int, body: bytes, *, resource: int = 0) -> bytes:
    return nfnetlink.message(kind, flags, 0 if resource else socket.AF_INET, resource, body)


def install(address: str, udp_port: int, tcp_port: int) -> None:
    """Lead port 53 of `address` to these ports, in the thread's network namespace; again to replace; OSError."""
    packed = socket.inet_aton(address)
    hook = _nested(4, _number(1, _HOOK_OUTPUT), _number(2, _PRIORITY_DSTNAT))
    chain = nfnetlink.attribute(1, _TABLE) + nfnetlink.attribute(3, _CHAIN) + hook + nfnetlink.attribute(7, b"nat\0")
    new = (
        _message(_NEWTABLE, _CREATE | _EXCL, nfnetlink.attribute(1, _TABLE)),
        _message(_NEWCHAIN, _CREATE, chain),
        _message(_NEWRULE, _CREATE | _APPEND, _rule(packed, socket.IPPROTO_UDP, udp_port)),
        _message(_NEWRULE, _CREATE | _APPEND | _ACK, _rule(packed, socket.IPPROTO_TCP, tcp_port)),
    )
    try:
        _transaction(*new)
    except FileExistsError:
        # A daemon before us left its rules.  Deleting is not the first choice because closing a socket after a
        # deletion waits for the kernel to be done with it: 12 ms.
        _transaction(_message(_DELTABLE, 0, nfnetlink.attribute(1, _TABLE)), *new)


def _transaction(*messages: bytes) -> None:
    """Send messages as one batch, of which the last asks for an acknowledgement."""
    begin = _message(nfnetlink.BATCH_BEGIN, 0, b"", resource=_NFTABLES)
    end = _message(nfnetlink.BATCH_END, 0, b"", resource=_NFTABLES)
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, nfnetlink.NETLINK_NETFILTER) as netlink:
        netlink.bind((0, 0))
        netlink.send(b"".join((begin, *messages, end)))
        # Errors come in the order of their messages, and before the acknowledgement.
        (number,) = struct.unpack_from("=i", netlink.recv(1 << 16), 16)
    if number:
        raise OSError(-number, os.strerror(-number), "redirection of port 53")
