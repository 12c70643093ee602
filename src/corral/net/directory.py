"""Who is called what on which user-defined network.

Written by the network thread, read by the event loop: every step is one dictionary operation, and values are
replaced whole, so a reader sees the state before or after, never between.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from corral.net.model import Endpoint

Address = IPv4Address | IPv6Address


class Directory:
    """Names to endpoints, per network."""

    def __init__(self) -> None:
        self._names: dict[tuple[str, str], tuple[Endpoint, ...]] = {}
        self._addresses: dict[tuple[str, Address], Endpoint] = {}
        self._networks: dict[str, str] = {}  # lower-case name -> id
        self._subnets: dict[str, tuple[IPv4Network | IPv6Network, ...]] = {}

    def add_network(self, network_id: str, name: str, subnets: tuple[IPv4Network | IPv6Network, ...]) -> None:
        """Know a network."""
        self._networks[name.lower()] = network_id
        self._subnets[network_id] = subnets

    def remove_network(self, network_id: str, name: str) -> None:
        """Forget a network."""
        self._networks.pop(name.lower(), None)
        self._subnets.pop(network_id, None)

    def add(self, endpoint: Endpoint) -> None:
        """Know an endpoint by its names; one without names (default bridge) stays unknown."""
        for name in endpoint.dns_names:
            key = (endpoint.network_id, name.lower())
            self._names[key] = (*self._names.get(key, ()), endpoint)
        if endpoint.dns_names:
            for text in filter(None, (endpoint.ipv4, endpoint.ipv6)):
                self._addresses[endpoint.network_id, ip_address(text)] = endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Forget an endpoint."""
        for name in endpoint.dns_names:
            key = (endpoint.network_id, name.lower())
            left = tuple(e for e in self._names.get(key, ()) if e.endpoint_id != endpoint.endpoint_id)
            if left:
                self._names[key] = left
            else:
                self._names.pop(key, None)
        for text in filter(None, (endpoint.ipv4, endpoint.ipv6)):
            self._addresses.pop((endpoint.network_id, ip_address(text)), None)

    def find(self, network_id: str, name: str) -> tuple[Endpoint, ...]:
        """Endpoints called `name` (lower case) or `name.network`."""
        found = self._names.get((network_id, name))
        if found is None and "." in name:
            front, _, network = name.rpartition(".")
            if self._networks.get(network) == network_id:
                found = self._names.get((network_id, front))
        return found or ()

    def at(self, network_id: str, address: Address) -> Endpoint | None:
        """Who has an address."""
        return self._addresses.get((network_id, address))

    def ours(self, network_id: str, address: Address) -> bool:
        """Whether an address is in the network's subnets."""
        return any(address in subnet for subnet in self._subnets.get(network_id, ()))
