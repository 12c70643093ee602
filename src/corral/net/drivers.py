"""Network drivers: which options each understands and what a request to create a network must fulfil.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

from corral.net import addresses, ipam, parents, templates
from corral.net.model import AddressPool, InvalidNetwork, NetworkSpec, PoolRecord, PredefinedNetwork, UnknownDriver
from corral.net.plan import MTU_OPTION
from corral.net.rules import HOST_BINDING, OPTION

Network = IPv4Network | IPv6Network

PREDEFINED = ("bridge", "host", "none")
BRIDGE_NAME = OPTION + "name"
_MODES = ("", "nat", "nat-unprotected", "routed", "isolated")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def check_spec(spec: NetworkSpec) -> None:
    """Refuse what can never be created; InvalidNetwork, UnknownDriver, PredefinedNetwork."""
    if not spec.name.strip():
        raise InvalidNetwork("invalid network name: name is empty")
    if spec.name in PREDEFINED:
        raise PredefinedNetwork(spec.name, "create")
    # Docker takes almost any name; a name that is a path or has control characters breaks its own clients.
    if not set(spec.name) <= _NAME or not spec.name[0].isalnum():
        raise InvalidNetwork(f"invalid network name: {spec.name}: only [a-zA-Z0-9][a-zA-Z0-9_.-]* are allowed")
    if spec.config_only:
        templates.check(spec)
        return
    if spec.driver in ("host", "null"):
        raise InvalidNetwork(f'only one instance of "{spec.driver}" network is allowed')
    if spec.driver not in ("bridge", *parents.DRIVERS):
        raise UnknownDriver(spec.driver)
    if spec.ipam_driver != "default":
        raise UnknownDriver(spec.ipam_driver)
    if not spec.ipv4 and not spec.ipv6:
        raise InvalidNetwork("IPv4 or IPv6 must be enabled")
    _check_options(spec)
    if spec.driver in parents.DRIVERS:
        parents.check(spec)


def _check_options(spec: NetworkSpec) -> None:
    for key, value in spec.options.items():
        if key == MTU_OPTION and not (value.isdigit() and 68 <= int(value) <= 65535):
            raise InvalidNetwork(f"invalid MTU: {value}")
        if key == HOST_BINDING and not _is_address(value):
            raise InvalidNetwork(f"failed to parse {key} value: {value} (nil ip)")
        if key.startswith(OPTION + "gateway_mode_ipv") and value not in _MODES:
            raise InvalidNetwork(f"unknown gateway mode {value}")
        if key in (OPTION + "enable_icc", OPTION + "enable_ip_masquerade") and value.lower() not in (
            "true",
            "false",
            "1",
            "0",
        ):
            raise InvalidNetwork(f"invalid boolean for {key}: {value}")
    for family in (4, 6):
        if spec.options.get(f"{OPTION}gateway_mode_ipv{family}") == "isolated" and not spec.internal:
            raise InvalidNetwork("gateway mode 'isolated' can only be used for an internal network")
    name = spec.options.get(BRIDGE_NAME, "")
    if len(name) > 15 or not set(name) <= _NAME:
        raise InvalidNetwork(f"invalid bridge interface name: {name}")


def _is_address(text: str) -> bool:
    try:
        addresses.address(text)
    except ValueError:
        return False
    return True


def choose_pools(
    spec: NetworkSpec, defaults: Iterable[AddressPool], used: list[Network], foreign: list[Network], seed: bytes
) -> tuple[PoolRecord, ...]:
    """The pools of a new network: those asked for, completed, or chosen ones.

    `used` are the subnets of other networks (an overlap is refused), `foreign` those that the host routes elsewhere
    (only avoided when choosing); `seed` makes an IPv6 subnet unique.
    """
    asked = ipam.complete(spec.pools)
    for pool in asked:
        if any(ipam.overlaps(ip_network(pool.subnet), network) for network in used):
            raise ipam.PoolOverlaps
    families = {ip_network(pool.subnet).version for pool in asked}
    chosen: list[PoolRecord] = []
    if spec.ipv4 and 4 not in families:
        chosen.append(PoolRecord(str(ipam.choose(defaults, [*used, *foreign]))))
    if spec.ipv6 and 6 not in families:
        chosen.append(PoolRecord(str(ipam.unique_local(seed))))
    return tuple(_gateway_less(spec, pool) for pool in (*asked, *ipam.complete(chosen)))


def _gateway_less(spec: NetworkSpec, pool: PoolRecord) -> PoolRecord:
    """The pool without a gateway where the bridge gets no address."""
    version = ip_network(pool.subnet).version
    if spec.options.get(f"{OPTION}gateway_mode_ipv{version}") != "isolated":
        return pool
    return PoolRecord(pool.subnet, pool.range, "", pool.auxiliary)
