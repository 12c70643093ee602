"""Execs: further processes in a running container.  They live in memory; a finished one is kept for a while."""

from __future__ import annotations

import contextlib
import errno
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from corral.engine import failures, lifecycle, profiles, spec
from corral.engine.context import Engine
from corral.engine.detach import detach_keys
from corral.engine.live import Client, Live
from corral.engine.tasks import ShimGone
from corral.errors import Conflict, CorralError, InvalidParameter, NotFound
from corral.runtime.failure import Failure
from corral.wire.containers import ExecRequest

_KEPT = 1000  # finished execs that can still be inspected


class NoSuchExec(NotFound):
    """No exec has this id."""

    def __init__(self, exec_id: str) -> None:
        super().__init__(f"No such exec instance: {exec_id}")


class ExecStarted(Conflict):
    """An exec runs once."""


class NoCommand(InvalidParameter):
    """An exec without a command."""


class BadTimeout(InvalidParameter):
    """An exec with a time that is over before it begins."""


@dataclass
class Exec:
    """One exec, from its creation to some time after its end."""

    id: str
    live: Live
    request: ExecRequest
    argv: list[str]
    env: list[str]
    detach_keys: bytes
    pid: int = 0
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    timed_out: bool = False
    oom_killed: bool = False
    console_size: tuple[int, int] | None = field(default=None)


class Execs:
    """Create, start, resize, inspect."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._execs: dict[str, Exec] = {}
        self._finished: deque[str] = deque()

    def get(self, exec_id: str) -> Exec:
        """By id; raises NoSuchExec."""
        if exec_id not in self._execs:
            raise NoSuchExec(exec_id)
        return self._execs[exec_id]

    def create(self, ref: str, request: ExecRequest) -> Exec:
        """Note what to run; raises unless the container runs."""
        live = self._engine.index.get(ref)
        lifecycle.check("exec", live.record.state.status, live.id)
        argv = [request.cmd] if isinstance(request.cmd, str) else list(request.cmd or [])
        if not argv or not argv[0]:
            raise NoCommand("No exec command specified")
        if request.timeout < 0:
            raise BadTimeout(f"invalid timeout {request.timeout}: must not be negative")
        env = spec.merge_environment(spec.environment(live.record), request.env or [])
        if request.tty and not any(entry.startswith("TERM=") for entry in env):
            env.append("TERM=xterm")
        found = Exec(secrets.token_hex(32), live, request, argv, env, detach_keys(request.detach_keys))
        if request.console_size and any(request.console_size):
            found.console_size = (request.console_size[0], request.console_size[1])
        self._execs[found.id] = found
        live.exec_ids.append(found.id)
        command = " ".join(argv)
        self._engine.publish(live, f"exec_create: {command}", execID=found.id)
        return found

    def _finish(self, found: Exec, exit_code: int) -> None:
        """Note the end; the container no longer counts it, and only the latest can still be inspected."""
        if found.exit_code is not None:  # told already: the container ended while the exec was on its way
            return
        found.running, found.exit_code, found.pid = False, exit_code, 0
        if found.id in found.live.exec_ids:
            found.live.exec_ids.remove(found.id)
        self._finished.append(found.id)
        if len(self._finished) > _KEPT:
            self._execs.pop(self._finished.popleft(), None)

    def check_start(self, exec_id: str) -> Exec:
        """The exec, if it may be started now."""
        found = self.get(exec_id)
        if found.exit_code is not None:
            raise ExecStarted(f"exec command {exec_id} has already run")
        if found.started:
            raise ExecStarted(f"exec command {exec_id} is already running")
        lifecycle.check("exec", found.live.record.state.status, found.live.id)
        return found

    async def start(self, found: Exec, client: Client | None) -> None:
        """Run it; `client` gets its streams.  Raises with Docker's text for a command that cannot be run."""
        if found.started:
            raise ExecStarted(f"exec command {found.id} is already running")
        found.started = found.running = True
        live, request = found.live, found.request
        task = live.task
        self._engine.publish(live, f"exec_start: {' '.join(found.argv)}", execID=found.id)
        try:
            if task is None:
                raise ShimGone(f"container {live.id} is not running")
            answer = await task.request(
                "exec",
                [client.fd] if client else [],
                exec=found.id,
                process=self._process(found),
                user=request.user or live.record.config.user,
                groups=live.record.host.group_add or [],
                terminal=request.tty,
                console_size=list(found.console_size) if found.console_size else None,
                stdin=request.attach_stdin and client is not None,
                stdin_once=True,
                client=client.described() if client else None,
                timeout_s=request.timeout / 1e9,
            )
        except (Failure, ShimGone) as failure:
            error = _refusal(live.id, failure)
            self._finish(found, failures.exec_exit_code(error))
            raise error from failure
        except CorralError:
            self._finish(found, 126)
            raise
        if found.exit_code is None:
            found.pid = answer["pid"]

    def _process(self, found: Exec) -> dict[str, Any]:
        record, request = found.live.record, found.request
        host = record.host
        privileged = request.privileged or host.privileged
        caps = profiles.capabilities(
            host.cap_add or [], host.cap_drop or [], privileged=privileged, available=self._engine.facts.capabilities
        )
        process: dict[str, Any] = {
            "terminal": request.tty,
            "user": {"uid": 0, "gid": 0},
            "args": found.argv,
            "env": found.env,
            "cwd": request.working_dir or record.config.working_dir or "/",
            "oomScoreAdj": host.oom_score_adj,
            "rlimits": spec.rlimits(record, spec.ulimits(self._engine.config.default_ulimits)),
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "noNewPrivileges": spec.no_new_privileges(
                spec.security_options(host.security_opt or []), self._engine.config.no_new_privileges
            ),
        }
        if request.tty and found.console_size:  # before the program looks
            process["consoleSize"] = {"height": found.console_size[0], "width": found.console_size[1]}
        return process

    def exited(self, exec_id: str, status: int, *, timed_out: bool = False, oom_killed: bool = False) -> None:
        """The shim says that an exec has ended, and whether its time or the memory was over."""
        found = self._execs.get(exec_id)
        if found is None or found.exit_code is not None:
            return
        found.timed_out, found.oom_killed = timed_out, oom_killed
        self._finish(found, status)
        self._engine.publish(found.live, "exec_die", execID=exec_id, exitCode=str(status))

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Tell its terminal a new size; raises unless it runs."""
        found = self.get(exec_id)
        if not found.running or found.live.task is None:
            raise (
                ExecStarted(f"exec {exec_id} is not running")
                if found.started
                else Conflict(f"exec process is not started: {exec_id}")
            )
        await found.live.task.request("resize", exec=exec_id, rows=rows, columns=columns)

    async def settle(self, found: Exec) -> None:
        """Make sure that an exit the shim has already told is known here."""
        if found.running and found.live.task is not None:
            with contextlib.suppress(ShimGone):
                await found.live.task.request("sync")

    def abandon_all(self, live: Live) -> None:
        """The container has ended, and every exec with it."""
        for exec_id in list(live.exec_ids):
            found = self._execs.get(exec_id)
            if found is not None and found.running:
                self.exited(exec_id, 137)
            elif found is not None and not found.started:
                del self._execs[exec_id]
                live.exec_ids.remove(exec_id)


# What the runtime says of a container that ended, or was paused, while the exec was on its way.
_NOT_RUNNING = frozenset((("state", errno.ESRCH), ("state", errno.EBUSY), ("namespace", errno.ESRCH)))


def _refusal(container_id: str, failure: Failure | ShimGone) -> CorralError:
    """Why an exec could not be: of the command, or of the container, whose state has just changed."""
    if isinstance(failure, Failure) and (failure.stage, failure.errno) not in _NOT_RUNNING:
        return failures.of_exec(failure)
    paused = isinstance(failure, Failure) and failure.errno == errno.EBUSY
    try:
        lifecycle.check("exec", "paused" if paused else "exited", container_id)
    except CorralError as error:
        return error
    raise AssertionError("an exec in a container that is not running is refused")
