"""`/containers/...`: from queries and bodies to the engine's verbs, and back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec

from corral.api import http, streams
from corral.api.http import Answer, BadQuery, Query, Request, Response, Stream, Taken
from corral.api.services import Services
from corral.api.versions import Version
from corral.engine import attach, changes, copy, egress, inspect, listing, logs, processes, stats, traffic
from corral.engine.detach import detach_keys
from corral.engine.live import Client, Live
from corral.errors import InvalidParameter
from corral.wire.common import InvalidBody
from corral.wire.containers import BindOptions, CreateRequest, DeviceMapping, HostConfig, Mount, UpdateRequest


async def list_(services: Services, request: Request) -> Answer:
    """GET /containers/json"""
    query = request.query
    limit = query.number("limit", 0) or 0
    found = listing.select(
        services.engine, query.filters(), everything=query.flag("all"), limit=limit if limit > 0 else 0
    )
    size = query.flag("size")
    if size:
        return http.json(await asyncio.to_thread(_summaries, services, found, size=True))
    return http.json(_summaries(services, found, size=False))


def _summaries(services: Services, found: list[Live], *, size: bool) -> list[dict[str, Any]]:
    return [inspect.summary(services.engine, live, size=size) for live in found]


async def create(services: Services, request: Request) -> Answer:
    """POST /containers/create"""
    body = await request.json(CreateRequest, default=_no_body)
    if request.version < (1, 30) and body.host_config is not None:
        body.host_config.mounts = None
    if request.version < (1, 41):
        _shared_namespaces(services, request.version, body)
    if request.version < (1, 44) and body.host_config is not None:
        _shallow_read_only(body.host_config)
    made = await services.containers.create(body, request.query.text("name"), request.query.text("platform"))
    return http.json({"Id": made.id, "Warnings": made.warnings}, 201)


def _shared_namespaces(services: Services, version: Version, body: CreateRequest) -> None:
    """What was shared by default before private namespaces were: memory with those who ask, and version 1 cgroups."""
    body.host_config = host = body.host_config or HostConfig()
    if version < (1, 40):
        host.ipc_mode = host.ipc_mode or "shareable"
    if services.engine.facts.cgroup_version == 1:
        host.cgroupns_mode = host.cgroupns_mode or "host"


def _shallow_read_only(host: HostConfig) -> None:
    """Before 1.44 a read-only bind was so without what is mounted below it, and nobody could say otherwise."""
    for mount in host.mounts or ():
        if mount.type == "bind" and mount.read_only:
            mount.bind_options = mount.bind_options or BindOptions()
            if not mount.bind_options.read_only_force_recursive:
                mount.bind_options.read_only_non_recursive = True


def _no_body() -> CreateRequest:
    raise InvalidBody("config cannot be empty in order to create a container")


async def inspect_(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/json"""
    live = services.containers.get(request.params["name"])
    if request.query.flag("size"):
        shown = await asyncio.to_thread(inspect.container, services.engine, live, size=True)
    else:
        shown = inspect.container(services.engine, live)
    if request.version < (1, 45):
        _add_own_aliases(live, shown["NetworkSettings"]["Networks"])
    return http.json(shown)


def _add_own_aliases(live: Live, networks: dict[str, Any]) -> None:
    """Before 1.45 the names that a container has by itself on a user's network were among its aliases."""
    for name, shown in networks.items():
        if name not in ("bridge", "host", "none"):
            own = (live.id[:12], live.record.config.hostname)
            shown["Aliases"] = list(dict.fromkeys([*(shown["Aliases"] or ()), *filter(None, own)]))


async def start(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/start"""
    await services.containers.start(request.params["name"])
    return http.empty()


async def stop(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/stop"""
    await services.containers.stop(request.params["name"], request.query.number("t"), request.query.text("signal"))
    return http.empty()


async def restart(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/restart"""
    await services.containers.restart(request.params["name"], request.query.number("t"), request.query.text("signal"))
    return http.empty()


async def kill(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/kill"""
    await services.containers.kill(request.params["name"], request.query.text("signal"))
    return http.empty()


async def pause(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/pause"""
    await services.containers.pause(request.params["name"])
    return http.empty()


async def unpause(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/unpause"""
    await services.containers.unpause(request.params["name"])
    return http.empty()


async def rename(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/rename"""
    await services.containers.rename(request.params["name"], request.query.text("name"))
    return http.empty()


async def update(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/update"""
    warnings = await services.containers.update(request.params["name"], await request.json(UpdateRequest))
    return http.json({"Warnings": warnings})


async def add_mount(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/mounts"""
    await services.containers.add_mount(request.params["name"], await request.json(Mount))
    return http.empty()


async def remove_mount(services: Services, request: Request) -> Answer:
    """DELETE /containers/{name}/mounts"""
    await services.containers.remove_mount(request.params["name"], request.query.text("target"))
    return http.empty()


async def traffic_(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/traffic"""
    return http.json(await traffic.shown(services.engine, services.containers.get(request.params["name"])))


async def egress_(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/egress"""
    return http.json(egress.shown(services.engine, services.containers.get(request.params["name"])))


async def egress_log(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/egress/log: a JSON object a line"""
    live = services.containers.get(request.params["name"])
    return Stream(services.engine.egress_log.read(live.id, follow=request.query.flag("follow")))


async def add_device(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/devices"""
    await services.containers.add_device(request.params["name"], await request.json(DeviceMapping))
    return http.empty()


async def remove_device(services: Services, request: Request) -> Answer:
    """DELETE /containers/{name}/devices"""
    await services.containers.remove_device(request.params["name"], request.query.text("path"))
    return http.empty()


async def remove(services: Services, request: Request) -> Answer:
    """DELETE /containers/{name}"""
    query = request.query
    await services.containers.remove(
        request.params["name"], force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link")
    )
    return http.empty()


async def prune(services: Services, request: Request) -> Answer:
    """POST /containers/prune"""
    filters = request.query.filters()
    for name in filters:
        if name not in ("until", "label", "label!"):
            raise BadQuery(f"invalid filter '{name}'")
    keep = listing.predicate(services.engine, filters)
    deleted, freed = await services.containers.prune(keep)
    return http.json({"ContainersDeleted": deleted or None, "SpaceReclaimed": freed})


async def wait(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/wait: the headers go out at once, so that a client knows that it is waiting."""
    codes = await services.containers.wait(request.params["name"], request.query.text("condition"))

    async def answer() -> AsyncIterator[bytes]:
        async for code in codes:
            yield msgspec.json.encode({"StatusCode": code}) + b"\n"

    return Stream(answer())


async def resize(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/resize"""
    rows, columns = size_of(request.query)
    await services.containers.resize(request.params["name"], rows, columns)
    return http.empty(200)


def size_of(query: Query) -> tuple[int, int]:
    """The `h` and `w` of a resize."""
    found = []
    for name in ("h", "w"):
        value = query.number(name)
        if value is None or not 0 <= value <= 65535:
            raise BadQuery(f'strconv.ParseUint: parsing "{query.text(name)}": invalid syntax')
        found.append(value)
    return found[0], found[1]


async def attach_(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/attach: the connection becomes the container's streams."""
    live = services.containers.get(request.params["name"])
    query = request.query
    attach.check(live)
    keys = detach_keys(query.text("detachKeys"))
    outputs = [name for name in ("stdout", "stderr") if query.flag(name)]
    tty = live.record.config.tty
    past: AsyncGenerator[bytes, None] | None = None
    if query.flag("logs"):
        wanted = logs.Wanted("stdout" in outputs, "stderr" in outputs, framed=not tty)
        past = logs.read(services.engine, live, wanted)
    first = await anext(past, b"") if past is not None else b""  # a log that cannot be read is told as an error
    taken = await request.hijack(stream_type(request, tty))
    client = Client(
        taken.fd, attach.stdin_client(live, query.flag("stdin")), outputs, keys if tty else b"", taken.initial
    )
    if past is not None and not await _sent(client, first, past):
        return Taken()
    if not query.flag("stream"):
        services.engine.publish(live, "attach")
        client.close()
        return Taken()
    await attach.attach(services.engine, live, client)
    return Taken()


async def _sent(client: Client, first: bytes, rest: AsyncGenerator[bytes, None]) -> bool:
    """Write the past output as fast as the client reads it; False when it has gone away, and is closed."""
    loop = asyncio.get_running_loop()
    with socket.socket(fileno=os.dup(client.fd)) as connection:
        connection.setblocking(False)
        try:
            async with contextlib.aclosing(rest):
                await loop.sock_sendall(connection, first)
                async for piece in rest:
                    await loop.sock_sendall(connection, piece)
        except BaseException as error:
            client.close()
            if isinstance(error, OSError):
                return False
            raise
    return True


def stream_type(request: Request, tty: bool) -> str:
    """What an output stream is called: multiplexed ones have had a name of their own since 1.42."""
    return streams.RAW if tty or request.version < (1, 42) else streams.MULTIPLEXED


async def logs_(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/logs"""
    live = services.containers.get(request.params["name"])
    query = request.query
    tty = live.record.config.tty
    tail = query.text("tail", "all")
    wanted = logs.Wanted(
        stdout=query.flag("stdout"),
        stderr=query.flag("stderr"),
        since_ns=_moment(query, "since") or 0,
        until_ns=_moment(query, "until"),
        tail=int(tail) if tail.isdecimal() else None,
        timestamps=query.flag("timestamps"),
        details=query.flag("details"),
        follow=query.flag("follow"),
        framed=not tty,
    )
    logs.check(live, wanted)
    return Stream(logs.read(services.engine, live, wanted), stream_type(request, tty))


def _moment(query: Query, name: str) -> int | None:
    text = query.text(name)
    return listing.time_ns(text) if text and text != "0" else None


async def stats_(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/stats"""
    live = services.containers.get(request.params["name"])
    stream = request.query.flag("stream", True)
    if request.query.flag("one-shot"):
        if stream:
            raise InvalidParameter("cannot have stream=true and one-shot=true")
        return http.json(await stats.sample(services.engine, live))
    if not stream:
        return http.json(await _two_samples(services, live))
    return Stream(_stats(services, live))


async def _two_samples(services: Services, live: Live) -> dict[str, Any]:
    before = await stats.sample(services.engine, live)
    if live.has_process:
        await asyncio.sleep(1)
    return _with_previous(await stats.sample(services.engine, live), before)


def _with_previous(sample: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "preread": before["read"], "precpu_stats": before["cpu_stats"]}


async def _stats(services: Services, live: Live) -> AsyncIterator[bytes]:
    before: dict[str, Any] | None = None
    while services.engine.index.find(live.id) is live:
        sample = await stats.sample(services.engine, live)
        yield streams.encode(_with_previous(sample, before) if before else sample) + b"\n"
        before = sample
        await asyncio.sleep(1)


async def top(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/top"""
    live = services.containers.get(request.params["name"])
    shown = await processes.top(live, request.query.text("ps_args") or "-ef")
    services.engine.publish(live, "top")
    return http.json(shown)


async def changes_(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/changes"""
    live = services.containers.get(request.params["name"])
    store = services.engine.snapshots
    own, lower = store.own(live.id), store.layer_paths(store.parent(live.id))
    return http.json(await asyncio.to_thread(changes.changes, live.record, own, lower) or None)


async def export(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/export"""
    live = services.containers.get(request.params["name"])
    parts = copy.export(services.engine, live)
    return Stream(_after(await anext(parts), parts), "application/octet-stream")


async def _after(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """A stream whose first piece has come, so that what was wrong could still be answered."""
    async with contextlib.aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


async def archive_head(services: Services, request: Request) -> Answer:
    """HEAD /containers/{name}/archive"""
    ref = request.params["name"]
    archive = copy.Archive(services.engine, services.containers.get(ref), ref, _path(request.query))
    await archive.open()
    await archive.close()
    return Response(200, headers=(("X-Docker-Container-Path-Stat", copy.stat_header(archive.stat)),))


async def archive_get(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/archive"""
    ref = request.params["name"]
    archive = copy.Archive(services.engine, services.containers.get(ref), ref, _path(request.query))
    await archive.open()
    header = ("X-Docker-Container-Path-Stat", copy.stat_header(archive.stat))
    return Stream(archive.read(), "application/x-tar", headers=(header,))


async def archive_put(services: Services, request: Request) -> Answer:
    """PUT /containers/{name}/archive"""
    live = services.containers.get(request.params["name"])
    await copy.extract(
        services.engine,
        live,
        request.params["name"],
        _path(request.query),
        request.stream(),
        keep_kind=request.query.flag("noOverwriteDirNonDir"),
        copy_owner=request.query.flag("copyUIDGID"),
    )
    return http.empty(200)


def _path(query: Query) -> str:
    path = query.text("path")
    if not path:
        raise BadQuery("Bad parameter: path can't be empty")
    return path
