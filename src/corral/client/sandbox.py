"""A container for code that is not trusted: bounded in every respect, and gone when it is over.

Its first process is `sleep TIMEOUT` below an init, and the daemon removes it when that ends: that needs nobody here, so
a sandbox whose Python process was killed is gone in time as well.  Programs are execs, each with a time of its own that
the daemon's side keeps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypedDict, TypeVar, Unpack

from corral.client import archives, options
from corral.client.client import AsyncClient, Client
from corral.client.containers import AsyncContainer, create, exec_body, remove_whatever
from corral.client.errors import Conflict, Ended, NotFound, Refusal, Unsupported
from corral.client.flavours import Awaiting, Blocking, verb
from corral.client.images import AsyncImages
from corral.client.options import Duration, Options, Size
from corral.client.processes import AsyncProcess, Call, Process, Result
from corral.client.session import Session, segment
from corral.wire.shown.containers import SnapshotInfo
from corral.wire.shown.images import ImageInfo

B = TypeVar("B", bound="SandboxVerbs[Any, Any]")
X = TypeVar("X")

_OUTPUT_LIMIT_BYTES = 10 << 20


class Settings(TypedDict, total=False):
    """What a sandbox may do."""

    egress: Iterable[str]  # what it may send to, as HostConfig.Egress; none unless given
    network: str  # none unless given, or there is an egress list
    memory: Size  # 512m; swap is none
    cpus: float  # 1
    pids: int  # 100
    timeout: Duration  # 60 seconds, after which it is gone
    env: Mapping[str, str]
    files: Mapping[str, bytes | str]  # path to content, written before anything runs
    workdir: str
    user: str
    read_only: bool  # its root cannot be written; /tmp can
    output_limit: Size  # of each program, 10m; what is more is thrown away
    options: Options  # anything else that a container may be created with


class _Plan:
    """The settings, read."""

    def __init__(self, settings: Settings) -> None:
        unknown = settings.keys() - Settings.__annotations__.keys()
        if unknown:
            raise TypeError(f"there is no setting {min(unknown)!r}")
        self.egress = list(settings.get("egress") or ())
        self.timeout_s = options.seconds(settings.get("timeout", 60), "timeout")
        self.output_limit_bytes = options.size(settings.get("output_limit", _OUTPUT_LIMIT_BYTES), "output_limit")
        self.files = {
            path: content.encode() if isinstance(content, str) else content
            for path, content in (settings.get("files") or {}).items()
        }
        self.settings = settings

    def options(self, left_s: float) -> tuple[list[str], Options]:
        """The command and what the container is created with."""
        settings = self.settings
        memory = settings.get("memory", "512m")
        given: Options = {
            "entrypoint": ["sleep"],
            "init": True,
            "auto_remove": True,
            "memory": memory,
            "memory_swap": memory,
            "cpus": settings.get("cpus", 1.0),
            "pids": settings.get("pids", 100),
            "network": settings.get("network") or ("bridge" if self.egress else "none"),
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "labels": {"corral.sandbox": "1"},
        }
        if self.egress:
            given["egress"] = self.egress
        if settings.get("read_only"):
            given["read_only"] = True
            given["tmpfs"] = {"/tmp": "size=64m"}
        if "env" in settings:
            given["env"] = settings["env"]
        if "workdir" in settings:
            given["workdir"] = settings["workdir"]
        if "user" in settings:
            given["user"] = settings["user"]
        more = settings.get("options") or {}
        labels = {**given["labels"], **more.get("labels", {})}
        return [str(max(1, math.ceil(left_s)))], {**given, **more, "labels": labels}


class SandboxVerbs(Generic[B, X]):
    """What can be done in a sandbox.  After its time every call raises Ended."""

    _session: Session
    _owned: bool

    def __init__(self, image: str, plan: _Plan, snapshot: str = "") -> None:
        self.image = image
        self._plan = plan
        self._snapshot = snapshot
        self._made: AsyncContainer | None = None
        self._deadline = 0.0

    def _fellow(self, snapshot: str) -> B:
        """Another sandbox like this, from a snapshot."""
        raise NotImplementedError

    def _talk(self, call: Call) -> X:
        """A program to talk to, in this one's flavour."""
        raise NotImplementedError

    @property
    def id(self) -> str:
        """Of its container."""
        return self._container.id

    @property
    def left_s(self) -> float:
        """Seconds until it ends."""
        return max(0.0, self._deadline - time.monotonic())

    @property
    def _container(self) -> AsyncContainer:
        if self._made is None:
            raise Ended("the sandbox has not begun, or has been closed")
        if not self.left_s:
            raise Ended(f"the sandbox's time ({self._plan.timeout_s:g} s) is over")
        return self._made

    # -- programs ----------------------------------------------------------------------------------

    @verb
    async def run(
        self,
        *command: str,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        timeout: Duration | None = None,
    ) -> Result:
        """Run a program to its end, or until its `timeout`, or the sandbox's."""
        container, began, limit_s = self._container, time.monotonic(), self._limit(timeout)
        try:
            return await container.exec(
                *command, stdin=stdin, env=env, user=user, workdir=workdir, timeout=limit_s,
                limit_bytes=self._plan.output_limit_bytes,
            )  # fmt: skip
        except (NotFound, Conflict):
            if self.left_s:
                raise
            # It ended under the program, whose output is lost with it.
            return Result(exit_code=137, timed_out=True, duration_s=time.monotonic() - began)

    @verb
    async def run_stream(
        self,
        *command: str,
        stdin: bool = False,
        tty: bool = False,
        env: Mapping[str, str] | None = None,
        user: str = "",
        workdir: str = "",
        timeout: Duration | None = None,
    ) -> X:
        """Start a program, to read what it writes as it comes; with `stdin` also to write to it."""
        limit_s = self._limit(timeout)
        body = exec_body(command, env, user, workdir, stdin=stdin, tty=tty, timeout_s=limit_s)
        return self._talk(await self._container.begun(body))

    def _limit(self, timeout: Duration | None) -> float:
        return self.left_s if timeout is None else min(options.seconds(timeout, "timeout"), self.left_s)

    # -- files -------------------------------------------------------------------------------------

    @verb
    async def write(self, path: str, content: bytes | str, *, mode: int = 0o644) -> None:
        """Make or replace a file, with the folders on the way."""
        data = content.encode() if isinstance(content, str) else content
        await self._put(self._container, {path: data}, mode)

    @verb
    async def read(self, path: str) -> bytes:
        """The content of a file."""
        return await self._container.read(path)

    async def _put(self, container: AsyncContainer, files: Mapping[str, bytes], mode: int = 0o644) -> None:
        clean = {"/".join(archives.split(path)).replace("//", "/"): content for path, content in files.items()}
        await container.put_archive("/", archives.of_files(clean, mode=mode, uid=0, gid=0))

    # -- snapshots ---------------------------------------------------------------------------------

    @verb
    async def snapshot(self, name: str) -> SnapshotInfo:
        """Keep its files as they are, under a name."""
        return await self._container.snapshot(name)

    @verb
    async def rewind(self, name: str) -> None:
        """Its files as they were; what runs in it is killed."""
        await self._container.rewind(name, restart=True)

    @verb
    async def fork(self, name: str) -> B:
        """A further sandbox that begins as the snapshot, with the same settings and a time of its own."""
        twin = self._fellow(f"{self._container.id}@{name}")
        await twin._begin()
        return twin

    # -- its life ----------------------------------------------------------------------------------

    @verb
    async def start(self) -> None:
        """Begin without a `with` block; then it is ended by `close`, or in time by itself."""
        await self._begin()

    @verb
    async def close(self) -> None:
        """End it, whatever runs in it."""
        await self._finish()

    async def _begin(self) -> None:
        if self._made is not None:
            return
        plan = self._plan
        words, given = plan.options(plan.timeout_s)
        began = time.monotonic()
        made = await self._created(words, given)
        try:
            if plan.egress and not (await made.inspect()).host_config.get("Egress"):
                raise Unsupported("this daemon has no egress lists: it would let the sandbox send anywhere", 501)
            if plan.files and not self._snapshot:
                await self._put(made, plan.files)
            await made.start()
        except BaseException:
            await remove_whatever(made)
            raise
        self._made, self._deadline = made, began + plan.timeout_s

    async def _created(self, words: list[str], given: Options) -> AsyncContainer:
        try:
            return await create(self._session, self.image, words, given, snapshot=self._snapshot)
        except NotFound:
            if self._snapshot or await self._has_image():
                raise
        await AsyncImages(self._session).pull(self.image)
        return await create(self._session, self.image, words, given)

    async def _has_image(self) -> bool:
        try:
            await self._session.get(f"/images/{segment(self.image)}/json", ImageInfo)
        except Refusal:
            return False
        return True

    async def _finish(self) -> None:
        made, self._made = self._made, None
        try:
            if made is not None:
                await remove_whatever(made)
        finally:
            if self._owned:
                self._session.close()


class Sandbox(SandboxVerbs["Sandbox", Process], Blocking):
    """`with Sandbox("python:3") as box: box.run(...)`: begins with the block, or `start`, and ends with it."""

    def __init__(self, image: str, *, client: Client | None = None, **settings: Unpack[Settings]) -> None:
        """Without a client it makes one of its own.  Raises BadArgument."""
        super().__init__(image, _Plan(settings))
        self._client = client or Client()
        self._session = self._client.session
        self._owned = client is None

    def _fellow(self, snapshot: str) -> Sandbox:
        box = Sandbox(self.image, client=self._client, **self._plan.settings)
        box._snapshot = snapshot
        return box

    def _talk(self, call: Call) -> Process:
        return Process(call)


class AsyncSandbox(SandboxVerbs["AsyncSandbox", AsyncProcess], Awaiting):
    """`async with AsyncSandbox("python:3") as box: await box.run(...)`."""

    def __init__(self, image: str, *, client: AsyncClient | None = None, **settings: Unpack[Settings]) -> None:
        """Without a client it makes one of its own.  Raises BadArgument."""
        super().__init__(image, _Plan(settings))
        self._client = client or AsyncClient()
        self._session = self._client.session
        self._owned = client is None

    def _fellow(self, snapshot: str) -> AsyncSandbox:
        box = AsyncSandbox(self.image, client=self._client, **self._plan.settings)
        box._snapshot = snapshot
        return box

    def _talk(self, call: Call) -> AsyncProcess:
        return AsyncProcess(call)
