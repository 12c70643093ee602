"""The executor: walks the graph of stages and carries out, or finds in the cache, step after step.

Every stage is a task.  A stage waits for another where it needs its files, not before, so independent stages and
their pulls overlap.  Nothing here knows which front door asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from corral.build import instructions as ins
from corral.build import stages, state
from corral.build.cache import REGULAR, SOURCE_LOCAL, Cache, Record, key_of
from corral.build.cachemounts import CacheMounts
from corral.build.inline import Trail
from corral.build.instructions import Instruction
from corral.build.layers import FileSystem, Layers
from corral.build.numbering import Numbering
from corral.build.problems import DockerfileError, Place
from corral.build.request import Cached, Finished, Pulling, Report, Request, Started, Vertex, Wrote
from corral.build.triggers import triggered
from corral.build.workers import Workers
from corral.engine import steps as processes
from corral.engine.context import Engine
from corral.engine.steps import Drain
from corral.errors import CorralError, NotFound
from corral.image.model import Image
from corral.oci.image import Descriptor
from corral.oci.platform import Platform, parse_platform
from corral.store.gc import Lease

_log = logging.getLogger(__name__)


@dataclass
class Standing:
    """Where a stage stands: files, configuration, and the cache key of how it came there."""

    state: state.State
    files: FileSystem
    key: str
    created: str
    platform: Platform
    base: tuple[Descriptor, ...] = ()
    trail: list[Trail] = field(default_factory=list)
    origin: FileSystem | None = None  # of the image at the bottom, None for scratch
    steps: int = 0  # lines of history that the image at the bottom has
    untouched: Image | None = None  # the base, as long as nothing has changed it
    consumed: set[str] = field(default_factory=set)  # the names of all ARGs of the build


@dataclass(frozen=True)
class Tools:
    """What a build works with."""

    engine: Engine
    cache: Cache
    workers: Workers
    layers: Layers
    lease: Lease
    scratch: str
    cache_mounts: CacheMounts


class Executor:
    """One build."""

    def __init__(self, tools: Tools, request: Request, report: Report, drain: Drain) -> None:
        self.tools = tools
        self.request = request
        self.report = report
        self.drain = drain
        self.plan = request.plan
        build = tools.engine.images.platform
        self.platform = request.platform or build
        self.platforms = stages.platform_variables(build, self.platform) | {"TARGETSTAGE": request.target or "default"}
        self.values = stages.global_arguments(self.plan, request.arguments, self.platforms)
        self.target = stages.target_of(self.plan, request.target)
        self.needed = stages.needed(self.plan, self.target, self.values)
        self.numbering = Numbering(self.plan, self.needed)
        self._stages: dict[int, asyncio.Task[Standing]] = {}
        self._images: dict[tuple[str, str], asyncio.Task[Image]] = {}
        self.consumed: set[str] = set()
        self.kept: list[tuple[str, processes.Step, FileSystem]] = []  # containers that the request wants to keep

    # --- the graph -------------------------------------------------------------------------------------------

    async def run(self) -> Standing:
        """The target stage, with every layer committed; raises what stopped the build."""
        self._report_meta()
        for index in self.needed:
            self._stages[index] = asyncio.ensure_future(self._stage(index))
        waiting: set[asyncio.Task[Standing]] = set(self._stages.values())
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
            await self.tools.layers.finish()
            standing = self._stages[self.target].result()
            standing.consumed = self.consumed
            return standing
        finally:
            every: list[asyncio.Task[Any]] = [*self._stages.values(), *self._images.values()]
            for begun in every:
                begun.cancel()
            if every:
                await asyncio.wait(every)
            for begun in every:
                if not begun.cancelled():
                    begun.exception()  # the first one has been raised

    def _report_meta(self) -> None:
        for instruction in self.plan.meta:
            vertex = self.numbering.vertex(instruction, "")
            self.report(Started(vertex))
            assert isinstance(instruction.body, ins.Arg)
            self.consumed.update(name for name, _ in instruction.body.pairs)
            self.report(Finished(vertex, ""))

    async def stage(self, index: int) -> Standing:
        """A stage's end; several may wait for it."""
        return await asyncio.shield(self._stages[index])

    async def _stage(self, index: int) -> Standing:
        stage = self.plan.stages[index]
        standing, triggers = await self._begin(stage)
        scope = state.Scope(self.request.arguments, self.values, self.platforms)
        skip_cache = self.request.no_cache or (stage.name or str(index)) in self.request.no_cache_stages
        from corral.build.steps import Steps  # the two know each other: steps ask for other stages' files

        steps = Steps(self, stage, standing, scope, skip_cache=skip_cache)
        for instruction in triggered(triggers, self.plan):
            await steps.carry_out(instruction, self.numbering.silent(instruction, stage.shown))
        for instruction in stage.instructions:
            vertex = self.numbering.vertex(instruction, stage.shown)
            self.report(Started(vertex))
            result = await steps.carry_out(instruction, vertex)
            self.report(Finished(vertex, result))
        return standing

    # --- bases -----------------------------------------------------------------------------------------------

    async def _begin(self, stage: stages.Stage) -> tuple[Standing, list[str]]:
        base = stages.base_of(self.plan, stage, self.values)
        vertex = self.numbering.vertex(stage.opening, stage.shown)
        platform = self._platform(base.platform, stage.opening.place)
        if base.stage is not None:
            below = await self.stage(base.stage)
            self.report(Started(vertex))
            on_top, triggers = below.state.on_top()
            standing = Standing(on_top, below.files, below.key, below.created, below.platform, below.base)
            standing.trail = list(below.trail)
            standing.untouched, standing.origin, standing.steps = below.untouched, below.origin, below.steps
            self.report(Finished(vertex, below.key))
            return standing, triggers
        self.report(Started(vertex))
        named = self.request.contexts.get(base.image, base.image)
        if not isinstance(named, str):
            reason = f"cannot build on {base.image}: a folder can be copied from and mounted, not be a base"
            raise self.plan.problem(reason, stage.opening.place)
        image_name = named
        if image_name == stages.SCRATCH:
            fresh, _ = state.State.of(None, self.plan.escape)
            self.report(Finished(vertex, ""))
            key = key_of("scratch", str(platform), self.request.epoch)
            return Standing(fresh, self.tools.layers.stack(""), key, "", platform), []
        image = await self.image(image_name, vertex, base.platform and str(platform), stage.opening.place)
        fresh, triggers = state.State.of(image.config, self.plan.escape)
        files = self.tools.layers.stack(image.chain_id or "")
        self.report(Finished(vertex, image.id))
        key = key_of("image", image.config_digest, self.request.epoch)
        standing = Standing(fresh, files, key, image.created, image.config.platform, tuple(image.manifest.layers))
        standing.untouched, standing.origin, standing.steps = image, files, len(fresh.history)
        return standing, triggers

    def _platform(self, text: str, place: Place | None) -> Platform:
        if not text:
            return self.platform
        try:
            return parse_platform(text, self.platform.architecture)
        except CorralError as error:
            raise self.plan.problem(f"failed to parse platform {text}: {error}", place) from None

    async def image(self, name: str, vertex: Vertex, platform: str = "", place: Place | None = None) -> Image:
        """An image, pulled if it is not here or if pulling was asked for; once for a build."""
        wanted = platform or (str(self.request.platform) if self.request.platform else "")
        key = (name, wanted)
        if key not in self._images:
            self._images[key] = asyncio.ensure_future(self._image(name, wanted, vertex))
        return await asyncio.shield(self._images[key])

    async def _image(self, name: str, platform: str, vertex: Vertex) -> Image:
        images = self.tools.engine.images
        if not self.request.pull:
            with contextlib.suppress(NotFound):
                return self._keep(images.get(name, platform or None))

        def progress(record: Mapping[str, object]) -> None:
            self.report(Pulling(vertex, record))

        image = await images.pull(name, platform=platform or None, auth=self.request.auth(name), progress=progress)
        return self._keep(image)

    def _keep(self, image: Image) -> Image:
        reach = self.tools.engine.images.catalog.reach(image.id)
        self.tools.lease.add(*reach.blobs, *reach.chains)
        self.tools.engine.images.catalog.used(image.id)
        return image

    # --- for steps -------------------------------------------------------------------------------------------

    def now(self) -> str:
        """The time that a step made now has, in the form of image documents."""
        if self.request.epoch is not None:
            moment = datetime.datetime.fromtimestamp(self.request.epoch, datetime.UTC)
            return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
        return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    def say(self, vertex: Vertex, text: str) -> None:
        """A line of the builder's own."""
        self.report(Wrote(vertex, 0, f"{text}\n".encode()))

    def take_cached(self, vertex: Vertex, record: Record) -> FileSystem:
        """The files that an earlier build made."""
        self.report(Cached(vertex))
        return self.tools.layers.stack(record.chain)

    def record(
        self, keys: list[str], parent: str, chain: str, empty: bool, instruction: Instruction, created: str
    ) -> None:
        """Keep a step that was carried out."""
        kind = SOURCE_LOCAL if isinstance(instruction.body, ins.Copy) else REGULAR
        cache = self.tools.cache
        cache.put(
            cache.new(
                keys, parent=parent, chain=chain, empty=empty, description=instruction.shown[:400], kind=kind,
                created=created,
            )
        )  # fmt: skip

    def misplaced(self, error: DockerfileError, instruction: Instruction) -> DockerfileError:
        """The error with the instruction's place."""
        return self.plan.problem(error.reason, instruction.place)
