"""The values that networks are made of and the errors about them.  No effects.

`*Record` are Structs because they are kept in the database (table `network`); the others live in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from corral import errors


class PoolRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """One subnet of a network: CIDR texts; `range` and `gateway` may be empty, `auxiliary` maps names to addresses."""

    subnet: str
    range: str = ""
    gateway: str = ""
    auxiliary: dict[str, str] = {}


class NetworkRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a network while nobody uses it.  `created` is RFC 3339 with nanoseconds."""

    id: str
    name: str
    driver: str
    created: str
    scope: str = "local"
    internal: bool = False
    attachable: bool = False
    ipv4: bool = True
    ipv6: bool = False
    pools: tuple[PoolRecord, ...] = ()
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    bridge: str = ""  # the interface; empty for host and none
    default: bool = False  # the default bridge: no names, links instead
    foreign_bridge: bool = False  # the administrator made the interface: it is not ours to delete
    parent: str = ""  # of macvlan and ipvlan: the interface that the containers' are on
    parent_ours: bool = False  # we made it: a VLAN's, or one that leads nowhere
    config_only: bool = False  # a template for other networks; nothing on the host, and containers cannot be on it
    config_from: str = ""  # the name of the template that it was made from

    @property
    def limits_egress(self) -> bool:
        """Whether all that its containers send can be led through the host: it needs an address there."""
        return bool(self.bridge) and all(pool.gateway for pool in self.pools)

    @property
    def connects(self) -> bool:
        """Whether containers get interfaces of it: not of host and none."""
        return bool(self.bridge or self.parent)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A request to create a network, in Docker's terms; `pools` may be empty (then one is chosen)."""

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    ipv4: bool = True
    ipv6: bool = False
    pools: tuple[PoolRecord, ...] = ()
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    config_only: bool = False
    config_from: str = ""


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """One network that a container wants; addresses and `mac` are None to have them chosen.

    `links` are (container id, alias) pairs whose alias is resolvable for this container only.
    """

    network: str
    aliases: tuple[str, ...] = ()
    ipv4: str | None = None
    ipv6: str | None = None
    mac: str | None = None
    links: tuple[tuple[str, str], ...] = ()
    driver_opts: dict[str, str] = field(default_factory=dict)
    gw_priority: int = 0
    link_local: tuple[str, ...] = ()
    rate_in: int = 0  # bytes a second that arrive and that are sent; 0 is any
    rate_out: int = 0
    egress: bool = False  # the container has an egress list


@dataclass(frozen=True, slots=True)
class PortBinding:
    """A published port.  `host_ip` "" is every address; `host_port` 0 is any, or any up to `host_port_end`."""

    proto: str
    container_port: int
    host_ip: str = ""
    host_port: int = 0
    host_port_end: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A container's place in a network; empty texts and zero prefixes where it has no such address."""

    network_id: str
    network_name: str
    endpoint_id: str
    ipv4: str = ""
    prefix_len: int = 0
    gateway: str = ""
    ipv6: str = ""
    prefix6: int = 0
    gateway6: str = ""
    mac: str = ""
    aliases: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    interface: str = ""
    links: tuple[tuple[str, str], ...] = ()
    gw_priority: int = 0
    driver_opts: dict[str, str] = field(default_factory=dict)
    upstream: tuple[str, ...] = ()  # whom the embedded DNS server asks in turn
    driver: str = "bridge"
    on_link: bool = False  # the default route has no gateway
    link_local: tuple[str, ...] = ()  # additional addresses, as given
    rate_in: int = 0
    rate_out: int = 0


@dataclass(frozen=True, slots=True)
class Attachment:
    """What `attach` did: endpoints in the order asked for, and ports with the host ports that were chosen.

    A port published on every address appears twice, for 0.0.0.0 and for `::`, as Docker shows it.
    """

    endpoints: tuple[Endpoint, ...]
    ports: tuple[PortBinding, ...]
    sandbox: str
    embedded: bool = False  # whether the container has our DNS server


@dataclass(frozen=True, slots=True)
class Passed:
    """What went through something: towards the container, and from it."""

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a container received and sent, by network name, and what of it came through published ports.

    A port is (protocol, host port); of one that is published at several addresses all are counted together.
    """

    networks: dict[str, Passed]
    ports: dict[tuple[str, int], Passed]


@dataclass(frozen=True, slots=True)
class AddressPool:
    """A place to cut subnets from: `base` (CIDR) into subnets of `size` bits."""

    base: str
    size: int


DEFAULT_POOLS = (
    *(AddressPool(f"172.{second}.0.0/16", 16) for second in range(17, 32)),
    AddressPool("192.168.0.0/16", 20),
)


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a set or map of the packet filter's `family TABLE`; `value` is "" in a set."""

    family: str
    set: str
    key: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How this daemon does networks.  Daemons on one machine differ in `bridge` and `table`."""

    bridge: str = "corral0"  # "none": no default bridge network
    bip: str = ""  # address and prefix of the default bridge; empty: cut from `pools`
    fixed_cidr: str = ""
    default_gateway: str = ""
    pools: tuple[AddressPool, ...] = DEFAULT_POOLS
    mtu: int = 1500
    bridge_names: bool = False  # containers on the default bridge find each other by name
    packet_filter: bool = True  # dockerd's --iptables
    ip_forward: bool = True
    ip_masq: bool = True
    icc: bool = True
    userland_proxy: bool = True
    default_host_ip: str = ""  # dockerd's --ip
    host_firewall: bool = False  # the host's input rules decide who reaches published ports
    ipv6: bool = False
    fixed_cidr_v6: str = ""
    dns: tuple[str, ...] = ()
    exec_root: str = "/run/corral"
    table: str = "corral"


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network with who uses it now (container id to endpoint)."""

    record: NetworkRecord
    endpoints: dict[str, Endpoint]
    usage: dict[str, tuple[int, int]] = field(default_factory=dict)  # by subnet: in use, can be given out


class NoSuchNetwork(errors.NotFound):
    """No network has this name or id."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"network {ref} not found")


class AmbiguousNetwork(errors.InvalidParameter):
    """An id prefix or a name fits several networks."""

    def __init__(self, ref: str, count: int) -> None:
        super().__init__(f"network {ref} is ambiguous ({count} matches found on name)")


class NetworkNameTaken(errors.Conflict):
    """The name exists."""

    def __init__(self, name: str) -> None:
        super().__init__(f"network with name {name} already exists")


class PredefinedNetwork(errors.Forbidden):
    """bridge, host and none are not for removal or creation."""

    def __init__(self, name: str, verb: str) -> None:
        text = (
            f"{name} is a pre-defined network and cannot be removed"
            if verb == "remove"
            else f"operation is not permitted on predefined {name} network"
        )
        super().__init__(text)


class NetworkInUse(errors.Forbidden):
    """Containers are still connected."""

    def __init__(self, record: NetworkRecord, users: tuple[str, ...]) -> None:
        listed = " ".join(users)
        super().__init__(
            f"error while removing network: network {record.name} id {record.id} has active endpoints ({listed})"
        )


class InvalidNetwork(errors.InvalidParameter):
    """A create or connect request that can never work."""


class NetworkRefused(errors.Forbidden):
    """A request that the present state or the network's kind forbids (Docker answers 403)."""


class UnknownDriver(errors.NotFound):
    """No such driver."""

    def __init__(self, name: str) -> None:
        super().__init__(f'could not find plugin {name} in v1 plugin registry: plugin "{name}" not found')


class PortsFailed(errors.System):
    """A port could not be published; Docker's words."""

    def __init__(self, name: str, endpoint_id: str, reason: str) -> None:
        super().__init__(
            f"driver failed programming external connectivity on endpoint {name} ({endpoint_id}): {reason}"
        )


class SandboxFailed(errors.System):
    """The kernel refused a step of the set-up of `what`: a container, a network or the host."""

    def __init__(self, what: str, error: OSError) -> None:
        about = f" ({error.filename})" if error.filename else ""
        super().__init__(f"cannot set up the network of {what}: {error.strerror}{about}")
