"""`/images/...`: load, pull, import, push, save, tag, remove, commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from corral.api import credentials, http, imagelist, statuses, streams
from corral.api.http import Answer, BadQuery, Request, Stream
from corral.api.services import Services
from corral.engine import commit as commits
from corral.engine import filters as matching
from corral.errors import CorralError
from corral.image.model import User
from corral.oci import reference
from corral.oci.digest import parse_digest
from corral.wire.containers import ContainerConfig

Progress = Callable[[dict[str, Any]], None]
_SEARCH_LIMIT = 25


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

    return await begun(_progress(work))


async def create(services: Services, request: Request) -> Answer:
    """POST /images/create: pull, or with `fromSrc` import."""
    query = request.query
    images = services.engine.images
    source, name, tag = query.text("fromSrc"), query.text("fromImage"), query.text("tag")
    platform = query.text("platform") or None
    if source:
        from corral.image import remote  # brings an HTTP client along, which few daemons ever need

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

        return await begun(_progress(work))
    if not name:
        raise BadQuery("invalid reference format")
    parsed = reference.parse(name)
    auth = credentials.of_request(request)

    async def pull(progress: Progress) -> None:
        if tag or parsed.tag or parsed.digest:
            await images.pull(name, tag, platform=platform, auth=auth, progress=progress)
        else:
            await images.pull_all(name, platform=platform, auth=auth, progress=progress)

    return await begun(_progress(pull))


async def begun(parts: AsyncIterator[bytes], content_type: str = "application/json") -> Answer:
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
    auth = credentials.of_request(request)
    platform = request.query.text("platform") or None

    async def work(progress: Progress) -> None:
        await images.push(name, tag, platform=platform, auth=auth, progress=progress)

    return await begun(_progress(work))


async def search(services: Services, request: Request) -> Answer:
    """GET /images/search"""
    term = request.query.text("term")
    filters = dict(request.query.filters())
    matching.check_names(filters, ("is-automated", "is-official", "stars"))
    official = matching.boolean(filters, "is-official")
    automated = matching.boolean(filters, "is-automated")
    stars = [_stars(text) for text in filters.get("stars", ())]
    limit = request.query.number("limit", 0) or _SEARCH_LIMIT
    if not 1 <= limit <= 100:
        raise BadQuery(f"limit {limit} is outside the range of [1, 100]")
    if not term:
        raise BadQuery("cannot search: no term given")
    found = await services.engine.images.search(term, limit, credentials.of_request(request))
    return http.json(
        [
            {**item, "is_automated": False}
            for item in found
            # No registry builds images by itself any more, so nothing is automated (Docker says so since 25).
            if not automated
            and (official is None or item["is_official"] == official)
            and all(item["star_count"] >= wanted for wanted in stars)
        ]
    )


def _stars(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadQuery(f"invalid filter 'stars=[{text}]'") from None


async def missing(services: Services, request: Request) -> Answer:
    """GET /images/missing?digest=...: which of these blobs are not here, and have to be in an archive to be loaded."""
    digests = [parse_digest(text) for text in request.query.all("digest")]
    return http.json({"Missing": [one for one in digests if not services.engine.images.content.has(one)]})


async def distribution(services: Services, request: Request) -> Answer:
    """GET /distribution/{name}/json"""
    auth = credentials.of_request(request)
    descriptor, platforms = await services.engine.images.look(request.params["name"], auth)
    shown = {"mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}
    return http.json({"Descriptor": shown, "Platforms": [msgspec.to_builtins(platform) for platform in platforms]})


async def save(services: Services, request: Request) -> Answer:
    """GET /images/get and /images/{name}/get"""
    names = [request.params["name"]] if "name" in request.params else request.query.all("names")
    if not names:
        raise BadQuery("no image names given")
    parts = services.engine.images.save(names, request.query.all("platform"))
    return await begun(parts, "application/x-tar")


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
