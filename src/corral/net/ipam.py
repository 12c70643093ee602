"""IP address management: which subnet a network gets, and which address an endpoint.  Pure.

Addresses are handed out in rising order, going round at the end, so that an address that was just released is
the last to be used again: neighbours' caches and a dying namespace still remember it.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from corral import errors
from corral.net import addresses
from corral.net.model import AddressPool, PoolRecord

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class PoolOverlaps(errors.Forbidden):
    """The subnet is used by another network."""

    def __init__(self) -> None:
        super().__init__("invalid pool request: Pool overlaps with other one on this address space")


class NoPoolLeft(errors.Forbidden):
    """Every default subnet is taken."""

    def __init__(self) -> None:
        super().__init__("all predefined address pools have been fully subnetted")


class AddressInUse(errors.Forbidden):
    """The address asked for is taken."""

    def __init__(self) -> None:
        super().__init__("Address already in use")


class AddressOutsidePool(errors.InvalidParameter):
    """The address asked for is in none of the network's subnets."""

    def __init__(self, address: str) -> None:
        super().__init__(
            f"invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {address}"
        )


class NoAddressLeft(errors.System):
    """The pool is exhausted."""

    def __init__(self, family: int, network: str, network_id: str) -> None:
        super().__init__(
            f"no available IPv{family} addresses on this network's address pools: {network} ({network_id})"
        )


class InvalidPool(errors.InvalidParameter):
    """A subnet, range, gateway or auxiliary address that makes no sense."""


def _parse(text: str, what: str) -> Network:
    try:
        return addresses.network(text)
    except ValueError as error:
        raise InvalidPool(f"invalid network config:\ninvalid {what} {text}: {error}") from error


def _parse_address(text: str, what: str) -> Address:
    try:
        return addresses.address(text)
    except ValueError as error:
        raise InvalidPool(f"invalid network config:\ninvalid {what} {text}: {error}") from error


class Pool:
    """One subnet's addresses."""

    def __init__(self, record: PoolRecord) -> None:
        """The pool of a validated record; its gateway and auxiliary addresses are taken from the start."""
        self.subnet = ip_network(record.subnet)
        within = ip_network(record.range) if record.range else self.subnet
        self._first = int(within.network_address)
        self._last = int(within.broadcast_address)
        low, high = int(self.subnet.network_address), int(self.subnet.broadcast_address)
        if self.subnet.version == 4 and self.subnet.prefixlen <= 30:
            self._first, self._last = max(self._first, low + 1), min(self._last, high - 1)
        elif self.subnet.version == 6 and self.subnet.prefixlen <= 126:
            self._first = max(self._first, low + 1)  # the subnet-router anycast address
        self.gateway = ip_address(record.gateway) if record.gateway else None
        self._taken = {int(ip_address(text)) for text in record.auxiliary.values()}
        if self.gateway is not None:
            self._taken.add(int(self.gateway))
        self._reserved = frozenset(self._taken)
        self._cursor = self._first

    def __contains__(self, address: Address) -> bool:
        return address in self.subnet

    def take(self, address: Address) -> None:
        """Take this very address of the subnet; AddressInUse."""
        if int(address) in self._taken:
            raise AddressInUse
        self._taken.add(int(address))

    def take_next(self) -> Address | None:
        """Take the next free address, None when there is none."""
        size = self._last - self._first + 1
        for _ in range(min(size, len(self._taken) + 1)):
            candidate = self._cursor
            self._cursor = candidate + 1 if candidate < self._last else self._first
            if candidate not in self._taken:
                self._taken.add(candidate)
                return type(self.subnet.network_address)(candidate)
        return None

    def usage(self) -> tuple[int, int]:
        """(addresses in use or reserved, addresses of the range that are free), at most 2**64 - 1 each."""
        ends = 0
        if self.subnet.version == 4 and self.subnet.prefixlen <= 30:
            ends = 2
        elif self.subnet.version == 6 and self.subnet.prefixlen <= 126:
            ends = 1
        within = sum(self._first <= number <= self._last for number in self._taken)
        limit = (1 << 64) - 1
        return min(ends + len(self._taken), limit), min(self._last - self._first + 1 - within, limit)

    def release(self, address: Address) -> None:
        """Give an address back; that of the gateway and auxiliary ones stay taken."""
        if int(address) not in self._reserved:
            self._taken.discard(int(address))


def complete(records: Iterable[PoolRecord]) -> tuple[PoolRecord, ...]:
    """Validated pools in canonical form, each with a gateway (the range's or subnet's first address); InvalidPool."""
    done = []
    for record in records:
        subnet = _parse(record.subnet, "subnet")
        within = _parse(record.range, "ip-range") if record.range else subnet
        if within.version != subnet.version or not within.subnet_of(subnet):  # type: ignore[arg-type]
            raise InvalidPool(f"invalid network config:\ninvalid ip-range {within}: parent subnet is {subnet}")
        for name, text in record.auxiliary.items():
            if _parse_address(text, f"auxiliary address {name}") not in subnet:
                raise InvalidPool(f"invalid network config:\ninvalid auxiliary address {text}: parent subnet {subnet}")
        gateway = record.gateway
        if gateway and _parse_address(gateway, "gateway address") not in subnet:
            raise InvalidPool(f"invalid network config:\ninvalid gateway address {gateway}: parent subnet is {subnet}")
        if not gateway:
            taken = set(record.auxiliary.values())
            base = within if within.network_address != subnet.network_address else subnet
            start = int(base.network_address) + (1 if base.num_addresses > 2 and base is subnet else 0)
            kind = type(subnet.network_address)
            gateway = next(str(kind(n)) for n in range(start, start + len(taken) + 1) if str(kind(n)) not in taken)
        done.append(PoolRecord(str(subnet), str(within) if record.range else "", gateway, dict(record.auxiliary)))
    for index, one in enumerate(done):
        if any(overlaps(ip_network(one.subnet), ip_network(other.subnet)) for other in done[:index]):
            raise InvalidPool("invalid network config:\nsubnets of one network overlap")
    return tuple(done)


def overlaps(one: Network, other: Network) -> bool:
    """Whether two subnets share an address."""
    return one.version == other.version and one.overlaps(other)


def choose(pools: Iterable[AddressPool], used: Iterable[Network]) -> Network:
    """The first subnet of `pools` that overlaps none of `used` (other networks, the host's routes); NoPoolLeft."""
    busy = [network for network in used if network.version == 4]
    for pool in pools:
        base = ip_network(pool.base)
        if base.version != 4:
            continue
        for candidate in base.subnets(new_prefix=max(pool.size, base.prefixlen)):
            if not any(overlaps(candidate, network) for network in busy):
                return candidate
    raise NoPoolLeft


def unique_local(seed: bytes) -> IPv6Network:
    """A /64 of fd00::/8 whose 40-bit global id and 16-bit subnet are the first 56 bits of `seed` (RFC 4193)."""
    return IPv6Network((b"\xfd" + seed[:7] + bytes(8), 64))


def mac_of(address: IPv4Address) -> str:
    """The locally administered MAC address that Docker derives from an IPv4 address."""
    return (b"\x02\x42" + address.packed).hex(":")
