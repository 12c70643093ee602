"""Driver options of an endpoint: sysctls of its interface, and the interface's name.  Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from corral.net.model import InvalidNetwork

SYSCTLS = "com.docker.network.endpoint.sysctls"
IFNAME = "com.docker.network.endpoint.ifname"

_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.IFNAME\.([a-z0-9_]+)")
_NAME_MAX = 15


def sysctls(options: Mapping[str, str], interface: str) -> tuple[tuple[str, str], ...]:
    """(path below /proc/sys, value) of each sysctl of an endpoint whose interface has this name; InvalidNetwork."""
    found = []
    for text in filter(None, options.get(SYSCTLS, "").split(",")):
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidNetwork(f"invalid endpoint settings:\nexpected sysctl '{text}' to have format name=value")
        match = _SYSCTL.fullmatch(name)
        if match is None:
            raise InvalidNetwork(
                f"invalid endpoint settings:\nexpected sysctl '{text}' to have format net.X.Y.IFNAME.Z=V"
            )
        found.append((f"net/{match[1]}/{match[2]}/{interface}/{match[3]}", value))
    return tuple(found)


def interface(options: Mapping[str, str], used: Collection[str]) -> str:
    """The name of an endpoint's interface beside those that are `used`; InvalidNetwork for one it cannot have."""
    wanted = options.get(IFNAME, "")
    if not wanted:
        return next(name for name in (f"eth{n}" for n in range(len(used) + 1)) if name not in used)
    bad = wanted in (".", "..", "lo", "all", "default") or not wanted.isascii() or not wanted.isprintable()
    if bad or len(wanted) > _NAME_MAX or any(char in "/: %" for char in wanted):
        raise InvalidNetwork(f"invalid endpoint settings:\ninvalid interface name: {wanted}")
    if wanted in used:
        raise InvalidNetwork(f"invalid endpoint settings:\ninterface name {wanted} is taken by another network")
    return wanted
