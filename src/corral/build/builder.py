"""The builder: one for each daemon.  A build happens in a session, which takes everything along when it ends.

DATA_ROOT/build/<random>/      a session's scratch: context, downloads
DATA_ROOT/build/mounts/<id>    cache mounts
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec

from corral.build import attest, inline
from corral.build.cache import CACHE_MOUNT, Cache, Record
from corral.build.cachemounts import CacheMounts
from corral.build.executor import Executor, Standing, Tools
from corral.build.kept import Contexts
from corral.build.layers import Layers
from corral.build.mounts import SECRETS
from corral.build.request import Report, Request, Vertex
from corral.build.workers import Workers
from corral.engine import steps as processes
from corral.engine.context import Engine
from corral.errors import CorralError, InvalidParameter
from corral.image.images import Images
from corral.image.make import Assembly
from corral.image.model import Image
from corral.linux.filesystem import spread_directories
from corral.oci import reference
from corral.oci.image import ImageConfig, Rootfs
from corral.store.db import Database

_CLEARING_S = 10.0
_STEPS_KEPT = 20_000  # that take no room
_MOUNTS = "mounts"
_CONTEXTS = "contexts"


class NothingBuilt(InvalidParameter):
    """An empty image without a step."""

    def __init__(self) -> None:
        super().__init__("No image was generated. Is your Dockerfile empty?")


class Builder:
    """Builds, and what earlier builds have left."""

    def __init__(self, engine: Engine, cache: Cache) -> None:
        self._engine = engine
        self.cache = cache
        self._workers = Workers(max(2, engine.facts.cpus))
        self._sessions = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._root = os.path.join(engine.paths.data_root, "build")
        self.cache_mounts = CacheMounts(os.path.join(self._root, _MOUNTS))
        os.chmod(self._root, 0o711)
        spread_directories(self._root)  # contexts come and go
        shutil.rmtree(os.path.join(engine.paths.exec_root, SECRETS), ignore_errors=True)
        self.contexts = Contexts(os.path.join(self._root, _CONTEXTS), self._workers)
        for name in os.listdir(self._root):
            if name not in (_MOUNTS, _CONTEXTS):  # of a daemon that died
                shutil.rmtree(os.path.join(self._root, name), ignore_errors=True)

    @contextlib.asynccontextmanager
    async def session(self, epoch: int | None = None) -> AsyncIterator[Tools]:
        """What a build needs, for the time of the block; nothing is left of it but layers, cache and images."""
        engine, images = self._engine, self._engine.images
        scratch = tempfile.mkdtemp(dir=self._root)
        os.chmod(scratch, 0o711)
        workers = self._workers
        workers.begin()
        self._sessions += 1
        self._quiet.clear()
        with images.leases.hold() as lease:
            layers = Layers(images, workers, lease, epoch * 10**9 if epoch is not None else None)
            try:
                yield Tools(engine, self.cache, workers, layers, lease, scratch, self.cache_mounts)
            except BaseException as error:
                await layers.close(hurry=isinstance(error, asyncio.CancelledError))
                raise
            else:
                await layers.close(hurry=False)
            finally:
                workers.end()
                self._sessions -= 1
                if not self._sessions:
                    self._quiet.set()
                await asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True)
                images.snapshots.later()
        await self._make_room()

    def prepare(self, tools: Tools, request: Request, report: Report, drain: processes.Drain) -> Executor:
        """Look for what can be known to be wrong before anything is done; raises as a build would."""
        processes.check(self._engine, request.limits, request.network)
        return Executor(tools, request, report, drain)

    async def build(self, executor: Executor) -> tuple[Standing, ImageConfig]:
        """Carry out a build up to its configuration; raises what stopped it."""
        standing = await executor.run()
        if executor.kept:
            await executor.tools.layers.released()
        for container, step, files in executor.kept:
            await processes.keep(self._engine, container, step, await files.chain(), "build")
        if executor.request.squash:
            await self._squash(executor.tools, standing)
        return standing, await self._config(standing, executor.request)

    async def _squash(self, tools: Tools, standing: Standing) -> None:
        """All layers above the image at the bottom become one."""
        below = standing.origin or tools.layers.stack("")
        own = standing.files.lower[: len(standing.files.lower) - len(below.lower)]
        if len(own) < 2:
            return
        root = tools.layers.begin(below)
        try:
            overlay = {"lower": list(root.lower), "upper": root.upper, "work": root.work}
            await tools.workers.call("squash", scratch=tools.scratch, root=overlay, layers=list(reversed(own)))
        except BaseException:
            tools.layers.abandon(root)
            raise
        standing.files = tools.layers.settle(below, root, [], lambda chain, empty: None, lambda: None)
        await tools.layers.finish()
        history = standing.state.history
        history[standing.steps :] = [
            msgspec.structs.replace(step, empty_layer=True) for step in history[standing.steps :]
        ]
        standing.state.note("", created=standing.created, empty=False)
        history[-1] = msgspec.structs.replace(history[-1], comment=f"merge of {len(own)} layers")

    async def take_cache(self, executor: Executor, ref: str, say: Callable[[dict[str, Any]], None]) -> None:
        """Know the steps of an image that carries them; one that cannot be had is told, and costs time only."""
        vertex = Vertex(0, 0, f"importing cache from {ref}", "", None)
        try:
            image = await executor.image(ref, vertex)
        except CorralError as error:
            say({"event": "note", "text": f"cannot import cache from {ref}: {error}"})
            return
        found = inline.take(image, self.cache, self._engine.images)
        say({"event": "note", "text": f"imported {found} steps of {ref}"})

    async def keep(
        self, tools: Tools, standing: Standing, config: ImageConfig, request: Request, names: Sequence[str]
    ) -> Image:
        """Make an image of what was built; one that nothing was added to only gets names."""
        images = self._engine.images
        plain = not (request.labels or request.annotations or request.inline_cache)
        if standing.untouched is not None and plain and not (request.provenance or request.sbom):
            for name in names:
                named = reference.parse(name).tagged()
                await images.tag(standing.untouched.id, named.name, named.tag or "")
            return images.get(standing.untouched.id)
        if not config.rootfs.diff_ids and not config.history:
            raise NothingBuilt()
        annotations = dict(request.annotations)
        if request.inline_cache and not request.squash:
            annotations[inline.ANNOTATION] = await inline.describe(standing.trail, images)
        predicates = []
        if request.provenance:
            predicates.append(attest.provenance(request, standing.created))
        if request.sbom:
            root = {"lower": list(standing.files.lower), "upper": "", "work": ""}
            found = await tools.workers.call("packages", scratch=tools.scratch, root=root)
            predicates.append(attest.sbom(found["packages"], names[0] if names else "image", standing.created))
        assembly = Assembly(config, standing.base, tuple(sorted(annotations.items())), tuple(predicates))
        return await images.assemble(assembly, names)

    async def _config(self, standing: Standing, request: Request) -> ImageConfig:
        run = standing.state.run_config()
        if request.labels:
            run = msgspec.structs.replace(run, labels={**(run.labels or {}), **request.labels})
        diff_ids = await standing.files.parts(self._engine.images)
        return ImageConfig(
            architecture=standing.platform.architecture,
            os=standing.platform.os or "linux",
            variant=standing.platform.variant,
            created=standing.created or None,
            author=standing.state.author,
            config=run,
            rootfs=Rootfs(diff_ids=diff_ids),
            history=standing.state.history,
        )

    # --- the cache -------------------------------------------------------------------------------------------

    def shared(self) -> set[str]:
        """The chain ids that images have: what a record has of these takes no room of its own."""
        _, chains = self._engine.images.catalog.reach_all()
        return chains

    def records(self) -> list[Record]:
        """Everything that is kept for later builds, cache mounts too, the least recently used first."""
        found = self.cache.records()
        for name, note in self.cache_mounts.all().items():
            found.append(
                Record(
                    name, [], "", "", False, f"cached mount {note.id}", CACHE_MOUNT, note.size, "", note.created_ns,
                    note.used_ns, note.uses,
                )
            )  # fmt: skip
        return sorted(found, key=lambda record: record.used_ns)

    async def _make_room(self) -> None:
        """What is too much goes, oldest use first; what images have too takes no room of its own."""
        chains = self.shared()
        own = [record for record in self.records() if not record.empty and record.chain not in chains]
        total = sum(record.size for record in own)
        gone = [record for record in self.cache.records() if record.empty][:-_STEPS_KEPT]
        for record in own:
            if total <= self.cache.limit_bytes:
                break
            total -= record.size
            gone.append(record)
        if gone:
            await self.prune(gone)

    async def close(self) -> None:
        """Wait until the builds, which have been cancelled, have cleared away, and end the workers."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._quiet.wait(), _CLEARING_S)
        await self._workers.close()

    async def prune(self, chosen: Sequence[Record]) -> int:
        """Forget records and drop cache mounts; the bytes that went with them."""
        mounts = [record.id for record in chosen if record.kind == CACHE_MOUNT]
        self.cache.drop(record for record in chosen if record.kind != CACHE_MOUNT)
        freed = sum([await asyncio.to_thread(self.cache_mounts.drop, name) for name in mounts])
        return freed + await self._engine.images.collect()


def open_cache(db: Database, images: Images, limit_bytes: int) -> Cache:
    """The cache, whose layers are kept from now on: to be called before anything is swept."""
    return Cache(db, images.snapshots, images.leases.keep(), limit_bytes)
