"""Published ports behind the host's own input rules (`publish-policy: host-firewall`), as text of rules.  Pure.

A packet for a published port is forwarded, so the host's input rules never see it.  With this policy the first packet
of a connection from outside is not rewritten: it goes on to the host itself, through every chain of the input hook,
whoever wrote it.  What comes out behind all of them (our chain is the last) was accepted.  Its connection is noted
in `passed4` or `passed6`, the packet goes to a log group that we listen to and sends it again (`admission`), and this
time it is rewritten.  If nobody listens, the client's own second try, a second later, finds the connection noted.

What comes from the host itself and from containers is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable

from corral.net.model import Element

_PASSED_S = 10  # longer than a client waits before it tries again, at first
_PER_SECOND, _BURST = 10000, 2000  # packets that we send again; the others wait for the client's second try

_SKELETON = """
add set inet {t} screened4 {{ type inet_proto . inet_service; }}
add set inet {t} screened6 {{ type inet_proto . inet_service; }}
add set inet {t} screened4at {{ type ipv4_addr . inet_proto . inet_service; }}
add set inet {t} screened6at {{ type ipv6_addr . inet_proto . inet_service; }}
add set inet {t} passed4 {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; size 65536; \
flags dynamic,timeout; timeout {seconds}s; }}
add set inet {t} passed6 {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service; size 65536; \
flags dynamic,timeout; timeout {seconds}s; }}
add chain inet {t} screen {{ type filter hook input priority 2000000000; policy accept; }}
add chain inet {t} admit
add rule inet {t} screen iifname "lo" return
add rule inet {t} screen iifname @bridges return
add rule inet {t} screen ct state != new return
add rule inet {t} screen ip daddr . meta l4proto . th dport @screened4at jump admit
add rule inet {t} screen meta nfproto ipv4 meta l4proto . th dport @screened4 jump admit
add rule inet {t} screen ip6 daddr . meta l4proto . th dport @screened6at jump admit
add rule inet {t} screen meta nfproto ipv6 meta l4proto . th dport @screened6 jump admit
add rule inet {t} admit add @passed4 {{ ip saddr . ip daddr . meta l4proto . th sport . th dport }}
add rule inet {t} admit add @passed6 {{ ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport }}
"""


def entry(table: str) -> str:
    """The rules of `prerouting` that rewrite only for containers, and for connections that have passed."""
    return f"""add rule inet {table} prerouting iifname @bridges fib daddr type local jump ports
add rule inet {table} prerouting ip saddr . ip daddr . meta l4proto . th sport . th dport @passed4 jump ports
add rule inet {table} prerouting ip6 saddr . ip6 daddr . meta l4proto . th sport . th dport @passed6 jump ports
"""


def skeleton(table: str, group: int | None) -> str:
    """The sets and chains; `group` is where packets are told, None when nobody listens."""
    text = _SKELETON.format(t=table, seconds=_PASSED_S)
    if group is not None:
        limit = f"limit rate {_PER_SECOND}/second burst {_BURST} packets"
        text += f"add rule inet {table} admit {limit} log group {group} snaplen 65535\n"
    return text + f"add rule inet {table} admit drop\n"


def of(elements: Iterable[Element]) -> list[Element]:
    """The ports among elements, as those that are screened."""
    return [
        Element(element.family, element.set.replace("port", "screened"), element.key)
        for element in elements
        if element.set.startswith("port")
    ]
