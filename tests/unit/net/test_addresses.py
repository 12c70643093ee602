"""What becomes part of a rule of the packet filter is an address, and nothing else."""

from __future__ import annotations

import pytest

from corral.net import endpoints, ipam, ports
from corral.net.model import EndpointRequest, InvalidNetwork, NetworkRecord, PoolRecord, PortBinding
from corral.net.registry import parse_address

ZONE = "fe80::1% } accept"
RECORD = NetworkRecord("i" * 64, "app", "bridge", "", pools=(PoolRecord("fd00::/64"),), bridge="br-1")


def test_a_zone_is_no_part_of_an_address() -> None:
    with pytest.raises(ports.InvalidPort, match="invalid host IP"):
        ports.check(PortBinding("tcp", 80, ZONE, 80))
    with pytest.raises(InvalidNetwork, match="invalid IPv6 address"):
        parse_address(ZONE, 6)
    with pytest.raises(InvalidNetwork, match="invalid link-local IP address"):
        endpoints.check(RECORD, EndpointRequest("app", link_local=(ZONE,)))
    for pool in (PoolRecord(f"{ZONE}/64"), PoolRecord("fd00::/64", gateway="fd00::1% }")):
        with pytest.raises(ipam.InvalidPool):
            ipam.complete([pool])


@pytest.mark.parametrize("mac", ["02:42:ac:11:00:+1", "02:42:ac:11:00: 1", "02:42:ac:11:00:1_", "03:42:ac:11:00:01"])
def test_what_is_no_mac(mac: str) -> None:
    with pytest.raises(InvalidNetwork, match="invalid MAC address"):
        endpoints.check(RECORD, EndpointRequest("app", mac=mac))
