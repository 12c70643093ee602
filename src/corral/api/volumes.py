"""`/volumes/...`."""

from __future__ import annotations

import asyncio
from typing import Any

from corral.api import http
from corral.api.http import Answer, Request
from corral.api.services import Services
from corral.engine import filters as matching
from corral.engine import mountuse, volumefiles
from corral.errors import Conflict, NotFound
from corral.store.snapshots import disk_usage
from corral.volume.volumes import LOCAL, Volume
from corral.wire.common import Wire
from corral.wire.containers import SnapshotRequest


class CreateVolume(Wire):
    """The body of `POST /volumes/create`."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


async def _shown(services: Services, volume: Volume) -> dict[str, Any]:
    return _described(volume, await services.engine.volumes.described(volume))


def _described(volume: Volume, told: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "CreatedAt": volume.created,
        "Driver": volume.driver,
        "Labels": volume.labels or None,
        "Name": volume.name,
        "Options": volume.options or None,
        **told,
    }
    return dict(sorted(shown.items()))  # the order in which Docker writes them


def with_usage(services: Services, volume: Volume) -> dict[str, Any]:
    """A local volume with what it takes on the disk; walks its files."""
    engine = services.engine
    folder = engine.volumes.folder(volume.name)
    usage = {"Size": disk_usage(folder).bytes, "RefCount": len(engine.users_of_volume(volume.name))}
    return {**_described(volume, {"Mountpoint": folder, "Scope": "local"}), "UsageData": usage}


async def list_(services: Services, request: Request) -> Answer:
    """GET /volumes"""
    filters = request.query.filters()
    matching.check_names(filters, ("dangling", "driver", "label", "name"))
    dangling = matching.boolean(filters, "dangling")
    engine = services.engine
    volumes, warnings = await engine.volumes.listed()
    found = [
        await _shown(services, volume)
        for volume in volumes
        if (dangling is None or dangling == (not engine.users_of_volume(volume.name)))
        and (not filters.get("name") or matching.match_pattern(filters["name"], [volume.name]))
        and (not filters.get("driver") or volume.driver in filters["driver"])
        and matching.match_labels(filters.get("label", ()), volume.labels)
    ]
    return http.json({"Volumes": found, "Warnings": warnings or None})


async def create(services: Services, request: Request) -> Answer:
    """POST /volumes/create"""
    body = await request.json(CreateVolume, default=CreateVolume)
    volume, new = await services.engine.volumes.create(
        body.name, body.driver, dict(body.driver_opts or {}), dict(body.labels or {})
    )
    if new:
        services.engine.events.publish("volume", "create", volume.name, mountuse.attributes(volume))
    return http.json(await _shown(services, volume), 201)


async def inspect(services: Services, request: Request) -> Answer:
    """GET /volumes/{name}"""
    return http.json(await _shown(services, await services.engine.volumes.look_up(request.params["name"])))


async def remove(services: Services, request: Request) -> Answer:
    """DELETE /volumes/{name}"""
    engine, name = services.engine, request.params["name"]
    force = request.query.flag("force")
    try:
        volume = await engine.volumes.look_up(name)
        await engine.volumes.remove(name, engine.users_of_volume(name), force=force)
    except NotFound:
        if not force:
            raise
    else:
        engine.events.publish("volume", "destroy", name, mountuse.attributes(volume))
    return http.empty()


async def rename(services: Services, request: Request) -> Answer:
    """POST /volumes/{name}/rename"""
    engine, name = services.engine, request.params["name"]
    volume = await engine.volumes.rename(name, request.query.text("name"), engine.users_of_volume(name))
    engine.events.publish("volume", "rename", volume.name, {**mountuse.attributes(volume), "oldName": name})
    return http.json(await _shown(services, volume))


async def clone(services: Services, request: Request) -> Answer:
    """POST /volumes/{name}/clone"""
    volume = await volumefiles.clone(services.engine, request.params["name"], request.query.text("name"))
    return http.json(await _shown(services, volume), 201)


async def export(services: Services, request: Request) -> Answer:
    """GET /volumes/{name}/export"""
    volume = await volumefiles.known(services.engine, request.params["name"])
    return http.Stream(volumefiles.export(services.engine, volume.name), "application/x-tar")


async def import_(services: Services, request: Request) -> Answer:
    """POST /volumes/import"""
    volume = await volumefiles.fill(services.engine, request.query.text("name"), {}, request.stream())
    return http.json(await _shown(services, volume), 201)


async def list_snapshots(services: Services, request: Request) -> Answer:
    """GET /volumes/{name}/snapshots"""
    return http.json(await asyncio.to_thread(volumefiles.shown, services.engine, request.params["name"]))


async def take_snapshot(services: Services, request: Request) -> Answer:
    """POST /volumes/{name}/snapshots"""
    wanted = await request.json(SnapshotRequest)
    taken = await volumefiles.snapshot(
        services.engine, request.params["name"], wanted.name, services.containers.held_still
    )
    return http.json({"Name": taken.name, "Created": taken.created}, 201)


async def forget_snapshot(services: Services, request: Request) -> Answer:
    """DELETE /volumes/{name}/snapshots/{snapshot}"""
    await volumefiles.forget(services.engine, request.params["name"], request.params["snapshot"])
    return http.empty()


async def restore(services: Services, request: Request) -> Answer:
    """POST /volumes/{name}/restore"""
    await volumefiles.restore(services.engine, request.params["name"], request.query.text("snapshot"))
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
        kept = kept or volume.driver != LOCAL  # what a plugin holds is not for a prune, as in Docker
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
        engine.events.publish("volume", "destroy", volume.name, mountuse.attributes(volume))
    engine.events.publish("volume", "prune", "", {"reclaimed": str(freed)})
    return http.json({"VolumesDeleted": deleted, "SpaceReclaimed": freed})
