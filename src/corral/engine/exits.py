"""The end of a run: what the engine does when a shim says that its container has exited, and what comes next."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any

from corral.engine import health, mountuse, restart, start
from corral.engine.context import Engine
from corral.engine.execs import Execs
from corral.engine.live import Live
from corral.engine.record import save, timestamp
from corral.engine.removal import StillRunning, remove_now
from corral.engine.tasks import Listener, Task
from corral.errors import CorralError

_log = logging.getLogger(__name__)

_LOST_EXIT_CODE = 137


class Exits:
    """Listens to every task."""

    def __init__(self, engine: Engine, execs: Execs, restart_unhealthy: Callable[[Live], Awaitable[None]]) -> None:
        self._engine = engine
        self._execs = execs
        self._restart_unhealthy = restart_unhealthy

    def listener(self, live: Live, task: Task) -> Listener:
        """What a task's events are given to; the container runs from here on, and so do its health checks."""
        check = health.wanted(live)
        options = live.record.host.restart_options

        def unhealthy() -> None:
            if options is not None and options.on_unhealthy:
                self._spawn(self._restart_unhealthy(live))

        live.health = health.Health(self._engine, self._execs, live, check, unhealthy) if check else None

        def listen(event: dict[str, Any]) -> None:
            kind = event["event"]
            if kind == "exit":
                self._spawn(self.exited(live, task, event))
            elif kind == "lost":
                self._spawn(self._lost(live, task))
            elif kind == "exec-exit":
                self._execs.exited(
                    event["exec"],
                    event["status"],
                    timed_out=event.get("timed_out", False),  # a shim of an earlier version does not say
                    oom_killed=event.get("oom_killed", False),
                )
            elif kind == "log":
                live.log_grew.set()
            elif kind == "detach":
                attributes = {"execID": event["exec"]} if event["exec"] else {}
                self._engine.publish(live, "exec_detach" if event["exec"] else "detach", **attributes)

        return listen

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._engine.background.add(task)
        task.add_done_callback(self._engine.background.discard)

    async def _lost(self, live: Live, task: Task) -> None:
        """A shim died under its container: the container is ended, and that is its exit."""
        if live.task is not task:
            return
        _log.error("the shim of %s died; ending the container", live.id)
        await self._engine.launcher.clean_up(self._engine.paths.bundle(live.id))
        await self.exited(live, task, {"status": _LOST_EXIT_CODE, "oom_killed": False, "at_ns": time.time_ns()})

    async def exited(self, live: Live, task: Task, event: dict[str, Any]) -> None:
        """One run has ended."""
        try:
            async with live.lock:
                if live.task is task:
                    await self._settle(live, task, event)
            if live.record.host.auto_remove and live.record.state.status == "exited" and not live.kept:
                with contextlib.suppress(StillRunning):  # somebody was quicker and started it again
                    await remove_now(self._engine, live, volumes=True)
        except CorralError:
            _log.exception("cannot settle the exit of %s", live.id)

    async def _settle(self, live: Live, task: Task, event: dict[str, Any]) -> None:
        engine, record, state = self._engine, live.record, live.record.state
        was_paused = state.status == "paused"
        state.exit_code = event["status"]
        state.oom_killed = event["oom_killed"]
        state.finished_at = timestamp(event["at_ns"])
        state.pid = 0
        decision = restart.decide(
            record.host.restart_policy,
            exit_code=state.exit_code,
            restarts=state.restarts,
            ran_s=time.monotonic() - live.started_monotonic,
            last_delay_s=live.restart_delay_s,
            stopped_by_user=state.stopped_by_user or live.removing or live.stopping,
            options=record.host.restart_options,
        )
        state.status = "restarting" if decision.again else "exited"
        await engine.commit(save(record))
        if state.oom_killed:
            engine.publish(live, "oom")
        if was_paused:
            engine.publish(live, "unpause")
        engine.publish(live, "die", exitCode=str(state.exit_code), execDuration=_duration(live))
        live.log_grew.set()
        await self._release(live, task)
        if decision.again:
            live.restart_delay_s = decision.delay_s
            loop = asyncio.get_running_loop()
            live.restart_timer = loop.call_later(decision.delay_s, self._restart_due, live)
        else:
            live.restart_delay_s = 0.0
            live.notify_stopped()

    async def _release(self, live: Live, task: Task) -> None:
        """Give back what a run holds: address, ports, cgroup, bundle."""
        engine, record = self._engine, live.record
        self._execs.abandon_all(live)
        if live.health is not None:
            live.health.stop()
        await engine.networks.detach(record.id)
        for endpoint in record.endpoints:
            start.network_event(
                engine, endpoint.network_id, endpoint.network_name, record.id, "disconnect", endpoint.driver
            )
        record.endpoints, record.ports = [], []
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(task.gone.wait(), 30)
        self._execs.abandon_all(live)
        live.task = None
        task.close()
        shutil.rmtree(engine.paths.bundle(record.id), ignore_errors=True)
        await mountuse.release(engine, record)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(engine.paths.file(record.id, "exit.json"))

    def _restart_due(self, live: Live) -> None:
        self._spawn(self._restart(live))

    async def _restart(self, live: Live) -> None:
        async with live.lock:
            live.restart_timer = None
            if live.record.state.status != "restarting":
                return
            live.record.state.restarts += 1
            try:
                await start.start(self._engine, live, self.listener)
            except CorralError as error:
                _log.error("cannot restart %s: %s", live.id, error)
                live.notify_stopped()


def _duration(live: Live) -> str:
    return str(int(time.monotonic() - live.started_monotonic)) if live.started_monotonic else "0"
