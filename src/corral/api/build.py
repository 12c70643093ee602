"""`POST /build` and `/build/prune`: the classic builder's API over `corral.build`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from corral.api import credentials, http, images, statuses, streams
from corral.api.classic import Lines
from corral.api.http import Answer, BadQuery, Request
from corral.api.outlet import Outlet
from corral.api.services import Services
from corral.build import context as contexts
from corral.build import dockerfile, stages
from corral.build.cache import Record
from corral.build.executor import Standing, Tools
from corral.build.request import Files
from corral.build.request import Request as BuildRequest
from corral.build.steps import RunFailed
from corral.engine import filters as matching
from corral.engine.listing import time_ns
from corral.engine.record import timestamp
from corral.engine.steps import Limits
from corral.errors import CorralError, Unsupported
from corral.oci import reference
from corral.oci.image import ImageConfig
from corral.oci.platform import parse_platform
from corral.wire import common
from corral.wire.build import CacheRow
from corral.wire.containers import Ulimit

T = TypeVar("T")

_HUB_KEY = "https://index.docker.io/v1/"
_PRUNE_FILTERS = ("id", "label", "label!", "private", "shared", "type", "until", "unused-for")


class BuildKitWanted(Unsupported):
    """The client wants BuildKit's protocol."""

    def __init__(self) -> None:
        super().__init__("BuildKit's protocol is not supported by this daemon: set DOCKER_BUILDKIT=0")


@dataclass(frozen=True)
class _Wanted:
    """The query, read."""

    names: tuple[str, ...]
    dockerfile: str
    remote: str
    quiet: bool
    remove: bool
    epoch: int | None
    cache_from: tuple[str, ...]
    fields: dict[str, Any]


async def build(services: Services, request: Request) -> Answer:
    """POST /build"""
    wanted = _read(services, request)
    return await images.begun(_stream(services, request, wanted))


def _read(services: Services, request: Request) -> _Wanted:
    query = request.query
    if query.text("version") == "2":
        raise BuildKitWanted()
    if query.text("isolation") not in ("", "default"):
        raise BadQuery(f'Unsupported isolation: "{query.text("isolation")}"')
    if query.text("outputs") not in ("", "[]", "null"):
        raise BadQuery("outputs cannot be sent in a classic build's stream: use `corral build --output`")
    arguments = _json(query.text("buildargs"), dict[str, str | None], "build args")
    given = {name: value for name, value in arguments.items() if value is not None}
    epoch = given.get("SOURCE_DATE_EPOCH", "")
    if epoch and not epoch.isdecimal():
        raise BadQuery(f"invalid SOURCE_DATE_EPOCH: {epoch}")
    platform = query.text("platform")
    names = tuple(dict.fromkeys(reference.parse(name).tagged().familiar for name in query.all("t") if name))
    logins = _logins(request)
    fields: dict[str, Any] = {
        "target": query.text("target"),
        "arguments": given,
        "labels": _json(query.text("labels"), dict[str, str], "labels"),
        "no_cache": query.flag("nocache"),
        "pull": query.flag("pull"),
        "squash": query.flag("squash"),
        "platform": parse_platform(platform, services.engine.images.platform.architecture) if platform else None,
        "network": query.text("networkmode") or "default",
        "limits": _limits(request),
        "auth": lambda name: logins.get(reference.parse(name).domain),
        "epoch": int(epoch) if epoch else None,
        "keep_containers": not query.flag("rm", True) and not query.flag("forcerm"),
        "inline_cache": given.get("BUILDKIT_INLINE_CACHE") == "1",
    }
    return _Wanted(
        names=names,
        dockerfile=query.text("dockerfile") or "Dockerfile",
        remote=query.text("remote"),
        quiet=query.flag("q"),
        remove=query.flag("rm", True),
        epoch=fields["epoch"],
        cache_from=tuple(_json(query.text("cachefrom"), list[str], "cachefrom")),
        fields=fields,
    )


def _json(text: str, kind: type[T], name: str) -> T:
    if not text or text == "null":
        return kind()
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadQuery(f"error reading {name}: {error}") from error


def _limits(request: Request) -> Limits:
    query = request.query
    raw = _json(query.text("ulimits"), list[dict[str, Any]], "ulimits")
    ulimits = tuple((item.name, item.soft, item.hard) for item in common.convert(raw, list[Ulimit]))
    return Limits(
        memory=query.number("memory", 0) or 0,
        memory_swap=query.number("memswap", 0) or 0,
        cpu_shares=query.number("cpushares", 0) or 0,
        cpu_period=query.number("cpuperiod", 0) or 0,
        cpu_quota=query.number("cpuquota", 0) or 0,
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        cgroup_parent=query.text("cgroupparent"),
        shm_size=query.number("shmsize", 0) or 0,
        ulimits=ulimits,
        extra_hosts=tuple(host for text in query.all("extrahosts") for host in _hosts(text)),
        security_opt=tuple(_json(query.text("securityopt"), list[str], "securityopt")),
    )


def _hosts(text: str) -> list[str]:
    """Clients send `extrahosts` as JSON, as words with commas, or once for each host."""
    if text.startswith("["):
        return _json(text, list[str], "extrahosts")
    if text.startswith("{"):
        return [f"{name}:{address}" for name, address in _json(text, dict[str, str], "extrahosts").items()]
    return [part for part in text.split(",") if part]


def _logins(request: Request) -> dict[str, dict[str, str]]:
    """The credentials that came with the build, by registry."""
    found = {}
    for name, login in credentials.of_registries(request).items():
        domain = "docker.io" if name in (_HUB_KEY, "docker.io", "index.docker.io") else name
        found[domain.removeprefix("https://").removeprefix("http://").partition("/")[0]] = login
    return found


# --- building --------------------------------------------------------------------------------------------------


async def _stream(services: Services, request: Request, wanted: _Wanted) -> AsyncIterator[bytes]:
    """Run the build and stream its records; its error is the last record, or raised if it is the first."""
    outlet: Outlet[dict[str, Any]] = Outlet()
    lines = Lines(outlet.put, quiet=wanted.quiet, remove=wanted.remove)
    told = False

    async def run() -> None:
        try:
            await _build(services, request, wanted, lines, outlet)
        finally:
            outlet.end()

    task = asyncio.ensure_future(run())
    try:
        while (record := await outlet.get()) is not None:
            told = True
            yield streams.json_line(record) if record else b""
        try:
            await task
        except CorralError as error:
            lines.flush()
            rest = [*lines.held, *outlet.rest()]
            if not told and not rest:
                raise
            for record in rest:
                yield streams.json_line(record)
            cause = statuses.first(error)
            yield streams.error_line(str(cause), cause.exit_code if isinstance(cause, RunFailed) else None)
    finally:
        task.cancel()
        await asyncio.wait((task,))


async def _build(
    services: Services, request: Request, wanted: _Wanted, lines: Lines, outlet: Outlet[dict[str, Any]]
) -> None:
    builder = services.builder
    async with builder.session(wanted.epoch) as tools:
        files, text = await _context(tools, request, wanted)
        name = wanted.dockerfile
        source = text or dockerfile.decode(contexts.dockerfile(files, name), name)
        plan = stages.read(dockerfile.parse(source, name))
        await contexts.apply_ignore(tools, files, name)
        asked = BuildRequest(plan=plan, context=files, **wanted.fields)
        prepared = builder.prepare(tools, asked, lines.take, outlet.drain)
        outlet.put({})  # from here on the answer is a stream: a client that goes away is noticed, even of a quiet build
        for ref in wanted.cache_from:
            await builder.take_cache(prepared, ref, lambda record: None)
        standing, config = await builder.build(prepared)
        await _finish(services, tools, standing, config, asked, wanted, lines, outlet.put)


async def _context(tools: Tools, request: Request, wanted: _Wanted) -> tuple[Files, str]:
    if not wanted.remote or wanted.remote == "client-session":
        return await contexts.receive(tools, request.stream()), ""
    return await contexts.from_remote(tools, wanted.remote)


async def _finish(
    services: Services,
    tools: Tools,
    standing: Standing,
    config: ImageConfig,
    asked: BuildRequest,
    wanted: _Wanted,
    lines: Lines,
    put: Callable[[dict[str, Any]], None],
) -> None:
    image = await services.builder.keep(tools, standing, config, asked, wanted.names)
    shown = image.id.removeprefix("sha256:")[:12]
    lines.say(f" ---> {shown}\n")
    unused = sorted(
        set(asked.arguments) - standing.consumed - stages.PREDEFINED - {"SOURCE_DATE_EPOCH", "BUILDKIT_INLINE_CACHE"}
    )
    if unused:
        lines.say(f"[Warning] One or more build-args [{' '.join(unused)}] were not consumed\n")
    put({"aux": {"ID": image.id}})
    if wanted.quiet:
        put({"stream": f"{image.id}\n"})
        return
    lines.say(f"Successfully built {shown}\n")
    for name in wanted.names:
        lines.say(f"Successfully tagged {name}\n")


# --- the cache -------------------------------------------------------------------------------------------------


async def prune(services: Services, request: Request) -> Answer:
    """POST /build/prune"""
    query = request.query
    filters = dict(query.filters())
    matching.check_names(filters, _PRUNE_FILTERS)
    builder = services.builder
    records, shared = builder.records(), builder.shared()
    keep = query.number("reserved-space", 0) or query.number("keep-storage", 0) or 0
    chosen = [record for record in records if _matches(record, filters, shared)]
    chosen = [record for record in chosen if not builder.cache_mounts.in_use(record.id)]
    if not query.flag("all"):  # what takes room of its own; the rest costs nothing and keeps later builds short
        chosen = [record for record in chosen if not record.empty and record.chain not in shared]
    if keep:
        total = sum(record.size for record in records)
        kept = chosen
        chosen = []
        for record in kept:
            if total <= keep:
                break
            total -= record.size
            chosen.append(record)
    freed = await builder.prune(chosen)
    if not filters and not keep:
        builder.contexts.forget()
    services.engine.events.publish("builder", "prune", "", {"reclaimed": str(freed)})
    return http.json({"CachesDeleted": [record.id for record in chosen], "SpaceReclaimed": freed})


def _matches(record: Record, filters: matching.Filters, shared: set[str]) -> bool:
    if filters.get("label"):
        return False  # `system prune` asks everything for labels; a step has none
    if filters.get("id") and not any(record.id.startswith(value) for value in filters["id"]):
        return False
    if filters.get("type") and record.kind not in filters["type"]:
        return False
    for name in ("until", "unused-for"):
        for value in filters.get(name, ()):
            if record.used_ns > time_ns(value):
                return False
    is_shared = record.chain in shared
    return matching.boolean(filters, "shared") in (None, is_shared) and matching.boolean(filters, "private") in (
        None,
        not is_shared,
    )


def rows(services: Services) -> list[dict[str, Any]]:
    """The cache as `system df` shows it."""
    shared = services.builder.shared()
    return [
        msgspec.to_builtins(
            CacheRow(
                id=record.id,
                parents=None,
                type=record.kind,
                description=record.description,
                in_use=services.builder.cache_mounts.in_use(record.id),
                shared=bool(record.chain) and record.chain in shared,
                size=record.size,
                created_at=timestamp(record.created_ns),
                last_used_at=timestamp(record.used_ns),
                usage_count=record.uses,
            )
        )
        for record in services.builder.records()
    ]
