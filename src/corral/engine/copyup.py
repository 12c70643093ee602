"""A new volume starts with what the image has at its place: files, and the folder's own owner and mode."""

from __future__ import annotations

import asyncio
import os
import stat

from corral.engine import copy, filesystem, mountuse
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import MountPoint
from corral.store import pack, tar, tree


async def fill_volumes(engine: Engine, live: Live) -> None:
    """Fill the empty volumes of a container that has never run, except those with `nocopy`."""
    points = [point for point in live.record.mounts if point.type == "volume" and "nocopy" not in point.options]
    if not points:
        return
    async with mountuse.held(engine, points, f"{live.id}-copy"):
        points = [point for point in points if not os.listdir(point.source)]
        if not points:
            return
        async with filesystem.without_mounts(engine, live) as root_fd:
            for point in points:
                await asyncio.to_thread(_fill, root_fd, point)


def _fill(root_fd: int, point: MountPoint) -> None:
    found = copy.follow(root_fd, point.destination)
    if found is None or not stat.S_ISDIR(found.st_mode):
        return
    os.chown(point.source, found.st_uid, found.st_gid)
    os.chmod(point.source, stat.S_IMODE(found.st_mode))
    pieces = pack.pack(root_fd, f"{point.destination}/.", "")
    volume_fd = os.open(point.source, os.O_PATH | os.O_DIRECTORY)
    try:
        with tree.Unpacker(volume_fd) as unpacker:
            unpacker.unpack(tar.TarReader(lambda: next(pieces, b"")))
    finally:
        os.close(volume_fd)
