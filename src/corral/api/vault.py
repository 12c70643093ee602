"""`/vault`: secrets and configs of plain containers.  Beyond Docker, whose own need a swarm."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from typing import Any

from corral.api import http
from corral.api.http import Answer, BadQuery, Request
from corral.api.services import Services
from corral.engine import filters as matching
from corral.engine.record import timestamp
from corral.errors import Conflict
from corral.store.vault import KINDS, Item
from corral.wire.common import Wire


class VaultRequest(Wire):
    """The body of create and update; `data` in base64."""

    name: str = ""
    kind: str = "secret"
    data: str = ""
    labels: dict[str, str] | None = None


class ItemInUse(Conflict):
    """Containers have the item."""


def _shown(item: Item) -> dict[str, Any]:
    return {
        "ID": item.id,
        "Name": item.name,
        "Kind": item.kind,
        "Labels": item.labels,
        "CreatedAt": timestamp(item.created_ns),
        "UpdatedAt": timestamp(item.updated_ns),
    }


def _kind(request: Request) -> str:
    kind = request.query.text("kind", "secret")
    if kind not in KINDS:
        raise BadQuery(f"there is no kind {kind}: only {' and '.join(KINDS)}")
    return kind


async def list_(services: Services, request: Request) -> Answer:
    """GET /vault"""
    filters = request.query.filters()
    matching.check_names(filters, ("kind", "label", "name"))
    found = [
        _shown(item)
        for item in services.engine.vault.list()
        if (not filters.get("kind") or item.kind in filters["kind"])
        and (not filters.get("name") or any(item.name.startswith(name) for name in filters["name"]))
        and matching.match_labels(filters.get("label", ()), item.labels)
    ]
    return http.json(found)


async def create(services: Services, request: Request) -> Answer:
    """POST /vault/create"""
    body = await request.json(VaultRequest)
    vault = services.engine.vault
    data, labels = _decoded(body.data), dict(body.labels or {})
    item = await asyncio.to_thread(vault.create, body.name, body.kind, data, labels, time.time_ns())
    services.engine.events.publish(item.kind, "create", item.id, {"name": item.name})
    return http.json(_shown(item), 201)


async def inspect(services: Services, request: Request) -> Answer:
    """GET /vault/{name}"""
    return http.json(_shown(services.engine.vault.get(request.params["name"], _kind(request))))


async def update(services: Services, request: Request) -> Answer:
    """POST /vault/{name}/update: replaced in every container that has it, with the action that each asked for."""
    body = await request.json(VaultRequest)
    engine, name, kind = services.engine, request.params["name"], _kind(request)
    item = await asyncio.to_thread(engine.vault.update, name, kind, _decoded(body.data), time.time_ns())
    engine.events.publish(kind, "update", item.id, {"name": name})
    told = await services.containers.vault_changed(kind, name)
    return http.json({**_shown(item), "Containers": told})


async def remove(services: Services, request: Request) -> Answer:
    """DELETE /vault/{name}"""
    engine, name, kind = services.engine, request.params["name"], _kind(request)
    users = engine.users_of_item(kind, name)
    if users:
        raise ItemInUse(f"{kind} {name} is in use by the following containers: {', '.join(users)}")
    item = await asyncio.to_thread(engine.vault.remove, name, kind)
    engine.events.publish(kind, "remove", item.id, {"name": name})
    return http.empty()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadQuery(f"invalid data: {error}") from error
