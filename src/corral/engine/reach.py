"""Who can reach a published port: what the network side finds out, as the API shows it."""

from __future__ import annotations

from typing import Any

from corral.engine.context import Engine
from corral.engine.publishing import BadPortReference, parse_reference
from corral.errors import InvalidParameter, NotFound
from corral.net import addresses, reach


class NobodyPublishes(NotFound):
    """No running container has that port of the host."""

    def __init__(self, port: str) -> None:
        super().__init__(f"no running container publishes {port}")


class BadClient(InvalidParameter):
    """Where a connection is said to come from is no address."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid address of a client: '{text}'")


async def shown(engine: Engine, port: str, source: str, interface: str) -> dict[str, Any]:
    """The answers for `[ADDRESS:]PORT[/PROTOCOL]`, for clients outside with that address or at that interface if any.

    BadPortReference, BadClient, NobodyPublishes.
    """
    wanted = parse_reference(port)
    if wanted.first != wanted.last:
        raise BadPortReference(port)
    try:
        address = str(addresses.address(source)) if source else ""
    except ValueError:
        raise BadClient(source) from None
    found = await engine.networks.reach(wanted.proto, wanted.first, wanted.host_ip, reach.Client(address, interface))
    if not found:
        raise NobodyPublishes(port if "/" in port else f"{port}/{wanted.proto}")
    published = [_way(way) | {"Reach": [_reach(one) for one in answers]} for way, answers in found]
    return {"Policy": engine.config.publish_policy, "Published": published}


def _way(way: reach.Way) -> dict[str, Any]:
    return {
        "Container": way.container,
        "HostIp": way.binding.host_ip,
        "HostPort": way.binding.host_port,
        "ContainerPort": way.binding.container_port,
        "Protocol": way.binding.proto,
        "Listening": way.listens,
    }


def _reach(one: reach.Reach) -> dict[str, Any]:
    return {"Who": one.who, "Answer": one.answer, "Reason": one.reason, "Decisions": reach.listed(one.decisions)}
