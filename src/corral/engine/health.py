"""Health checks: a command run inside a container at intervals, and what its results say of the container.

    starting --success--> healthy --`retries` failures in a row--> unhealthy --success--> healthy

During the start period failures do not count, and the start interval is used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from corral.engine.context import Engine
from corral.engine.execs import Execs
from corral.engine.live import Client, Live
from corral.engine.record import timestamp
from corral.errors import CorralError
from corral.wire.containers import ExecRequest, Healthcheck

_KEPT = 5
_OUTPUT_BYTES = 4096
_INTERVAL_NS, _TIMEOUT_NS, _START_INTERVAL_NS = 30 * 10**9, 30 * 10**9, 5 * 10**9
_RETRIES = 3
_TIMED_OUT = -1


class Health:
    """The health of one running container."""

    def __init__(
        self, engine: Engine, execs: Execs, live: Live, check: Healthcheck, unhealthy: Callable[[], None]
    ) -> None:
        """`unhealthy` is called when it becomes so."""
        self._engine = engine
        self._execs = execs
        self._live = live
        self._check = check
        self._unhealthy = unhealthy
        self._log: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.status = "starting"
        self.failing_streak = 0
        self._task = asyncio.get_running_loop().create_task(self._run())

    def shown(self) -> dict[str, Any]:
        """`State.Health` of inspect."""
        return {"Status": self.status, "FailingStreak": self.failing_streak, "Log": list(self._log)}

    def stop(self) -> None:
        """No more checks."""
        self._task.cancel()

    async def _run(self) -> None:
        began = time.monotonic()
        start_period_s = self._check.start_period / 1e9
        while True:
            starting = self.status == "starting" and time.monotonic() - began < start_period_s
            interval = (self._check.start_interval or _START_INTERVAL_NS) if starting else 0
            await asyncio.sleep((interval or self._check.interval or _INTERVAL_NS) / 1e9)
            if self._live.record.state.status != "running":
                continue
            started = time.time_ns()
            code, output = await self._probe()
            self._engine.checks.made += 1
            self._engine.checks.failed += code != 0
            self._log.append(
                {"Start": timestamp(started), "End": timestamp(time.time_ns()), "ExitCode": code, "Output": output}
            )
            counts = self.status != "starting" or time.monotonic() - began >= start_period_s
            self._take(code, counts)

    def _take(self, code: int, counts: bool) -> None:
        before = self.status
        if code == 0:
            self.failing_streak = 0
            self.status = "healthy"
        elif counts:
            self.failing_streak += 1
            if self.failing_streak >= (self._check.retries or _RETRIES):
                self.status = "unhealthy"
        if self.status != before:
            self._engine.publish(self._live, f"health_status: {self.status}")
            if self.status == "unhealthy":
                self._unhealthy()

    async def _probe(self) -> tuple[int, str]:
        """Run the command once; its exit code and the beginning of its output."""
        test = self._check.test or []
        shell = self._live.record.config.shell or ["/bin/sh", "-c"]
        argv = [*shell, *test[1:]] if test[0] == "CMD-SHELL" else test[1:]
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        collector = asyncio.ensure_future(_collect(ours))
        try:
            found = self._execs.create(self._live.id, ExecRequest(cmd=argv, attach_stdout=True, attach_stderr=True))
            client = Client(theirs.detach(), False, ["stdout", "stderr"], b"", b"")
            try:
                await self._execs.start(found, client)
            finally:
                client.close()
            async with asyncio.timeout((self._check.timeout or _TIMEOUT_NS) / 1e9):
                output = await collector
            await self._execs.settle(found)
            return found.exit_code if found.exit_code is not None else 1, output
        except TimeoutError:
            _end(found.pid)
            seconds = (self._check.timeout or _TIMEOUT_NS) / 1e9
            return _TIMED_OUT, f"Health check exceeded timeout ({seconds:g}s)"
        except CorralError as error:
            return _TIMED_OUT, str(error)
        finally:
            collector.cancel()
            ours.close()
            theirs.close()


def _end(pid: int) -> None:
    if pid > 0:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


async def _collect(connection: socket.socket) -> str:
    """The text of a framed stream, cut to what inspect shows."""
    loop = asyncio.get_running_loop()
    data = bytearray()
    while piece := await loop.sock_recv(connection, 16 << 10):
        if len(data) < 4 * _OUTPUT_BYTES:
            data += piece
    text = bytearray()
    while len(data) >= 8:
        size = int.from_bytes(data[4:8], "big")
        text += data[8 : 8 + size]
        del data[: 8 + size]
    return bytes(text[:_OUTPUT_BYTES]).decode(errors="replace")


def wanted(live: Live) -> Healthcheck | None:
    """The check of a container, unless it has none or it was switched off."""
    check = live.record.config.healthcheck
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    return check
