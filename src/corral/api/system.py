"""`/_ping`, `/version`, `/info` and `/events`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from corral.api import http, streams, versions
from corral.api.http import Answer, BadQuery, Request, Response, Stream
from corral.api.services import Services
from corral.engine import filters as matching
from corral.engine import listing, system

_PING_HEADERS = (
    ("Builder-Version", "1"),
    ("Cache-Control", "no-cache, no-store, must-revalidate"),
    ("Pragma", "no-cache"),
    ("Swarm", "inactive"),
)
_EVENT_FILTERS = (
    "config container daemon event image label network node plugin scope secret service type volume".split()
)


async def ping(services: Services, request: Request) -> Answer:
    """GET and HEAD /_ping"""
    return Response(200, b"OK", "text/plain; charset=utf-8", _PING_HEADERS)


async def version(services: Services, request: Request) -> Answer:
    """GET /version"""
    shown = system.version(services.engine, versions.text(versions.NEWEST), versions.text(versions.OLDEST))
    return http.json(shown)


async def info(services: Services, request: Request) -> Answer:
    """GET /info"""
    return http.json(system.info(services.engine))


async def managed_plugins(services: Services, request: Request) -> Answer:
    """GET /plugins"""
    # Docker's managed plugins are images that the daemon runs.  Ours are found by their sockets and stand in /info.
    matching.check_names(request.query.filters(), ("capability", "enabled"))
    return http.json([])


async def events(services: Services, request: Request) -> Answer:
    """GET /events"""
    query = request.query
    filters = query.filters()
    matching.check_names(filters, _EVENT_FILTERS)
    since = listing.time_ns(query.text("since")) if query.text("since") else None
    until = listing.time_ns(query.text("until")) if query.text("until") else None
    if since is not None and until is not None and since > until:
        raise BadQuery(f"`since` time ({query.text('since')}) cannot be after `until` time ({query.text('until')})")
    return Stream(_events(services, filters, since, until))


async def _events(
    services: Services, filters: matching.Filters, since: int | None, until: int | None
) -> AsyncIterator[bytes]:
    bus = services.engine.events
    subscription = bus.subscribe()
    try:
        last = 0
        if since is not None:
            for event in await bus.past(since, until):
                last = event["timeNano"]
                if _matches(event, filters):
                    yield streams.encode(event) + b"\n"
        import time

        remaining = None if until is None else (until - time.time_ns()) / 1e9
        if remaining is not None and remaining <= 0:
            return
        async with asyncio.timeout(remaining):
            async for event in subscription:
                if event["timeNano"] > last and _matches(event, filters):
                    yield streams.encode(event) + b"\n"
    except TimeoutError:
        return
    finally:
        subscription.close()


def _matches(event: dict[str, Any], filters: matching.Filters) -> bool:
    attributes: dict[str, str] = event["Actor"]["Attributes"]
    actor = event["Actor"]["ID"]
    kind, action = event["Type"], event["Action"]
    if filters.get("type") and kind not in filters["type"]:
        return False
    if filters.get("event") and not any(
        action == value or action.startswith(value + ":") for value in filters["event"]
    ):
        return False
    if filters.get("scope") and event["scope"] not in filters["scope"]:
        return False
    if not matching.match_labels(filters.get("label", ()), attributes):
        return False
    for name in ("container", "image", "network", "volume", "plugin", "service", "node", "secret", "config", "daemon"):
        wanted = filters.get(name)
        if not wanted:
            continue
        if name == "image" and kind == "container":
            texts = [attributes.get("image", "")]
        elif name == "container" and kind in ("network", "volume"):
            texts = [attributes.get("container", "")]
        elif kind == name:
            texts = [actor, attributes.get("name", "")]
        else:
            return False
        texts += [text.rpartition(":")[0] for text in texts if ":" in text]
        # As in Docker the beginning of an id or a name will do, but an image is named exactly.
        found = (text in wanted if name == "image" else matching.match_fuzzy(wanted, text) for text in texts if text)
        if not any(found):
            return False
    return True


async def unsupported_swarm(services: Services, request: Request) -> Answer:
    """Everything of a swarm: this daemon is in none, and cannot make or join one."""
    if request.path in ("/swarm/init", "/swarm/join"):
        return http.json({"message": "swarm mode is not supported"}, 501)
    text = (
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node '
        "to swarm and try again."
    )
    return http.json({"message": text}, 503)
