"""`/images/...`: load, pull, import, push, save, tag, remove, commit."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from corral.api import http, imagelist, statuses, streams
from corral.api.http import Answer, BadQuery, Request, Stream
from corral.api.services import Services
from corral.engine import commit as commits
from corral.errors import CorralError, InvalidParameter
from corral.image import remote
from corral.image.model import User
from corral.oci import reference
from corral.wire.containers import ContainerConfig

Progress = Callable[[dict[str, Any]], None]


class BadAuth(InvalidParameter):
    """An X-Registry-Auth header that cannot be read."""


async def tag(services: Services, request: Request) -> Answer:
    """POST /images/{name}/tag"""
    await services.engine.images.tag(request.params["name"], request.query.text("repo"), request.query.text("tag"))
    return http.empty(201)


async def remove(services: Services, request: Request) -> Answer:
    """DELETE /images/{name}"""
    query, engine = request.query, services.engine
    name, force = request.params["name"], query.flag("force")
    if query.all("platforms"):
        users = [(User(live.id, live.has_process), live.record.layers) for live in engine.index]
        done = await engine.images.remove_platforms(name, query.all("platforms"), users, force=force)
    else:
        done = await engine.images.remove(
            name, force=force, prune=not query.flag("noprune"), in_use=engine.users_of_image
        )
    return http.json(imagelist.removed(done))


async def load(services: Services, request: Request) -> Answer:
    """POST /images/load"""
    images = services.engine.images
    quiet = request.query.flag("quiet")
    platforms = request.query.all("platform")

    async def work(progress: Progress) -> None:
        await images.load(request.stream(), progress, platforms=platforms, quiet=quiet)

    return await _begun(_progress(work))


async def create(services: Services, request: Request) -> Answer:
    """POST /images/create: pull, or with `fromSrc` import."""
    query = request.query
    images = services.engine.images
    source, name, tag = query.text("fromSrc"), query.text("fromImage"), query.text("tag")
    platform = query.text("platform") or None
    if source:
        url = "" if source == "-" else remote.address(source)

        async def work(progress: Progress) -> None:
            if url:
                progress({"status": f"Downloading from {url}"})
            await images.import_(
                remote.fetch(url) if url else request.stream(),
                query.text("repo"),
                tag,
                message=query.text("message"),
                changes=query.all("changes"),
                platform=platform,
                progress=progress,
            )

        return await _begun(_progress(work))
    if not name:
        raise BadQuery("invalid reference format")
    reference.parse(name)
    auth = registry_auth(request)

    async def pull(progress: Progress) -> None:
        await images.pull(name, tag, platform=platform, auth=auth, progress=progress)

    return await _begun(_progress(pull))


def registry_auth(request: Request) -> dict[str, str] | None:
    """The X-Registry-Auth header: base64url of JSON; raises BadAuth."""
    header = request.headers.get("x-registry-auth", "")
    if not header:
        return None
    try:
        raw = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        decoded = msgspec.json.decode(raw) if raw.strip() else {}
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise BadAuth(f"invalid X-Registry-Auth header: {error}") from error
    if not isinstance(decoded, dict):
        raise BadAuth("invalid X-Registry-Auth header: not an object")
    return {str(key): value for key, value in decoded.items() if isinstance(value, str)}


async def _begun(parts: AsyncIterator[bytes], content_type: str = "application/json") -> Answer:
    """A stream whose first record decides the status: an error before any progress is an HTTP error."""
    first = await anext(parts, None)

    async def rest() -> AsyncIterator[bytes]:
        if first is not None:
            yield first
        async for part in parts:
            yield part

    return Stream(rest(), content_type)


async def _progress(work: Callable[[Progress], Awaitable[None]]) -> AsyncIterator[bytes]:
    """Run `work` and stream its progress records; its error is the last record, or raised if it is the first."""
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    told = False

    async def run() -> None:
        try:
            await work(queue.put_nowait)
        finally:
            queue.put_nowait(None)

    task = asyncio.ensure_future(run())
    try:
        while (record := await queue.get()) is not None:
            told = True
            yield streams.json_line(record)
        try:
            await task
        except CorralError as error:
            if not told:
                raise
            yield streams.error_line(str(statuses.first(error)))
    finally:
        task.cancel()


async def push(services: Services, request: Request) -> Answer:
    """POST /images/{name}/push"""
    images, name, tag = services.engine.images, request.params["name"], request.query.text("tag")
    auth = registry_auth(request)

    async def work(progress: Progress) -> None:
        await images.push(name, tag, auth=auth, progress=progress)

    return await _begun(_progress(work))


async def save(services: Services, request: Request) -> Answer:
    """GET /images/get and /images/{name}/get"""
    names = [request.params["name"]] if "name" in request.params else request.query.all("names")
    if not names:
        raise BadQuery("no image names given")
    parts = services.engine.images.save(names, request.query.all("platform"))
    return await _begun(parts, "application/x-tar")


async def commit(services: Services, request: Request) -> Answer:
    """POST /commit"""
    query = request.query
    body = await request.json(ContainerConfig, default=ContainerConfig)
    image = await commits.commit(
        services.engine,
        services.containers,
        services.containers.get(query.text("container")),
        body,
        repo=query.text("repo"),
        tag=query.text("tag"),
        author=query.text("author"),
        comment=query.text("comment"),
        changes=query.all("changes"),
        pause=query.flag("pause", True),
    )
    return http.json({"Id": image.id}, 201)
