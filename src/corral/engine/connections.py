"""`docker network connect` and `disconnect`: a container's networks, changed while it runs or before."""

from __future__ import annotations

from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import Container, save
from corral.engine.start import network_event, request_of, write_host_files
from corral.errors import Conflict, Forbidden
from corral.wire.containers import EndpointSettings


class AlreadyConnected(Forbidden):
    """The container has an endpoint there."""

    def __init__(self, container: str, network: str) -> None:
        super().__init__(f"endpoint with name {container} already exists in network {network}")


class NotConnected(Forbidden):
    """The container has no endpoint there; Docker says it in other words of one that does not run."""

    def __init__(self, container: str, network: str, *, runs: bool) -> None:
        super().__init__(f"container {container} is not connected to {'' if runs else 'the '}network {network}")


class ModeForbids(Conflict):
    """A container on the host's or another's network has none of its own to change."""


async def connect(engine: Engine, ref: str, container: str, settings: EndpointSettings) -> None:
    """Put a container on one more network."""
    live = engine.index.get(container)
    view = await engine.networks.get(ref)
    name = view.record.name
    _check_mode(live, name)
    async with live.lock:
        record = live.record
        if _key(record, name, view.record.id) is not None:
            raise AlreadyConnected(record.name, name)
        request = request_of(engine, live, name, settings)
        if not live.has_process:
            await engine.networks.check_request(request)
        else:
            attachment = await engine.networks.connect(
                record.id,
                record.state.pid,
                request,
                hostname=record.config.hostname,
                name=record.name,
                upstream=tuple(record.host.dns or engine.config.dns),
                egress_list=record.host.egress or (),
            )
            record.endpoints = list(attachment.endpoints)
            record.ports = list(attachment.ports)
            write_host_files(engine, live, attachment)  # another address, and perhaps another name server
        settings.network_id = view.record.id
        record.networks[name] = settings
        await engine.commit(save(record))
    network_event(engine, view.record.id, name, record.id, "connect", view.record.driver)


async def disconnect(engine: Engine, ref: str, container: str) -> None:
    """Take a container off a network."""
    live = engine.index.get(container)
    view = await engine.networks.get(ref)
    name = view.record.name
    async with live.lock:
        record = live.record
        key = _key(record, name, view.record.id)
        if key is None:
            raise NotConnected(record.id, name, runs=live.has_process)
        if live.has_process:
            attachment = await engine.networks.disconnect(record.id, name)
            record.endpoints = list(attachment.endpoints)
            record.ports = list(attachment.ports)
            write_host_files(engine, live, attachment)  # another address, and perhaps another name server
        del record.networks[key]
        await engine.commit(save(record))
    network_event(engine, view.record.id, name, record.id, "disconnect", view.record.driver)


def _key(record: Container, name: str, network_id: str) -> str | None:
    """What the record calls a network that the container is on: as its client did, by name or id."""
    for key, asked in record.networks.items():
        if key in (name, network_id) or asked.network_id == network_id:
            return key
    return None


def _check_mode(live: Live, network: str) -> None:
    mode = live.record.host.network_mode
    if mode == "host" or network == "host":
        raise ModeForbids("container cannot be disconnected from host network or connected to host network")
    if mode.startswith("container:"):
        raise ModeForbids(
            "container sharing network namespace with another container or host "
            "cannot be connected to any other network"
        )
    if mode == "none" and network != "none":
        raise ModeForbids(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
