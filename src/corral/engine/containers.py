"""The verbs of a container.  Each is one story; `start.py`, `create.py` and `removal.py` hold the longest three."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator
from typing import Any

from corral.engine import (
    create,
    defaults,
    edits,
    egress,
    extensions,
    lifecycle,
    livedevices,
    livemounts,
    ordering,
    publishing,
    signals,
    snapshots,
    spec,
    start,
    unsupported,
    vaultfiles,
)
from corral.engine.context import Engine
from corral.engine.execs import Execs
from corral.engine.exits import Exits
from corral.engine.live import Live
from corral.engine.record import Snapshot, save
from corral.engine.removal import StillRunning, remove_now
from corral.engine.tasks import ShimGone
from corral.errors import Conflict, CorralError, InvalidParameter, System
from corral.runtime.failure import Failure
from corral.wire.containers import CreateRequest, DeviceMapping, Mount, UpdateRequest

_log = logging.getLogger(__name__)

_KILL_WAIT_S = 10.0
_SIGKILL, _SIGTERM, _SIGSTOP, _SIGCONT = 9, 15, 19, 18


class CannotStop(System):
    """The process did not end, even when killed."""


class BadWaitCondition(InvalidParameter):
    """No such condition."""

    def __init__(self, text: str) -> None:
        super().__init__(f'invalid condition: "{text}"')


class UpdateRefused(Conflict):
    """A limit that cannot be changed as asked."""


class CannotControl(System):
    """The kernel refused to pause, resume, signal or limit."""


class Containers:
    """Every verb, for the API."""

    def __init__(self, engine: Engine, execs: Execs) -> None:
        self._engine = engine
        self._index = engine.index
        self.exits = Exits(engine, execs, self._restart_unhealthy)

    def get(self, ref: str) -> Live:
        """By id, name or unique prefix; raises NoSuchContainer."""
        return self._index.get(ref)

    async def create(self, request: CreateRequest, name: str, platform: str) -> create.Created:
        """Make a container."""
        return await create.create(self._engine, request, name, platform)

    async def start(self, ref: str) -> None:
        """Start a container, after what it depends on; raises AlreadyStarted when it runs."""
        await self._start(self.get(ref), ())

    async def _start(self, live: Live, waiting: tuple[str, ...]) -> None:
        lifecycle.check("start", live.record.state.status, live.id)
        await ordering.settle(self._engine, live, waiting, self._start)
        async with live.lock:
            lifecycle.check("start", live.record.state.status, live.id)
            live.record.state.restarts = 0
            try:
                await start.start(self._engine, live, self.exits.listener)
                return
            except CorralError as error:
                refused = error
        if live.record.host.auto_remove:
            await remove_now(self._engine, live, volumes=True)
        raise refused

    async def stop(self, ref: str, timeout_s: int | None, signal_name: str = "") -> None:
        """Ask the process to end, and kill it when it does not within the timeout (negative: wait for ever)."""
        live = self.get(ref)
        lifecycle.check("stop", live.record.state.status, live.id)
        signal = signals.parse(signal_name or live.record.config.stop_signal or "SIGTERM")
        await self._stop(live, signal, defaults.stop_timeout_s(live.record.config, timeout_s))
        self._engine.publish(live, "stop")

    async def _stop(self, live: Live, signal: int, timeout_s: float) -> None:
        await self._moment(live)
        await self._mark_stopped(live)
        if not live.has_process:
            return
        if live.record.state.status == "paused" and live.task is not None:
            await self._signal(live, signal)  # delivered as soon as it thaws
            await self._control(live, "resume")
        else:
            await self._signal(live, signal)
        if await _ended(live, timeout_s if timeout_s >= 0 else None):
            return
        _log.info("container %s did not exit within %s s of signal %d: killing it", live.id, timeout_s, signal)
        await self._kill_now(live)

    async def vault_changed(self, kind: str, name: str) -> list[str]:
        """Replace a secret or config in every running container that has it; the names of those containers."""
        told = []
        for live in list(self._index):
            files = [file for of, file in vaultfiles.wanted(live.record.host) if of == kind and file.source == name]
            if not files or not live.has_process:
                continue
            found = await asyncio.to_thread(vaultfiles.placed, self._engine.vault, live.record.host)
            ids = self._engine.ids_of(live.record)
            await asyncio.to_thread(vaultfiles.place, live.record.state.pid, found, ids)
            told.append(live.record.name)
            for number in {vaultfiles.action(file) for file in files}:
                if number is None:
                    await self.restart(live.id, None)
                elif number:
                    await self._signal(live, number)
        return told

    async def shut_down(self, timeout_s: float | None) -> None:
        """End every container because the daemon ends and was told so; their policies stay as they are."""
        running = [live for live in self._index if live.has_process]
        results = await asyncio.gather(*(self._end(live, timeout_s) for live in running), return_exceptions=True)
        for live, result in zip(running, results, strict=True):
            if isinstance(result, BaseException):
                _log.error("cannot end %s: %s", live.record.name, result)

    async def _end(self, live: Live, timeout_s: float | None) -> None:
        live.stopping = True  # nobody starts it again now; the next daemon does what the policy says
        await self._signal(live, signals.parse(live.record.config.stop_signal or "SIGTERM"))
        if live.record.state.status == "paused":
            await self._control(live, "resume")
        if not await _ended(live, timeout_s):
            await self._kill_now(live)

    async def _mark_stopped(self, live: Live) -> None:
        """Remember that a user wants it stopped, so that no policy starts it again."""
        if live.record.state.status == "restarting":
            async with live.lock:
                if live.restart_timer is not None:
                    live.restart_timer.cancel()
                    live.restart_timer = None
                if live.record.state.status == "restarting":
                    live.record.state.status = "exited"
                    live.notify_stopped()
        live.record.state.stopped_by_user = True
        await self._engine.commit(save(live.record))

    async def _kill_now(self, live: Live) -> None:
        await self._moment(live)
        await self._signal(live, _SIGKILL)
        if live.record.state.status == "paused":
            await self._control(live, "resume")  # a frozen process dies when it thaws
        if not await _ended(live, _KILL_WAIT_S):
            raise CannotStop(
                f"cannot stop container: {live.id}: tried to kill container, but did not receive an exit event"
            )

    async def kill(self, ref: str, signal_name: str) -> None:
        """Send a signal; SIGKILL (the default) counts as a stop by the user and waits for the end."""
        live = self.get(ref)
        signal = signals.parse(signal_name or "SIGKILL")
        await self._moment(live)
        lifecycle.check("kill", live.record.state.status, live.id, ref)
        stop_signal = signals.parse(live.record.config.stop_signal or "SIGTERM")
        if signal in (_SIGKILL, stop_signal):
            await self._mark_stopped(live)
        if signal == _SIGKILL:
            await self._kill_now(live)
        else:
            await self._signal(live, signal)
            if live.record.state.status == "paused" and signal == stop_signal:
                await self._control(live, "resume")

    async def restart(self, ref: str, timeout_s: int | None, signal_name: str = "") -> None:
        """Stop if it runs, then start."""
        live = self.get(ref)
        signal = signals.parse(signal_name or live.record.config.stop_signal or "SIGTERM")
        if live.record.state.status in lifecycle.ALIVE:
            live.kept = True  # --rm must not remove it between the two halves
            try:
                await self._stop(live, signal, defaults.stop_timeout_s(live.record.config, timeout_s))
                self._engine.publish(live, "stop")
                await self._start_again(live)
            finally:
                live.kept = False
        else:
            await self._start_again(live)
        self._engine.publish(live, "restart")

    async def _restart_unhealthy(self, live: Live) -> None:
        """What `on-unhealthy` asks for."""
        _log.warning("container %s is unhealthy: restarting it", live.record.name)
        try:
            await self.restart(live.id, None)
        except CorralError as error:
            _log.error("cannot restart %s: %s", live.record.name, error)

    async def _start_again(self, live: Live) -> None:
        async with live.lock:
            if not live.has_process:
                await start.start(self._engine, live, self.exits.listener)

    async def pause(self, ref: str) -> None:
        """Freeze every process."""
        live = self.get(ref)
        async with live.lock:
            lifecycle.check("pause", live.record.state.status, live.id)
            await self._pause(live)

    async def _pause(self, live: Live) -> None:
        await self._control(live, "pause")
        live.record.state.status = "paused"
        await self._engine.commit(save(live.record))
        self._engine.publish(live, "pause")

    async def unpause(self, ref: str) -> None:
        """Thaw every process."""
        live = self.get(ref)
        async with live.lock:
            lifecycle.check("unpause", live.record.state.status, live.id)
            await self._unpause(live)

    async def _unpause(self, live: Live) -> None:
        await self._control(live, "resume")
        live.record.state.status, live.record.state.held = "running", False
        await self._engine.commit(save(live.record))
        self._engine.publish(live, "unpause")

    async def settle_pause(self, live: Live, frozen: bool) -> None:
        """After a restart of the daemon: what was paused for a moment only, or without an answer, runs on.

        `frozen` is what the shim says; a crash may have come between the kernel's work and our note of it.
        """
        state = live.record.state
        async with live.lock:
            if state.status == "paused" and state.held and frozen:
                await self._unpause(live)
            elif state.status == "running" and frozen:
                await self._control(live, "resume")
            elif state.status == "paused" and not frozen:
                state.status, state.held = "running", False
                await self._engine.commit(save(live.record))

    @contextlib.asynccontextmanager
    async def held_still(self, live: Live) -> AsyncIterator[None]:
        """Whatever runs in the container is paused meanwhile; the caller holds its lock."""
        if live.record.state.status != "running":
            yield
            return
        state = live.record.state
        state.held = True  # written with the pause: the daemon that comes after a crash resumes
        try:
            await self._pause(live)
        except BaseException:
            state.held = False
            raise
        try:
            yield
        finally:
            state.held = False
            if live.has_process:
                await self._unpause(live)

    async def snapshot(self, ref: str, name: str) -> Snapshot:
        """Keep what a container has written under a name; one that runs is paused while it is copied."""
        live = self.get(ref)
        async with live.lock:
            return await snapshots.take(self._engine, live, name, self.held_still(live))

    @staticmethod
    async def _moment(live: Live) -> None:
        """Let a commit or snapshot come to its end: who thaws the container now spoils it."""
        if live.record.state.held:
            async with live.lock:
                pass

    async def rewind(self, ref: str, name: str) -> None:
        """Put a stopped container's file system back to a snapshot."""
        live = self.get(ref)
        async with live.lock:
            await snapshots.rewind(self._engine, live, name)

    async def rewind_running(self, ref: str, name: str) -> None:
        """The same of a container that may run: its programs are killed, and it is started again."""
        live = self.get(ref)
        snapshots.find(live, name)
        live.kept = True  # --rm must not remove it meanwhile
        try:
            if live.record.state.status in lifecycle.ALIVE:
                await self._stop(live, _SIGKILL, defaults.stop_timeout_s(live.record.config, None))
                self._engine.publish(live, "stop")
            await self.rewind(live.id, name)
            await self._start_again(live)
        finally:
            live.kept = False

    async def forget_snapshot(self, ref: str, name: str) -> None:
        """Remove a snapshot of a container."""
        live = self.get(ref)
        async with live.lock:
            await snapshots.forget(self._engine, live, name)

    async def _signal(self, live: Live, signal: int) -> None:
        await self._control(live, "kill", signal=signal)
        self._engine.publish(live, "kill", signal=str(signal))

    async def _control(self, live: Live, verb: str, **fields: Any) -> None:
        if live.task is None:
            return
        try:
            await live.task.request(verb, **fields)
        except ShimGone:
            return  # it ended meanwhile, which is told as an exit
        except Failure as failure:
            if (failure.stage, failure.errno) == ("cgroup", errno.ENOENT):  # likewise, and its cgroup has gone already
                if verb == "pause":
                    lifecycle.check("pause", "exited", live.id)
                return
            raise CannotControl(f"cannot {verb} container {live.id}: {failure}") from failure

    async def rename(self, ref: str, name: str) -> None:
        """Give a container another name."""
        live = self.get(ref)
        if not name:
            raise InvalidParameter("Neither old nor new names may be empty")
        new = defaults.check_name(name)
        old = live.record.name
        if new == old:
            raise InvalidParameter("Renaming a container with the same name as its current name")
        lifecycle.check("rename", live.record.state.status, live.id)
        if (owner := self._index.owner_of(new)) is not None:
            raise defaults.NameTaken(new, owner)
        self._index.reserve(new, live.id)
        live.record.name = new
        try:
            await self._engine.commit(save(live.record))
        except BaseException:
            live.record.name = old
            self._index.release(new)
            raise
        self._index.release(old)
        async with live.lock:
            if live.has_process:
                live.record.endpoints = list(await self._engine.networks.rename(live.id, new)) or live.record.endpoints
        self._engine.publish(live, "rename", oldName=f"/{old}")

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        """Tell the container's terminal a new size."""
        live = self.get(ref)
        lifecycle.check("resize", live.record.state.status, live.id)
        await self._control(live, "resize", exec="", rows=rows, columns=columns)
        self._engine.publish(live, "resize", height=str(rows), width=str(columns))

    async def update(self, ref: str, wanted: UpdateRequest) -> list[str]:
        """Change limits and restart policy, live where it runs; returns warnings."""
        live = self.get(ref)
        defaults.check_resources(wanted, cpus=self._engine.facts.cpus)
        unsupported.check_realtime(wanted, self._engine.facts)
        warnings = unsupported.discard_weight(wanted, self._engine.facts)
        if wanted.restart_policy is not None:
            defaults.check_restart_policy(wanted.restart_policy)
            if live.record.host.auto_remove and wanted.restart_policy.name not in ("", "no"):
                raise UpdateRefused("Restart policy cannot be updated because AutoRemove is enabled for the container")
        extensions.check_restart(wanted.restart_options)
        async with live.lock, contextlib.AsyncExitStack() as undo:
            before = _changed(live, wanted)
            before_config = edits.apply(live.record.config, wanted)
            try:
                await publishing.change(self._engine, live, wanted, undo)
                await egress.change(self._engine, live, wanted, undo)
                if live.has_process and live.task is not None:
                    with contextlib.suppress(ShimGone):  # it has just ended: the limits are for the next start
                        await live.task.request("update", resources=spec.limits(live.record))
                await self._engine.commit(save(live.record))
            except Failure as failure:
                _restore(live, before, before_config)
                raise UpdateRefused(f"Cannot update container {live.id}: {failure}") from failure
            except BaseException:
                _restore(live, before, before_config)
                raise
            undo.pop_all()
        publishing.publish_events(self._engine, live, wanted)
        egress.publish_event(self._engine, live, wanted)
        self._engine.publish(live, "update")
        if live.has_process and (wanted.env_add or wanted.env_remove):
            warnings.append("The environment changes when the container is started the next time.")
        return warnings

    async def add_mount(self, ref: str, wanted: Mount) -> None:
        """Add a mount, at once if it runs."""
        live = self.get(ref)
        async with live.lock:
            await livemounts.add(self._engine, live, wanted)

    async def remove_mount(self, ref: str, target: str) -> None:
        """Remove a mount, at once if it runs."""
        live = self.get(ref)
        async with live.lock:
            await livemounts.remove(self._engine, live, target)

    async def add_device(self, ref: str, wanted: DeviceMapping) -> None:
        """Give a device, at once if it runs."""
        live = self.get(ref)
        async with live.lock:
            await livedevices.add(self._engine, live, wanted)

    async def remove_device(self, ref: str, path: str) -> None:
        """Take a device away, at once if it runs."""
        live = self.get(ref)
        async with live.lock:
            await livedevices.remove(self._engine, live, path)

    async def remove(self, ref: str, *, force: bool, volumes: bool, link: bool = False) -> None:
        """Remove a container; a running one only by force, which kills it."""
        live = self.get(ref)
        if link:
            raise Conflict("Conflict, cannot remove the default link name of the container")
        if live.removing:
            raise Conflict(f"removal of container {ref} is already in progress")
        status = live.record.state.status
        if status in lifecycle.ALIVE and not force:
            raise StillRunning(live.record.name, status)
        live.removing = True
        try:
            if status in lifecycle.ALIVE:
                await self._mark_stopped(live)
                if live.has_process:
                    await self._kill_now(live)
            await remove_now(self._engine, live, volumes=volumes)
        finally:
            live.removing = False

    async def wait(self, ref: str, condition: str) -> AsyncIterator[int]:
        """Yields the exit code once `condition` holds; the caller may tell its client at once that it waits."""
        live = self.get(ref)
        if condition not in ("", "not-running", "next-exit", "removed"):
            raise BadWaitCondition(condition)
        return self._wait(live, condition or "not-running")

    async def _wait(self, live: Live, condition: str) -> AsyncIterator[int]:
        if condition == "not-running" and live.record.state.status not in lifecycle.ALIVE:
            yield live.record.state.exit_code
            return
        waiters = live.remove_waiters if condition == "removed" else live.stop_waiters
        with live.waiter(waiters) as future:
            yield await future

    async def prune(self, matches: object = None) -> tuple[list[str], int]:
        """Remove every container that does not run and that `matches` accepts; returns ids and bytes freed."""
        deleted, freed = [], 0
        for live in self._index:
            if live.record.state.status in lifecycle.ALIVE or live.removing:
                continue
            if callable(matches) and not matches(live):
                continue
            with contextlib.suppress(CorralError):
                size = (await asyncio.to_thread(self._engine.snapshots.usage, live.id)).bytes
                await remove_now(self._engine, live, volumes=False)
                deleted.append(live.id)
                freed += size
        if deleted:
            self._engine.events.publish("container", "prune", "", {"reclaimed": str(freed)})
        return deleted, freed


async def _ended(live: Live, timeout_s: float | None) -> bool:
    """Whether the process ends within the timeout; one that is about to be restarted has not ended."""
    if not live.has_process:
        return True
    with live.waiter(live.stop_waiters) as future:
        try:
            await asyncio.wait_for(asyncio.shield(future), timeout_s)
        except TimeoutError:
            return not live.has_process
    return True


_UPDATABLE = (
    "blkio_weight cpu_shares cpu_period cpu_quota cpu_realtime_period cpu_realtime_runtime cpuset_cpus cpuset_mems "
    "memory memory_reservation memory_swap nano_cpus"
).split()


def _changed(live: Live, wanted: UpdateRequest) -> dict[str, object]:
    """Apply what the request says; returns what was there before.  Raises UpdateRefused."""
    host = live.record.host
    if wanted.memory and not wanted.memory_swap and 0 < host.memory_swap < wanted.memory:
        raise UpdateRefused(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )
    if host.nano_cpus and (wanted.cpu_period or wanted.cpu_quota):
        raise UpdateRefused("Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set")
    if wanted.nano_cpus and (host.cpu_period or host.cpu_quota):
        named = "Period" if host.cpu_period else "Quota"
        raise UpdateRefused(f"Conflicting options: Nano CPUs cannot be updated as CPU {named} has already been set")
    before: dict[str, object] = {}
    for name in _UPDATABLE:
        value = getattr(wanted, name)
        if value:
            before[name] = getattr(host, name)
            setattr(host, name, value)
    if wanted.pids_limit is not None:
        before["pids_limit"] = host.pids_limit
        # 0 lifts the limit as -1 does, and must be written to be lifted; None leaves it.
        host.pids_limit = wanted.pids_limit if wanted.pids_limit > 0 else -1
    if wanted.restart_policy is not None and wanted.restart_policy.name:
        before["restart_policy"] = host.restart_policy
        host.restart_policy = wanted.restart_policy
    if wanted.restart_options is not None:
        before["restart_options"] = host.restart_options
        host.restart_options = wanted.restart_options
    return before


def _restore(live: Live, before: dict[str, object], config: edits.Before) -> None:
    for name, value in before.items():
        setattr(live.record.host, name, value)
    live.record.config.env, live.record.config.labels = config.env, config.labels
