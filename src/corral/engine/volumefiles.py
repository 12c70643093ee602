"""The files of volumes as a whole: cloned, exported, imported, kept as snapshots and put back.

A volume that is being filled has no name: it appears when it is complete, whatever happens to the daemon meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from corral.engine import mountuse
from corral.engine.context import Engine
from corral.engine.copy import feed_thread, in_thread
from corral.engine.live import Live
from corral.errors import Conflict
from corral.store import pack, tar, tree
from corral.store.duplicate import duplicate
from corral.store.snapshots import disk_usage
from corral.volume.volumes import Snapshot, Volume


class VolumeBusy(Conflict):
    """Running containers have the volume."""

    def __init__(self, name: str, containers: list[str]) -> None:
        super().__init__(
            f"cannot restore volume {name}: stop the containers that use it first: {', '.join(containers)}"
        )


async def known(engine: Engine, name: str) -> Volume:
    """A volume that exists; one that only a plugin knew is known afterwards.  Raises NoSuchVolume."""
    await engine.volumes.look_up(name)
    volume, _ = await engine.volumes.create(name, "", {}, {})
    return volume


async def export(engine: Engine, name: str) -> AsyncIterator[bytes]:
    """The files of a volume as a tar; its first member is the top folder itself, "./"."""
    volume = await known(engine, name)
    holder = engine.volumes.holder("export")
    folder = await engine.volumes.mount(volume.name, holder)
    try:
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            async for piece in in_thread(lambda: pack.pack(fd, ".", ".")):
                yield piece
        finally:
            os.close(fd)
    finally:
        await engine.volumes.unmount(volume.name, holder)


async def fill(engine: Engine, name: str, labels: dict[str, str], body: AsyncIterator[bytes]) -> Volume:
    """A new local volume with the files of a tar; raises VolumeExists."""
    engine.volumes.check_new(name)
    staged = await asyncio.to_thread(engine.volumes.stage)
    try:
        await feed_thread(body, lambda source: _unpack(engine.volumes.folder(staged), source))
        volume = await engine.volumes.take_over(staged, name, labels)
    except BaseException:
        await asyncio.to_thread(engine.volumes.discard, staged)
        raise
    engine.events.publish("volume", "create", volume.name, mountuse.attributes(volume))
    return volume


async def clone(engine: Engine, source: str, name: str) -> Volume:
    """A new local volume with the files and labels of another one."""
    volume = await known(engine, source)
    if volume.mounted_on_use:  # perhaps another file system's
        return await fill(engine, name, dict(volume.named_labels), export(engine, volume.name))
    engine.volumes.check_new(name)
    staged = await asyncio.to_thread(engine.volumes.stage)
    try:
        folder = engine.volumes.folder
        await asyncio.to_thread(duplicate, folder(volume.name), folder(staged))
        cloned = await engine.volumes.take_over(staged, name, dict(volume.named_labels))
    except BaseException:
        await asyncio.to_thread(engine.volumes.discard, staged)
        raise
    engine.events.publish("volume", "create", cloned.name, mountuse.attributes(cloned))
    return cloned


Still = Callable[[Live], AbstractAsyncContextManager[None]]


async def snapshot(engine: Engine, name: str, wanted: str, still: Still) -> Snapshot:
    """Keep a volume's files under a name; containers that run with it are held `still` while they are copied."""
    async with _locked(engine, name) as users:
        taken = await engine.volume_snapshots.take(name, wanted, _all_still(users, still))
    _tell(engine, name, "snapshot", wanted)
    return taken


async def restore(engine: Engine, name: str, wanted: str) -> None:
    """Give a volume the files of a snapshot; no container may run with it."""
    async with _locked(engine, name) as users:
        running = [live.record.name for live in users if live.has_process]
        if running:
            raise VolumeBusy(name, running)
        await engine.volume_snapshots.restore(name, wanted)
    _tell(engine, name, "restore", wanted)


async def forget(engine: Engine, name: str, wanted: str) -> None:
    """Remove a snapshot of a volume."""
    await engine.volume_snapshots.forget(name, wanted)
    _tell(engine, name, "snapshot_rm", wanted)


def shown(engine: Engine, name: str) -> list[dict[str, Any]]:
    """Every snapshot of a volume, oldest first; blocks on the disk."""
    volume, store = engine.volumes.get(name), engine.volume_snapshots
    return [
        {"Name": one.name, "Created": one.created, "Size": disk_usage(store.path(volume, one.name)).bytes}
        for one in volume.snapshots
    ]


@asynccontextmanager
async def _locked(engine: Engine, name: str) -> AsyncIterator[list[Live]]:
    """Every container that has the volume, with its lock: none starts or ends meanwhile."""
    engine.volumes.get(name)
    users = sorted((engine.index.get(one) for one in engine.users_of_volume(name)), key=lambda live: live.id)
    async with AsyncExitStack() as stack:
        for live in users:
            await stack.enter_async_context(live.lock)
        yield users


@asynccontextmanager
async def _all_still(users: list[Live], still: Still) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for live in users:
            await stack.enter_async_context(still(live))
        yield


def _tell(engine: Engine, name: str, action: str, snapshot: str) -> None:
    engine.events.publish(
        "volume", action, name, {**mountuse.attributes(engine.volumes.get(name)), "snapshot": snapshot}
    )


def _unpack(folder: str, source: Callable[[], bytes]) -> None:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tree.Unpacker(fd) as unpacker:
            unpacker.unpack(tar.TarReader(source))
    finally:
        os.close(fd)
