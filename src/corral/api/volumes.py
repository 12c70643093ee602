"""`/volumes/...`: the local driver."""

from __future__ import annotations

import asyncio
from typing import Any

from corral.api import http
from corral.api.http import Answer, Request
from corral.api.services import Services
from corral.engine import filters as matching
from corral.errors import Conflict, NotFound
from corral.store.snapshots import disk_usage
from corral.volume.volumes import Volume
from corral.wire.common import Wire


class CreateVolume(Wire):
    """The body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


def _shown(services: Services, volume: Volume) -> dict[str, Any]:
    return {
        "CreatedAt": volume.created,
        "Driver": "local",
        "Labels": volume.labels or None,
        "Mountpoint": services.engine.volumes.folder(volume.name),
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
    }


def with_usage(services: Services, volume: Volume) -> dict[str, Any]:
    """A volume with what it takes on the disk; walks its files."""
    engine = services.engine
    usage = {
        "Size": disk_usage(engine.volumes.folder(volume.name)).bytes,
        "RefCount": len(engine.users_of_volume(volume.name)),
    }
    return {**_shown(services, volume), "UsageData": usage}


async def list_(services: Services, request: Request) -> Answer:
    """GET /volumes"""
    filters = request.query.filters()
    matching.check_names(filters, ("dangling", "driver", "label", "name"))
    dangling = matching.boolean(filters, "dangling")
    engine = services.engine
    found = [
        _shown(services, volume)
        for volume in engine.volumes.all()
        if (dangling is None or dangling == (not engine.users_of_volume(volume.name)))
        and (not filters.get("name") or any(text in volume.name for text in filters["name"]))
        and (not filters.get("driver") or "local" in filters["driver"])
        and matching.match_labels(filters.get("label", ()), volume.labels)
    ]
    return http.json({"Volumes": found, "Warnings": None})


async def create(services: Services, request: Request) -> Answer:
    """POST /volumes/create"""
    body = await request.json(CreateVolume, default=CreateVolume)
    volume, new = await services.engine.volumes.create(
        body.name, body.driver, dict(body.driver_opts or {}), dict(body.labels or {})
    )
    if new:
        services.engine.events.publish("volume", "create", volume.name, {"driver": "local"})
    return http.json(_shown(services, volume), 201)


async def inspect(services: Services, request: Request) -> Answer:
    """GET /volumes/{name}"""
    return http.json(_shown(services, services.engine.volumes.get(request.params["name"])))


async def remove(services: Services, request: Request) -> Answer:
    """DELETE /volumes/{name}"""
    engine, name = services.engine, request.params["name"]
    try:
        await engine.volumes.remove(name, engine.users_of_volume(name))
    except NotFound:
        if not request.query.flag("force"):
            raise
    else:
        engine.events.publish("volume", "destroy", name, {"driver": "local"})
    return http.empty()


async def prune(services: Services, request: Request) -> Answer:
    """POST /volumes/prune"""
    filters = request.query.filters()
    matching.check_names(filters, ("all", "label", "label!"))
    everything = matching.boolean(filters, "all") is True or request.version < (1, 42)
    engine = services.engine
    deleted, freed = [], 0
    for volume in engine.volumes.all():
        kept = engine.users_of_volume(volume.name) or not (everything or volume.anonymous)
        if kept or not matching.match_labels(filters.get("label", ()), volume.labels):
            continue
        if filters.get("label!") and matching.match_labels(filters["label!"], volume.labels):
            continue
        size = (await asyncio.to_thread(disk_usage, engine.volumes.folder(volume.name))).bytes
        try:
            await engine.volumes.remove(volume.name, engine.users_of_volume(volume.name))
        except (Conflict, NotFound):
            continue
        deleted.append(volume.name)
        freed += size
        engine.events.publish("volume", "destroy", volume.name, {"driver": "local"})
    engine.events.publish("volume", "prune", "", {"reclaimed": str(freed)})
    return http.json({"VolumesDeleted": deleted, "SpaceReclaimed": freed})
