"""A container with an egress list, as rules of the packet filter.  Pure; `egressfilter` applies them.

Two tables, which are there while some container has a list:

`bridge TABLE_egress` sends every frame of such a container, and every frame to it, up to the host instead of straight
to the neighbour, so that there is one place that decides, with connection tracking (which bridges lack in many
kernels).  It drops what could go around that: tagged frames, protocols that are not IP, addresses of nobody.

`inet TABLE_egress` looks the sender up and goes to its chain:

    c_ID    answers pass; then what is denied, what a rule names with its port, other DNS, what else is allowed
    r_ID    refused: told to whoever reads the log, and to the sender
    nK_ID   addresses that names with the K-th service stand for, for as long as DNS said
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from corral.net import publicdns
from corral.net.egress import PROTOCOLS, Address, Policy, Rule, Service
from corral.net.model import Endpoint
from corral.net.plan import host_link

_LOG_BYTES = 64  # of a packet: both headers
_NEIGHBOUR = "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld2-listener-report"


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint of a container, and the MAC of its bridge."""

    bridge: str
    bridge_mac: str
    endpoint: Endpoint

    @property
    def port(self) -> str:
        """Its port on the bridge, quoted."""
        return f'"{host_link(self.endpoint.endpoint_id)}"'

    def addresses(self) -> Iterator[tuple[int, str]]:
        """(IP version, address)."""
        for text in (self.endpoint.ipv4, self.endpoint.ipv6, *self.endpoint.link_local):
            if text:
                yield ip_address(text).version, text


@dataclass(frozen=True, slots=True)
class Listed:
    """A container's list and where it applies; `key` is the short id."""

    key: str
    policy: Policy
    places: tuple[Place, ...]

    def set_of(self, service: Service, version: int) -> str:
        """The set of resolved addresses with a service."""
        return f"n{self.policy.services.index(service)}_{version}_{self.key}"


@dataclass(frozen=True, slots=True)
class Resolved:
    """An address that a name stands for, reached with a service."""

    service: Service
    address: Address


_TABLES = """
add chain inet {t} egress {{ type filter hook prerouting priority -150; policy accept; }}
add map inet {t} from4 {{ type ifname . ipv4_addr : verdict; }}
add map inet {t} from6 {{ type ifname . ipv6_addr : verdict; }}
add set inet {t} doh4 {{ type ipv4_addr; elements = {{ {doh4} }}; }}
add set inet {t} doh6 {{ type ipv6_addr; elements = {{ {doh6} }}; }}
add rule inet {t} egress iifname . ip saddr vmap @from4
add rule inet {t} egress iifname . ip6 saddr vmap @from6
add chain bridge {t} divert {{ type filter hook prerouting priority -290; policy accept; }}
add set bridge {t} listed {{ type ifname; }}
add set bridge {t} own4 {{ type ifname . ipv4_addr; }}
add set bridge {t} own6 {{ type ifname . ipv6_addr; }}
add map bridge {t} to {{ type ether_addr : ether_addr; }}
add map bridge {t} via {{ type ifname : ether_addr; }}
add rule bridge {t} divert iifname != @listed icmpv6 type {{ {nd} }} accept
add rule bridge {t} divert iifname != @listed meta protocol {{ ip, ip6 }} ether daddr set ether daddr map @to \
meta pkttype set host
add rule bridge {t} divert iifname != @listed accept
add rule bridge {t} divert meta protocol != {{ ip, ip6, arp }} drop
add rule bridge {t} divert ether type != {{ ip, ip6, arp }} drop
add rule bridge {t} divert meta protocol arp accept
add rule bridge {t} divert exthdr rt exists drop
add rule bridge {t} divert ip option lsrr exists drop
add rule bridge {t} divert ip option ssrr exists drop
add rule bridge {t} divert icmpv6 type {{ {nd} }} ip6 saddr {{ ::, fe80::/10 }} \
ip6 daddr {{ fe80::/10, ff02::/16 }} accept
add rule bridge {t} divert icmpv6 type {{ {nd} }} iifname . ip6 saddr @own6 accept
add rule bridge {t} divert meta protocol ip iifname . ip saddr != @own4 drop
add rule bridge {t} divert meta protocol ip6 iifname . ip6 saddr != @own6 drop
add rule bridge {t} divert ether daddr set iifname map @via meta pkttype set host
"""

FAMILIES = ("inet", "bridge")


def table_of(table: str) -> str:
    """The name of the two tables beside those called `table`."""
    return f"{table}_egress"


def skeleton(table: str) -> str:
    """Commands that fill the two empty tables with what is there for every list."""
    text = _TABLES.format(
        t=table, nd=_NEIGHBOUR, doh4=", ".join(publicdns.ADDRESSES4), doh6=", ".join(publicdns.ADDRESSES6)
    )
    return text.replace("\\\n", "")


def clearing(table: str, family: str, listing: str) -> str:
    """Commands that empty a table, of which `nft list table` printed `listing`, without removing it."""
    text, later = f"flush table {family} {table}\n", ""
    for line in listing.splitlines():
        words = line.split()
        if line[:1] != "\t" or line[1:2] == "\t" or len(words) != 3 or words[2] != "{":
            continue
        if words[0] == "map":
            text += f"flush map {family} {table} {words[1]}\n"  # its verdicts hold chains
        later += f"delete {words[0]} {family} {table} {words[1]}\n"
    return text + later


def added(table: str, listed: Listed, resolved: Mapping[Resolved, int], group: int | None) -> str:
    """Commands that put a container's list in force; `resolved` with seconds, `group` of the log if there is one."""
    key = listed.key
    text = f"add chain inet {table} c_{key}\nadd chain inet {table} r_{key}\n"
    if group is not None:
        text += f'add rule inet {table} r_{key} limit rate 5/second burst 50 packets log prefix "{key}" '
        text += f"group {group} snaplen {_LOG_BYTES}\n"
    text += f"add rule inet {table} r_{key} meta l4proto tcp reject with tcp reset\n"
    text += f"add rule inet {table} r_{key} reject with icmpx type admin-prohibited\n"
    for service in listed.policy.services:
        for version in (4, 6):
            name = listed.set_of(service, version)
            text += f"add set inet {table} {name} {{ type ipv{version}_addr; flags timeout; }}\n"
    text += "".join(f"add rule inet {table} c_{key} {rule}\n" for rule in _rules(listed))
    text += known(table, listed, resolved)
    return text + _placed("add", table, listed)


def removed(table: str, listed: Listed) -> str:
    """Commands that take a container's list away."""
    text = _placed("delete", table, listed)
    text += "".join(f"flush chain inet {table} {one}_{listed.key}\n" for one in "cr")
    text += "".join(f"delete chain inet {table} {one}_{listed.key}\n" for one in "cr")
    for service in listed.policy.services:
        text += "".join(f"delete set inet {table} {listed.set_of(service, version)}\n" for version in (4, 6))
    return text


def known(table: str, listed: Listed, resolved: Mapping[Resolved, int]) -> str:
    """Commands that let addresses be reached for some seconds from now, whether they are there already or not."""
    grouped: dict[str, list[tuple[str, str]]] = {}
    for one, seconds in resolved.items():
        name = listed.set_of(one.service, one.address.version)
        grouped.setdefault(name, []).append((str(one.address), f"{one.address} timeout {max(seconds, 1)}s"))
    text = ""
    for name, pairs in grouped.items():
        plain, timed = ", ".join(pair[0] for pair in pairs), ", ".join(pair[1] for pair in pairs)
        # Adding what is there changes no timeout, and deleting what has just expired is an error.
        text += f"add element inet {table} {name} {{ {plain} }}\ndelete element inet {table} {name} {{ {plain} }}\n"
        text += f"add element inet {table} {name} {{ {timed} }}\n"
    return text


def forgotten(table: str, listed: Listed, gone: Iterable[Resolved]) -> str:
    """Commands that make addresses unreachable."""
    text = ""
    for one in gone:
        element = f"element inet {table} {listed.set_of(one.service, one.address.version)} {{ {one.address} }}\n"
        text += f"add {element}delete {element}"
    return text


def _placed(verb: str, table: str, listed: Listed) -> str:
    text = ""
    for place in listed.places:
        entries = [("bridge", "listed", place.port, "")]
        for version, address in place.addresses():
            entries.append(("bridge", f"own{version}", f"{place.port} . {address}", ""))
            entries.append(("inet", f"from{version}", f'"{place.bridge}" . {address}', f"goto c_{listed.key}"))
        entries.append(("bridge", "via", place.port, place.bridge_mac))
        entries.append(("bridge", "to", place.endpoint.mac, place.bridge_mac))
        for family, name, entry, value in entries:
            pair = f"{entry} : {value}" if value and verb == "add" else entry
            text += f"{verb} element {family} {table} {name} {{ {pair} }}\n"
    return text


def _rules(listed: Listed) -> Iterator[str]:
    key, policy = listed.key, listed.policy
    yield "ct state established,related accept"
    yield f"icmpv6 type {{ {_NEIGHBOUR} }} fib daddr type {{ local, multicast }} accept"
    networks = [rule for rule in policy.rules if rule.network is not None]
    for rule in networks:
        if not rule.allow:
            yield f"{_match(rule)} goto r_{key}"
    exact = [rule for rule in networks if rule.allow and _is_exact(rule)]
    for rule in exact:
        yield f"{_match(rule)} accept"
    for service in policy.services:
        if service.first:
            yield from _of_names(listed, service)
    yield f"meta l4proto {{ tcp, udp }} th dport {{ 53, 853 }} goto r_{key}"
    for version, protocol in ((4, "ip"), (6, "ip6")):
        yield f"{protocol} daddr @doh{version} meta l4proto {{ tcp, udp }} th dport 443 goto r_{key}"
    for rule in networks:
        if rule.allow and rule not in exact:
            yield f"{_match(rule)} accept"
    for service in policy.services:
        if not service.first:
            yield from _of_names(listed, service)
    yield f"goto r_{key}" if policy.closed else "accept"


def _of_names(listed: Listed, service: Service) -> Iterator[str]:
    for version, protocol in ((4, "ip"), (6, "ip6")):
        yield f"{protocol} daddr @{listed.set_of(service, version)} {_service(service)} accept"


def _is_exact(rule: Rule) -> bool:
    """One address and its port: whoever writes that for port 53 means another DNS server."""
    assert rule.network is not None
    return rule.network.prefixlen == rule.network.max_prefixlen and bool(rule.service.first)


def _match(rule: Rule) -> str:
    assert rule.network is not None
    return f"{'ip' if rule.network.version == 4 else 'ip6'} daddr {rule.network} {_service(rule.service)}"


def _service(service: Service) -> str:
    if service.proto == "icmp":
        return "meta l4proto { icmp, ipv6-icmp }"
    if not service.first:
        return f"meta l4proto {service.proto}" if service.proto else ""
    protocols = service.proto or f"{{ {', '.join(PROTOCOLS[:3])} }}"
    ports = str(service.first) if service.first == service.last else f"{service.first}-{service.last}"
    return f"meta l4proto {protocols} th dport {ports}"
