"""Turn a request to join a network into an endpoint: addresses, interface name, MAC and DNS names."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network

from corral.net import addresses, driveropts, ipam, parents
from corral.net.model import Endpoint, EndpointRequest, InvalidNetwork, NetworkRecord, NetworkRefused
from corral.net.registry import Registry, new_id, parse_address

_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")


def check_kind(record: NetworkRecord, request: EndpointRequest) -> None:
    """Refuse endpoints on a template, and fixed addresses on the networks that are always there."""
    if record.config_only:
        raise NetworkRefused("cannot create endpoint on configuration-only network")
    if (record.default or not record.connects) and (request.ipv4 or request.ipv6):
        raise InvalidNetwork(
            "invalid endpoint settings:\nuser specified IP address is supported on user defined networks only"
        )


def check(record: NetworkRecord, request: EndpointRequest) -> None:
    """Refuse what this network can never give: names and fixed addresses on the default bridge, a bad address."""
    check_kind(record, request)
    if record.default and request.aliases:
        raise InvalidNetwork(
            "invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks"
        )
    for family, wanted in ((4, request.ipv4), (6, request.ipv6)):
        if wanted:
            address = parse_address(wanted, family)
            if not any(address in ip_network(pool.subnet) for pool in record.pools):
                raise ipam.AddressOutsidePool(wanted)
    if request.egress and not record.limits_egress:
        raise NetworkRefused(f"cannot limit egress on network {record.name}: the host does not route for it")
    if request.rate_in and not record.bridge:
        raise NetworkRefused(f"cannot limit what arrives on network {record.name}: it is not a bridge")
    for text in request.link_local:
        try:
            valid = addresses.address(text).is_link_local
        except ValueError:
            valid = False
        if not valid:
            raise InvalidNetwork(f"invalid endpoint settings:\ninvalid link-local IP address: {text}")
    driveropts.sysctls(request.driver_opts, "eth0")
    driveropts.interface(request.driver_opts, ())
    if request.mac and record.driver == "ipvlan":
        raise InvalidNetwork("ipvlan interfaces do not support custom mac address assignment")
    if request.mac and not _is_mac(request.mac):
        raise InvalidNetwork(f"invalid endpoint settings:\ninvalid MAC address: {request.mac}")


def build(
    registry: Registry,
    record: NetworkRecord,
    request: EndpointRequest,
    others: tuple[Endpoint, ...],
    names: tuple[str, ...],
    upstream: tuple[str, ...],
    *,
    bridge_names: bool,
) -> Endpoint:
    """A new endpoint beside a container's `others`; its addresses are taken from the registry."""
    check(record, request)
    ipv4, ipv6 = registry.allocate(record, request)
    used = {endpoint.interface for endpoint in others}
    interface = driveropts.interface(request.driver_opts, used)
    nameless = record.default and not bridge_names
    all_names = () if nameless else tuple(dict.fromkeys(filter(None, (names[0], *request.aliases, *names[1:]))))
    endpoint = Endpoint(
        record.id,
        record.name,
        new_id(),
        ipv4,
        ipv6=ipv6,
        mac="" if record.driver == "ipvlan" else (request.mac or _mac(ipv4)).lower().replace("-", ":"),
        aliases=request.aliases,
        dns_names=all_names,
        interface=interface,
        links=request.links,
        gw_priority=request.gw_priority,
        driver_opts=request.driver_opts,
        upstream=upstream,
        driver=record.driver,
        link_local=request.link_local,
        rate_in=request.rate_in,
        rate_out=request.rate_out,
        on_link=parents.on_link(record) and not record.internal,
    )
    return _with_gateways(record, endpoint)


def _with_gateways(record: NetworkRecord, endpoint: Endpoint) -> Endpoint:
    bare = record.internal or endpoint.on_link
    if endpoint.ipv4:
        pool = Registry.pool_of(record, endpoint.ipv4)
        gateway = "" if bare else pool.auxiliary.get("DefaultGatewayIPv4", pool.gateway)
        endpoint = replace(endpoint, gateway=gateway, prefix_len=ip_network(pool.subnet).prefixlen)
    if endpoint.ipv6:
        pool = Registry.pool_of(record, endpoint.ipv6)
        gateway = "" if bare else pool.auxiliary.get("DefaultGatewayIPv6", pool.gateway)
        endpoint = replace(endpoint, gateway6=gateway, prefix6=ip_network(pool.subnet).prefixlen)
    return endpoint


def renamed(endpoint: Endpoint, old: str, new: str) -> Endpoint:
    """The endpoint of a container that is now called `new`."""
    return replace(endpoint, dns_names=tuple(dict.fromkeys(new if n == old else n for n in endpoint.dns_names)))


def _mac(ipv4: str) -> str:
    return ipam.mac_of(IPv4Address(ip_address(ipv4))) if ipv4 else "02:42:" + os.urandom(4).hex(":")


def _is_mac(text: str) -> bool:
    parts = text.replace("-", ":").split(":")
    if len(parts) != 6 or any(len(part) != 2 for part in parts):
        return False
    if not all(set(part) <= _HEXADECIMAL for part in parts):
        return False
    return not int(parts[0], 16) & 1  # a group address cannot be an interface's
