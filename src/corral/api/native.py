"""`/corral/build`: the engine's own door.  A context is sent as a difference, events come as they happen.

POST /corral/build/context         what the client has -> {"id", "missing"}
PUT  /corral/build/context/{id}    the archive of what was missing
POST /corral/build                 the build -> lines of JSON; after the line {"output": KIND} bytes follow, if asked
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from corral.api import http, images, statuses, streams
from corral.api.http import Answer, BadQuery, Request
from corral.api.outlet import Outlet
from corral.api.services import Services
from corral.build import checks, dockerfile, stages
from corral.build import context as contexts
from corral.build import request as events
from corral.build.executor import Standing, Tools
from corral.build.request import Files
from corral.build.steps import RunFailed
from corral.engine.steps import Limits
from corral.errors import CorralError
from corral.image.model import Image
from corral.oci import reference
from corral.oci.platform import parse_platform
from corral.wire import common
from corral.wire.build import ContextRequest, NativeBuild

_MANIFEST_MAX_BYTES = 1 << 30
_REQUEST_MAX_BYTES = 64 << 20
_RECORD_BYTES = 64 << 10
_OUTPUTS = ("", "tar", "oci", "docker")

Say = Callable[[dict[str, Any]], None]


async def context(services: Services, request: Request) -> Answer:
    """POST /corral/build/context"""
    body = common.read(await request.body(_MANIFEST_MAX_BYTES), ContextRequest)
    name, missing = await services.builder.contexts.open(body.key, body.entries)
    return http.json({"id": name, "missing": missing})


async def fill(services: Services, request: Request) -> Answer:
    """PUT /corral/build/context/{id}"""
    await services.builder.contexts.fill(request.params["id"], request.stream())
    return http.empty(204)


async def build(services: Services, request: Request) -> Answer:
    """POST /corral/build"""
    asked = common.read(await request.body(_REQUEST_MAX_BYTES), NativeBuild)
    if asked.output not in _OUTPUTS:
        raise BadQuery(f"no such output: {asked.output}")
    return await images.begun(_stream(services, asked))


async def _stream(services: Services, asked: NativeBuild) -> AsyncIterator[bytes]:
    outlet: Outlet[bytes] = Outlet()

    async def run() -> None:
        try:
            await _build(services, asked, outlet)
        finally:
            for name in filter(None, [asked.context, *asked.contexts.values()]):
                services.builder.contexts.close(name)
            outlet.end()

    task = asyncio.ensure_future(run())
    told = False
    try:
        while (data := await outlet.get()) is not None:
            told = True
            yield data
        try:
            await task
        except CorralError as error:
            if not told:
                raise
            cause = statuses.first(error)
            record: dict[str, Any] = {"error": str(cause), "code": 1}
            if isinstance(cause, RunFailed):
                record |= {"error": cause.told, "code": cause.exit_code, "excerpt": cause.excerpt}
            yield streams.encode(record) + b"\n"
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _build(services: Services, asked: NativeBuild, outlet: Outlet[bytes]) -> None:
    def say(record: dict[str, Any]) -> None:
        outlet.put(streams.encode(record) + b"\n")

    epoch = _epoch(asked)
    if not asked.remote:
        plan = _plan(asked, asked.dockerfile, say)
        if asked.check:
            return
    async with services.builder.session(epoch) as tools:
        files = services.builder.contexts.get(asked.context).files if asked.context else None
        if asked.remote:
            files, text = await contexts.from_remote(tools, asked.remote)
            name = asked.name
            plan = _plan(
                asked, asked.dockerfile or text or dockerfile.decode(contexts.dockerfile(files, name), name), say
            )
            await contexts.apply_ignore(tools, files, name)
        wanted = _request(services, asked, plan, files, epoch)
        try:
            await _carry_out(services, tools, asked, wanted, say, outlet)
        except RunFailed as error:
            error.excerpt = plan.source.excerpt(error.place) if error.place else ""
            raise


def _plan(asked: NativeBuild, text: str, say: Say) -> stages.Plan:
    """The Dockerfile understood, and what is unwise about it told."""
    plan = stages.read(dockerfile.parse(text, asked.name))
    for warned in (*plan.warnings, *checks.look(plan, asked.arguments)):
        excerpt = plan.source.excerpt(warned.place) if warned.place else ""
        say({"event": "warning", "rule": warned.rule, "message": warned.message, "excerpt": excerpt})
    return plan


async def _carry_out(
    services: Services,
    tools: Tools,
    asked: NativeBuild,
    wanted: events.Request,
    say: Say,
    outlet: Outlet[bytes],
) -> None:
    builder = services.builder
    prepared = builder.prepare(tools, wanted, lambda event: say(_shown(event)), outlet.drain)
    say({"event": "began", "steps": prepared.numbering.total})
    for ref in asked.cache_from:
        await builder.take_cache(prepared, ref, say)
    standing, config = await builder.build(prepared)
    image = await builder.keep(tools, standing, config, wanted, asked.names)
    say({"event": "result", "image": image.id, "names": asked.names})
    if asked.output:
        say({"output": asked.output})
        await _output(services, tools, asked, standing, image, outlet)


def _epoch(asked: NativeBuild) -> int | None:
    text = asked.arguments.get("SOURCE_DATE_EPOCH", "")
    if text and not text.isdecimal():
        raise BadQuery(f"invalid SOURCE_DATE_EPOCH: {text}")
    return int(text) if text else None


def _request(
    services: Services, asked: NativeBuild, plan: stages.Plan, files: Files | None, epoch: int | None
) -> events.Request:
    architecture = services.engine.images.platform.architecture
    logins = asked.logins
    return events.Request(
        plan=plan,
        target=asked.target,
        context=files,
        contexts={name: _named(services, text) for name, text in asked.contexts.items()},
        arguments=asked.arguments,
        labels=asked.labels,
        annotations=asked.annotations,
        no_cache=asked.no_cache,
        no_cache_stages=frozenset(name.lower() for name in asked.no_cache_stages),
        pull=asked.pull,
        squash=asked.squash,
        platform=parse_platform(asked.platform, architecture) if asked.platform else None,
        network=asked.network or "default",
        limits=Limits(
            memory=asked.memory,
            memory_swap=asked.memory_swap,
            cpu_shares=asked.cpu_shares,
            cpu_period=asked.cpu_period,
            cpu_quota=asked.cpu_quota,
            cpuset_cpus=asked.cpuset_cpus,
            cpuset_mems=asked.cpuset_mems,
            cgroup_parent=asked.cgroup_parent,
            security_opt=tuple(asked.security_opt),
            shm_size=asked.shm_size,
            extra_hosts=tuple(asked.hosts),
            ulimits=tuple((item.name, item.soft, item.hard) for item in asked.ulimits),
        ),
        auth=lambda name: logins.get(reference.parse(name).domain),
        epoch=epoch,
        allowed=frozenset(asked.allowed),
        secrets={name: _decoded(name, text) for name, text in asked.secrets.items()},
        ssh=asked.ssh,
        inline_cache=asked.inline_cache,
        provenance=asked.provenance,
        sbom=asked.sbom,
    )


def _decoded(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BadQuery(f"cannot read secret {name}: {error}") from error


def _named(services: Services, text: str) -> Files | str:
    if text.startswith("docker-image://"):
        return text.removeprefix("docker-image://")
    return services.builder.contexts.get(text).files


async def _output(
    services: Services, tools: Tools, asked: NativeBuild, standing: Standing, image: Image, outlet: Outlet[bytes]
) -> None:
    if asked.output == "tar":
        pieces = contexts.exported(tools, standing.files.lower)
    else:
        pieces = services.engine.images.save([*asked.names] or [image.id])
    async for piece in pieces:
        outlet.put(piece, 1 + len(piece) // _RECORD_BYTES)
        await outlet.drain()


def _shown(event: events.Event) -> dict[str, Any]:
    """An event as a line."""
    if isinstance(event, events.Warn):
        return {"event": "warning", "rule": event.warned.rule, "message": event.warned.message, "excerpt": ""}
    vertex = event.vertex
    shown: dict[str, Any] = {"event": type(event).__name__.lower(), "step": vertex.number}
    if isinstance(event, events.Started):
        shown |= {"of": vertex.total, "name": vertex.name, "stage": vertex.stage}
    elif isinstance(event, events.Wrote):
        shown |= {"stream": event.stream, "data": base64.b64encode(event.data).decode()}
    elif isinstance(event, events.Pulling):
        shown["record"] = msgspec.to_builtins(event.record)
    return shown
