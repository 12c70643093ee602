"""Mounts added to and removed from a container that exists: at once if it runs, and kept for its next start."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from corral.engine import mounts, mountuse, spec
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import Container, MountPoint, save
from corral.errors import InvalidParameter, NotFound, System, Unsupported
from corral.runtime.failure import Failure
from corral.volume.volumes import ANONYMOUS
from corral.wire.containers import Mount


class CannotChangeMount(System):
    """The kernel refused a mount of a running container."""


class NoSuchMount(NotFound):
    """Nothing was mounted there by the engine."""

    def __init__(self, ref: str, target: str) -> None:
        super().__init__(f"container {ref} has no mount at {target}")


class LiveImageMount(Unsupported):
    """Layers of an image are held from the creation of a container on."""

    def __init__(self) -> None:
        super().__init__("a mount of type image can only be given when the container is created")


async def add(engine: Engine, live: Live, wanted: Mount) -> None:
    """Add a mount, the caller holds the container's lock.  Nothing is copied into a new volume."""
    record = live.record
    if wanted.type == "image":
        raise LiveImageMount
    asked: list[tuple[str, str, dict[str, str], dict[str, str]]] = []

    def volume_of(name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> tuple[str, str]:
        chosen = name or mounts.anonymous_name()
        asked.append((chosen, driver, options, labels if name else {**labels, ANONYMOUS: ""}))
        return chosen, engine.volumes.folder(chosen)

    point = mounts.from_mount(wanted, volume_of)
    if any(other.destination == point.destination for other in record.mounts):
        raise mounts.InvalidMount(f"Duplicate mount point: {point.destination}")
    async with contextlib.AsyncExitStack() as undo:
        for name, driver, options, labels in asked:
            volume, new = await engine.volumes.create(name, driver, options, labels)
            point.driver = volume.driver
            if new:
                engine.events.publish("volume", "create", name, mountuse.attributes(volume))
                undo.push_async_callback(engine.volumes.remove, name, [], force=True)
        mounts.prepare_sources([point], engine.ids_of(record))
        if live.has_process:
            await _attach(engine, live, point, undo)
        before = record.mounts, record.host.mounts
        record.mounts = [*record.mounts, point]
        record.host.mounts = [*(record.host.mounts or []), wanted]
        try:
            await engine.commit(save(record))
        except BaseException:
            record.mounts, record.host.mounts = before
            raise
        undo.pop_all()
    engine.publish(live, "mount", destination=point.destination, type=point.type)


async def _attach(engine: Engine, live: Live, point: MountPoint, undo: contextlib.AsyncExitStack) -> None:
    if point.type == "volume":
        point.source = await engine.volumes.mount(point.name, live.id)
        undo.push_async_callback(engine.volumes.unmount, point.name, live.id)
    await _request(live, "mount", mount=spec.from_point(point, ids=engine.ids_of(live.record)))
    undo.push_async_callback(_request, live, "unmount", target=point.destination)
    if point.type == "volume":
        mountuse.publish_mount(engine, live.record, point)


async def remove(engine: Engine, live: Live, target: str) -> None:
    """Remove the mount at `target`, the caller holds the container's lock; a volume stays, with its files."""
    record, place = live.record, mounts.target_path(target)
    point = next((one for one in record.mounts if one.destination == place), None)
    if point is None:
        raise NoSuchMount(record.name, target)
    inside = [one.destination for one in record.mounts if one.destination.startswith(f"{place}/")]
    if inside:
        raise InvalidParameter(f"cannot remove the mount at {place}: {inside[0]} is mounted inside of it")
    if live.has_process:
        await _request(live, "unmount", target=place)
    record.mounts = [one for one in record.mounts if one is not point]
    _forget(record, place)
    keys = [mountuse.image_key(record.id, place)] if point.type == "image" else []
    await engine.commit(save(record), *(engine.snapshots.removal(key) for key in keys))
    for key in keys:
        engine.snapshots.removed(key)
    if live.has_process and point.type == "volume":
        if not any(one.type == "volume" and one.name == point.name for one in record.mounts):
            await engine.volumes.unmount(point.name, live.id)
        mountuse.publish_unmount(engine, record, point)
    engine.publish(live, "unmount", destination=place, type=point.type)


def _forget(record: Container, place: str) -> None:
    """Take a mount out of what was asked for, however it was."""
    host = record.host
    host.mounts = [one for one in host.mounts or [] if mounts.target_path(one.target) != place] or None
    host.binds = [text for text in host.binds or [] if _target_of(text) != place] or None
    host.tmpfs = {path: words for path, words in (host.tmpfs or {}).items() if mounts.target_path(path) != place}


def _target_of(bind: str) -> str:
    parts = bind.split(":")
    return mounts.target_path(parts[1] if len(parts) > 1 else parts[0])


async def _request(live: Live, verb: str, **fields: Any) -> None:
    assert live.task is not None
    try:
        await live.task.request(verb, **fields)
    except Failure as failure:
        reason = failure.detail or os.strerror(failure.errno).lower()
        raise CannotChangeMount(f"cannot {verb} {failure.path} in container {live.id}: {reason}") from failure
