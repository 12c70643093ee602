"""Look around on the machine for `corral port check`: everybody's chains, and who listens in a container.

Nothing is changed.  Runs on the network thread, in its namespace, and only when somebody asks.
"""

from __future__ import annotations

import json

from corral.net import coexist, holding, iptablessave, listed, nftlisting, plan, reach
from corral.net.attached import Attached
from corral.net.core import Core
from corral.net.firewall import Chain
from corral.net.model import NetworkSettings, PortBinding
from corral.net.nft import Nft

_IPTABLES = ("raw", "mangle", "filter", "security")
_MODERN_SAVE = {"ip": "iptables-nft-save", "ip6": "ip6tables-nft-save"}
_LEGACY_FAMILY = {"iptables-legacy": "ip", "ip6tables-legacy": "ip6"}
_LISTENING = {"tcp": 0x0A, "udp": 0x07}  # TCP_LISTEN; a socket of UDP without a peer is "closed"


def situation(core: Core, settings: NetworkSettings, nft: Nft | None) -> reach.Situation:
    """What there is on the machine that has a say about published ports."""
    chains = [] if nft is None else _modern(nft, settings.table)
    for command, names in coexist.LEGACY.items():
        tables = [table for table in coexist.legacy_tables(names) if table in _IPTABLES]
        for table in tables:
            text = coexist.run([f"{command}-save", "-t", table]) or ""
            chains += iptablessave.chains(text, _LEGACY_FAMILY[command], "iptables-legacy")
    bridged = tuple(record for record in core.registry.all() if record.bridge)
    return reach.Situation(tuple(chains), bridged, settings.host_firewall)


def _modern(nft: Nft, own: str) -> list[Chain]:
    """Chains of nftables but for ours; those that iptables has written in its words, if they can be had."""
    listing, text = nft.listing()
    ours = (own, listed.table_of(own))
    chains = [one for one in nftlisting.chains(json.loads(listing), text) if one.source.split()[1] not in ours]
    for family, command in _MODERN_SAVE.items():
        opaque = {one.source for one in chains if one.family == family and one.source.split()[1] in _IPTABLES}
        saved = coexist.run([command]) if opaque else None
        if saved is not None:
            chains = [one for one in chains if one.source not in opaque]
            chains += iptablessave.chains(saved, family, "iptables-nft")
    return chains


def ways(core: Core, proto: str, port: int, host: str) -> list[reach.Way]:
    """The published ports of that number; `host` is the host's address in question, or empty."""
    found = []
    for attached, bindings in core.published():
        gateway = plan.gateway_endpoint(attached.endpoints)
        if gateway is None:
            continue
        record = core.registry.find(gateway.network_id)
        for binding in bindings:
            if (binding.proto, binding.host_port) != (proto, port) or host not in ("", binding.host_ip):
                continue
            networks = tuple(endpoint.network_id for endpoint in attached.endpoints)
            target = holding.target_of(attached.endpoints)
            bridge = record.bridge if record else core.settings.bridge
            found.append(reach.Way(attached.name, binding, target, networks, bridge, listens(attached, binding)))
    return found


def listens(attached: Attached, binding: PortBinding) -> bool | None:
    """Whether a program in the container has the port; None: cannot tell."""
    if binding.proto not in _LISTENING:
        return None
    for name in (binding.proto, f"{binding.proto}6"):
        try:
            with open(f"/proc/{attached.pid}/net/{name}", encoding="ascii") as file:
                if binding.container_port in reach.listening(file.read(), _LISTENING[binding.proto]):
                    return True
        except FileNotFoundError:
            continue  # no IPv6
        except OSError:
            return None
    return False
