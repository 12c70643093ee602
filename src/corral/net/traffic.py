"""What containers received and sent, put together from the counters of interfaces and of published ports.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from corral.net.model import Endpoint, Passed, PortBinding, Traffic
from corral.net.plan import host_link
from corral.net.ports import Target
from corral.net.rules import Counts


def of_container(
    joined: Iterable[Endpoint],
    interfaces: Mapping[str, tuple[int, int, int, int]],
    target: Target,
    bindings: Iterable[PortBinding],
    counts: Counts,
) -> Traffic:
    """A container's traffic; `interfaces` are the host's, where what a bridge's port sends is what arrives."""
    networks = {}
    for endpoint in joined:
        if host_link(endpoint.endpoint_id) in interfaces:
            packets_out, packets_in, bytes_out, bytes_in = interfaces[host_link(endpoint.endpoint_id)]
            networks[endpoint.network_name] = Passed(packets_in, bytes_in, packets_out, bytes_out)
    ports = {}
    for binding in bindings:
        found = [0, 0, 0, 0]
        for version, address in ((4, target.ipv4), (6, target.ipv6)):
            key = f"{address} . {binding.proto} . {binding.host_port}"
            for place, name in ((0, f"in{version}"), (2, f"out{version}")):
                packets, size = counts.get((name, key), (0, 0))
                found[place] += packets
                found[place + 1] += size
        ports[binding.proto, binding.host_port] = Passed(*found)
    return Traffic(networks, ports)
