"""What an endpoint needs in the kernel, as a value.  Pure; `sandbox` executes it."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface

from corral.net import driveropts, parents
from corral.net.model import Endpoint, NetworkRecord

Interface = IPv4Interface | IPv6Interface
Gateway = IPv4Address | IPv6Address

MTU_OPTION = "com.docker.network.driver.mtu"


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """A veth pair: `host` is a port of bridge `master`, `name` is the container's end with its addresses.

    Of another `kind` (macvlan, ipvlan) there is only `name`, and `master` is its parent; mtu 0 is the parent's.
    """

    host: str
    master: str
    name: str
    mac: str
    mtu: int
    addresses: tuple[Interface, ...]
    gateways: tuple[Gateway, ...]  # default routes; empty when another endpoint has them
    ipv6: bool
    hairpin: bool = False  # the container reaches its own published ports through the bridge
    kind: str = "veth"
    mode: int = 0
    flag: int = 0
    rate_in: int = 0  # bytes a second towards the container, and from it; 0 is any
    rate_out: int = 0
    device_routes: tuple[int, ...] = ()  # IP versions whose default route is the interface itself
    sysctls: tuple[tuple[str, str], ...] = ()  # paths below /proc/sys inside, and values

    def describe(self) -> str:
        """The plan as the commands an administrator would type."""
        lines = [f"ip link add {self.host} master {self.master} up mtu {self.mtu} type veth peer {self.name}"]
        if self.kind != "veth":
            lines = [f"ip link add {self.name} link {self.master} type {self.kind}"]
        lines += [f"ip address add {address} dev {self.name}" for address in self.addresses]
        lines += [f"ip route add default via {gateway} dev {self.name}" for gateway in self.gateways]
        return "\n".join(lines)


def host_link(endpoint_id: str) -> str:
    """The name of an endpoint's port on the bridge: found again from the id alone."""
    return f"veth{endpoint_id[:11]}"


def link(
    record: NetworkRecord, endpoint: Endpoint, *, default_mtu: int, families: frozenset[int], hairpin: bool
) -> LinkPlan:
    """The plan of one endpoint; `families` (4, 6) are those whose default route goes through it."""
    addresses: list[Interface] = []
    gateways: list[Gateway] = []
    if endpoint.ipv4:
        addresses.append(IPv4Interface(f"{endpoint.ipv4}/{endpoint.prefix_len}"))
    if endpoint.ipv6:
        addresses.append(IPv6Interface(f"{endpoint.ipv6}/{endpoint.prefix6}"))
    for text in endpoint.link_local:
        addresses.append(ip_interface(f"{text}/{64 if ':' in text else 16}"))
    for family, gateway in ((4, endpoint.gateway), (6, endpoint.gateway6)):
        if gateway and family in families:
            gateways.append(ip_address(gateway))
    six = any(address.version == 6 for address in addresses)
    if record.parent:
        return LinkPlan(
            "",
            record.parent,
            endpoint.interface,
            endpoint.mac,
            int(record.options.get(MTU_OPTION, 0)),
            tuple(addresses),
            tuple(gateways),
            six,
            kind=record.driver,
            mode=parents.MODES[record.driver][parents.mode(record.driver, record.options)],
            flag=parents.FLAGS[record.options.get("ipvlan_flag") or "bridge"] if record.driver == "ipvlan" else 0,
            rate_out=endpoint.rate_out,
            device_routes=device_routes(endpoint, families),
            sysctls=driveropts.sysctls(endpoint.driver_opts, endpoint.interface),
        )
    return LinkPlan(
        host_link(endpoint.endpoint_id),
        record.bridge,
        endpoint.interface,
        endpoint.mac,
        int(record.options.get(MTU_OPTION, default_mtu)),
        tuple(addresses),
        tuple(gateways),
        six,
        hairpin,
        rate_in=endpoint.rate_in,
        rate_out=endpoint.rate_out,
        sysctls=driveropts.sysctls(endpoint.driver_opts, endpoint.interface),
    )


def device_routes(endpoint: Endpoint, families: frozenset[int]) -> tuple[int, ...]:
    """Of the IP versions whose default route goes through an endpoint those that have no gateway."""
    return tuple(sorted(families)) if endpoint.on_link else ()


def default_families(endpoints: tuple[Endpoint, ...]) -> dict[str, frozenset[int]]:
    """Which endpoint id holds the default route of which family: highest priority first, then by network name."""
    chosen: dict[str, set[int]] = {endpoint.endpoint_id: set() for endpoint in endpoints}
    ranked = sorted(endpoints, key=lambda endpoint: (-endpoint.gw_priority, endpoint.network_name))
    for family in (4, 6):
        for endpoint in ranked:
            address, gateway = (endpoint.ipv4, endpoint.gateway) if family == 4 else (endpoint.ipv6, endpoint.gateway6)
            if gateway or (address and endpoint.on_link):
                chosen[endpoint.endpoint_id].add(family)
                break
    return {key: frozenset(value) for key, value in chosen.items()}


def gateway_endpoint(endpoints: tuple[Endpoint, ...]) -> Endpoint | None:
    """The endpoint that ports are published through: the one with the default route, if it is on a bridge."""
    families = default_families(endpoints)
    chosen = [endpoint for endpoint in endpoints if families[endpoint.endpoint_id]]
    found = next((e for e in chosen if 4 in families[e.endpoint_id]), chosen[0] if chosen else None)
    return found if found is not None and found.driver == "bridge" else None
