"""After a start of the daemon: records and shims are brought together, and what lies around is cleared away."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import time
from typing import Any

from corral.engine import extensions, mountuse, restart
from corral.engine.containers import Containers
from corral.engine.context import Engine
from corral.engine.lifecycle import AlreadyStarted
from corral.engine.live import Live
from corral.engine.record import load, save, timestamp
from corral.engine.removal import remove_now
from corral.engine.tasks import ShimGone, Task, reconnect
from corral.errors import CorralError
from corral.net.model import Endpoint, PortBinding
from corral.runtime.failure import Failure

_log = logging.getLogger(__name__)

_UNKNOWN_EXIT_CODE = 255  # what Docker says of a container that was running when the machine went down

Survivors = dict[str, tuple[int, tuple[Endpoint, ...], tuple[PortBinding, ...]]]


def read_records(engine: Engine) -> None:
    """Fill the index from the database."""
    for row in engine.db.read("SELECT record FROM container"):
        engine.index.add(Live(load(row)))


async def find_survivors(engine: Engine) -> tuple[Survivors, dict[str, dict[str, Any]]]:
    """Reconnect to every shim that still runs.

    Returns what live containers hold of the network, and the exits that shims tell of only now.
    """
    survivors: Survivors = {}
    exits: dict[str, dict[str, Any]] = {}
    for live in engine.index:
        if not (live.has_process or live.record.state.status == "restarting"):
            if os.path.exists(engine.paths.bundle(live.id)):
                await _reconnect_unknown(engine, live)
            continue
        task = reconnect(engine.paths.bundle(live.id))
        hello = await _hello(task) if task else None
        if task is None or hello is None or not hello["started"]:
            continue
        live.task = task
        task.pid, task.frozen = hello["pid"], bool(hello.get("paused"))
        live.started_monotonic = time.monotonic()
        if hello["exit"]:
            exits[live.id] = hello["exit"]
            continue
        record = live.record
        survivors[live.id] = (task.pid, tuple(record.endpoints), tuple(record.ports))
    return survivors, exits


async def _hello(task: Task) -> dict[str, Any] | None:
    try:
        return await task.request("hello")
    except (ShimGone, Failure):
        task.close()
        return None


async def _reconnect_unknown(engine: Engine, live: Live) -> None:
    """A start that the daemon did not live to record is undone: nobody was told that it succeeded."""
    task = reconnect(engine.paths.bundle(live.id))
    if task is None:
        return
    try:
        await task.request("abandon")
    except (ShimGone, Failure):
        pass
    finally:
        task.close()


async def settle(engine: Engine, containers: Containers, exits: dict[str, dict[str, Any]]) -> None:
    """Record exits that happened meanwhile, listen to the living, start what has a policy, remove what has --rm."""
    waiting: list[Live] = []
    _adopt_volumes(engine)
    await engine.volumes.settle()
    for live in engine.index:
        record, state = live.record, live.record.state
        if live.task is not None:
            task = live.task
            task.listen(containers.exits.listener(live, task))
            if live.id in exits:
                await containers.exits.exited(live, task, exits[live.id])
            else:
                await containers.settle_pause(live, task.frozen)
            continue
        was_alive = state.status in ("running", "paused", "restarting")
        if was_alive:
            await _note_end(engine, live)
        if record.host.auto_remove and state.status == "exited":
            await remove_now(engine, live, volumes=True)
            continue
        has_run = state.status == "exited"
        if has_run and restart.after_boot(
            record.host.restart_policy,
            was_alive=was_alive,
            exit_code=state.exit_code,
            restarts=state.restarts,
            stopped_by_user=state.stopped_by_user,
        ):
            if extensions.dependencies(record.host, record.config.labels or {}):
                waiting.append(live)  # others may take long to get healthy; nobody waits for that
            else:
                await _start_again(containers, live)
    for live in waiting:
        starting = asyncio.create_task(_start_again(containers, live), name=f"start {live.record.name}")
        engine.background.add(starting)
        starting.add_done_callback(engine.background.discard)
    await _end_strangers(engine)
    _clear_leftovers(engine)


def _adopt_volumes(engine: Engine) -> None:
    for live in engine.index:
        if live.has_process:
            for point in live.record.mounts:
                if point.type == "volume":
                    engine.volumes.adopt(point.name, live.id)


async def _start_again(containers: Containers, live: Live) -> None:
    try:
        await containers.start(live.id)
    except AlreadyStarted:
        pass  # one that depends on it was quicker
    except CorralError as error:
        _log.error("cannot start %s again: %s", live.id, error)


async def _end_strangers(engine: Engine) -> None:
    """Processes of builds that died with the daemon: a bundle whose container has no record."""
    folder = os.path.join(engine.paths.exec_root, "containers")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        bundle = os.path.join(folder, name)
        if engine.index.find(name) is None and os.path.exists(os.path.join(bundle, "config.json")):
            task = reconnect(bundle)
            if task is None:
                await engine.launcher.clean_up(bundle)
                continue
            try:
                await task.request("abandon")
            except (ShimGone, Failure) as error:
                _log.error("cannot end %s: %s", name, error)
            finally:
                task.close()


async def _note_end(engine: Engine, live: Live) -> None:
    """The exit of a container that ended while no daemon ran: from its shim's note, or unknown."""
    state = live.record.state
    path = engine.paths.file(live.id, "exit.json")
    try:
        with open(path, "rb") as file:
            told = json.load(file)
    except (FileNotFoundError, ValueError):
        told = {"status": _UNKNOWN_EXIT_CODE, "oom_killed": False, "at_ns": time.time_ns()}
        if os.path.exists(engine.paths.bundle(live.id)):
            await engine.launcher.clean_up(engine.paths.bundle(live.id))
    if state.status != "restarting" or "status" in told:
        state.exit_code = told["status"] if os.path.exists(path) or state.status != "restarting" else state.exit_code
    state.oom_killed = told["oom_killed"]
    state.finished_at = timestamp(told["at_ns"])
    state.status, state.held = "exited", False
    state.pid = 0
    live.record.endpoints, live.record.ports = [], []
    await engine.commit(save(live.record))
    if os.path.exists(path):
        os.unlink(path)
    engine.publish(live, "die", exitCode=str(state.exit_code))
    await mountuse.release(engine, live.record)


def _clear_leftovers(engine: Engine) -> None:
    """Folders of containers that do not exist, and bundles of containers that do not run."""
    known = {live.id for live in engine.index}
    alive = {live.id for live in engine.index if live.task is not None}
    for root, keep in ((engine.paths.data_root, known), (engine.paths.exec_root, alive)):
        folder = os.path.join(root, "containers")
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            if name not in keep:
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
    shutil.rmtree(os.path.join(engine.paths.exec_root, "held"), ignore_errors=True)
    for key in engine.snapshots.keys():  # noqa: SIM118  a store, not a dict
        if key.partition(":")[0] not in known:
            engine.snapshots.remove(key)
