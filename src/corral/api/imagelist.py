"""What is said of images: lists, inspect, history, attestations, and the answers to removals."""

from __future__ import annotations

import calendar
import fnmatch
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from corral.api import http
from corral.api.http import Answer, BadQuery, Request
from corral.api.services import Services
from corral.engine import filters as matching
from corral.engine.listing import time_ns
from corral.engine.record import timestamp
from corral.image.model import Deleted, Image, Untagged
from corral.image.parts import Part, parts_of, statements

_FILTERS = "before dangling label label! reference since until".split()


async def list_(services: Services, request: Request) -> Answer:
    """GET /images/json"""
    query, engine = request.query, services.engine
    filters = dict(query.filters())
    matching.check_names(filters, _FILTERS)
    if query.text("filter"):
        filters["reference"] = [query.text("filter")]
    users = _users(services)
    shown = [_summary(image, users) for image in engine.images.list() if keep(services, image, filters)]
    if query.flag("shared-size"):
        usage = engine.images.usage(())
        for one in shown:
            one["SharedSize"] = usage.images[one["Id"]].shared
    if query.flag("manifests") and request.version >= (1, 47):
        for one in shown:
            one["Manifests"] = _manifests(services, one["Id"])
    return http.json(shown)


def with_usage(services: Services) -> tuple[list[dict[str, Any]], int, int]:
    """Every image with its shared size; the bytes of all together, and those that nobody needs."""
    engine = services.engine
    images, users = engine.images.list(), _users(services)
    usage = engine.images.usage(users)
    shown = []
    for image in images:
        one = _summary(image, users)
        one["SharedSize"] = usage.images[image.id].shared
        shown.append(one)
    return shown, usage.total, usage.reclaimable


def keep(services: Services, image: Image, filters: matching.Filters) -> bool:
    """Whether an image passes all filters."""
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
    bare = name.rpartition(":")[0] or name
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(bare, pattern)


def _seconds(created: str) -> int:
    if not created:
        return 0
    try:
        return calendar.timegm(time.strptime(created[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0


def _users(services: Services) -> Counter[str]:
    return Counter(live.record.image_id for live in services.engine.index)


def _summary(image: Image, users: Counter[str]) -> dict[str, Any]:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": _seconds(image.created),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config.run.labels,
        "Containers": users[image.id],
        "Descriptor": msgspec.to_builtins(image.descriptor),
    }


def _manifests(services: Services, digest: str) -> list[dict[str, Any]]:
    """`Manifests`: each platform's image and each attestation, here or not."""
    engine = services.engine
    users = [(live.id, live.record.layers) for live in engine.index if live.record.image_id == digest]
    return [_manifest(part, users) for part in parts_of(engine.images.catalog, engine.images.content, digest)]


def _manifest(part: Part, users: Iterable[tuple[str, str]]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "ID": part.descriptor.digest,
        "Descriptor": msgspec.to_builtins(part.descriptor),
        "Available": part.available,
        "Size": {"Content": part.content_size, "Total": part.content_size + part.unpacked_size},
        "Kind": part.kind,
    }
    if part.kind == "image":
        shown["ImageData"] = {
            "Platform": msgspec.to_builtins(part.platform) if part.platform else {},
            "Containers": [user for user, chain in users if chain and chain == part.chain],
            "Size": {"Unpacked": part.unpacked_size},
        }
    elif part.kind == "attestation":
        shown["AttestationData"] = {"For": part.subject}
    return shown


async def inspect(services: Services, request: Request) -> Answer:
    """GET /images/{name}/json"""
    query = request.query
    platform = query.text("platform") or None
    if platform and query.flag("manifests"):
        raise BadQuery("conflicting options: manifests and platform options cannot both be set")
    image = services.engine.images.get(request.params["name"], platform)
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Comment": image.config.comment,
        "Created": image.created or "",
        "Author": image.config.author,
        "Config": _run_config(image.config.run),
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size,
        "GraphDriver": {"Name": "overlayfs", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": timestamp(image.tagged_at)},
        "Descriptor": msgspec.to_builtins(image.descriptor),
    }
    if image.variant:
        shown["Variant"] = image.variant
    if image.config.os_version:
        shown["OsVersion"] = image.config.os_version
    if request.version < (1, 44):
        shown["VirtualSize"] = image.size
    if query.flag("manifests") and request.version >= (1, 48):
        shown["Manifests"] = _manifests(services, image.id)
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


async def history(services: Services, request: Request) -> Answer:
    """GET /images/{name}/history"""
    items = services.engine.images.history(request.params["name"], request.query.text("platform") or None)
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


async def attestations(services: Services, request: Request) -> Answer:
    """GET /images/{name}/attestations"""
    query, images = request.query, services.engine.images
    platforms = query.all("platform")
    if len(platforms) > 1:
        raise BadQuery("only one platform can be given")
    image = images.get(request.params["name"], platforms[0] if platforms else None)
    shown = []
    for found in statements(images.catalog, images.content, image, query.all("type")):
        one: dict[str, Any] = {
            "Descriptor": msgspec.to_builtins(found.descriptor),
            "PredicateType": found.predicate_type,
        }
        if query.flag("statement"):
            one["Statement"] = msgspec.json.decode(found.body)
        shown.append(one)
    return http.json(shown)


def removed(done: Iterable[Untagged | Deleted]) -> list[dict[str, str]]:
    """What a removal answers."""
    return [{"Deleted": item.digest} if isinstance(item, Deleted) else {"Untagged": item.name} for item in done]
