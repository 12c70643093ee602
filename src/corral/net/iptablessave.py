"""Chains from what `iptables-save` prints, of either kind.  Pure."""

from __future__ import annotations

import shlex

from corral.net.firewall import UNKNOWN, Chain, Match, Rule

# The kernel's order of tables in a hook; `nat` lets through or rewrites, but does not decide.
_PRIORITIES = {"raw": -300, "mangle": -150, "filter": 0, "security": 50}
_HOOKS = {"PREROUTING": "prerouting", "INPUT": "input", "FORWARD": "forward", "OUTPUT": "output"}
_HOOKS["POSTROUTING"] = "postrouting"
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
_SILENT = {"LOG", "NFLOG", "MARK", "CONNMARK", "TCPMSS", "CT", "NOTRACK", "TRACE", "TTL", "HL", "DSCP", "TOS", "AUDIT"}
_FIELDS = {
    "-s": "saddr", "-d": "daddr", "-i": "iifname", "-o": "oifname", "-p": "proto", "--dport": "dport",
    "--sport": "sport", "--dports": "dport", "--sports": "sport", "--ctstate": "state", "--state": "state",
    "--ctstatus": "status", "--dst-type": "type", "--src-range": "saddr", "--dst-range": "daddr",
}  # fmt: skip
_LISTS = {"--dports", "--sports", "--ctstate", "--state", "--ctstatus", "--dst-type"}
_PLAIN = {
    "tcp",
    "udp",
    "sctp",
    "multiport",
    "conntrack",
    "state",
    "addrtype",
    "iprange",
    "comment",
    "mark",
}  # no match by itself


def chains(text: str, family: str, source: str) -> list[Chain]:
    """The chains of a listing of `family` (ip, ip6); `source` says of which kind, after the table's name."""
    found: list[Chain] = []
    policies: dict[str, str] = {}
    rules: dict[str, list[Rule]] = {}
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table, policies, rules = line[1:].strip(), {}, {}
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            policies[name] = policy
        elif line.startswith("-A "):
            _, name, words = (line + "  ").split(" ", 2)
            rules.setdefault(name, []).append(_rule(line, words, policies))
        elif line.startswith("COMMIT") and table in _PRIORITIES:
            found += [
                Chain(
                    source=f"{family} {table} ({source})",
                    name=name,
                    family=family,
                    rules=tuple(rules.get(name, ())),
                    hook=_HOOKS.get(name, ""),
                    priority=_PRIORITIES[table],
                    policy=_VERDICTS.get(policy, ""),
                )
                for name, policy in policies.items()
            ]
    return found


def _rule(line: str, words: str, chains: dict[str, str]) -> Rule:
    try:
        return _parsed(line, shlex.split(words), chains)
    except (ValueError, IndexError):
        return Rule(line, (Match(UNKNOWN),), UNKNOWN)


def _parsed(line: str, words: list[str], chains: dict[str, str]) -> Rule:
    conditions: list[Match] = []
    negated = False
    while words:
        word = words.pop(0)
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            return Rule(line, tuple(conditions), *_verdict(word, words[0], chains))
        if word == "-m":
            if words[0] not in _PLAIN:
                conditions.append(Match(UNKNOWN))
            words.pop(0)
        elif word == "--comment":
            words.pop(0)
        elif word == "--mark":
            number = int(words.pop(0).partition("/")[0], 0)
            conditions.append(Match("mark", (str(number),), negated))
        elif word in _FIELDS:
            conditions.append(_match(word, words.pop(0), negated))
        elif word.startswith("-"):
            conditions.append(Match(UNKNOWN))
        negated = False
    return Rule(line, tuple(conditions))


def _verdict(word: str, target: str, chains: dict[str, str]) -> tuple[str, str]:
    if target in chains:
        return ("jump" if word == "-j" else "goto"), target
    if target in _SILENT:
        return "", ""
    return _VERDICTS.get(target, UNKNOWN), ""


def _match(word: str, value: str, negated: bool) -> Match:
    field = _FIELDS[word]
    values = value.lower().split(",") if word in _LISTS else [value]
    if field in ("sport", "dport"):
        values = [one.replace(":", "-") for one in values]
    if field in ("iifname", "oifname"):
        values = [one[:-1] + "*" if one.endswith("+") else one for one in values]
    return Match(field, tuple(values), negated)
