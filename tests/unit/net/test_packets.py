"""Packets that are sent again, and the rules that let them come."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from corral.net import packets, rules, screen
from corral.net.model import Element, PortBinding
from corral.net.ports import Target

V4 = bytes((10, 9, 0, 2)) + bytes((10, 9, 0, 1))
V6 = bytes.fromhex("fd000009000000000000000000000002fd000009000000000000000000000001")


def ip4(protocol: int, payload: bytes) -> bytes:
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, 0, 64, protocol, 0) + V4 + payload


def ip6(protocol: int, payload: bytes) -> bytes:
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + V6 + payload


def udp(data: bytes, checksum: int) -> bytes:
    return struct.pack("!HHHH", 4000, 53, 8 + len(data), checksum) + data


@given(st.binary(max_size=99), st.integers(1, 65535))
def test_the_checksum_of_udp_is_filled_in_whatever_it_was(data: bytes, before: int) -> None:
    for packet, addresses, start in ((ip4(17, udp(data, before)), V4, 20), (ip6(17, udp(data, before)), V6, 40)):
        done = packets.completed(packet)
        assert done is not None
        sum_of_all = packets.checksum(addresses + struct.pack("!II", 8 + len(data), 17) + done.data[start:])
        assert sum_of_all == 0
        assert packets.completed(done.data) == done


def test_a_known_segment() -> None:
    segment = struct.pack("!HHIIHHHH", 40000, 8080, 1, 0, 0x5002, 64240, 0, 0)
    done = packets.completed(ip4(6, segment) + b"padding of a short frame")
    assert done is not None
    assert (done.version, done.destination, len(done.data)) == (4, "10.9.0.1", 40)
    assert packets.checksum(V4 + struct.pack("!II", 20, 6) + done.data[20:]) == 0


def test_udp_without_a_checksum_stays_without() -> None:
    packet = ip4(17, udp(b"x", 0))
    done = packets.completed(packet)
    assert done is not None
    assert done.data == packet


@given(st.binary(max_size=80))
def test_anything_else_is_refused_or_kept_within_its_length(data: bytes) -> None:
    done = packets.completed(data)
    assert done is None or len(done.data) <= len(data)


def test_a_packet_that_was_cut_off_is_not_sent() -> None:
    assert packets.completed(ip4(17, udp(b"long", 1))[:-1]) is None
    assert packets.completed(ip6(6, b"x" * 20)[:50]) is None


def test_published_ports_are_screened_by_the_keys_of_their_maps() -> None:
    bindings = [PortBinding("tcp", 80, "0.0.0.0", 8080), PortBinding("tcp", 80, "fd00::1", 8080)]
    assert screen.of(rules.of_ports(bindings, Target("10.0.0.2", "fd00:1::2"))) == [
        Element("inet", "screened4", "tcp . 8080"),
        Element("inet", "screened6at", "fd00::1 . tcp . 8080"),
    ]
