"""Disk use and what frees it: `/system/df`, `/images/prune`, and beyond Docker `/images/gc` and `/system/check`."""

from __future__ import annotations

import asyncio
from typing import Any

from corral.api import build, http, imagelist, volumes
from corral.api.http import Answer, BadQuery, Request
from corral.api.services import Services
from corral.engine import check, inspect
from corral.engine import filters as matching
from corral.image.model import Image
from corral.volume.volumes import LOCAL

_KINDS = ("container", "image", "volume", "build-cache")
_RUNNING = ("running", "paused", "restarting")


async def disk_usage(services: Services, request: Request) -> Answer:
    """GET /system/df"""
    kinds = request.query.all("type") or list(_KINDS)
    for kind in kinds:
        if kind not in _KINDS:
            raise BadQuery(f"unknown object type: {kind}")
    if request.version < (1, 52):
        return http.json(await asyncio.to_thread(_disk_usage, services, kinds))
    verbose = request.query.flag("verbose")
    return http.json(await asyncio.to_thread(_disk_usage_by_kind, services, kinds, verbose))


def _disk_usage(services: Services, kinds: list[str]) -> dict[str, Any]:
    """Every item, as the API was before 1.52; clients add up."""
    shown: dict[str, Any] = {"BuilderSize": 0}
    if "image" in kinds:
        shown["Images"], shown["LayersSize"], _ = imagelist.with_usage(services)
    if "container" in kinds:
        shown["Containers"] = _containers(services)
    if "volume" in kinds:
        shown["Volumes"] = _volumes(services)
    if "build-cache" in kinds:
        shown["BuildCache"] = build.rows(services)
        shown["BuilderSize"] = sum(row["Size"] for row in shown["BuildCache"])
    return shown


def _disk_usage_by_kind(services: Services, kinds: list[str], verbose: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if "image" in kinds:
        items, total, reclaimable = imagelist.with_usage(services)
        active = sum(1 for one in items if one["Containers"])
        shown["ImageUsage"] = _usage(items, active, total, reclaimable, verbose)
    if "container" in kinds:
        items = _containers(services)
        idle = [one for one in items if one["State"] not in _RUNNING]
        total = sum(one["SizeRw"] for one in items)
        free = sum(one["SizeRw"] for one in idle)
        shown["ContainerUsage"] = _usage(items, len(items) - len(idle), total, free, verbose)
    if "volume" in kinds:
        items = _volumes(services)
        idle = [one for one in items if not one["UsageData"]["RefCount"]]
        total = sum(one["UsageData"]["Size"] for one in items)
        free = sum(one["UsageData"]["Size"] for one in idle)
        shown["VolumeUsage"] = _usage(items, len(items) - len(idle), total, free, verbose)
    if "build-cache" in kinds:
        items = build.rows(services)
        total = sum(row["Size"] for row in items)
        free = sum(row["Size"] for row in items if not row["Shared"])
        shown["BuildCacheUsage"] = _usage(items, 0, total, free, verbose)
    return shown


def _usage(items: list[Any], active: int, total: int, reclaimable: int, verbose: bool) -> dict[str, Any]:
    shown = {"ActiveCount": active, "TotalCount": len(items), "Reclaimable": reclaimable, "TotalSize": total}
    return {**shown, "Items": items} if verbose else shown


def _containers(services: Services) -> list[dict[str, Any]]:
    engine = services.engine
    return [inspect.summary(engine, live, size=True) for live in engine.index]


def _volumes(services: Services) -> list[dict[str, Any]]:
    found = services.engine.volumes.all()
    return [volumes.with_usage(services, volume) for volume in found if volume.driver == LOCAL]


async def prune_images(services: Services, request: Request) -> Answer:
    """POST /images/prune; with `dry-run`, what it would remove."""
    query, engine = request.query, services.engine
    filters = dict(query.filters())
    matching.check_names(filters, ("dangling", "until", "label", "label!"))
    only_dangling = matching.boolean(filters, "dangling") is not False
    filters.pop("dangling", None)

    def select(image: Image) -> bool:
        return (image.dangling or not only_dangling) and imagelist.keep(services, image, filters)

    if query.flag("dry-run"):
        done, freed = engine.images.would_prune(select, engine.users_of_image)
    else:
        done, freed = await engine.images.prune(select, engine.users_of_image)
        engine.events.publish("image", "prune", "", {"reclaimed": str(freed)})
    return http.json({"ImagesDeleted": imagelist.removed(done) or None, "SpaceReclaimed": freed})


async def collect_images(services: Services, request: Request) -> Answer:
    """POST /images/gc: apply the policy of the configuration now; with `dry-run`, say what would go."""
    keeper = services.image_keeper
    if keeper.policy is None:
        raise BadQuery('no policy is configured: set "image-gc" in daemon.json')
    found = await keeper.collect(keeper.policy, dry_run=request.query.flag("dry-run"))
    removed = [{"Id": choice.digest, "Names": list(choice.names), "Size": choice.bytes} for choice in found.removed]
    return http.json({"Wanted": found.wanted, "Removed": removed, "SpaceReclaimed": found.freed})


async def check_store(services: Services, request: Request) -> Answer:
    """POST /system/check: verify every blob, layer and record; with `repair`, put right what can be."""
    repair = request.query.flag("repair")
    found = await check.check(services.engine, repair=repair)
    problems = [
        {"Kind": one.kind, "Subject": one.subject, "Detail": one.detail, "Repair": one.repair, "Repaired": one.repaired}
        for one in found.problems
    ]
    return http.json({"Checked": found.checked, "Problems": problems})
