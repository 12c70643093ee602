"""One process of a build: a container without a record that lives for one command.

It is set up as any container is (spec, shim, network, limits), but on directories that the caller names, and nobody
else sees it: what it leaves is its upper directory.  When the daemon dies, the next one finds the bundle and ends it
(`corral.engine.recover`).
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from corral.engine import create, defaults, failures, filesystem, names, remap, start, unsupported
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import Container, MountPoint
from corral.engine.tasks import Task
from corral.errors import CorralError
from corral.oci.idmap import IdMap
from corral.runtime.failure import Failure
from corral.wire.containers import ContainerConfig, DeviceMapping, EndpointSettings, HostConfig, LogConfig, Ulimit

Output = Callable[[int, bytes], None]
Drain = Callable[[], Awaitable[None]]

_SIGKILL = 9
_PIECE = 64 << 10
_HEADER = 8  # of a frame: stream, three zero bytes, length
_GONE_S = 30
_LOST_EXIT_CODE = 137
_ALL_IDS = ((0, 0, (1 << 32) - 1),)


@dataclass(frozen=True)
class Limits:
    """What every process of a build may use.  Sizes in bytes, CPU times in microseconds, 0 is no limit."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    cgroup_parent: str = ""
    shm_size: int = 0
    ulimits: tuple[tuple[str, int, int], ...] = ()
    extra_hosts: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()


@dataclass(frozen=True)
class Root:
    """The directories of the overlay that the process sees, `lower` with the top-most first."""

    lower: tuple[str, ...]
    upper: str
    work: str


@dataclass(frozen=True)
class Step:
    """A command and its surroundings.  `network` is a network mode as `docker run` knows it."""

    argv: Sequence[str]
    environment: Sequence[str]
    directory: str
    user: str
    root: Root
    network: str = "default"
    mounts: Sequence[MountPoint] = ()
    devices: Sequence[str] = ()
    privileged: bool = False
    hostname: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Ended:
    """How the command ended.  `released` is done once everything that the process held has been given back."""

    exit_code: int
    oom_killed: bool
    released: asyncio.Task[None]


def new_id() -> str:
    """An id as containers have them."""
    return secrets.token_hex(32)


def check(engine: Engine, limits: Limits, network: str) -> None:
    """Raise as a create of a container would, before anything is done."""
    host = _host(engine, Step((), (), "/", "", Root((), "", ""), network=network, limits=limits))
    defaults.check_host(host, cpus=engine.facts.cpus)
    remap.check(engine.ids, host)


async def run(engine: Engine, step_id: str, step: Step, output: Output, drain: Drain) -> Ended:
    """Run the command to its end; `output(1 or 2, data)` is called with what it writes, no faster than `drain` allows.

    Raises what a start raises.  When cancelled the processes are killed; whatever happens, nothing is left running.
    """
    record = _record(engine, step_id, step)
    remap.check(engine.ids, record.host)
    live = Live(record)
    undo = contextlib.AsyncExitStack()
    try:
        _make_folder(engine, record, undo)
        bundle = start.make_bundle(engine, record, undo)
        start.write_spec(engine, record, bundle)
        process = _Process(engine.launcher.launch(bundle))
        undo.callback(process.task.close)
        undo.push_async_callback(process.end)
        connection = await _create(engine, live, process.task, step.root)
        undo.callback(connection.close)
        attachment = await start.attach_network(engine, live, process.task, undo)
        start.write_host_files(engine, live, attachment)
        await process.start()
        await _relay(connection, output, drain)
        exit_code, oom_killed = await process.exited
    except Failure as failure:
        await undo.aclose()
        raise failures.of_start(failure) from failure
    except BaseException:
        await undo.aclose()
        raise
    # Its processes are gone, and with them its mounts.  What else it held (cgroup, address) need not be waited for.
    return Ended(exit_code, oom_killed, asyncio.ensure_future(undo.aclose()))


async def keep(engine: Engine, step_id: str, step: Step, layers: str, image: str) -> None:
    """Leave a container that has ended as what a step was, on the layers that it has made."""
    record = _record(engine, step_id, step)
    record.name = names.unused(lambda candidate: engine.index.owner_of(candidate) is not None)
    record.layers, record.image_id, record.image_ref = layers, image, image
    record.mounts = []
    record.state.status = "exited"
    record.state.started_at = record.state.finished_at = record.created
    engine.index.reserve(record.name, record.id)
    try:
        await create.make_durable(engine, record, layers)
    except BaseException:
        engine.index.release(record.name)
        raise
    live = Live(record)
    engine.index.add(live)
    engine.publish(live, "create")


class _Process:
    """The running side: a shim's task and how its process ends."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.exited: asyncio.Future[tuple[int, bool]] = asyncio.get_running_loop().create_future()
        self._started = False

    async def start(self) -> None:
        self.task.listen(self._event)
        await self.task.request("start")
        self._started = True

    def _event(self, event: dict[str, Any]) -> None:
        if self.exited.done():
            return
        if event["event"] == "exit":
            self.exited.set_result((event["status"], event["oom_killed"]))
        elif event["event"] == "lost":
            self.exited.set_result((_LOST_EXIT_CODE, False))

    async def end(self) -> None:
        """Kill what still runs, and wait until the shim has given everything back."""
        if not self._started:
            await start.abandon(self.task)
            return
        if not self.exited.done():
            with contextlib.suppress(CorralError, Failure):
                await self.task.request("kill", signal=_SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.task.gone.wait(), _GONE_S)


async def _create(engine: Engine, live: Live, task: Task, root: Root) -> socket.socket:
    """Have the shim set everything up; returns the connection on which the output comes, in frames."""
    record = live.record
    ours, theirs = socket.socketpair()
    runtime = engine.config.runtime(record.host.runtime)
    client = {"stdin": False, "outputs": ["stdout", "stderr"], "detach_keys": "", "initial": ""}
    try:
        with theirs:
            answer = await task.request(
                "create",
                [theirs.fileno()],
                id=record.id,
                runtime=[runtime.path, *runtime.arguments] if runtime else None,
                rootfs=filesystem.rootfs_on(engine, root.lower, root.upper, root.work, engine.ids_of(record)),
                user=record.config.user,
                groups=[],
                terminal=False,
                console_size=None,
                stdin=False,
                stdin_once=False,
                log=None,
                exit_path=engine.paths.file(record.id, "exit.json"),
                clients=[client],
            )
    except BaseException:
        ours.close()
        raise
    task.pid = answer["pid"]
    return ours


async def _relay(connection: socket.socket, output: Output, drain: Drain) -> None:
    """Give what comes to `output` until the shim closes its end."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    held = bytearray()
    while data := await loop.sock_recv(connection, _PIECE):
        held += data
        while len(held) >= _HEADER and len(held) >= (end := _HEADER + int.from_bytes(held[4:8], "big")):
            output(held[0], bytes(held[_HEADER:end]))
            del held[:end]
        await drain()


def _make_folder(engine: Engine, record: Container, undo: contextlib.AsyncExitStack) -> None:
    folder = engine.paths.container(record.id)
    create.make_folder(folder, engine.ids_of(record))
    undo.callback(shutil.rmtree, folder, ignore_errors=True)


def _record(engine: Engine, step_id: str, step: Step) -> Container:
    host = _host(engine, step)
    joins = host.network_mode == "host" or host.network_mode.startswith("container:")
    return Container(
        id=step_id,
        name=f"build-{step_id[:12]}",
        created_ns=time.time_ns(),
        image_id="",
        image_ref="",
        layers="",
        config=ContainerConfig(
            hostname=step.hostname or ("" if joins else step_id[:12]),
            user=step.user,
            env=list(step.environment),
            cmd=list(step.argv),
            working_dir=step.directory,
        ),
        host=host,
        networks={} if joins else {host.network_mode: EndpointSettings()},
        mounts=[_mapped(point, engine.ids) for point in step.mounts],
    )


def _mapped(point: MountPoint, ids: IdMap | None) -> MountPoint:
    """A mount of a build, whose files have the ids of the container on disk, as layers have."""
    if ids is None or point.type == "tmpfs":
        return point
    return msgspec.structs.replace(point, uids=_ALL_IDS, gids=_ALL_IDS)


def _host(engine: Engine, step: Step) -> HostConfig:
    limits = step.limits
    host = HostConfig(
        memory=limits.memory,
        memory_swap=limits.memory_swap,
        cpu_shares=limits.cpu_shares,
        cpu_period=limits.cpu_period,
        cpu_quota=limits.cpu_quota,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        cgroup_parent=limits.cgroup_parent,
        shm_size=limits.shm_size,
        ulimits=[Ulimit(name=name, soft=soft, hard=hard) for name, soft, hard in limits.ulimits],
        extra_hosts=list(limits.extra_hosts),
        security_opt=list(limits.security_opt),
        network_mode="" if step.network == "default" else step.network,
        devices=[DeviceMapping(path_on_host=path, path_in_container=path, cgroup_permissions="rwm")
                 for path in step.devices],
        privileged=step.privileged,
        log_config=LogConfig(type="none"),
    )  # fmt: skip
    unsupported.discard(host, engine.facts)
    defaults.fill_host(
        host,
        network="none" if engine.config.bridge == "none" else "bridge",
        shm_size=defaults.size_bytes(engine.config.default_shm_size),
        log=LogConfig(type="none"),
        runtime=engine.config.default_runtime,
        init=engine.config.init,
    )
    return host
