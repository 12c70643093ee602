"""`/images/...`: load, pull, list, inspect, tag, remove."""

from __future__ import annotations

import asyncio
import base64
import binascii
import calendar
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from corral.api import http, statuses, streams
from corral.api.http import Answer, BadQuery, Request, Stream
from corral.api.services import Services
from corral.engine import commit as commits
from corral.engine import filters as matching
from corral.engine.listing import time_ns
from corral.errors import CorralError, InvalidParameter
from corral.image.model import Deleted, Image, User
from corral.oci import reference
from corral.wire.containers import ContainerConfig

_FILTERS = "before dangling label label! reference since until".split()

Progress = Callable[[dict[str, Any]], None]


class BadAuth(InvalidParameter):
    """An X-Registry-Auth header that cannot be read."""


async def list_(services: Services, request: Request) -> Answer:
    """GET /images/json"""
    filters = dict(request.query.filters())
    matching.check_names(filters, _FILTERS)
    if request.query.text("filter"):
        filters["reference"] = [request.query.text("filter")]
    users = _users(services)
    images = [image for image in services.engine.images.list() if _keep(services, image, filters)]
    return http.json([_summary(image, users) for image in images])


def summaries(services: Services) -> list[dict[str, Any]]:
    """Every image, as the list shows it."""
    users = _users(services)
    return [_summary(image, users) for image in services.engine.images.list()]


def _users(services: Services) -> dict[str, int]:
    counts: dict[str, int] = {}
    for live in services.engine.index:
        counts[live.record.image_id] = counts.get(live.record.image_id, 0) + 1
    return counts


def _keep(services: Services, image: Image, filters: matching.Filters) -> bool:
    dangling = matching.boolean(filters, "dangling")
    labels = image.config.run.labels or {}
    created = _seconds(image.created) * 10**9
    images = services.engine.images
    return matching.every(
        (
            lambda: dangling is None or dangling == image.dangling,
            lambda: matching.match_labels(filters.get("label", ()), labels),
            lambda: not filters.get("label!") or not matching.match_labels(filters["label!"], labels),
            lambda: (
                not filters.get("reference")
                or any(reference_matches(pattern, name) for pattern in filters["reference"] for name in image.repo_tags)
            ),
            lambda: all(created < _seconds(images.get(ref).created) * 10**9 for ref in filters.get("before", ())),
            lambda: all(created > _seconds(images.get(ref).created) * 10**9 for ref in filters.get("since", ())),
            lambda: all(created < time_ns(text) for text in filters.get("until", ())),
        )
    )


def reference_matches(pattern: str, name: str) -> bool:
    """Whether `name` (familiar, with tag) fits a glob: of the whole, of the name alone, or of its last parts."""
    import fnmatch

    bare = name.rpartition(":")[0] or name
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(bare, pattern)


def _seconds(created: str) -> int:
    if not created:
        return 0
    try:
        return calendar.timegm(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0


def _summary(image: Image, users: dict[str, int]) -> dict[str, Any]:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": _seconds(image.created),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config.run.labels,
        "Containers": users.get(image.id, 0),
        "Descriptor": msgspec.to_builtins(image.descriptor),
    }


async def inspect(services: Services, request: Request) -> Answer:
    """GET /images/{name}/json"""
    image = services.engine.images.get(request.params["name"], request.query.text("platform") or None)
    run = image.config.run
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Comment": image.config.comment,
        "Created": image.created or "",
        "Author": image.config.author,
        "Config": _run_config(run),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlayfs", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": _rfc3339(image.tagged_at)},
        "Descriptor": msgspec.to_builtins(image.descriptor),
    }
    if image.variant:
        shown["Variant"] = image.variant
    if request.version < (1, 44):
        shown["VirtualSize"] = image.size
    return http.json(shown)


def _run_config(run: Any) -> dict[str, Any]:
    """An image's `Config` with every field that Docker's has."""
    shown: dict[str, Any] = msgspec.to_builtins(run)
    full = {
        "User": "",
        "Env": None,
        "Cmd": None,
        "Entrypoint": None,
        "WorkingDir": "",
        "Volumes": None,
        "OnBuild": None,
    }
    return {**full, "Labels": None, **shown}


def _rfc3339(ns: int) -> str:
    from corral.engine.record import timestamp

    return timestamp(ns)


async def tag(services: Services, request: Request) -> Answer:
    """POST /images/{name}/tag"""
    await services.engine.images.tag(request.params["name"], request.query.text("repo"), request.query.text("tag"))
    return http.empty(201)


async def remove(services: Services, request: Request) -> Answer:
    """DELETE /images/{name}"""
    query = request.query

    def in_use(digest: str) -> list[User]:
        return [User(live.id, live.has_process) for live in services.engine.index if live.record.image_id == digest]

    done = await services.engine.images.remove(
        request.params["name"], force=query.flag("force"), prune=not query.flag("noprune"), in_use=in_use
    )
    return http.json(
        [{"Deleted": item.digest} if isinstance(item, Deleted) else {"Untagged": item.name} for item in done]
    )


async def load(services: Services, request: Request) -> Answer:
    """POST /images/load"""
    images = services.engine.images
    quiet = request.query.flag("quiet")
    platform = request.query.text("platform") or None

    async def work(progress: Progress) -> None:
        await images.load(request.stream(), progress, platform=platform, quiet=quiet)

    return await _begun(_progress(work))


async def create(services: Services, request: Request) -> Answer:
    """POST /images/create: pull, or with `fromSrc` import."""
    query = request.query
    images = services.engine.images
    source, name, tag = query.text("fromSrc"), query.text("fromImage"), query.text("tag")
    platform = query.text("platform") or None
    if source:
        if source != "-":
            raise BadQuery("importing from a URL is not supported: download it and use `-`")

        async def work(progress: Progress) -> None:
            await images.import_(
                request.stream(),
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


async def history(services: Services, request: Request) -> Answer:
    """GET /images/{name}/history"""
    items = services.engine.images.history(request.params["name"])
    return http.json(
        [
            {
                "Id": item.id,
                "Created": _seconds(item.created),
                "CreatedBy": item.created_by,
                "Tags": list(item.tags) or None,
                "Size": item.size,
                "Comment": item.comment,
            }
            for item in items
        ]
    )


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
    parts = services.engine.images.save(names, request.query.text("platform") or None)
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


async def prune(services: Services, request: Request) -> Answer:
    """POST /images/prune"""
    filters = dict(request.query.filters())
    matching.check_names(filters, ("dangling", "until", "label", "label!"))
    only_dangling = matching.boolean(filters, "dangling")
    filters.pop("dangling", None)
    used = _users(services)
    deleted: list[dict[str, str]] = []
    freed = 0
    for image in services.engine.images.list():
        if (
            image.id in used
            or (only_dangling is not False and not image.dangling)
            or not _keep(services, image, filters)
        ):
            continue
        for name in image.repo_tags or (image.id,):
            done = await services.engine.images.remove(name, force=True)
            deleted += [
                {"Deleted": item.digest} if isinstance(item, Deleted) else {"Untagged": item.name} for item in done
            ]
        freed += image.size
    return http.json({"ImagesDeleted": deleted or None, "SpaceReclaimed": freed})
