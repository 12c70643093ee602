"""The files of volumes as a whole: cloned, exported, imported.

A volume that is being filled has no name: it appears when it is complete, whatever happens to the daemon meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable

from corral.engine import mountuse
from corral.engine.context import Engine
from corral.engine.copy import feed_thread, in_thread
from corral.store import pack, tar, tree
from corral.volume.volumes import Volume


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
    return await fill(engine, name, dict(volume.named_labels), export(engine, volume.name))


def _unpack(folder: str, source: Callable[[], bytes]) -> None:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tree.Unpacker(fd) as unpacker:
            unpacker.unpack(tar.TarReader(source))
    finally:
        os.close(fd)
