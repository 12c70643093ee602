"""The packet filter: a fixed set of rules; networks, ports and endpoints are elements of their sets.  Pure.

`inet TABLE` (what each chain is for):

    guard        before connection tracking: what claims to be 127/8 on one of our bridges is dropped
    prerouting   packets for one of the host's addresses: look their port up in the maps and rewrite
                 (`own`: not when a container asks for its own port; the proxy answers that)
    output       the same for what the host itself sends, 127.0.0.1 included
    postrouting  outbound from a network: the host's address; the host's 127.0.0.1 and hairpins: the bridge's
    forward      into a network only what is known, published or comes from the same bridge
    count_in, count_out   packets of connections that came through a published port, both ways, by (container's
                 address, protocol, host port); the counters belong to the elements

So 10,000 published ports are 10,000 map elements behind the same four rules, and adding one is one element.

`bridge TABLE` keeps a container from sending with an address (IPv4, IPv6, ARP, MAC) that belongs to another
endpoint or to the bridge, and from announcing itself as an IPv6 router (CVE-2020-13401); addresses that belong to
nobody stay allowed (virtual addresses of keepalived and such).

A verdict `accept` ends only our chain: another table may still drop.  Where the host's own forward policy is drop
the packets that we accept carry `MARK`, for which `coexist` puts one rule into that policy's chain.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address

from corral.net import screen
from corral.net.model import Element, Endpoint, NetworkRecord, PortBinding
from corral.net.ports import PROTOCOLS, Target

MARK = 0x00400000

OPTION = "com.docker.network.bridge."
HOST_BINDING = OPTION + "host_binding_ipv4"


_INET = """
add table inet {t}
add set inet {t} bridges {{ type ifname; }}
add set inet {t} internal {{ type ifname; }}
add set inet {t} masquerade4 {{ type ifname; }}
add set inet {t} masquerade6 {{ type ifname; }}
add set inet {t} open4 {{ type ifname; }}
add set inet {t} open6 {{ type ifname; }}
add set inet {t} same {{ type ifname . ifname; }}
add set inet {t} talk {{ type ifname . ifname; }}
add set inet {t} self4 {{ type ipv4_addr . ipv4_addr; }}
add set inet {t} self6 {{ type ipv6_addr . ipv6_addr; }}
add set inet {t} own4 {{ type ipv4_addr . inet_proto . inet_service; }}
add set inet {t} own6 {{ type ipv6_addr . inet_proto . inet_service; }}
add set inet {t} routed4 {{ type ipv4_addr . inet_proto . inet_service; }}
add set inet {t} routed6 {{ type ipv6_addr . inet_proto . inet_service; }}
add set inet {t} in4 {{ type ipv4_addr . inet_proto . inet_service; counter; }}
add set inet {t} in6 {{ type ipv6_addr . inet_proto . inet_service; counter; }}
add set inet {t} out4 {{ type ipv4_addr . inet_proto . inet_service; counter; }}
add set inet {t} out6 {{ type ipv6_addr . inet_proto . inet_service; counter; }}
add map inet {t} port4 {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {t} port6 {{ type inet_proto . inet_service : ipv6_addr . inet_service; }}
add map inet {t} port4at {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {t} port6at {{ type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service; }}
add chain inet {t} guard {{ type filter hook prerouting priority -300; policy accept; }}
add chain inet {t} prerouting {{ type nat hook prerouting priority -100; policy accept; }}
add chain inet {t} output {{ type nat hook output priority -100; policy accept; }}
add chain inet {t} postrouting {{ type nat hook postrouting priority 100; policy accept; }}
add chain inet {t} forward {{ type filter hook forward priority -1; policy accept; }}
add chain inet {t} count_in {{ type filter hook postrouting priority -150; policy accept; }}
add chain inet {t} count_out {{ type filter hook prerouting priority -150; policy accept; }}
add chain inet {t} ports
add chain inet {t} allow
add rule inet {t} guard iifname @bridges ip daddr 127.0.0.0/8 drop
add rule inet {t} guard iifname @bridges ip saddr 127.0.0.0/8 drop
add rule inet {t} prerouting ip daddr 127.0.0.0/8 return
{own}add rule inet {t} output fib daddr type local jump ports
add rule inet {t} ports dnat ip to ip daddr . meta l4proto . th dport map @port4at
add rule inet {t} ports dnat ip to meta l4proto . th dport map @port4
add rule inet {t} ports dnat ip6 to ip6 daddr . meta l4proto . th dport map @port6at
add rule inet {t} ports ip6 daddr ::1 return
add rule inet {t} ports dnat ip6 to meta l4proto . th dport map @port6
add rule inet {t} postrouting oifname @bridges ip saddr 127.0.0.0/8 masquerade
add rule inet {t} postrouting ct status dnat ip saddr . ip daddr @self4 masquerade
add rule inet {t} postrouting ct status dnat ip6 saddr . ip6 daddr @self6 masquerade
add rule inet {t} postrouting iifname . oifname @same ct status dnat masquerade
add rule inet {t} postrouting iifname @bridges oifname @bridges return
add rule inet {t} postrouting meta nfproto ipv4 iifname @masquerade4 masquerade
add rule inet {t} postrouting meta nfproto ipv6 iifname @masquerade6 masquerade
add rule inet {t} forward iifname != @bridges oifname != @bridges return
add rule inet {t} forward ct state established,related jump allow
add rule inet {t} forward iifname . oifname @talk jump allow
add rule inet {t} forward iifname @internal drop
add rule inet {t} forward oifname @internal drop
add rule inet {t} forward ct status dnat jump allow
add rule inet {t} forward ip daddr . meta l4proto . th dport @routed4 jump allow
add rule inet {t} forward ip6 daddr . meta l4proto . th dport @routed6 jump allow
add rule inet {t} forward meta nfproto ipv4 oifname @open4 jump allow
add rule inet {t} forward meta nfproto ipv6 oifname @open6 jump allow
add rule inet {t} forward oifname @bridges drop
add rule inet {t} forward jump allow
add rule inet {t} allow {mark}accept
add rule inet {t} count_in oifname != @bridges return
add rule inet {t} count_in ct status & dnat == 0 return
add rule inet {t} count_in ct direction reply return
add rule inet {t} count_out iifname != @bridges return
add rule inet {t} count_out ct status & dnat == 0 return
add rule inet {t} count_out ct direction original return
"""

# The original port can be looked up only where the protocol is known.
_COUNT = """add rule inet {t} count_in meta l4proto {p} ip daddr . meta l4proto . ct original proto-dst @in4
add rule inet {t} count_in meta l4proto {p} ip6 daddr . meta l4proto . ct original proto-dst @in6
add rule inet {t} count_out meta l4proto {p} ip saddr . meta l4proto . ct original proto-dst @out4
add rule inet {t} count_out meta l4proto {p} ip6 saddr . meta l4proto . ct original proto-dst @out6
"""
COUNTING = ("in4", "in6", "out4", "out6")
_COUNTED = re.compile(r"([0-9a-f.:]+ \. \w+ \. \d+) counter packets (\d+) bytes (\d+)")

# A container that asks for its own published port gets the proxy: sent back by the bridge through the port it came
# from, the packet would need hairpin mode, and with it the container's every broadcast would come back to it.
_OWN_BY_PROXY = """add rule inet {t} prerouting ip saddr . meta l4proto . th dport @own4 return
add rule inet {t} prerouting ip6 saddr . meta l4proto . th dport @own6 return
"""

_BRIDGE = """
add table bridge {t}
add set bridge {t} owned4 {{ type ipv4_addr; }}
add set bridge {t} owned6 {{ type ipv6_addr; }}
add set bridge {t} owned_mac {{ type ether_addr; }}
add set bridge {t} owner4 {{ type ifname . ipv4_addr; }}
add set bridge {t} owner6 {{ type ifname . ipv6_addr; }}
add set bridge {t} owner_mac {{ type ifname . ether_addr; }}
add set bridge {t} ours {{ type ifname; }}
add chain bridge {t} spoof {{ type filter hook prerouting priority -300; policy accept; }}
add rule bridge {t} spoof iifname != @ours return
add rule bridge {t} spoof icmpv6 type nd-router-advert drop
add rule bridge {t} spoof iifname . ether saddr != @owner_mac ether saddr @owned_mac drop
add rule bridge {t} spoof iifname . ip saddr != @owner4 ip saddr @owned4 drop
add rule bridge {t} spoof iifname . arp saddr ip != @owner4 arp saddr ip @owned4 drop
add rule bridge {t} spoof iifname . ip6 saddr != @owner6 ip6 saddr @owned6 drop
"""

FAMILIES = ("inet", "bridge")


def remove(table: str) -> str:
    """Commands that take our tables away, there or not."""
    return "".join(f"add table {family} {table}\ndelete table {family} {table}\n" for family in FAMILIES)


# The last rule of `prerouting`, unless `screen` has others.
_ENTRY = "add rule inet {t} prerouting fib daddr type local jump ports\n"

Counts = Mapping[tuple[str, str], tuple[int, int]]  # (set, key) to (packets, bytes)


def install(
    table: str, elements: Iterable[Element], *, mark: bool, proxied: bool, screening: str | None, counts: Counts
) -> str:
    """Commands that replace whatever our tables hold, in one transaction.

    `mark`: see the module; `proxied`: a proxy listens on published ports; `screening`: see `screen.skeleton`, None
    where ports are for everybody; `counts`: what was counted so far.
    """
    own = _OWN_BY_PROXY.format(t=table) if proxied else ""
    text = remove(table) + (_INET + _BRIDGE).format(
        t=table, own=own, mark=f"meta mark set meta mark or {MARK} " if mark else ""
    )
    text += "".join(_COUNT.format(t=table, p=protocol) for protocol in PROTOCOLS)
    text += _ENTRY.format(t=table) if screening is None else screening + screen.entry(table)
    return text + change("add", table, elements, counts)


def counted(set_name: str, listing: str) -> Counts:
    """What a set that counts has counted, from the text in which it is listed."""
    return {
        (set_name, key): (int(packets), int(size)) for key, packets, size in _COUNTED.findall(" ".join(listing.split()))
    }


def change(verb: str, table: str, elements: Iterable[Element], counts: Counts | None = None) -> str:
    """Commands that `add` or `delete` elements; `counts` are where counters begin."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for element in elements:
        entry = f"{element.key} : {element.value}" if element.value and verb == "add" else element.key
        before = (counts or {}).get((element.set, element.key))
        if before is not None:
            entry += f" counter packets {before[0]} bytes {before[1]}"
        grouped.setdefault((element.family, element.set), []).append(entry)
    return "".join(
        f"{verb} element {family} {table} {name} {{ {', '.join(entries)} }}\n"
        for (family, name), entries in grouped.items()
    )


def flag(record: NetworkRecord, name: str, default: bool) -> bool:
    """A boolean driver option of a bridge network."""
    return record.options.get(OPTION + name, "true" if default else "false").lower() in ("true", "1", "t")


def gateway_mode(record: NetworkRecord, family: int) -> str:
    """`nat`, `nat-unprotected`, `routed` or `isolated`."""
    return record.options.get(f"{OPTION}gateway_mode_ipv{family}", "") or "nat"


def of_network(record: NetworkRecord) -> list[Element]:
    """The elements of a bridge network."""
    bridge = f'"{record.bridge}"'
    found = [Element("inet", "bridges", bridge), Element("inet", "same", f"{bridge} . {bridge}")]
    if flag(record, "enable_icc", True):
        found.append(Element("inet", "talk", f"{bridge} . {bridge}"))
    if record.internal:
        found.append(Element("inet", "internal", bridge))
    elif flag(record, "enable_ip_masquerade", True):
        found += [
            Element("inet", f"masquerade{family}", bridge)
            for family in (4, 6)
            if gateway_mode(record, family).startswith("nat")
        ]
    if not record.internal:
        for family in (4, 6):
            if gateway_mode(record, family) == "nat-unprotected":
                found.append(Element("inet", f"open{family}", bridge))
    for pool in record.pools:
        if pool.gateway:
            found.append(Element("bridge", f"owned{ip_address(pool.gateway).version}", pool.gateway))
    return found


def of_endpoint(endpoint: Endpoint, host_link: str) -> list[Element]:
    """The elements that tie an endpoint's addresses to its bridge port."""
    port = f'"{host_link}"'
    found = [
        Element("bridge", "ours", port),
        Element("bridge", "owned_mac", endpoint.mac),
        Element("bridge", "owner_mac", f"{port} . {endpoint.mac}"),
    ]
    for family, address in ((4, endpoint.ipv4), (6, endpoint.ipv6)):
        if address:
            found.append(Element("bridge", f"owned{family}", address))
            found.append(Element("bridge", f"owner{family}", f"{port} . {address}"))
            found.append(Element("inet", f"self{family}", f"{address} . {address}"))
    for address in endpoint.link_local:
        family = ip_address(address).version
        found.append(Element("bridge", f"owned{family}", address))
        found.append(Element("bridge", f"owner{family}", f"{port} . {address}"))
    return found


def of_ports(
    bindings: Sequence[PortBinding], target: Target, *, modes: tuple[str, str] = ("nat", "nat")
) -> list[Element]:
    """The elements of published ports (as `ports.expand` shows them); `modes` are the IPv4 and IPv6 gateway modes."""
    found: list[Element] = []
    for binding in bindings:
        host = ip_address(binding.host_ip)
        address, mode = (target.ipv4, modes[0]) if host.version == 4 else (target.ipv6, modes[1])
        if not address or mode == "isolated":
            continue  # an IPv6 client of a container without IPv6: the proxy serves it
        if mode == "routed":
            key = f"{address} . {binding.proto} . {binding.container_port}"
            found.append(Element("inet", f"routed{host.version}", key))
            continue
        key, value = f"{binding.proto} . {binding.host_port}", f"{address} . {binding.container_port}"
        for name in ("own", "in", "out"):
            found.append(Element("inet", f"{name}{host.version}", f"{address} . {key}"))
        if int(host) == 0:
            found.append(Element("inet", f"port{host.version}", key, value))
        else:
            found.append(Element("inet", f"port{host.version}at", f"{host} . {key}", value))
    return list(dict.fromkeys(found))
