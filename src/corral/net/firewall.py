"""Chains of a packet filter as values, and what they do with a packet that is known in part.  Pure.

For diagnosis only (`corral port check`): no decision about a packet is made from this.  What a rule asks and we do not
know, or do not understand, is "perhaps": such a rule may decide, and is told as one that may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

Packet = Mapping[str, str]  # field to value; a field that is not there is not known

UNKNOWN = "?"  # the field of a match that nobody here understands
DECIDING = ("accept", "drop", "reject")
_PORTS, _ADDRESSES, _LINKS = ("sport", "dport"), ("saddr", "daddr"), ("iifname", "oifname")
_DEPTH = 16  # the kernel's limit of jumps


@dataclass(frozen=True, slots=True)
class Match:
    """One condition: a field has one of some values (ranges `a-b`, networks, `*` after a prefix of a link's name)."""

    field: str
    values: tuple[str, ...] = ()
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """`verdict` is one of DECIDING, `jump`, `goto`, `return`, "" (goes on) or UNKNOWN; `text` is what people read."""

    text: str
    matches: tuple[Match, ...]
    verdict: str = ""
    target: str = ""  # of a jump


@dataclass(frozen=True, slots=True)
class Chain:
    """`hook` and `policy` are empty where no packet begins; `source` is the table, `ip filter (legacy)` for example."""

    source: str
    name: str
    family: str  # ip, ip6, inet
    rules: tuple[Rule, ...]
    hook: str = ""
    priority: int = 0
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with who made it; `rule` is empty when it is the chain's policy."""

    verdict: str
    source: str
    chain: str
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of a packet: `final`, unless one of `perhaps` (all of another verdict) decides before."""

    final: Decision
    perhaps: tuple[Decision, ...] = ()

    @property
    def answer(self) -> str:
        """`yes`, `no` or `depends`: whether the packet gets through."""
        if self.perhaps:
            return "depends"
        return "yes" if self.final.verdict == "accept" else "no"


def judge(chains: Iterable[Chain], hook: str, packet: Packet) -> list[Outcome]:
    """What each chain of a hook says, in the order in which the kernel asks; it ends with one that surely drops."""
    every = list(chains)
    found = []
    for chain in sorted((one for one in every if one.hook == hook), key=lambda one: one.priority):
        if chain.family != "inet" and chain.family != packet["family"]:
            continue
        siblings = {one.name: one for one in every if one.source == chain.source}
        outcome = _through(chain, siblings, packet)
        found.append(outcome)
        if outcome.answer == "no":
            break
    return found


def matches(match: Match, packet: Packet) -> bool | None:
    """Whether a packet fulfils a condition; None: cannot tell."""
    known = packet.get(match.field)
    if match.field == UNKNOWN or known is None:
        return None
    found = [_fits(match.field, value, known) for value in match.values]
    if True in found:
        return not match.negated
    return None if None in found else match.negated


def _fits(field: str, wanted: str, known: str) -> bool | None:
    try:
        if field in _PORTS:
            first, _, last = wanted.partition("-")
            return int(first) <= int(known) <= int(last or first)
        if field in _ADDRESSES:
            return _within(wanted, known)
    except ValueError:
        return None  # a name of a port, or of a set
    if field == "mark":
        return True if wanted == known else None  # other bits than ours may be anything
    if field in _LINKS and wanted.endswith("*"):
        return known.startswith(wanted[:-1])
    return wanted == known


def _within(wanted: str, known: str) -> bool:
    address = ip_address(known)
    first, _, last = wanted.partition("-")
    if last:
        low, high = ip_address(first), ip_address(last)
        return low.version == address.version and int(low) <= int(address) <= int(high)
    return address in ip_network(wanted, strict=False)


def _all(rule: Rule, packet: Packet) -> bool | None:
    found = [matches(match, packet) for match in rule.matches]
    return False if False in found else None if None in found else True


def _through(chain: Chain, siblings: Mapping[str, Chain], packet: Packet) -> Outcome:
    final, perhaps = _walk(chain, siblings, packet, 0)
    if final is None or final.verdict == "return":
        final = Decision(chain.policy or "accept", chain.source, chain.name)
    accepted = final.verdict == "accept"
    different = [one for one in perhaps if one.verdict == UNKNOWN or (one.verdict == "accept") != accepted]
    return Outcome(final, tuple(dict.fromkeys(different)))


def _walk(
    chain: Chain, siblings: Mapping[str, Chain], packet: Packet, depth: int
) -> tuple[Decision | None, list[Decision]]:
    """What surely decides in a chain (None: nothing), and what may decide before."""
    perhaps: list[Decision] = []
    for rule in chain.rules if depth <= _DEPTH else ():
        fits = _all(rule, packet)
        if fits is False or not rule.verdict:
            continue
        sure, more = _reached(rule, chain, siblings, packet, depth)
        perhaps += more
        if sure is None:
            continue
        if fits and sure.verdict != UNKNOWN:
            # Who perhaps left this chain before is not met by what is decided here.
            return sure, [replace(one, verdict=UNKNOWN) if one.verdict == "return" else one for one in perhaps]
        perhaps.append(sure)
    return None, [one for one in perhaps if one.verdict != "return"]


def _reached(
    rule: Rule, chain: Chain, siblings: Mapping[str, Chain], packet: Packet, depth: int
) -> tuple[Decision | None, list[Decision]]:
    """The same of one rule that a packet fulfils."""
    if rule.verdict not in ("jump", "goto"):
        return Decision(rule.verdict, chain.source, chain.name, rule.text), []
    inside, perhaps = None, list[Decision]()
    if rule.target in siblings:
        inside, perhaps = _walk(siblings[rule.target], siblings, packet, depth + 1)
    if (inside is None or inside.verdict == "return") and rule.verdict == "goto":
        return Decision("return", chain.source, chain.name, rule.text), perhaps
    return (None if inside is not None and inside.verdict == "return" else inside), perhaps
