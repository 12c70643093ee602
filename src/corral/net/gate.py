"""What a container with an egress list may ask the embedded DNS server, and which addresses the answers let through.

One `Gate` per container.  The network thread writes `resolved`, in single dictionary operations; the event loop asks.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from corral.errors import CorralError
from corral.net.egress import Address, Network, Policy
from corral.net.listed import Resolved

GRACE_S = 30  # an address stays this much longer than DNS said: for who connects at the end of the time to live
_FRESH_S = 5  # and is renewed when less than this is left beyond it
_MOST_ADDRESSES = 4096
_MOST_NAMES = 4096

Admit = Callable[[Mapping[Resolved, tuple[str, int]]], Awaitable[None]]  # to (name, seconds)


@dataclass(slots=True)
class Gate:
    """A list at work; `admit` puts addresses into the packet filter, `note` tells of a refused question."""

    policy: Policy
    resolved: dict[Resolved, tuple[str, float]] = field(default_factory=dict)  # to (name, monotonic end)
    names: OrderedDict[Address, str] = field(default_factory=OrderedDict)  # what addresses were asked for as, last
    barred: tuple[Network, ...] = ()  # names of others do not lead here: the networks of the container itself
    admit: Admit | None = None
    note: Callable[[str], None] | None = None

    def asks(self, names: Iterable[str]) -> bool:
        """Whether one of the names of the same thing may be asked for."""
        return any(self.policy.asks(name) for name in names)

    def refuse(self, name: str) -> None:
        """Tell that a name was refused."""
        if self.note is not None:
            self.note(name)

    async def open(self, names: Iterable[str], records: Iterable[tuple[Address, int]], *, ours: bool) -> bool:
        """Let the addresses (with seconds to live) of an answer through before it is given; False if that fails.

        `ours`: the answer is about neighbours.  Answers of others that point at neighbours, the host's loopback or
        link-local addresses open nothing: whoever owns a name could lead there.
        """
        names = tuple(names)
        services = {service: name for name in names for service in self.policy.reached_as(name)}
        told = next(iter(services.values()), names[0])
        now, wanted = time.monotonic(), dict[Resolved, tuple[str, int]]()
        for address, ttl_s in records:
            if not ours and self._is_barred(address):
                continue
            self._remember(address, told)
            for service, name in services.items():
                one = Resolved(service, address)
                if self.resolved.get(one, ("", 0.0))[1] < now + ttl_s + _FRESH_S:
                    wanted[one] = (name, ttl_s + GRACE_S)
        if not wanted:
            return True
        self._expire(now)
        if self.admit is None or len(self.resolved) + len(wanted) > _MOST_ADDRESSES:
            return False
        try:
            await self.admit(wanted)
        except CorralError:
            return False
        return True

    def _is_barred(self, address: Address) -> bool:
        special = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
        return special or any(address in network for network in self.barred)

    def _remember(self, address: Address, name: str) -> None:
        self.names[address] = name
        self.names.move_to_end(address)
        while len(self.names) > _MOST_NAMES:
            self.names.popitem(last=False)

    def _expire(self, now: float) -> None:
        for one, (_, end) in list(self.resolved.items()):
            if end <= now:
                self.resolved.pop(one, None)

    def left(self) -> dict[Resolved, int]:
        """Addresses that names stand for now, with the seconds that are left."""
        now = time.monotonic()
        services = set(self.policy.services)
        return {
            one: int(end - now) + 1
            for one, (_, end) in list(self.resolved.items())
            if end > now and one.service in services
        }
