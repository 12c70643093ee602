"""`Egress` of a container: the list of what it may send to, checked, changed while it runs, and shown."""

from __future__ import annotations

import contextlib
from typing import Any

from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import Container
from corral.engine.start import write_host_files
from corral.errors import Conflict, InvalidParameter
from corral.net import egress
from corral.net.model import NetworkRefused, NoSuchNetwork
from corral.wire.containers import HostConfig, UpdateRequest


class NoEgressOfItsOwn(InvalidParameter):
    """The container's network is not its own to limit, or is none."""

    def __init__(self, mode: str) -> None:
        super().__init__(f"cannot limit egress of a container with network {mode}")


def check(host: HostConfig) -> None:
    """Bring a list into its canonical form; InvalidEgress, NoEgressOfItsOwn."""
    policy = egress.parse(host.egress or ())
    host.egress = list(policy.texts) if policy is not None else None
    mode = host.network_mode
    if policy is not None and (mode in ("host", "none") or mode.startswith("container:")):
        raise NoEgressOfItsOwn(mode)


async def check_networks(engine: Engine, record: Container) -> None:
    """Refuse a list on networks that cannot have one; NetworkRefused.  A network may be made later, as in Docker."""
    if not record.host.egress:
        return
    for name in record.networks:
        with contextlib.suppress(NoSuchNetwork):
            found = (await engine.networks.get(name)).record
            if not found.limits_egress:
                raise NetworkRefused(f"cannot limit egress on network {name}: the host does not route for it")


async def change(engine: Engine, live: Live, wanted: UpdateRequest, undo: contextlib.AsyncExitStack) -> None:
    """Carry out a request's change of the list, under the container's lock; the caller saves the record."""
    if wanted.egress is None:
        return
    record = live.record
    before = record.host.egress

    async def apply(texts: list[str] | None) -> None:
        record.host.egress = texts
        if live.has_process:
            attachment = await engine.networks.change_egress(record.id, texts or ())
            if attachment is not None:
                write_host_files(engine, live, attachment)  # perhaps another name server

    record.host.egress = wanted.egress or None
    try:
        check(record.host)
        if record.host.egress and record.config.network_disabled:
            raise Conflict(f"cannot limit egress of container {record.name}: it has no network")
        await check_networks(engine, record)
        await apply(record.host.egress)
    except BaseException:
        record.host.egress = before
        raise
    undo.push_async_callback(apply, before)


def publish_event(engine: Engine, live: Live, wanted: UpdateRequest) -> None:
    """Tell that the list is another one."""
    if wanted.egress is not None:
        engine.publish(live, "egress", egress=",".join(live.record.host.egress or ["any"]))


def shown(engine: Engine, live: Live) -> dict[str, Any]:
    """The list and what its names stand for now."""
    policy = egress.parse(live.record.host.egress or ())
    return {
        "Egress": list(policy.texts) if policy is not None else None,
        "Others": "allowed" if policy is None or not policy.closed else "refused",
        "Resolved": [
            {"Name": name, "Address": address, "Service": service, "Seconds": seconds}
            for name, address, service, seconds in engine.networks.resolved(live.id)
        ],
    }
