"""Who can reach a published port, and which rule decides: for `corral port check`.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from corral.net import rules
from corral.net.firewall import Chain, Decision, Outcome, Packet, judge
from corral.net.model import NetworkRecord, PortBinding
from corral.net.ports import Target

_LOOPBACK6 = "0" * 24 + "01000000"


@dataclass(frozen=True, slots=True)
class Way:
    """A published port of a container, the networks that this one is on, and whether its program listens."""

    container: str
    binding: PortBinding
    target: Target
    networks: tuple[str, ...]  # ids
    bridge: str  # the interface that published ports go through
    listens: bool | None  # None: cannot tell


@dataclass(frozen=True, slots=True)
class Situation:
    """The machine: chains of others, our bridge networks, and how we publish."""

    chains: tuple[Chain, ...]
    networks: tuple[NetworkRecord, ...]
    host_firewall: bool


@dataclass(frozen=True, slots=True)
class Client:
    """Where a packet from outside is said to come from; empty where nothing is said."""

    address: str = ""
    interface: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    """`answer` is yes, no or depends; `reason` is ours, `decisions` are of rules."""

    who: str
    answer: str
    reason: str
    decisions: tuple[Decision, ...] = ()


def of(way: Way, situation: Situation, client: Client) -> list[Reach]:
    """The answers for the world outside, for this machine, and for each of our networks."""
    found = [_from_outside(way, situation, client), _from_here(way, situation)]
    return found + [_from_network(way, situation, record) for record in situation.networks]


def _from_outside(way: Way, situation: Situation, client: Client) -> Reach:
    who = f"outside ({client.address or client.interface})" if client.address or client.interface else "outside"
    if _on_loopback(way):
        return Reach(who, "no", f"published on {way.binding.host_ip} only")
    if client.address and ip_address(client.address).version != ip_address(way.binding.host_ip).version:
        return Reach(who, "no", f"published on {way.binding.host_ip}, which has no such addresses")
    packet = _asking(way) | _known(saddr=client.address, iifname=client.interface)
    outcomes = judge(situation.chains, "prerouting", packet)
    if not _address(way):
        return _told(who, [*outcomes, *judge(situation.chains, "input", packet)], "carried by the proxy")
    if situation.host_firewall:
        outcomes += judge(situation.chains, "input", packet)
    outcomes += judge(situation.chains, "forward", _forwarded(way, packet))
    return _told(who, outcomes, "the host's input rules are asked" if situation.host_firewall else "open to all")


def _from_here(way: Way, situation: Situation) -> Reach:
    packet = _asking(way)
    if _address(way):
        packet = _forwarded(way, packet)
        del packet["oifname"], packet["mark"]  # rewritten while it leaves
        return _told("this machine", judge(situation.chains, "output", packet), "")
    packet["iifname"] = packet["oifname"] = "lo"
    outcomes = [one for hook in ("output", "input") for one in judge(situation.chains, hook, packet)]
    return _told("this machine", outcomes, "carried by the proxy")


def _from_network(way: Way, situation: Situation, record: NetworkRecord) -> Reach:
    who = f"network {record.name}"
    if record.id in way.networks and rules.flag(record, "enable_icc", True):
        return Reach(who, "yes", f"neighbours, at port {way.binding.container_port} of the container")
    if record.internal:
        return Reach(who, "no", "the network is internal")
    if _on_loopback(way):
        return Reach(who, "no", f"published on {way.binding.host_ip} only")
    packet = _asking(way) | {"iifname": record.bridge}
    outcomes = judge(situation.chains, "prerouting", packet)
    if _address(way):
        outcomes += judge(situation.chains, "forward", _forwarded(way, packet))
    else:
        outcomes += judge(situation.chains, "input", packet)
    return _told(who, outcomes, "through the host's port")


def _told(who: str, outcomes: Sequence[Outcome], reason: str) -> Reach:
    """All hooks together: one that says no is enough, and what only may decide is told with what else would."""
    for outcome in outcomes:
        if outcome.answer == "no":
            return Reach(who, "no", "", (outcome.final,))
    unsure = [outcome for outcome in outcomes if outcome.perhaps]
    if unsure:
        return Reach(who, "depends", reason, tuple(d for one in unsure for d in (*one.perhaps, one.final)))
    return Reach(who, "yes", reason, tuple(one.final for one in outcomes if one.final.rule))


def _asking(way: Way) -> dict[str, str]:
    """The first packet of a connection to the host's port, as far as it is known."""
    host = ip_address(way.binding.host_ip)
    packet = {"proto": way.binding.proto, "dport": str(way.binding.host_port), "state": "new", "type": "local"}
    packet |= {"family": "ip" if host.version == 4 else "ip6", "status": "none"}
    return packet | _known(daddr="" if int(host) == 0 else str(host))


def _forwarded(way: Way, packet: Packet) -> dict[str, str]:
    """The same after its destination was rewritten."""
    rewritten = {"daddr": _address(way), "dport": str(way.binding.container_port), "status": "dnat", "type": "unicast"}
    return {**packet, **rewritten, "oifname": way.bridge, "mark": str(rules.MARK)}


def _address(way: Way) -> str:
    """The container's address of the binding's family; empty: the proxy carries it."""
    return way.target.ipv4 if ip_address(way.binding.host_ip).version == 4 else way.target.ipv6


def _on_loopback(way: Way) -> bool:
    return ip_address(way.binding.host_ip).is_loopback


def _known(**fields: str) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


def listening(table: str, state: int) -> set[int]:
    """The ports of sockets in that state in the text of `/proc/net/tcp` and its like, but for those on loopback."""
    found = set()
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 3 and int(words[3], 16) == state:
            address, _, port = words[1].partition(":")
            if not (len(address) == 8 and address.endswith("7F")) and address != _LOOPBACK6:
                found.add(int(port, 16))
    return found


def listed(decisions: Iterable[Decision]) -> list[dict[str, str]]:
    """Decisions as the API shows them."""
    return [
        {"Verdict": one.verdict, "Table": one.source, "Chain": one.chain, "Rule": one.rule or f"policy {one.verdict}"}
        for one in decisions
    ]
