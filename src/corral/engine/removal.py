"""Removing a container: from the database first, then everything it had on disk."""

from __future__ import annotations

import asyncio
import contextlib
import shutil

from corral.engine import lifecycle, mountuse
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import delete
from corral.errors import Conflict, NotFound


class StillRunning(Conflict):
    """A running container is removed only by force."""

    def __init__(self, name: str, status: str) -> None:
        hint = "stop the container before removing or force remove"
        if status == "paused":
            hint = "unpause and then stop the container before removing or force remove"
        super().__init__(f'cannot remove container "/{name}": container is {status}: {hint}')


async def remove_now(engine: Engine, live: Live, *, volumes: bool) -> None:
    """Remove a container that has no process; waits for whoever has its lock."""
    async with live.lock:
        if engine.index.find(live.id) is not live:
            return
        if live.has_process:
            raise StillRunning(live.record.name, live.record.state.status)
        lifecycle.check("remove", live.record.state.status, live.id)
        if live.restart_timer is not None:
            live.restart_timer.cancel()
            live.restart_timer = None
        keys = [live.id, *_image_keys(live)]
        forgotten = engine.snapshots.forget([one.key for one in live.record.snapshots])
        await engine.commit(
            delete(live.record), *(engine.snapshots.removal(key) for key in keys), *forgotten.statements
        )
        for key in keys:
            engine.snapshots.removed(key)
        forgotten.done()
        engine.index.discard(live)
        shutil.rmtree(engine.paths.container(live.id), ignore_errors=True)
        engine.egress_log.forget(live.id)
        for client in live.early_clients:
            client.close()
    if volumes:
        await _remove_anonymous_volumes(engine, live)
    engine.publish(live, "destroy")
    live.notify_removed()


def _image_keys(live: Live) -> list[str]:
    points = live.record.mounts
    return [mountuse.image_key(live.id, point.destination) for point in points if point.type == "image"]


async def _remove_anonymous_volumes(engine: Engine, live: Live) -> None:
    for point in live.record.mounts:
        if not point.anonymous:
            continue  # also one that nobody named, if this container was given it by its name
        with contextlib.suppress(NotFound, Conflict):
            if engine.volumes.get(point.name).anonymous:
                await engine.volumes.remove(point.name, engine.users_of_volume(point.name))
                engine.events.publish("volume", "destroy", point.name, {"driver": point.driver})
        await asyncio.sleep(0)
