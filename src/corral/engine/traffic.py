"""What containers received and sent: by network, and through each published port."""

from __future__ import annotations

from typing import Any

from corral.engine import stats
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.net.model import Passed, Traffic


async def shown(engine: Engine, live: Live) -> dict[str, Any]:
    """One container's counters since it started; nothing for one that is on no network now."""
    found = await engine.networks.traffic(live.id)
    networks = {name: _passed(one) for name, one in found.networks.items()}
    if live.has_process:
        interfaces = stats.interfaces(live.record.state.pid)
        for endpoint in live.record.endpoints:
            if endpoint.network_name not in networks and endpoint.interface in interfaces:
                networks[endpoint.network_name] = _of_interface(interfaces[endpoint.interface])
    return {"Networks": networks, "Ports": _ports(live, found)}


def _ports(live: Live, found: Traffic) -> list[dict[str, Any]]:
    """A row for each published port; the host's addresses of one number are counted together."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for binding in live.record.ports:
        key = (binding.proto, binding.host_port)
        if key in found.ports and key not in rows:
            port = {"Protocol": binding.proto, "HostPort": binding.host_port, "ContainerPort": binding.container_port}
            rows[key] = port | _passed(found.ports[key])
    return list(rows.values())


def _passed(one: Passed) -> dict[str, int]:
    return {
        "BytesIn": one.bytes_in,
        "BytesOut": one.bytes_out,
        "PacketsIn": one.packets_in,
        "PacketsOut": one.packets_out,
    }


def _of_interface(counted: dict[str, int]) -> dict[str, int]:
    return _passed(Passed(counted["rx_packets"], counted["rx_bytes"], counted["tx_packets"], counted["tx_bytes"]))
