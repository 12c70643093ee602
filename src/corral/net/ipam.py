"""IP address management: which subnet a network gets, and which address an endpoint.  Pure.

Addresses are handed out in rising order, going round at the end, so that an address that was just released is
the last to be used again: neighbours' caches and a dying namespace still remember it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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

    def __init__(self, problems: Sequence[str]) -> None:
        told = problems[0] if len(problems) == 1 else "\n".join(f"* {problem}" for problem in problems)
        super().__init__(f"invalid network config:\n{told}")


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
    asked = list(records)
    problems = [problem for record in asked for problem in _problems(record)]
    if problems:
        raise InvalidPool(problems)
    done: list[PoolRecord] = []
    for record in asked:
        subnet = addresses.network(record.subnet)
        if any(overlaps(subnet, ip_network(other.subnet)) for other in done):
            raise InvalidPool(["subnets of one network overlap"])
        within = str(addresses.network(record.range)) if record.range else ""
        gateway = record.gateway or _first(ip_network(within or subnet), subnet, set(record.auxiliary.values()))
        done.append(PoolRecord(str(subnet), within, gateway, dict(record.auxiliary)))
    return tuple(done)


def _first(within: Network, subnet: Network, taken: set[str]) -> str:
    """The first address of a range, or of a subnet, that is not reserved."""
    base = within if within.network_address != subnet.network_address else subnet
    start = int(base.network_address) + (1 if base.num_addresses > 2 and base is subnet else 0)
    kind = type(subnet.network_address)
    return next(str(kind(n)) for n in range(start, start + len(taken) + 1) if str(kind(n)) not in taken)


def _problems(record: PoolRecord) -> Iterator[str]:
    """What is wrong with a pool that was asked for, in Docker's words."""
    try:
        subnet = _block(record.subnet)
    except ValueError:
        yield f"invalid subnet {record.subnet}: invalid CIDR block notation"
        return
    if _address_of(record.subnet) != subnet.network_address:
        yield f"invalid subnet {record.subnet}: it should be {subnet}"
    if record.range:
        yield from (f"invalid ip-range {record.range}: {problem}" for problem in _range_problems(record.range, subnet))
    reserved = [(f"auxiliary address {name}", text) for name, text in record.auxiliary.items()]
    if record.gateway:
        reserved.insert(0, (f"gateway {record.gateway}", record.gateway))
        if record.gateway in record.auxiliary.values():
            yield f"invalid gateway {record.gateway}: it is an auxiliary address as well"
    for what, text in reserved:
        try:
            address = addresses.address(text)
        except ValueError:
            yield f"invalid {what}: invalid address"
            continue
        if address.version != subnet.version:
            yield f"invalid {what}: parent subnet is an IPv{subnet.version} block"
        elif address not in subnet:
            yield f"invalid {what}: parent subnet {subnet} doesn't contain this address"


def _range_problems(text: str, subnet: Network) -> Iterator[str]:
    try:
        within = _block(text)
    except ValueError:
        yield "invalid CIDR block notation"
        return
    if within.version != subnet.version:
        yield f"parent subnet is an IPv{subnet.version} block"
        return
    if within.prefixlen < subnet.prefixlen:
        yield f"CIDR block is bigger than its parent subnet {subnet}"
    if _address_of(text) != within.network_address:
        yield f"it should be {within}"
    if not within.overlaps(subnet):
        yield f"parent subnet {subnet} doesn't contain ip-range"


def _block(text: str) -> Network:
    """The network of an address with a length, which may not be its first; ValueError."""
    length = text.partition("/")[2]
    if not length.isdecimal():
        raise ValueError(text)
    return ip_network(f"{_address_of(text)}/{length}", strict=False)


def _address_of(block: str) -> Address:
    return addresses.address(block.partition("/")[0])


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
