"""`/containers/{name}/snapshots` and `rewind`, which are beyond Docker."""

from __future__ import annotations

import asyncio

from corral.api import http
from corral.api.http import Answer, Request
from corral.api.services import Services
from corral.engine import snapshots
from corral.engine.record import timestamp
from corral.wire.containers import SnapshotRequest


async def list_(services: Services, request: Request) -> Answer:
    """GET /containers/{name}/snapshots"""
    live = services.containers.get(request.params["name"])
    return http.json(await asyncio.to_thread(snapshots.shown, services.engine, live))


async def take(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/snapshots"""
    wanted = await request.json(SnapshotRequest)
    taken = await services.containers.snapshot(request.params["name"], wanted.name)
    return http.json({"Name": taken.name, "Created": timestamp(taken.created_ns)}, 201)


async def forget(services: Services, request: Request) -> Answer:
    """DELETE /containers/{name}/snapshots/{snapshot}"""
    await services.containers.forget_snapshot(request.params["name"], request.params["snapshot"])
    return http.empty()


async def rewind_(services: Services, request: Request) -> Answer:
    """POST /containers/{name}/rewind"""
    rewind = services.containers.rewind_running if request.query.flag("restart") else services.containers.rewind
    await rewind(request.params["name"], request.query.text("snapshot"))
    return http.empty()
