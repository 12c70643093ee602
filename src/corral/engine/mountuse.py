"""Volumes while somebody uses them: mounted before a container starts, given back after it has ended."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable

from corral.engine.context import Engine
from corral.engine.record import Container, MountPoint
from corral.volume.volumes import Volume


def image_key(container_id: str, destination: str) -> str:
    """The snapshot that keeps the layers of an image mounted in a container."""
    return f"{container_id}:{destination}"


def layers(engine: Engine, record: Container) -> dict[str, tuple[str, ...]]:
    """The layers of each image mounted in a container, top-most first, by destination."""
    return {
        point.destination: engine.snapshots.mounts(image_key(record.id, point.destination)).lower
        for point in record.mounts
        if point.type == "image"
    }


async def acquire(engine: Engine, record: Container) -> None:
    """Mount every volume of a container that is about to start; raises and leaves none mounted."""
    async with contextlib.AsyncExitStack() as undo:
        for point in record.mounts:
            if point.type == "volume":
                point.source = await engine.volumes.mount(point.name, record.id)
                undo.push_async_callback(engine.volumes.unmount, point.name, record.id)
                publish_mount(engine, record, point)
        undo.pop_all()


async def release(engine: Engine, record: Container) -> None:
    """A container has ended."""
    for point in record.mounts:
        if point.type == "volume":
            await engine.volumes.unmount(point.name, record.id)
            publish_unmount(engine, record, point)


def publish_mount(engine: Engine, record: Container, point: MountPoint) -> None:
    """The event of a volume that a container got."""
    attributes = {
        "container": record.id,
        "destination": point.destination,
        "driver": point.driver,
        "propagation": point.propagation,
        "read/write": str(point.rw).lower(),
    }
    engine.events.publish("volume", "mount", point.name, attributes)


def publish_unmount(engine: Engine, record: Container, point: MountPoint) -> None:
    """The event of a volume that a container gave back."""
    engine.events.publish("volume", "unmount", point.name, {"container": record.id, "driver": point.driver})


@contextlib.asynccontextmanager
async def held(engine: Engine, points: Iterable[MountPoint], holder: str) -> AsyncIterator[None]:
    """The volumes of `points` reachable for the time of the context."""
    async with contextlib.AsyncExitStack() as stack:
        for point in points:
            if point.type == "volume":
                point.source = await engine.volumes.mount(point.name, holder)
                stack.push_async_callback(engine.volumes.unmount, point.name, holder)
        yield


def attributes(volume: Volume) -> dict[str, str]:
    """What the events of a volume say."""
    return {"driver": volume.driver}
