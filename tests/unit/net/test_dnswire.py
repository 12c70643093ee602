"""DNS messages: what we write is what was meant, and nothing that arrives can hurt."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.net import dnswire


def message(name: str, kind: int = dnswire.A, flags: int = 0x0100) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 7, flags, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def test_a_query_and_its_answer() -> None:
    query = dnswire.parse(message("Web.App"))
    assert (query.id, query.name, query.type, query.opcode) == (7, "web.app", dnswire.A, 0)
    reply = dnswire.answer(query, [IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")])
    assert struct.unpack_from("!HHHH", reply) == (7, 0x8580, 1, 2)
    assert reply.endswith(b"\0\4\x0a\0\0\2")
    assert b"\3Web\3App\0" in reply  # the case of the question is kept


def test_truncation() -> None:
    query = dnswire.parse(message("web"))
    reply = dnswire.answer(query, [IPv4Address(n) for n in range(60)])
    cut = dnswire.fit(reply, query, 512)
    assert len(cut) <= 512
    assert struct.unpack_from("!H", cut, 2)[0] & 0x0200
    assert dnswire.fit(reply, query, 4096) == reply


@given(st.binary(max_size=600))
def test_any_bytes_are_a_query_or_malformed(data: bytes) -> None:
    try:
        query = dnswire.parse(data)
    except dnswire.Malformed:
        if len(data) >= 12:
            assert len(dnswire.failure(data, dnswire.FORMERR)) == 12
        return
    assert dnswire.answer(query, []).startswith(data[:2])
    assert dnswire.reverse(query.name) is None or query.name.endswith(".arpa")


@given(st.text(max_size=300))
def test_any_name_may_be_asked_backwards(name: str) -> None:
    dnswire.reverse(name)
    dnswire.reverse(name + ".in-addr.arpa")
    dnswire.reverse(name + ".ip6.arpa")


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_reverse_names(address: IPv4Address | IPv6Address) -> None:
    assert dnswire.reverse(address.reverse_pointer) == address


@pytest.mark.parametrize("data", [message("a", flags=0x8000), message("a")[:-3], b"", bytes(12)])
def test_malformed(data: bytes) -> None:
    with pytest.raises(dnswire.Malformed):
        dnswire.parse(data)
