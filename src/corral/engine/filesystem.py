"""A container's file system seen from outside: of a running one through its process, of another by a holder.

A holder is a shim without a container that mounts the file system in a namespace of its own for as long as we
keep its connection; whoever dies first, nothing stays mounted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

from corral.engine import mountuse, spec
from corral.engine.context import Engine
from corral.engine.live import Live, NoSuchContainer
from corral.engine.record import MountPoint
from corral.errors import System
from corral.oci.idmap import IdMap
from corral.runtime.failure import Failure

# A layer must hold whole files under their own names, so that it can be committed and read by others.
_OVERLAY_OPTIONS = ["redirect_dir=off", "metacopy=off"]


def make_init_layer(engine: Engine) -> None:
    """The layer between image and container that every root has: mount points, and the file by which tools
    recognise a container.  What is here need not be made in the container's own layer, where diff would show it.
    """
    for name in ("dev", "proc", "sys"):
        os.makedirs(os.path.join(engine.paths.init_layer, name), exist_ok=True)
    mark = os.path.join(engine.paths.init_layer, ".dockerenv")
    os.close(os.open(mark, os.O_WRONLY | os.O_CREAT, 0o755))
    os.chmod(mark, 0o755)


def rootfs(engine: Engine, live: Live) -> dict[str, Any]:
    """The root of a container, as the shim protocol says it."""
    overlay = engine.snapshots.mounts(live.id)
    return rootfs_on(engine, overlay.lower, overlay.upper, overlay.work, engine.ids_of(live.record))


def rootfs_on(engine: Engine, lower: Iterable[str], upper: str, work: str, ids: IdMap | None) -> dict[str, Any]:
    """The root on these directories (`lower` top-most first), as the shim protocol says it."""
    return {
        "lower": [engine.paths.init_layer, *lower],
        "upper": upper,
        "work": work,
        "options": _OVERLAY_OPTIONS,
        "mappings": ids.described() if ids else None,
    }


class CannotMount(System):
    """The file system of a stopped container could not be mounted."""


@contextlib.asynccontextmanager
async def root(engine: Engine, live: Live) -> AsyncIterator[int]:
    """A descriptor of the container's root, its mounts included, for the time of the context.

    With remapped users its files have the host's ids there, as they have below /proc/PID/root.
    """
    fd = _root_of(live)
    if fd < 0:
        async with live.lock:
            fd = _root_of(live)  # it may have been started while we waited: its layer must not be mounted twice
            if fd < 0:
                _check_exists(engine, live)
                points = live.record.mounts
                async with mountuse.held(engine, points, f"{live.id}-held"), _held(engine, live, points) as held:
                    yield held
                return
    try:
        yield fd
    finally:
        os.close(fd)


def _check_exists(engine: Engine, live: Live) -> None:
    """Raise NoSuchContainer for one that was removed while we waited for it."""
    if engine.index.find(live.id) is not live:
        raise NoSuchContainer(live.id)


def _root_of(live: Live) -> int:
    """A running container's root, or -1: it does not run, or has just ended and its exit is on its way to us."""
    if not (live.has_process and live.record.state.pid):
        return -1
    try:
        return os.open(f"/proc/{live.record.state.pid}/root", os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        return -1


@contextlib.asynccontextmanager
async def without_mounts(engine: Engine, live: Live) -> AsyncIterator[int]:
    """A descriptor of the root of a container that does not run, as its image and its own changes make it."""
    async with live.lock:
        _check_exists(engine, live)
        async with _held(engine, live, ()) as fd:
            yield fd


@contextlib.asynccontextmanager
async def _held(engine: Engine, live: Live, points: Iterable[MountPoint]) -> AsyncIterator[int]:
    parent = os.path.join(engine.paths.exec_root, "held")
    os.makedirs(parent, mode=0o700, exist_ok=True)
    points = list(points)
    layers = mountuse.layers(engine, live.record) if points else {}
    root_of_it = rootfs(engine, live)
    mounts = [
        spec.from_point(point, layers.get(point.destination, ()), engine.ids_of(live.record))
        for point in sorted(points, key=lambda point: point.destination.count("/"))
        if point.type == "image" or (point.type in ("bind", "volume") and os.path.exists(point.source))
    ]
    with contextlib.ExitStack() as stack:
        directory = tempfile.mkdtemp(dir=parent)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        os.mkdir(os.path.join(directory, "rootfs"))
        task = engine.launcher.launch(directory)
        stack.callback(task.close)
        try:
            answer = await _even_when_cancelled(task.request("hold", rootfs=root_of_it, mounts=mounts))
        except Failure as failure:
            raise CannotMount(f"cannot mount the file system of {live.id}: {failure}") from failure
        fd = os.open(f"/proc/{answer['pid']}/root{directory}/rootfs", os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, fd)
        yield fd


async def _even_when_cancelled(request: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """Await the answer in any case: a holder that is still on its way would write into the folder that is removed."""
    asking = asyncio.ensure_future(request)
    try:
        return await asyncio.shield(asking)
    except asyncio.CancelledError:
        await asyncio.wait((asking,))
        if not asking.cancelled():
            asking.exception()  # nobody is left to be told
        raise
