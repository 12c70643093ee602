"""DNS messages (RFC 1035), as little of them as the embedded server needs: one question in, addresses out.  Pure."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

A, CNAME, PTR, AAAA, OPT, IN, ANY_CLASS = 1, 5, 12, 28, 41, 1, 255
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP = 0, 1, 2, 3, 4
_QR, _AA, _TC, _RD, _RA = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080
_HEADER = struct.Struct("!HHHHHH")
_TTL_S = 600
MAX_UDP = 512
_MOST_RECORDS = 512
_MOST_POINTERS = 32
_EDE, _FILTERED = 15, 17  # RFC 8914


class Malformed(ValueError):
    """Not a DNS query."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question; `name` in lower case without the final dot; `raw` its bytes, to be repeated in the answer."""

    id: int
    flags: int
    name: str
    type: int
    raw: bytes

    @property
    def opcode(self) -> int:
        """0 is a query."""
        return self.flags >> 11 & 0xF


def parse(message: bytes) -> Query:
    """The query in a message; Malformed when it is an answer or has not exactly one question."""
    if len(message) < _HEADER.size:
        raise Malformed("shorter than a header")
    number, flags, questions, _, _, _ = _HEADER.unpack_from(message)
    if flags & _QR or questions != 1:
        raise Malformed("not one question")
    labels: list[str] = []
    offset = _HEADER.size
    while True:
        if offset >= len(message):
            raise Malformed("name without an end")
        length = message[offset]
        offset += 1
        if not length:
            break
        if length > 63 or offset + length > len(message) or offset > _HEADER.size + 254:
            raise Malformed("label too long")  # compression has no place in a question
        labels.append(message[offset : offset + length].decode("latin-1").lower())
        offset += length
    if offset + 4 > len(message):
        raise Malformed("question without a type")
    kind, of_class = struct.unpack_from("!HH", message, offset)
    if of_class not in (IN, ANY_CLASS):
        kind = 0  # nothing of ours is in another class
    return Query(number, flags, ".".join(labels), kind, message[_HEADER.size : offset + 4])


def answer(query: Query, records: Sequence[IPv4Address | IPv6Address | str], *, code: int = NOERROR) -> bytes:
    """An answer of addresses or names (for PTR)."""
    parts = []
    for record in records:
        kind, data = _record(record)
        parts.append(struct.pack("!HHHIH", 0xC00C, kind, IN, _TTL_S, len(data)) + data)
    flags = _QR | _AA | _RA | query.flags & _RD | query.flags & 0x7800 | code
    return _HEADER.pack(query.id, flags, 1, len(parts), 0, 0) + query.raw + b"".join(parts)


def failure(message: bytes, code: int) -> bytes:
    """An answer to something that has at least a header."""
    number, flags = struct.unpack_from("!HH", message)
    return _HEADER.pack(number, _QR | _RA | flags & (_RD | 0x7800) | code, 0, 0, 0, 0)


def payload_size(message: bytes, query: Query) -> int:
    """The UDP size that a client says it takes (EDNS, RFC 6891), 0 without EDNS; OPT comes first in practice."""
    offset = _HEADER.size + len(query.raw)
    if message[6:10] != b"\0\0\0\0" or message[10:12] == b"\0\0" or message[offset : offset + 3] != b"\0\0\x29":
        return 0
    return int.from_bytes(message[offset + 3 : offset + 5], "big")


def fit(reply: bytes, query: Query, limit: int) -> bytes:
    """The reply, or an empty truncated one that sends the client to TCP."""
    if len(reply) <= limit:
        return reply
    flags = struct.unpack_from("!H", reply, 2)[0] | _TC
    return _HEADER.pack(query.id, flags, 1, 0, 0, 0) + query.raw


def filtered(query: Query, *, edns: bool) -> bytes:
    """An answer that there is no such name; to a client that knows `edns`, that it is so by policy (RFC 8914)."""
    flags = _QR | _RA | query.flags & (_RD | 0x7800) | NXDOMAIN
    option = struct.pack("!HHH", _EDE, 2, _FILTERED)
    extra = b"\0" + struct.pack("!HHIH", OPT, 1232, 0, len(option)) + option if edns else b""
    return _HEADER.pack(query.id, flags, 1, 0, 0, 1 if edns else 0) + query.raw + extra


def addresses(message: bytes, query: Query) -> list[tuple[IPv4Address | IPv6Address, int]]:
    """The addresses that somebody's answer gives to the question, with seconds to live; Malformed.

    Records of other names count only if aliases lead to them; an address lives no longer than the aliases before it.
    """
    if len(message) < _HEADER.size:
        raise Malformed("shorter than a header")
    _, flags, questions, answers, _, _ = _HEADER.unpack_from(message)
    if not flags & _QR:
        raise Malformed("not an answer")
    if answers > _MOST_RECORDS:
        raise Malformed("too many records")
    offset = _HEADER.size
    for _ in range(questions):
        offset = _name(message, offset)[1] + 4
    aliases: dict[str, tuple[str, int]] = {}
    found: dict[str, list[tuple[IPv4Address | IPv6Address, int]]] = {}
    for _ in range(answers):
        owner, offset = _name(message, offset)
        if offset + 10 > len(message):
            raise Malformed("record without an end")
        kind, of_class, ttl, length = struct.unpack_from("!HHIH", message, offset)
        ttl = 0 if ttl > 0x7FFFFFFF else ttl
        data, offset = message[offset + 10 : offset + 10 + length], offset + 10 + length
        if offset > len(message):
            raise Malformed("record without an end")
        if of_class != IN:
            continue
        if kind == CNAME:
            aliases.setdefault(owner, (_name(message, offset - length)[0], ttl))
        elif (kind, length) in ((A, 4), (AAAA, 16)):
            found.setdefault(owner, []).append((ip_address(data), ttl))
    result: list[tuple[IPv4Address | IPv6Address, int]] = []
    name, least, seen = query.name, 0x7FFFFFFF, set[str]()
    while name not in seen:
        seen.add(name)
        result += [(address, min(ttl, least)) for address, ttl in found.get(name, ())]
        if name in aliases:
            name, ttl = aliases[name]
            least = min(least, ttl)
    return result


def _name(message: bytes, offset: int) -> tuple[str, int]:
    """The name at an offset, in lower case, and where what follows it begins; Malformed."""
    labels: list[str] = []
    after, pointers, size = -1, 0, 0
    while True:
        if offset >= len(message):
            raise Malformed("name without an end")
        length = message[offset]
        if length & 0xC0 == 0xC0:
            pointers += 1
            if offset + 2 > len(message) or pointers > _MOST_POINTERS:
                raise Malformed("pointers without an end")
            after = offset + 2 if after < 0 else after
            offset = (length & 0x3F) << 8 | message[offset + 1]
            continue
        offset += 1
        size += length + 1
        if length > 63 or size > 255 or offset + length > len(message):
            raise Malformed("label too long")
        if not length:
            return ".".join(labels), after if after >= 0 else offset
        labels.append(message[offset : offset + length].decode("latin-1").lower())
        offset += length


def with_id(message: bytes, number: int) -> bytes:
    """The message with another id."""
    return struct.pack("!H", number) + message[2:]


def reverse(name: str) -> IPv4Address | IPv6Address | None:
    """The address that a name under in-addr.arpa or ip6.arpa stands for."""
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return IPv4Address(".".join(reversed(labels[:4])))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            digits = "".join(reversed(labels[:32]))
            return IPv6Address(bytes.fromhex(digits)) if len(digits) == 32 else None
    except ValueError:
        return None
    return None


def _record(record: IPv4Address | IPv6Address | str) -> tuple[int, bytes]:
    if isinstance(record, str):
        labels = [label.encode("latin-1", "replace")[:63] for label in record.split(".") if label]
        return PTR, b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    return (A if record.version == 4 else AAAA), ip_address(record).packed
