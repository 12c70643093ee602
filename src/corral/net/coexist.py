"""Live beside a firewall whose forward policy is drop.

A packet must pass every base chain of the forward hook, so our `accept` cannot undo another's `drop`.  Packets that
our table accepts carry a mark (`rules.MARK`), and the one place that is common property by convention, the chain
FORWARD of iptables' table `filter`, gets one rule that accepts the mark; ufw, iptables scripts and Docker itself
(which sets that policy to drop) are then no obstacle.  It is there only while that policy is drop, carries our
name in its comment, and goes when we go.  Chains of nftables tables that an administrator wrote are left alone: a
warning says which rule to add.

Commands are run here, which is slow (5 ms each); this happens at start and after a foreign firewall change only.
"""

from __future__ import annotations

import logging
import subprocess

from corral.net.nft import Nft
from corral.net.rules import MARK

_log = logging.getLogger(__name__)

LEGACY = {
    "iptables-legacy": "/proc/thread-self/net/ip_tables_names",
    "ip6tables-legacy": "/proc/thread-self/net/ip6_tables_names",
}
_MODERN = {"ip": "iptables-nft", "ip6": "ip6tables-nft"}


def dropping_chains(listing: str) -> list[tuple[str, str, str]]:
    """(family, table, chain) of the forward base chains with policy drop in the output of `nft list chains`."""
    found: list[tuple[str, str, str]] = []
    family = table = chain = ""
    for line in listing.splitlines():
        words = line.split()
        if words[:1] == ["table"] and len(words) >= 3:
            family, table = words[1], words[2]
        elif words[:1] == ["chain"] and len(words) >= 2:
            chain = words[1]
        elif "hook forward" in line and "policy drop" in line and family in ("ip", "ip6", "inet"):
            found.append((family, table, chain))
    return found


class Coexistence:
    """The rule of one daemon in the host's FORWARD chains."""

    def __init__(self, table: str) -> None:
        self._match = ["-m", "mark", "--mark", f"{MARK:#x}/{MARK:#x}"]
        self._match += ["-m", "comment", "--comment", f"containers of {table}", "-j", "ACCEPT"]
        self._commands: set[str] = set()
        self._warned: set[tuple[str, str, str]] = set()

    def apply(self, nft: Nft) -> bool:
        """Put the rule where it is needed; whether packets must be marked."""
        needed = False
        for family, table, chain in dropping_chains(nft.run("list chains")):
            if (table, chain) == ("filter", "FORWARD") and family in _MODERN:
                self._ensure(_MODERN[family])
            elif (family, table, chain) not in self._warned:
                self._warned.add((family, table, chain))
                _log.warning(
                    "the policy of chain %s %s %s is drop; for containers to be reached and to reach out, add: "
                    "nft insert rule %s %s %s meta mark and %#x == %#x accept",
                    *(family, table, chain) * 2,
                    MARK,
                    MARK,
                )
            needed = True
        for command, names in LEGACY.items():
            if _legacy_drops(command, names):
                self._ensure(command)
                needed = True
        return needed

    def withdraw(self) -> None:
        """Take the rule out again."""
        for command in self._commands:
            run([command, "-w", "-D", "FORWARD", *self._match])
        self._commands.clear()

    def _ensure(self, command: str) -> None:
        self._commands.add(command)
        present = run([command, "-w", "-C", "FORWARD", *self._match]) is not None
        if not present and run([command, "-w", "-I", "FORWARD", *self._match]) is None:
            _log.warning("cannot let containers through the host's forward policy: %s failed", command)


def legacy_tables(names: str) -> list[str]:
    """The tables of iptables-legacy that there are: asking for another would make it."""
    try:
        with open(names, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []  # the kernel has none


def _legacy_drops(command: str, names: str) -> bool:
    if "filter" not in legacy_tables(names):
        return False
    return "-P FORWARD DROP" in (run([command, "-w", "-S", "FORWARD"]) or "")


def run(argv: list[str]) -> str | None:
    """What a command prints, None when it fails or is not there."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
