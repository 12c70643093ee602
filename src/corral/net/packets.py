"""IP packets as bytes: whole ones, and the checksums that a sender had left to its network card.  Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

_CHECKSUM_AT = {6: 16, 17: 6}  # TCP and UDP: where in their header


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that can be sent as it is."""

    version: int
    destination: str
    data: bytes


def completed(packet: bytes) -> Packet | None:
    """A packet with its TCP or UDP checksum filled in; None when it is not a whole IP packet."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        start, length = (packet[0] & 0xF) * 4, int.from_bytes(packet[2:4], "big")
        protocol, source, destination = packet[9], packet[12:16], packet[16:20]
    elif version == 6 and len(packet) >= 40:
        start, length = 40, 40 + int.from_bytes(packet[4:6], "big")
        protocol, source, destination = packet[6], packet[8:24], packet[24:40]
    else:
        return None
    if length > len(packet) or not 20 <= start <= length:
        return None
    data = bytearray(packet[:length])
    place = start + _CHECKSUM_AT.get(protocol, length)
    if place + 2 <= length and (protocol == 6 or data[place : place + 2] != b"\0\0"):  # UDP: zero is none
        data[place : place + 2] = b"\0\0"
        pseudo = source + destination + struct.pack("!II", length - start, protocol)
        value = checksum(pseudo + data[start:])
        data[place : place + 2] = (value or 0xFFFF).to_bytes(2, "big") if protocol == 17 else value.to_bytes(2, "big")
    return Packet(version, str(ip_address(destination)), bytes(data))


def checksum(data: bytes) -> int:
    """The checksum of the internet (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
