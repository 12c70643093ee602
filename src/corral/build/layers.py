"""The file systems of a build while it runs: stacks of directories, the top-most of which may not be layers yet.

A step's upper directory is packed and committed in the background (digest, blob, chain id) while the next step runs
on it already.  Nothing of it moves: the directory that was written is the layer's directory.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Sequence
from typing import Any

from corral.build.workers import Workers
from corral.engine.steps import Root
from corral.image.images import Images
from corral.oci.digest import ChainID, chain_on
from corral.store.gc import Lease

Settled = Callable[[str, bool], None]


class FileSystem:
    """A stack: `lower` is every directory, top-most first."""

    def __init__(self, lower: Sequence[str], chain: str | asyncio.Task[str]) -> None:
        self.lower = tuple(lower)
        self._chain = chain

    async def chain(self) -> str:
        """The chain id, once everything below and this has been committed; "" for an empty stack."""
        if isinstance(self._chain, str):
            return self._chain
        return await asyncio.shield(self._chain)

    async def parts(self, images: Images) -> list[str]:
        """The diff ids, lowest first."""
        found: list[str] = []
        chain = await self.chain()
        while chain:
            layer = images.snapshots.layer(chain)
            found.insert(0, layer.diff_id)
            chain = layer.parent
        return found


class Layers:
    """Makes the layers of one build."""

    def __init__(self, images: Images, workers: Workers, lease: Lease, epoch_ns: int | None) -> None:
        self._images = images
        self._workers = workers
        self._lease = lease
        self._epoch_ns = epoch_ns
        self._tasks: list[asyncio.Task[str]] = []
        self._unused: list[str] = []
        self._releasing: list[asyncio.Task[None]] = []

    def release_later(self, task: asyncio.Task[None]) -> None:
        """Something that a step still gives back; the build does not end before."""
        self._releasing.append(task)

    async def released(self) -> None:
        """Wait until steps that have ended hold nothing any more."""
        await asyncio.gather(*self._releasing)

    def stack(self, chain: str) -> FileSystem:
        """A stack of committed layers."""
        self._lease.add(chain)
        return FileSystem(self._images.snapshots.layer_paths(ChainID(chain)) if chain else (), chain)

    def begin(self, below: FileSystem) -> Root:
        """An empty upper directory on top of a stack; `settle` or `abandon` it."""
        upper = self._images.snapshots.begin_layer()
        work = os.path.join(os.path.dirname(upper), "work")
        os.mkdir(work, 0o700)
        if below.lower:
            status = os.stat(below.lower[0])
            os.chown(upper, status.st_uid, status.st_gid)
            os.chmod(upper, stat.S_IMODE(status.st_mode))
        return Root(below.lower, upper, work)

    def abandon(self, root: Root) -> None:
        """Drop what `begin` made."""
        self._images.snapshots.abandon_layer(root.upper)

    def settle(
        self, below: FileSystem, root: Root, stubs: Sequence[str], settled: Settled, over: Callable[[], None]
    ) -> FileSystem:
        """The stack with what a step has written.

        `settled(chain, empty)` is called once it is a layer on disk, and `over` then or when it will never be one.
        """
        task = asyncio.ensure_future(self._commit(below, root, list(stubs), settled))
        task.add_done_callback(lambda _: over())
        self._tasks.append(task)
        return FileSystem((root.upper, *below.lower), task)

    async def _commit(self, below: FileSystem, root: Root, stubs: list[str], settled: Settled) -> str:
        images = self._images
        blob = images.content.ingest_path()
        self._unused += [root.upper]
        try:
            packed = await self._workers.call(
                "pack", upper=root.upper, blob=blob, stubs=stubs, lower=list(root.lower), epoch_ns=self._epoch_ns
            )
            parent = await below.chain()
            if packed["empty"]:
                settled(parent, True)
                return parent
            self._lease.add(packed["digest"])
            chain = await asyncio.to_thread(self._commit_now, parent, root.upper, blob, packed)
        finally:
            if os.path.exists(blob):
                os.unlink(blob)
        settled(chain, False)
        return chain

    def _commit_now(self, parent: str, upper: str, blob: str, packed: dict[str, Any]) -> str:
        images = self._images
        chain = chain_on(parent, packed["diff_id"])
        self._lease.add(chain)
        if not images.content.has(packed["digest"]):
            images.content.commit(blob, packed["digest"])
            images.content.sync()
        # An equal layer may be there (a build without cache): then ours stays in use by this build until its end.
        if not images.snapshots.has_layer(chain):
            self._unused.remove(upper)
            images.snapshots.commit_layer(
                upper, chain, ChainID(parent) if parent else None, packed["diff_id"], packed["digest"],
                packed["size"],
            )  # fmt: skip
        return chain

    async def finish(self) -> None:
        """Wait for everything that was settled; raises the first failure."""
        await asyncio.gather(*self._tasks)

    async def close(self, *, hurry: bool) -> None:
        """Wait for what goes on, or with `hurry` stop it; then drop the directories that became no layer."""
        if hurry:
            for task in self._tasks:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.gather(*self._releasing)
        for task in self._tasks:
            if not task.cancelled():
                task.exception()  # whoever needed the layer has been told
        for path in self._unused:
            self._images.snapshots.abandon_layer(path)
        self._unused.clear()
