"""Containers: one of them (`Container`), and all of them (`client.containers`)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from corral.client import archives, options
from corral.client.errors import Conflict, NotFound, TimedOut, UnreadableAnswer
from corral.client.flavours import Awaiting, Blocking, Source, flow, verb
from corral.client.http import Body
from corral.client.options import Duration, Options, Ports, Size
from corral.client.processes import AsyncProcess, Call, Collected, Process, Result
from corral.client.session import Pieces, Session, segment
from corral.client.streams import Frames, Lines, Output, Raw, Records, Whole
from corral.wire.common import Wire
from corral.wire.shown.base import Shown
from corral.wire.shown.containers import (
    Change,
    ContainerInfo,
    ContainerSummary,
    ExecInfo,
    Processes,
    SnapshotInfo,
    Stats,
)
from corral.wire.shown.images import CommitAnswer
from corral.wire.shown.resources import Pruned

C = TypeVar("C")
X = TypeVar("X")

_OUTPUT_LIMIT_BYTES = 64 << 20
_GRACE_S = 5.0  # how much later than the daemon's own clock ours ends an exec


class Wanted(TypedDict, total=False):
    """Which part of a log; times in seconds since 1970."""

    follow: bool
    tail: int | None
    since: float | None
    until: float | None
    stdout: bool
    stderr: bool
    timestamps: bool


class _Made(Shown, frozen=True):
    id: str = ""
    warnings: tuple[str, ...] = ()


class _Warned(Shown, frozen=True):
    warnings: tuple[str, ...] = ()


class _WaitError(Wire):
    message: str = ""


class _Waited(Wire):
    status_code: int = 0
    error: _WaitError | None = None


class ContainerVerbs(Generic[C, X]):
    """What can be done with a container.  `id` is what it was asked for by: an id, or a name."""

    def __init__(self, session: Session, identity: str, warnings: tuple[str, ...] = ()) -> None:
        self._session = session
        self.id = identity
        self.warnings = warnings  # what the daemon had to say when it was made
        self._path = f"/containers/{segment(identity)}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id[:12]}>"

    def _fellow(self, made: AsyncContainer) -> C:
        """Another container, in this one's flavour."""
        raise NotImplementedError

    def _talk(self, call: Call) -> X:
        """A program to talk to, in this one's flavour."""
        raise NotImplementedError

    @property
    def _peer(self) -> AsyncContainer:
        return AsyncContainer(self._session, self.id)

    # -- its life ----------------------------------------------------------------------------------

    @verb
    async def start(self) -> None:
        """Start it; nothing happens if it runs."""
        await self._session.do("POST", f"{self._path}/start", patient=True)

    @verb
    async def stop(self, timeout: int | None = None, signal: str | None = None) -> None:
        """Ask it to end, and kill it after `timeout` seconds."""
        await self._session.do("POST", f"{self._path}/stop", {"t": timeout, "signal": signal}, patient=True)

    @verb
    async def restart(self, timeout: int | None = None, signal: str | None = None) -> None:
        """Stop and start it."""
        await self._session.do("POST", f"{self._path}/restart", {"t": timeout, "signal": signal}, patient=True)

    @verb
    async def kill(self, signal: str | int = "KILL") -> None:
        """Send a signal to its first process."""
        await self._session.do("POST", f"{self._path}/kill", {"signal": signal})

    @verb
    async def pause(self) -> None:
        """Freeze every process."""
        await self._session.do("POST", f"{self._path}/pause")

    @verb
    async def unpause(self) -> None:
        """Thaw every process."""
        await self._session.do("POST", f"{self._path}/unpause")

    @verb
    async def wait(self, condition: str = "not-running", timeout: Duration | None = None) -> int:
        """Until it has ended (`not-running`, `next-exit` or `removed`); its exit code.  Raises TimedOut."""
        limit_s = None if timeout is None else options.seconds(timeout, "timeout")
        answer = await self._session.open("POST", f"{self._path}/wait", {"condition": condition}, patient=True)
        answer.limit(limit_s)
        ended = await Pieces(answer, Records(_Waited)).all()
        if not ended:
            raise UnreadableAnswer("the daemon did not say how the container ended")
        if ended[0].error is not None and ended[0].error.message:
            raise UnreadableAnswer(ended[0].error.message)
        return ended[0].status_code

    @verb
    async def rename(self, name: str) -> None:
        """Give it another name."""
        await self._session.do("POST", f"{self._path}/rename", {"name": name})

    @verb
    async def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it; with `force` also if it runs, with `volumes` the anonymous volumes too."""
        await self._session.do("DELETE", self._path, {"force": force, "v": volumes}, patient=True)

    # -- what it is --------------------------------------------------------------------------------

    @verb
    async def inspect(self, *, size: bool = False) -> ContainerInfo:
        """Everything about it; with `size` also how much it has written, which takes time."""
        return await self._session.get(f"{self._path}/json", ContainerInfo, {"size": size}, patient=size)

    @verb
    async def top(self, arguments: str = "-ef") -> Processes:
        """Its processes, as ps(1) shows them."""
        return await self._session.get(f"{self._path}/top", Processes, {"ps_args": arguments})

    @verb
    async def changes(self) -> list[Change]:
        """The paths that differ from its image."""
        return await self._session.get(f"{self._path}/changes", _CHANGES, patient=True) or []

    @verb
    async def stats(self) -> Stats:
        """What it uses now; processor use is counted over a second."""
        return await self._session.get(f"{self._path}/stats", Stats, {"stream": False})

    @flow
    async def watch_stats(self) -> Source[Stats]:
        """What it uses, each second."""
        answer = await self._session.open("GET", f"{self._path}/stats", {"stream": True}, patient=True)
        return Pieces(answer, Records(Stats))

    # -- what it says ------------------------------------------------------------------------------

    @flow
    async def logs(self, **wanted: Unpack[Wanted]) -> Source[Output]:
        """What it has written; with `follow` also what it will write, until it ends."""
        return await self._logs(wanted)

    @flow
    async def lines(self, **wanted: Unpack[Wanted]) -> Source[str]:
        """The same as lines of text."""
        return (await self._logs(wanted)).through(Lines)

    async def _logs(self, wanted: Wanted) -> Pieces[Output]:
        if unknown := wanted.keys() - Wanted.__annotations__.keys():
            raise TypeError(f"there is no option {min(unknown)!r}")
        query = {"stdout": True, "stderr": True, **wanted}
        if query.get("tail") is None:
            query["tail"] = "all"
        answer = await self._session.open("GET", f"{self._path}/logs", query, patient=True)
        framed = answer.headers.get("content-type", "").endswith("multiplexed-stream")
        return Pieces(answer, Frames() if framed else Raw())

    # -- programs in it ----------------------------------------------------------------------------

    @verb
    async def exec(
        self,
        *command: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        privileged: bool = False,
        timeout: Duration | None = None,
        limit_bytes: int | None = _OUTPUT_LIMIT_BYTES,
    ) -> Result:
        """Run a program in it to its end.

        After `timeout` it is killed, with its process group; a daemon other than Corral's cannot do that: then it is
        left running and its `exit_code` is None.  Of the output `limit_bytes` are kept (None: all).
        """
        limit_s = None if timeout is None else options.seconds(timeout, "timeout")
        began = time.monotonic()
        body = exec_body(
            command, env, user, workdir, privileged=privileged, stdin=bool(stdin), tty=False, timeout_s=limit_s
        )
        found = Collected(limit_bytes)
        async with AsyncProcess(await self.begun(body)) as process:
            try:
                await process.carry(stdin, found, None if limit_s is None else limit_s + _GRACE_S)
            except TimedOut:
                return found.result(began, exit_code=None, timed_out=True)
            ended = await self._session.get(f"/exec/{process.id}/json", ExecInfo)
        return found.result(began, exit_code=ended.exit_code, timed_out=ended.timed_out, oom_killed=ended.oom_killed)

    @verb
    async def process(
        self,
        *command: str,
        stdin: bool = False,
        tty: bool = False,
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        privileged: bool = False,
        timeout: Duration | None = None,
    ) -> X:
        """Start a program in it, and talk to it.  After `timeout` the daemon kills it."""
        limit_s = None if timeout is None else options.seconds(timeout, "timeout")
        body = exec_body(command, env, user, workdir, privileged=privileged, stdin=stdin, tty=tty, timeout_s=limit_s)
        return self._talk(await self.begun(body))

    async def begun(self, body: dict[str, Any]) -> Call:
        """Start an exec, whose streams are the caller's."""
        made = await self._session.post(f"{self._path}/exec", _Made, body=body)
        hijacked = await self._session.hijack(f"/exec/{made.id}/start", body={"Detach": False, "Tty": body["Tty"]})

        async def exit_code() -> int:
            return (await self._session.get(f"/exec/{made.id}/json", ExecInfo)).exit_code

        return Call(hijacked, made.id, exit_code, stdin=body["AttachStdin"])

    @verb
    async def attach(self, *, stdin: bool = False, logs: bool = False) -> X:
        """The streams of its first process; with `logs` beginning with what it has written already."""
        query = {"stream": True, "stdin": stdin, "stdout": True, "stderr": True, "logs": logs}
        hijacked = await self._session.hijack(f"{self._path}/attach", query)

        async def exit_code() -> int:
            return await self._peer.wait()

        return self._talk(Call(hijacked, self.id, exit_code, stdin=stdin))

    # -- files -------------------------------------------------------------------------------------

    @verb
    async def read(self, path: str) -> bytes:
        """The content of a file, as a whole in memory."""
        answer = await self._session.open("GET", f"{self._path}/archive", {"path": path}, patient=True)
        return archives.only_file(await answer.whole(), path)

    @verb
    async def write(self, path: str, content: bytes | str, *, mode: int = 0o644, uid: int = 0, gid: int = 0) -> None:
        """Make or replace a file; its folder must exist."""
        folder, name = archives.split(path)
        data = content.encode() if isinstance(content, str) else content
        await self._put(folder, archives.of_files({name: data}, mode=mode, uid=uid, gid=gid))

    @flow
    async def get_archive(self, path: str) -> Source[bytes]:
        """A file or folder as a tar archive."""
        answer = await self._session.open("GET", f"{self._path}/archive", {"path": path}, patient=True)
        return Pieces(answer, Whole())

    @verb
    async def put_archive(self, folder: str, archive: Body) -> None:
        """Unpack a tar archive in a folder that exists."""
        await self._put(folder, archive)

    async def _put(self, folder: str, archive: Body) -> None:
        answer = await self._session.open("PUT", f"{self._path}/archive", {"path": folder}, archive, _TAR, patient=True)
        await answer.whole()

    @flow
    async def export(self) -> Source[bytes]:
        """Its whole file system as a tar archive."""
        return Pieces(await self._session.open("GET", f"{self._path}/export", patient=True), Whole())

    @verb
    async def commit(self, image: str, *, comment: str = "", author: str = "", changes: Sequence[str] = ()) -> str:
        """Make an image of it; the image's id.  `changes` are instructions of a Dockerfile."""
        repo, _, tag = image.rpartition(":") if ":" in image.rpartition("/")[2] else (image, "", "latest")
        query = {
            "container": self.id, "repo": repo, "tag": tag, "comment": comment, "author": author,
            "changes": list(changes),
        }  # fmt: skip
        return (await self._session.post("/commit", CommitAnswer, query, patient=True)).id

    # -- changes while it exists; most are beyond Docker -----------------------------------------------

    @verb
    async def update(
        self,
        *,
        memory: Size | None = None,
        memory_swap: Size | None = None,
        cpus: float | None = None,
        pids: int | None = None,
        restart: str | None = None,
        env_add: Mapping[str, str] | None = None,
        env_remove: Iterable[str] = (),
        label_add: Mapping[str, str] | None = None,
        label_remove: Iterable[str] = (),
        egress: Iterable[str] | None = None,
        api: Mapping[str, Any] | None = None,
    ) -> tuple[str, ...]:
        """Change limits, and beyond Docker also environment, labels and egress list; what there is to warn of."""
        body: dict[str, Any] = dict(api or {})
        for name, key, value in (("memory", "Memory", memory), ("memory_swap", "MemorySwap", memory_swap)):
            if value is not None:
                body[key] = options.size(value, name)
        if cpus is not None:
            body["NanoCpus"] = round(cpus * 1e9)
        if pids is not None:
            body["PidsLimit"] = pids
        if restart is not None:
            body["RestartPolicy"] = options.restart_policy(restart)
        if env_add:
            body["EnvAdd"] = [f"{name}={value}" for name, value in env_add.items()]
        if label_add:
            body["LabelAdd"] = dict(label_add)
        for key, names in (("EnvRemove", env_remove), ("LabelRemove", label_remove)):
            if removed := list(names):
                body[key] = removed
        if egress is not None:
            body["Egress"] = list(egress)
        return (await self._session.post(f"{self._path}/update", _Warned, body=body)).warnings

    @verb
    async def add_ports(self, ports: Ports) -> None:
        """Publish further ports, while it runs too: `{"80/tcp": 8080}`.  Beyond Docker."""
        await self._session.post(f"{self._path}/update", _Warned, body={"PortAdd": options.published(ports)[1]})

    @verb
    async def remove_ports(self, *host_sides: str | int) -> None:
        """Withdraw ports, named by their host sides: `8080`, `127.0.0.1:53/udp`.  Beyond Docker."""
        body = {"PortRemove": [str(one) for one in host_sides]}
        await self._session.post(f"{self._path}/update", _Warned, body=body)

    @verb
    async def add_mount(
        self,
        target: str,
        source: str = "",
        *,
        type: str = "bind",
        read_only: bool = False,
        api: Mapping[str, Any] | None = None,
    ) -> None:
        """Mount a folder, a volume (`type="volume"`) or a tmpfs, at once if it runs.  Beyond Docker."""
        body = {"Type": type, "Source": source, "Target": target, "ReadOnly": read_only, **(api or {})}
        await self._session.do("POST", f"{self._path}/mounts", body=body)

    @verb
    async def remove_mount(self, target: str) -> None:
        """Take a mount away.  Beyond Docker."""
        await self._session.do("DELETE", f"{self._path}/mounts", {"target": target})

    @verb
    async def add_device(self, text: str) -> None:
        """Give it a device: `HOST[:CONTAINER[:RIGHTS]]`.  Beyond Docker."""
        await self._session.do("POST", f"{self._path}/devices", body=options.device(text))

    @verb
    async def remove_device(self, path: str) -> None:
        """Take a device away, named by its path in the container.  Beyond Docker."""
        await self._session.do("DELETE", f"{self._path}/devices", {"path": path})

    @verb
    async def snapshot(self, name: str) -> SnapshotInfo:
        """Keep what it has written under a name.  Beyond Docker."""
        return await self._session.post(f"{self._path}/snapshots", SnapshotInfo, body={"Name": name}, patient=True)

    @verb
    async def snapshots(self) -> list[SnapshotInfo]:
        """Its snapshots, oldest first.  Beyond Docker."""
        return await self._session.get(f"{self._path}/snapshots", list[SnapshotInfo])

    @verb
    async def rewind(self, snapshot: str, *, restart: bool = False) -> None:
        """Drop what was written since.  It must not run, or with `restart` is killed and started.  Beyond Docker."""
        query = {"snapshot": snapshot, "restart": restart or None}
        await self._session.do("POST", f"{self._path}/rewind", query, patient=True)

    @verb
    async def forget_snapshot(self, snapshot: str) -> None:
        """Remove a snapshot.  Beyond Docker."""
        await self._session.do("DELETE", f"{self._path}/snapshots/{segment(snapshot)}", patient=True)

    @verb
    async def fork(self, snapshot: str, *command: str, **given: Unpack[Options]) -> C:
        """A further container, started, that begins as the snapshot.  Beyond Docker."""
        made = await create(self._session, "", command, given, snapshot=f"{self.id}@{snapshot}")
        return self._fellow(await _running(made))

    async def _finish(self) -> None:
        await remove_whatever(self._peer)


_CHANGES: Any = list[Change] | None
_TAR = {"Content-Type": "application/x-tar"}


def exec_body(
    command: tuple[str, ...],
    env: Mapping[str, str] | None,
    user: str,
    workdir: str,
    *,
    stdin: bool,
    tty: bool,
    timeout_s: float | None,
    privileged: bool = False,
) -> dict[str, Any]:
    """The body of `POST /containers/{id}/exec`."""
    body: dict[str, Any] = {
        "Cmd": list(command), "User": user, "WorkingDir": workdir, "Privileged": privileged, "Tty": tty,
        "AttachStdin": stdin, "AttachStdout": True, "AttachStderr": True,
        "Env": [f"{name}={value}" for name, value in (env or {}).items()],
    }  # fmt: skip
    if timeout_s is not None:
        body["Timeout"] = max(1, round(timeout_s * 1e9))
    return body


class Container(ContainerVerbs["Container", Process], Blocking):
    """A container.  Its `with` block removes it, whatever state it is in, with its anonymous volumes."""

    def _fellow(self, made: AsyncContainer) -> Container:
        return Container(self._session, made.id, made.warnings)

    def _talk(self, call: Call) -> Process:
        return Process(call)


class AsyncContainer(ContainerVerbs["AsyncContainer", AsyncProcess], Awaiting):
    """A container.  Its `async with` block removes it, whatever state it is in, with its anonymous volumes."""

    def _fellow(self, made: AsyncContainer) -> AsyncContainer:
        return made

    def _talk(self, call: Call) -> AsyncProcess:
        return AsyncProcess(call)


async def remove_whatever(container: AsyncContainer) -> None:
    """Remove a container that may be running, or gone."""
    try:
        await container.remove(force=True, volumes=True)
    except NotFound:
        pass
    except Conflict as error:  # `auto_remove` is at it
        if "already in progress" not in str(error):
            raise
        try:
            await container.wait("removed")
        except NotFound:
            pass


async def create(
    session: Session, image: str, command: Iterable[str], given: Mapping[str, Any], *, snapshot: str = ""
) -> AsyncContainer:
    query = {"name": given.get("name"), "platform": given.get("platform")}
    body = options.body(image, command, given, snapshot=snapshot)
    made = await session.post("/containers/create", _Made, query, body, patient=True)
    return AsyncContainer(session, made.id, made.warnings)


async def _running(made: AsyncContainer) -> AsyncContainer:
    try:
        await made.start()
    except BaseException:
        await remove_whatever(made)
        raise
    return made


class ContainersVerbs(Generic[C]):
    """`client.containers`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _container(self, made: AsyncContainer) -> C:
        """In this one's flavour."""
        raise NotImplementedError

    @verb
    async def create(self, image: str, *command: str, **given: Unpack[Options]) -> C:
        """Make a container; it does not run yet."""
        return self._container(await create(self._session, image, command, given))

    @verb
    async def run(self, image: str, *command: str, **given: Unpack[Options]) -> C:
        """Make a container and start it; if it cannot be started it is removed again."""
        return self._container(await _running(await create(self._session, image, command, given)))

    @verb
    async def output(
        self,
        image: str,
        *command: str,
        input: bytes = b"",
        timeout: Duration | None = None,
        limit_bytes: int | None = _OUTPUT_LIMIT_BYTES,
        **given: Unpack[Options],
    ) -> Result:
        """Run a program in a container of its own, and remove that: what it said, and how it ended."""
        limit_s = None if timeout is None else options.seconds(timeout, "timeout")
        began = time.monotonic()
        if input:
            given["stdin"] = True
        made = await create(self._session, image, command, given)
        found, timed_out = Collected(limit_bytes), False
        try:
            async with await made.attach(stdin=bool(input)) as process:
                await made.start()
                try:
                    await process.carry(input, found, limit_s)
                except TimedOut:
                    timed_out = True
                    await made.kill()
                    await process.carry(b"", found, None)
            code = await made.wait()
            state = (await made.inspect()).state
        finally:
            await remove_whatever(made)
        return found.result(began, exit_code=code, timed_out=timed_out, oom_killed=state.oom_killed)

    @verb
    async def get(self, name: str) -> C:
        """The container with this name or id; raises NotFound."""
        info = await self._session.get(f"/containers/{segment(name)}/json", ContainerInfo)
        return self._container(AsyncContainer(self._session, info.id))

    @verb
    async def list(
        self,
        *,
        all: bool = False,
        limit: int | None = None,
        filters: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[ContainerSummary, ...]:
        """What there is; only what runs, unless `all`.  Filters as docker's: `{"label": ["a=b"]}`."""
        query = {"all": all, "limit": limit, "filters": filters}
        return await self._session.get("/containers/json", tuple[ContainerSummary, ...], query)

    @verb
    async def prune(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> Pruned:
        """Remove every container that does not run."""
        return await self._session.post("/containers/prune", Pruned, {"filters": filters}, patient=True)


class Containers(ContainersVerbs[Container], Blocking):
    """`Client.containers`."""

    def _container(self, made: AsyncContainer) -> Container:
        return Container(self._session, made.id, made.warnings)


class AsyncContainers(ContainersVerbs[AsyncContainer], Awaiting):
    """`AsyncClient.containers`."""

    def _container(self, made: AsyncContainer) -> AsyncContainer:
        return made
