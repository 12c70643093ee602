"""Addresses and networks as people write them.  Pure.

Not with a zone (`fe80::1%eth0`), which Python's own parsers take, with any text in it, and which would become part of
a rule of the packet filter.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network


def address(text: str) -> IPv4Address | IPv6Address:
    """An address; ValueError."""
    _check(text)
    return ip_address(text)


def network(text: str) -> IPv4Network | IPv6Network:
    """A network, whose host bits are zero; ValueError."""
    _check(text)
    return ip_network(text)


def _check(text: str) -> None:
    if "%" in text:
        raise ValueError(f"{text!r} has a zone")
