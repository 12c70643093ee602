"""Chains from the JSON and text in which libnftables lists a rule set.  Pure.  Format: libnftables-json(5)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from corral.net.firewall import DECIDING, UNKNOWN, Chain, Match, Rule

_HANDLE = re.compile(r"\s*(.*?) # handle (\d+)( \{)?$")
_HEADERS = {"saddr": "saddr", "daddr": "daddr", "protocol": "proto", "nexthdr": "proto"}
_META = {"iif": "iifname", "oif": "oifname", "iifname": "iifname", "oifname": "oifname", "l4proto": "proto"}
_SILENT = ("counter", "log", "comment", "mangle", "notrack", "ct helper", "flow", "set", "meter")
_FAMILIES = {"ipv4": "ip", "ipv6": "ip6"}


def chains(listing: Mapping[str, Any], text: str) -> list[Chain]:
    """The chains of the families ip, ip6 and inet; `text` is the same listing with handles, for people."""
    entries = [entry for entry in listing["nftables"] if _family(entry) in ("ip", "ip6", "inet")]
    sets = {(one["family"], one["table"], one["name"]): one for one in _kind(entries, "set")}
    words = dict(_texts(text))
    rules: dict[tuple[str, str, str], list[Rule]] = {}
    for one in _kind(entries, "rule"):
        place = (one["family"], one["table"])
        shown = words.get((*place, one["chain"], one["handle"]), "")
        rules.setdefault((*place, one["chain"]), []).extend(_rules(one["expr"], shown, place, sets))
    return [
        Chain(
            source=f"{one['family']} {one['table']}",
            name=one["name"],
            family=one["family"],
            rules=tuple(rules.get((one["family"], one["table"], one["name"]), ())),
            hook=one.get("hook", "") if one.get("type", "") != "nat" else "",
            priority=one.get("prio", 0),
            policy=one.get("policy", ""),
        )
        for one in _kind(entries, "chain")
    ]


def _family(entry: Mapping[str, Any]) -> str:
    return str(next(iter(entry.values())).get("family", ""))


def _kind(entries: list[Mapping[str, Any]], kind: str) -> Iterator[Mapping[str, Any]]:
    return (entry[kind] for entry in entries if kind in entry)


def _texts(listing: str) -> Iterator[tuple[tuple[str, str, str, int], str]]:
    """(family, table, chain, handle) to text of each rule."""
    family = table = chain = ""
    for line in listing.splitlines():
        words = line.split()
        if line.startswith("table "):
            family, table = words[1], words[2]
        elif words[:1] == ["chain"]:
            chain = words[1]
        elif found := _HANDLE.match(line):
            yield (family, table, chain, int(found[2])), found[1]


def _rules(expressions: list[Any], text: str, place: tuple[str, str], sets: Mapping[Any, Any]) -> Iterator[Rule]:
    """A rule, or one for each entry of its verdict map."""
    conditions: list[Match] = []
    for expression in expressions:
        name, value = _statement(expression)
        if name == "match":
            conditions += _match(value, place, sets)
        elif name in DECIDING or name in ("return", "jump", "goto"):
            target = value["target"] if name in ("jump", "goto") else ""
            yield Rule(text, tuple(conditions), name, target)
            return
        elif name == "vmap":
            entries = _entries(value)
            if entries is None:
                yield Rule(text, tuple(conditions), UNKNOWN)
            for key, verdict in entries or ():
                kind, more = _statement(verdict)
                where = _match({"op": "==", "left": value["key"], "right": key}, place, sets)
                yield Rule(
                    text, (*conditions, *where), kind if kind != "continue" else "", (more or {}).get("target", "")
                )
        elif name in ("queue", "synproxy") or (name == "xt" and isinstance(value, dict) and value["type"] == "target"):
            yield Rule(text, tuple(conditions), UNKNOWN)
        elif name not in _SILENT and name != "continue":
            conditions.append(Match(UNKNOWN))  # a rate, a match of iptables, a lookup
    yield Rule(text, tuple(conditions))


def _statement(expression: Any) -> tuple[str, Any]:
    return next(iter(expression.items())) if isinstance(expression, dict) else (str(expression), None)


def _entries(value: Mapping[str, Any]) -> list[Any] | None:
    """Pairs of key and verdict of a map that stands in the rule; None for one that stands elsewhere."""
    data = value["data"]
    if isinstance(data, dict) and isinstance(data.get("set"), list):
        return [entry for entry in data["set"] if isinstance(entry, list)]
    return None


def _match(value: Mapping[str, Any], place: tuple[str, str], sets: Mapping[Any, Any]) -> list[Match]:
    left, fields = value["left"], list[Match]()
    field, implied = _field(left)
    if implied:
        fields.append(implied)
    wanted = list(_values(value["right"], place, sets))
    if field == "family":
        wanted = [_FAMILIES.get(text, text) for text in wanted]
    if not field or value["op"] not in ("==", "!=", "in") or UNKNOWN in wanted:
        return [*fields, Match(UNKNOWN)]
    return [*fields, Match(field, tuple(wanted), value["op"] == "!=")]


def _field(left: Any) -> tuple[str, Match | None]:
    """The field that is looked at, and what must hold for it to be there."""
    name, value = _statement(left)
    if name == "&" and value[0] == {"meta": {"key": "mark"}}:
        return "mark", None  # as `mark and N == N`; with another mask the number is not ours
    if name == "meta" and value["key"] == "nfproto":
        return "family", None
    if name == "meta":
        return _META.get(value["key"], ""), None
    if name == "ct" and value.get("key") in ("state", "status"):
        return str(value["key"]), None
    if name == "fib" and value == {"result": "type", "flags": ["daddr"]}:
        return "type", None
    if name == "payload" and "field" in value:
        protocol, field = value["protocol"], value["field"]
        if protocol in ("ip", "ip6"):
            return _HEADERS.get(field, ""), Match("family", (protocol,))
        if protocol == "th":
            return (field if field in ("sport", "dport") else ""), None
        if protocol not in ("ether", "vlan", "arp"):
            return (field if field in ("sport", "dport") else ""), Match("proto", (protocol,))
    return "", None


def _values(right: Any, place: tuple[str, str], sets: Mapping[Any, Any]) -> Iterator[str]:
    """What a value is compared with; UNKNOWN where it cannot be told."""
    if isinstance(right, list):
        for one in right:
            yield from _values(one, place, sets)
    elif isinstance(right, str) and right.startswith("@"):
        found = sets.get((*place, right[1:]))
        if found is None or "timeout" in found.get("flags", ()):
            yield UNKNOWN
        else:
            yield from _values(found.get("elem", []), place, sets)
    elif isinstance(right, (str, int)):
        yield str(right)
    else:
        name, value = _statement(right)
        if name == "set":
            yield from _values(value, place, sets)
        elif name == "prefix" and isinstance(value["addr"], str):
            yield f"{value['addr']}/{value['len']}"
        elif name == "range":
            yield f"{value[0]}-{value[1]}"
        elif name == "elem":
            yield from _values(value["val"], place, sets)
        else:
            yield UNKNOWN
