"""The steps of one stage, carried out: each looks for itself in the cache first."""

from __future__ import annotations

import asyncio
import os
import posixpath
import shutil
import time
from typing import TYPE_CHECKING, Any

from corral.build import instructions as ins
from corral.build import mounts, state
from corral.build.cache import REGULAR, SOURCE_LOCAL, Record, key_of
from corral.build.inline import Trail
from corral.build.instructions import Instruction
from corral.build.problems import DockerfileError, Place
from corral.build.request import Cached, Files, Ran, Request, Running, Vertex, Wrote
from corral.build.sources import Fetched, fetch, is_git, is_url
from corral.build.stages import PREDEFINED, Stage
from corral.engine import steps as processes
from corral.errors import CorralError, InvalidParameter, System

if TYPE_CHECKING:
    from corral.build.executor import Executor, Standing


class RunFailed(System):
    """A RUN ended with an exit code."""

    def __init__(self, argv: list[str], exit_code: int, oom_killed: bool) -> None:
        note = ": the command was killed because it used too much memory" if oom_killed else ""
        super().__init__(f"The command '{' '.join(argv)}' returned a non-zero code: {exit_code}{note}")
        self.exit_code = exit_code
        self.told = f'process "{" ".join(argv)}" did not complete successfully: exit code: {exit_code}{note}'
        self.place: Place | None = None
        self.excerpt = ""


class CopyFailed(InvalidParameter):
    """A COPY or ADD that cannot be carried out."""


class NotAllowed(InvalidParameter):
    """The step needs an entitlement that was not given."""

    def __init__(self, entitlement: str) -> None:
        super().__init__(f"granting entitlement {entitlement} is not allowed by build: use --allow={entitlement}")


class NoContext(InvalidParameter):
    """Files are asked for and there are none."""

    def __init__(self) -> None:
        super().__init__("no build context: COPY and ADD need one")


class Steps:
    """Carries out one stage's instructions, one after the other."""

    def __init__(self, executor: Executor, stage: Stage, standing: Standing, scope: state.Scope, *, skip_cache: bool,
                 ) -> None:  # fmt: skip
        self._executor = executor
        self._tools = executor.tools
        self._request: Request = executor.request
        self._stage = stage
        self._standing = standing
        self._scope = scope
        self._skip_cache = skip_cache

    async def carry_out(self, instruction: Instruction, vertex: Vertex) -> str:
        """One instruction; returns the key of what it came to.  Raises with the instruction's place where it can."""
        try:
            body = instruction.body
            if not isinstance(body, ins.Arg):
                self._standing.untouched = None
            if isinstance(body, ins.Run):
                await self._run(instruction, body, vertex)
            elif isinstance(body, ins.Copy):
                await self._copy(instruction, body, vertex)
            elif isinstance(body, ins.Workdir):
                await self._workdir(instruction, body, vertex)
            else:
                self._configure(instruction, vertex)
        except DockerfileError as error:
            raise self._executor.misplaced(error, instruction) from None
        except RunFailed as error:
            error.place = instruction.place
            raise
        return self._standing.key

    # --- configuration ---------------------------------------------------------------------------------------

    def _configure(self, instruction: Instruction, vertex: Vertex) -> None:
        standing = self._standing
        state.apply(standing.state, instruction.body, self._scope)
        if isinstance(instruction.body, ins.Arg):
            self._executor.consumed.update(standing.state.arguments)
            standing.state.note(instruction.shown, created=standing.created)
            # What an ARG is worth counts where it is used; the line itself was here before, or was not.
            key = key_of("arg", standing.key, instruction.shown)
            if self._find(key) is not None:
                self._executor.report(Cached(vertex))
            else:
                self._keep_configuration(key, standing.key, instruction)
            return
        config = standing.state.run_config()
        parent, key = standing.key, key_of("config", standing.key, config, standing.state.author)
        standing.key = key
        record = None if self._skip_cache else self._tools.cache.find(key)
        if record is not None:
            self._executor.report(Cached(vertex))
            standing.created = record.created
        else:
            standing.created = self._executor.now()
            self._keep_configuration(key, parent, instruction)
        standing.state.note(self._described(instruction), created=standing.created)
        standing.trail.append(Trail((key,), None, standing.created, instruction.shown[:400], REGULAR))

    def _keep_configuration(self, key: str, parent: str, instruction: Instruction) -> None:
        cache = self._tools.cache
        cache.put(
            cache.new(
                [key], parent=parent, chain="", empty=True, description=instruction.shown[:400], kind="regular",
                created=self._standing.created,
            )
        )  # fmt: skip

    def _described(self, instruction: Instruction) -> str:
        run = self._standing.state.run
        if isinstance(instruction.body, ins.Cmd):
            return state.shown_command("CMD", run.cmd or [])
        if isinstance(instruction.body, ins.Entrypoint):
            return state.shown_command("ENTRYPOINT", run.entrypoint or [])
        return instruction.shown

    # --- steps with files ------------------------------------------------------------------------------------

    def _find(self, *keys: str) -> Record | None:
        return None if self._skip_cache else self._tools.cache.find(*keys)

    def _take(self, vertex: Vertex, record: Record, key: str, shown: str) -> None:
        standing = self._standing
        standing.files = self._executor.take_cached(vertex, record)
        standing.key, standing.created = key, record.created
        standing.trail.append(
            Trail(tuple(record.keys), standing.files, record.created, record.description, record.kind)
        )
        standing.state.note(shown, created=record.created, empty=record.empty)

    def _settle(self, root: processes.Root, stubs: list[str], keys: list[str], instruction: Instruction, shown: str,
                release: Any) -> None:  # fmt: skip
        """What the step wrote becomes a layer, in the background."""
        standing, executor = self._standing, self._executor
        created, parent = executor.now(), standing.key
        standing.state.note(shown, created=created, empty=False)
        at = len(standing.state.history) - 1
        history = standing.state.history

        def settled(chain: str, empty: bool) -> None:
            if empty:
                self._note_empty(history, at)
            executor.record(keys, parent, chain, empty, instruction, created)

        standing.files = self._tools.layers.settle(standing.files, root, stubs, settled, release)
        standing.key, standing.created = keys[0], created
        kind = SOURCE_LOCAL if isinstance(instruction.body, ins.Copy) else REGULAR
        standing.trail.append(Trail(tuple(keys), standing.files, created, instruction.shown[:400], kind))

    def _note_empty(self, history: list[Any], at: int) -> None:
        import msgspec

        history[at] = msgspec.structs.replace(history[at], empty_layer=True)

    async def _workdir(self, instruction: Instruction, body: ins.Workdir, vertex: Vertex) -> None:
        standing = self._standing
        state.apply(standing.state, body, self._scope)
        path = standing.state.directory
        key = key_of("workdir", standing.key, path)
        shown = f"WORKDIR {path}"
        if path == "/":
            standing.key = key
            standing.state.note(shown, created=standing.created)
            return
        record = self._find(key)
        if record is not None:
            self._take(vertex, record, key, shown)
            return
        root = self._tools.layers.begin(standing.files)
        try:
            await self._call("workdir", root=_overlay(root), path=path)
        except BaseException:
            self._tools.layers.abandon(root)
            raise
        self._settle(root, [], [key], instruction, shown, _nothing)

    async def _call(self, op: str, **fields: Any) -> dict[str, Any]:
        return await self._tools.workers.call(op, scratch=self._tools.scratch, **fields)

    # --- RUN -------------------------------------------------------------------------------------------------

    async def _run(self, instruction: Instruction, body: ins.Run, vertex: Vertex) -> None:
        standing, request = self._standing, self._request
        argv = _argv(standing.state, body)
        network = self._network(body)
        if body.security == "insecure" and "security.insecure" not in request.allowed:
            raise NotAllowed("security.insecure")
        wanted = [mounts.parse(standing.state.word(text)) for text in body.mounts]
        visible = {k: v for k, v in standing.state.build_arguments().items() if k not in PREDEFINED}
        mount_keys = await self._mount_keys(wanted)
        key = key_of(
            "run", standing.key, argv, sorted(visible.items()), sorted(standing.state.environment.items()),
            standing.state.directory, standing.state.run.user, body.network, body.security, list(body.devices),
            mount_keys, [doc.content for doc in body.heredocs],
        )  # fmt: skip
        shown = state.shown_run(standing.state, argv)
        record = self._find(key)
        if record is not None:
            self._take(vertex, record, key, shown)
            return
        release = _nothing if self._skip_cache else await self._tools.cache.claim(key)
        try:
            record = self._find(key)
            if record is not None:
                self._take(vertex, record, key, shown)
                release()
                return
            await self._execute(instruction, body, vertex, argv, network, wanted, key, shown, release)
        except BaseException:
            release()
            raise

    async def _execute(self, instruction: Instruction, body: ins.Run, vertex: Vertex, argv: list[str], network: str,
                       wanted: list[mounts.Mount], key: str, shown: str, release: Any) -> None:  # fmt: skip
        standing, executor = self._standing, self._executor
        root = self._tools.layers.begin(standing.files)
        container = processes.new_id()
        try:
            async with mounts.prepared(self, wanted, body, container) as held:
                given = {k: v for k, v in self._request.arguments.items() if k in PREDEFINED}
                environment = [*(f"{k}={v}" for k, v in given.items()), *standing.state.process_environment()]
                step = processes.Step(
                    argv=held.argv or argv,
                    environment=[*environment, *held.environment],
                    directory=standing.state.directory,
                    user=standing.state.run.user,
                    root=root,
                    network=network,
                    mounts=held.points,
                    devices=body.devices,
                    privileged=body.security == "insecure",
                    limits=self._request.limits,
                )
                executor.report(Running(vertex, container))
                ended = await processes.run(
                    self._tools.engine,
                    container,
                    step,
                    lambda stream, data: executor.report(Wrote(vertex, stream, data)),
                    executor.drain,
                )
            self._tools.layers.release_later(ended.released)
            if ended.exit_code:
                raise RunFailed(argv, ended.exit_code, ended.oom_killed)
        except BaseException:
            self._tools.layers.abandon(root)
            raise
        executor.report(Ran(vertex, container))
        self._settle(root, [*_STUBS, *(point.destination for point in held.points)], [key], instruction, shown, release)
        if self._request.keep_containers:
            executor.kept.append((container, step, standing.files))

    def _network(self, body: ins.Run) -> str:
        if body.network in ("", "default"):
            return self._request.network or "default"
        if body.network == "host" and self._request.network != "host" and "network.host" not in self._request.allowed:
            raise NotAllowed("network.host")
        return body.network

    async def _mount_keys(self, wanted: list[mounts.Mount]) -> list[Any]:
        """What of the mounts decides about the result: the files that are bound, not what caches and secrets hold."""
        found: list[Any] = []
        for mount in wanted:
            if mount.kind == "bind":
                found.append([mount.key(), await self.content_key(mount.source_stage, [mount.source or "/"])])
            else:
                found.append(mount.key())
        return found

    # --- COPY and ADD ----------------------------------------------------------------------------------------

    async def _copy(self, instruction: Instruction, body: ins.Copy, vertex: Vertex) -> None:
        standing = self._standing
        written = standing.state
        sources = [written.word(source) for source in body.sources]
        destination = written.absolute(written.word(body.destination))
        exclude = [written.word(pattern) for pattern in body.exclude]
        documents = [
            (doc.name, written.document(doc.content) if doc.expand else doc.content) for doc in body.inline
        ]  # fmt: skip
        remote = [source for source in sources if body.add and is_url(source)]
        local = [source for source in sources if source not in remote]
        for source in local:
            if posixpath.normpath(source).startswith("../") or source == "..":
                raise CopyFailed(f"{instruction.name} failed: forbidden path outside the build context: {source} ()")
        chown, chmod = written.word(body.chown), written.word(body.chmod)
        settings = ["copy", destination, chown, chmod, body.parents, body.add, body.unpack, exclude, documents]
        base = key_of(*settings, standing.key)
        fetched = [
            await fetch(self._tools, url, written.word(body.checksum), body.keep_git_dir) for url in remote
        ]  # fmt: skip
        shown = f"{instruction.name} {' '.join([*sources, *(f'<<{name}' for name, _ in documents), destination])}"
        keys = [key_of(base, *[item.digest for item in fetched])]
        if local:
            keys = await self._copy_keys(instruction.name, keys[0], body.source_stage, local, exclude, vertex)
        record = self._find(*keys)
        if record is not None:
            for key in keys:
                self._tools.cache.also(record, key)
            self._take(vertex, record, record.keys[0], shown)  # by content: whatever it was found by
            return
        await self._copy_now(body, vertex, local, fetched, documents, exclude, chown, chmod, destination,
                             (keys, instruction, shown))  # fmt: skip

    async def _copy_keys(self, verb: str, base: str, stage: str, sources: list[str], exclude: list[str], vertex: Vertex,
                         ) -> list[str]:  # fmt: skip
        """By content; for another stage's files by that stage's key first, which needs no look at them."""
        quick = []
        if stage:
            origin = await self._origin_key(stage, vertex)
            quick = [key_of(base, "from", origin, sources)]
            if not self._skip_cache and self._tools.cache.find(quick[0]) is not None:
                return quick
        try:
            found = await self._digest(stage, sources, exclude)
        except CorralError as error:
            raise CopyFailed(f"{verb} failed: {error}") from error
        return [key_of(base, "content", found), *quick]

    async def _copy_now(self, body: ins.Copy, vertex: Vertex, local: list[str], fetched: list[Fetched],
                        documents: list[tuple[str, str]], exclude: list[str], chown: str, chmod: str, destination: str,
                        told: tuple[list[str], Instruction, str]) -> None:  # fmt: skip
        standing = self._standing
        root = self._tools.layers.begin(standing.files)
        trees = [item for item in fetched if item.directory]
        unpack = bool(body.unpack) if body.unpack is not None else body.add and not fetched
        try:
            common: dict[str, Any] = {
                "root": _overlay(root), "destination": destination, "chown": chown, "chmod": chmod,
                "parents": body.parents, "unpack": unpack, "take_ownership": not body.source_stage,
            }  # fmt: skip
            await self._call(
                "copy",
                **common,
                source=await self._source(body.source_stage) if local else {},
                sources=local,
                exclude=exclude,
                documents=documents,
                files=[item.file() for item in fetched if not item.directory],
                now_ns=_epoch_ns(self._request),
            )
            for item in trees:
                await self._call("copy", **common, source={"directory": item.directory}, sources=["/"],
                                 exclude=exclude, documents=[], files=[], now_ns=0)  # fmt: skip
        except CorralError as error:
            self._tools.layers.abandon(root)
            raise CopyFailed(f"{'ADD' if body.add else 'COPY'} failed: {error}") from error
        except BaseException:
            self._tools.layers.abandon(root)
            raise
        keys, instruction, shown = told
        self._settle(root, [], keys, instruction, shown, _nothing)

    async def _digest(self, stage: str, sources: list[str], exclude: list[str]) -> str:
        answer = await self._call("digest", source=await self._source(stage), sources=sources, exclude=exclude)
        return str(answer["digest"])

    async def content_key(self, stage: str, sources: list[str]) -> str:
        """What decides about files that a step reads."""
        return await self._digest(stage, sources, [])

    async def fill(self, directory: str, stage: str, path: str) -> None:
        """Copy what a new cache mount begins with into its folder."""
        scratch = self._tools.scratch
        work = f"{directory}.work"
        root = {"lower": [], "upper": directory, "work": work}
        os.makedirs(work, exist_ok=True)
        try:
            await self._tools.workers.call(
                "copy", scratch=scratch, root=root, destination="/", chown="", chmod="", parents=False, unpack=False,
                take_ownership=False, source=await self._source(stage), sources=[path], exclude=[], documents=[],
                files=[], now_ns=0,
            )  # fmt: skip
        finally:
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    async def resolved(self, stage: str, path: str) -> str:
        """A path below the files of `--from` or the context, its links followed inside them."""
        return str((await self._call("resolve", source=await self._source(stage), path=path))["path"])

    async def _origin_key(self, stage: str, vertex: Vertex) -> str:
        kind, value = await self.origin(stage)
        if kind == "files":
            return key_of("files", value.index if isinstance(value, Files) else "")
        return str(value)

    async def _source(self, stage: str) -> dict[str, Any]:
        """The files of `--from`, or of the context, as workers are told them."""
        found = await self.files_of(stage)
        return found.source() if isinstance(found, Files) else {"lower": list(found)}

    async def files_of(self, stage: str) -> Files | tuple[str, ...]:
        """A folder, or the directories of a stack."""
        if not stage:
            if self._request.context is None:
                raise NoContext()
            return self._request.context
        index = self._executor.plan.find(stage)
        if index is not None:
            self._check_reference(stage, index)
            return (await self._executor.stage(index)).files.lower
        named = self._request.contexts.get(stage)
        if isinstance(named, Files):
            return named
        if stage == "scratch":
            return ()
        image = await self._executor.image(named or stage, Vertex(0, 0, stage, self._stage.shown, None))
        return self._tools.layers.stack(image.chain_id or "").lower

    def _check_reference(self, stage: str, index: int) -> None:
        if index == self._stage.index:
            raise DockerfileError(f"invalid from flag value {stage}: a stage cannot copy from itself")

    async def origin(self, stage: str) -> tuple[str, Any]:
        """What identifies the files of `--from` without reading them."""
        index = self._executor.plan.find(stage)
        if index is not None:
            self._check_reference(stage, index)
            return "stage", (await self._executor.stage(index)).key
        named = self._request.contexts.get(stage)
        if isinstance(named, Files):
            return "files", named
        if stage == "scratch":
            return "stage", "scratch"
        image = await self._executor.image(named or stage, Vertex(0, 0, stage, self._stage.shown, None))
        return "stage", image.config_digest

    @property
    def tools(self) -> Any:
        return self._tools

    @property
    def request(self) -> Request:
        return self._request

    @property
    def standing(self) -> Standing:
        return self._standing


_STUBS = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev", "/proc", "/sys"]


def _nothing() -> None:
    return None


def _epoch_ns(request: Request) -> int:
    return request.epoch * 10**9 if request.epoch is not None else time.time_ns()


def _overlay(root: processes.Root) -> dict[str, Any]:
    return {"lower": list(root.lower), "upper": root.upper, "work": root.work}


def _argv(written: state.State, body: ins.Run) -> list[str]:
    """The words of a RUN; a here-document that is all of it is the script."""
    if not body.heredocs or body.command.exec_form:
        return written.command(body.command)
    if len(body.heredocs) == 1 and mounts.is_only_heredoc(body.command.line):
        return [*written.shell, body.heredocs[0].content]
    documents = "".join(f"\n{doc.content}{doc.name}" for doc in body.heredocs)
    return [*written.shell, body.command.line + documents]


def joined(directory: str, path: str) -> str:
    """A mount's target, relative ones from the working directory."""
    return posixpath.normpath(posixpath.join("/", directory, path))


__all__ = ["CopyFailed", "NoContext", "NotAllowed", "RunFailed", "Steps", "is_git"]
