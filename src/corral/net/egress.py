"""Egress lists: where a container may send to, as people write it and as a decision.  Pure.

    allow=deb.debian.org:443,*.example.org,10.0.0.0/8:1000-2000/tcp,[2001:db8::1]:53/udp    deny=10.0.0.5    none    any

A word holds for the items that follow it.  With an `allow`, or `none`, all else is refused; with `deny` alone all
else is allowed.  What is denied stays so, whatever allows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from corral import errors
from corral.net import addresses, publicdns

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PROTOCOLS = ("tcp", "udp", "sctp", "icmp")
_MOST_RULES = 1024
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class InvalidEgress(errors.InvalidParameter):
    """An egress rule that cannot be read."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"invalid egress rule {text!r}: {reason}")


@dataclass(frozen=True, slots=True)
class Service:
    """A protocol ("": any) and its ports; 0 to 0 is any port, and with ports "" is tcp, udp and sctp."""

    proto: str = ""
    first: int = 0
    last: int = 0

    def covers(self, proto: str, port: int) -> bool:
        """Whether a packet's protocol and destination port are meant."""
        if not self.first:
            return self.proto in ("", proto)
        return proto in ((self.proto,) if self.proto else PROTOCOLS[:3]) and self.first <= port <= self.last

    def __str__(self) -> str:
        ports = "" if not self.first else f":{self.first}" + (f"-{self.last}" if self.last > self.first else "")
        return ports + (f"/{self.proto}" if self.proto else "")


@dataclass(frozen=True, slots=True)
class Rule:
    """What is allowed or denied: a `name` (lower case, perhaps `*.` in front) or a `network`."""

    allow: bool
    name: str
    network: Network | None
    service: Service

    def names(self, name: str) -> bool:
        """Whether a name (lower case) is meant; `*.example.org` means every name below, and not itself."""
        return name.endswith(self.name[1:]) if self.name.startswith("*.") else bool(self.name) and name == self.name

    def __str__(self) -> str:
        target = self.name
        if self.network is not None:
            alone = self.network.prefixlen == self.network.max_prefixlen
            target = str(self.network.network_address if alone else self.network)
            target = f"[{target}]" if self.network.version == 6 and self.service.first else target
        return f"{'allow' if self.allow else 'deny'}={target}{self.service}"


@dataclass(frozen=True, slots=True)
class Policy:
    """A container's list; `closed` when what no rule names is refused."""

    rules: tuple[Rule, ...]
    closed: bool

    @property
    def texts(self) -> tuple[str, ...]:
        """The list in its canonical form, a rule each."""
        return tuple(map(str, self.rules)) or ("none",)

    @property
    def services(self) -> tuple[Service, ...]:
        """The different services of allowed names: addresses that names stand for are kept by these."""
        return tuple(dict.fromkeys(rule.service for rule in self.rules if rule.allow and rule.name))

    def asks(self, name: str) -> bool:
        """Whether a name may be asked for."""
        found = [rule for rule in self.rules if rule.names(name)]
        if any(not rule.allow for rule in found):
            return False
        return bool(found) or not (self.closed or publicdns.is_resolver(name))

    def reached_as(self, name: str) -> tuple[Service, ...]:
        """The services that a name's addresses may be reached with."""
        return tuple(dict.fromkeys(rule.service for rule in self.rules if rule.allow and rule.names(name)))

    def permits(self, address: Address, proto: str, port: int, names: Iterable[str] = ()) -> bool:
        """Whether a new connection would be let out; `names` are those known to stand for the address."""
        fitting = [
            rule
            for rule in self.rules
            if rule.network is not None and address in rule.network and rule.service.covers(proto, port)
        ]
        if any(not rule.allow for rule in fitting):
            return False
        named = any(service.covers(proto, port) for name in names for service in self.reached_as(name))
        return not self.closed or bool(fitting) or named


def parse(texts: Iterable[str]) -> Policy | None:
    """The list that texts say; None for no list (nothing said, or `any`); InvalidEgress."""
    rules: dict[Rule, None] = {}
    none = lifted = False
    for text in texts:
        verb = ""
        for item in (part.strip() for part in text.split(",")):
            word, equals, rest = item.partition("=")
            if equals:
                verb, item = word, rest
            if verb == "" and item in ("none", "any"):
                none, lifted = none or item == "none", lifted or item == "any"
            elif verb in ("allow", "deny"):
                rules[_rule(verb == "allow", item)] = None
            else:
                raise InvalidEgress(text, "it must be allow=..., deny=..., none or any")
    if (none or lifted) and (rules or none == lifted):
        raise InvalidEgress(",".join(texts), "none and any stand alone")
    if len(rules) > _MOST_RULES:
        raise InvalidEgress(f"{next(iter(rules))},...", f"there are more than {_MOST_RULES}")
    if not rules and not none:
        return None
    return Policy(tuple(rules), none or any(rule.allow for rule in rules))


def _rule(allow: bool, item: str) -> Rule:
    target, proto = item, ""
    front, slash, end = item.rpartition("/")
    if slash and end.lower() in PROTOCOLS:
        target, proto = front, end.lower()
    ports = ""
    if target.startswith("["):
        target, bracket, ports = target[1:].partition("]")
        if not bracket or (ports and not ports.startswith(":")):
            raise InvalidEgress(item, "a bracket is not closed, or something else than a port follows it")
    elif target.count(":") == 1:
        target, colon, ports = target.partition(":")
        ports = colon + ports
    service = _service(item, proto, ports[1:] if ports else None)
    if not target:
        raise InvalidEgress(item, "it names nothing")
    if set(target) <= set("0123456789./") or ":" in target:
        try:
            return Rule(allow, "", addresses.network(target), service)
        except ValueError as error:
            raise InvalidEgress(item, str(error)) from error
    name = target.lower().removesuffix(".")
    labels = name.removeprefix("*.").split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidEgress(item, "it is neither a name, nor *.NAME, nor an address, nor ADDRESS/BITS")
    if not allow and service != Service():
        raise InvalidEgress(item, "a name is denied as a whole: it is not resolved then")
    return Rule(allow, name, None, service)


def _service(item: str, proto: str, ports: str | None) -> Service:
    if ports is None:
        return Service(proto)
    first, dash, last = ports.partition("-")
    valid = first.isascii() and first.isdecimal() and len(first) <= 5
    valid = valid and (not dash or (last.isascii() and last.isdecimal() and len(last) <= 5))
    if not valid or not 1 <= int(first) <= int(last or first) <= 65535:
        raise InvalidEgress(item, "a port is a number from 1 to 65535, or two with a dash between")
    if proto == "icmp":
        raise InvalidEgress(item, "icmp has no ports")
    return Service(proto, int(first), int(last or first))
