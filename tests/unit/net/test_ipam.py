"""Address management by example and by property."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.net import ipam
from corral.net.model import DEFAULT_POOLS, AddressPool, PoolRecord


def test_the_first_addresses_of_the_default_pool() -> None:
    (record,) = ipam.complete([PoolRecord("172.17.0.0/16")])
    assert record.gateway == "172.17.0.1"
    pool = ipam.Pool(record)
    assert [str(pool.take_next()) for _ in range(3)] == ["172.17.0.2", "172.17.0.3", "172.17.0.4"]
    pool.release(ip_address("172.17.0.2"))
    assert str(pool.take_next()) == "172.17.0.5"  # one that was just released comes last


def test_a_range_holds_the_chosen_addresses_but_not_the_fixed_ones() -> None:
    (record,) = ipam.complete([PoolRecord("10.0.0.0/24", "10.0.0.64/30", "10.0.0.1", {"router": "10.0.0.65"})])
    pool = ipam.Pool(record)
    assert [str(pool.take_next()) for _ in range(4)] == ["10.0.0.64", "10.0.0.66", "10.0.0.67", "None"]
    pool.take(ip_address("10.0.0.200"))
    for taken in ("10.0.0.200", "10.0.0.1", "10.0.0.65"):
        with pytest.raises(ipam.AddressInUse):
            pool.take(ip_address(taken))
    pool.release(ip_address("10.0.0.1"))
    with pytest.raises(ipam.AddressInUse):
        pool.take(ip_address("10.0.0.1"))  # the gateway is never anybody else's


@pytest.mark.parametrize(("subnet", "usable"), [("10.0.0.0/30", 1), ("10.0.0.0/31", 1), ("fd00::/126", 2)])
def test_small_subnets(subnet: str, usable: int) -> None:
    pool = ipam.Pool(ipam.complete([PoolRecord(subnet)])[0])
    taken = []
    while (address := pool.take_next()) is not None:
        taken.append(address)
    assert len(taken) == usable


@given(
    length=st.integers(20, 31),
    steps=st.lists(st.one_of(st.none(), st.integers(0, 40)), max_size=80),
)
def test_no_address_is_given_twice(length: int, steps: list[int | None]) -> None:
    (record,) = ipam.complete([PoolRecord(f"10.20.0.0/{length}")])
    pool, out = ipam.Pool(record), []
    for step in steps:
        if step is None or not out:
            address = pool.take_next()
            if address is None:
                assert len(out) == max(1, 2 ** (32 - length) - 3)
                continue
            assert address not in out
            assert address in ip_network(record.subnet)
            assert str(address) != record.gateway
            out.append(address)
        else:
            pool.release(out.pop(step % len(out)))


@given(st.integers(1, 128))
def test_an_ipv6_pool_of_any_size_answers_at_once(length: int) -> None:
    network = IPv6Network(("fd12::", length), strict=False)
    pool = ipam.Pool(ipam.complete([PoolRecord(str(network))])[0])
    address = pool.take_next()
    assert address is None or address in network
    assert (address is None) == (length == 128)


@given(st.lists(st.integers(0, 255), unique=True, max_size=30))
def test_chosen_subnets_avoid_what_is_used(used: list[int]) -> None:
    networks = [IPv4Network((10 << 24 | third << 8, 24)) for third in used]
    chosen = ipam.choose([AddressPool("10.0.0.0/16", 24)], networks)
    assert not any(chosen.overlaps(network) for network in networks)


def test_default_pools_run_out() -> None:
    used: list[ipam.Network] = []
    for _ in range(31):
        used.append(ipam.choose(DEFAULT_POOLS, used))
    assert str(used[0]) == "172.17.0.0/16"
    assert str(used[-1]) == "192.168.240.0/20"
    with pytest.raises(ipam.NoPoolLeft, match="all predefined address pools have been fully subnetted"):
        ipam.choose(DEFAULT_POOLS, used)


@pytest.mark.parametrize(
    "record",
    [
        PoolRecord("10.0.0.1/24"),
        PoolRecord("ten"),
        PoolRecord("10.0.0.0/24", "fd00::/64"),
        PoolRecord("10.0.0.0/24", "10.0.0.0/16"),
        PoolRecord("10.0.0.0/24", "", "10.0.1.1"),
        PoolRecord("10.0.0.0/24", "", "", {"a": "10.0.1.1"}),
        PoolRecord("10.0.0.0/24", "", "", {"a": "b"}),
    ],
)
def test_pools_that_make_no_sense(record: PoolRecord) -> None:
    with pytest.raises(ipam.InvalidPool):
        ipam.complete([record])


def test_mac_of_an_address() -> None:
    assert ipam.mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"


@given(st.binary(min_size=8, max_size=8))
def test_unique_local_subnets(seed: bytes) -> None:
    network = ipam.unique_local(seed)
    assert network.prefixlen == 64
    assert network.subnet_of(IPv6Network("fd00::/8"))
