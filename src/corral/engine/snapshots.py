"""Snapshots of containers: what a container has written, kept under a name; rewound to, or the start of another one.

A snapshot of a container that does not run copies nothing: what it has written becomes a read-only directory, on which
it goes on.  A running one is paused while its own files are copied.  Volumes and binds are not part of it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from corral.engine import lifecycle
from corral.engine.context import Engine
from corral.engine.defaults import run_config, storage_limit
from corral.engine.live import Live
from corral.engine.record import Snapshot, save, timestamp
from corral.errors import Conflict, InvalidParameter
from corral.oci.image import RunConfig
from corral.store.snapshots import Change
from corral.volume.snapshots import BadSnapshotName, NoSuchSnapshot, SnapshotTaken, check_name
from corral.wire.containers import CreateRequest, HostConfig

LABEL = "corral.from-snapshot"


class CannotRewind(Conflict):
    """Only what nobody uses can be put back."""

    def __init__(self, name: str, status: str) -> None:
        super().__init__(
            f'cannot rewind container "/{name}": container is {status}: stop the container before rewinding'
        )


@dataclass(frozen=True, slots=True)
class Base:
    """What a new container stands on; `parent` is a chain id, or the key of a committed snapshot."""

    image_id: str
    image_ref: str
    architecture: str
    layers: str
    parent: str
    run: RunConfig


async def take(engine: Engine, live: Live, name: str, still: AbstractAsyncContextManager[None]) -> Snapshot:
    """Keep what the container has written as `name`; the caller holds its lock.

    In the context `still`, whatever runs in the container stands still: for the time of a copy.
    """
    record = live.record
    check_name(name)
    if any(one.name == name for one in record.snapshots):
        raise SnapshotTaken(record.name, name)
    taken = Snapshot(name, f"{live.id}@{secrets.token_hex(8)}", time.time_ns(), record.config)
    if live.has_process:
        async with still:
            change = await asyncio.to_thread(engine.snapshots.duplicate, live.id, taken.key)
    else:
        change = await asyncio.to_thread(engine.snapshots.freeze, live.id, taken.key, storage_limit(record.host))
    try:
        await asyncio.to_thread(engine.snapshots.sync)
    except BaseException:
        change.undo()
        raise
    await _carry_out(engine, live, change, [*record.snapshots, taken])
    engine.publish(live, "snapshot", snapshot=name)
    return taken


async def rewind(engine: Engine, live: Live, name: str) -> None:
    """Put the container's file system back to what it was; the caller holds its lock."""
    found = find(live, name)
    status = live.record.state.status
    if status in lifecycle.ALIVE:
        raise CannotRewind(live.record.name, status)
    limit = storage_limit(live.record.host)
    change = await asyncio.to_thread(engine.snapshots.rewind, live.id, found.key, limit)
    await _carry_out(engine, live, change, live.record.snapshots)
    engine.publish(live, "rewind", snapshot=name)


async def forget(engine: Engine, live: Live, name: str) -> None:
    """Drop a name, and the files unless a container stands on them; the caller holds the lock."""
    found = find(live, name)
    rest = [one for one in live.record.snapshots if one is not found]
    await _carry_out(engine, live, engine.snapshots.forget([found.key]), rest)
    engine.publish(live, "snapshot_rm", snapshot=name)


async def _carry_out(engine: Engine, live: Live, change: Change, snapshots: list[Snapshot]) -> None:
    before, live.record.snapshots = live.record.snapshots, snapshots
    try:
        await engine.commit(*change.statements, save(live.record))
    except BaseException:
        live.record.snapshots = before
        change.undo()
        raise
    await asyncio.to_thread(change.done)


def find(live: Live, name: str) -> Snapshot:
    """A container's snapshot by name; raises NoSuchSnapshot."""
    for one in live.record.snapshots:
        if one.name == name:
            return one
    raise NoSuchSnapshot(live.record.name, name)


def shown(engine: Engine, live: Live) -> list[dict[str, Any]]:
    """Every snapshot of a container, oldest first; blocks on the disk."""
    return [
        {"Name": one.name, "Created": timestamp(one.created_ns), "Size": engine.snapshots.usage(one.key).bytes}
        for one in live.record.snapshots
    ]


def base(engine: Engine, request: CreateRequest, host: HostConfig, platform: str) -> Base:
    """What a create asks to stand on: an image, or the snapshot that a field or our label names.

    On a snapshot, the container's image need not be said; another image is refused.
    """
    host.from_snapshot = host.from_snapshot or (request.labels or {}).get(LABEL, "")
    if not host.from_snapshot:
        image = engine.images.get(request.image, platform or None)
        chain = image.chain_id or ""
        return Base(image.id, request.image, image.architecture, chain, chain, image.config.run)
    container, at, name = host.from_snapshot.rpartition("@")
    if not (container and at and name):
        raise BadSnapshotName(f"invalid snapshot {host.from_snapshot!r}: it must be CONTAINER@SNAPSHOT")
    live = engine.index.get(container)
    found, record = find(live, name), live.record
    if request.image and request.image != record.image_ref and engine.images.get(request.image).id != record.image_id:
        raise InvalidParameter(f"snapshot {host.from_snapshot} is of image {record.image_ref}, not {request.image}")
    request.image = request.image or record.image_ref
    return Base(record.image_id, request.image, record.architecture, record.layers, found.key, run_config(found.config))
