"""The worker processes of builds, as the daemon sees them: started when there is work, ended when there is none."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from corral import errors

_LINE_MAX_BYTES = 64 << 20
_IDLE_S = 5.0


class WorkerDied(errors.System):
    """A worker process ended without an answer."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"build worker ended with status {status}")


class Workers:
    """At most `limit` processes for all builds of a daemon; each does one thing at a time.

    An idle one stays for a few seconds: the next build is often close behind, and a process takes longer to start than
    a cached build takes.
    """

    def __init__(self, limit: int) -> None:
        self._room = asyncio.Semaphore(limit)
        self._idle: list[asyncio.subprocess.Process] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._sessions = 0

    def begin(self) -> None:
        """A build begins: have a process ready, whose start overlaps with what comes before the first work."""
        self._sessions += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._idle and not self._starting:
            task = asyncio.ensure_future(self._warm())
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _warm(self) -> None:
        self._idle.append(await self._start())

    def end(self) -> None:
        """A build has ended; with the last one the clock of the idle processes starts."""
        self._sessions -= 1
        if not self._sessions:
            self._timer = asyncio.get_running_loop().call_later(_IDLE_S, self._dismiss)

    def _dismiss(self) -> None:
        while self._idle:
            task = asyncio.ensure_future(self._finish(self._idle.pop()))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    @staticmethod
    async def _finish(process: asyncio.subprocess.Process) -> None:
        _kill(process)
        await process.wait()

    async def close(self) -> None:
        """End every process, for the daemon's end; no build may be going on."""
        if self._timer is not None:
            self._timer.cancel()
        while self._starting:
            await asyncio.wait(self._starting)
        self._dismiss()
        while self._ending:
            await asyncio.wait(self._ending)

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """The result of an operation; raises the worker's error as its kind.  When cancelled the worker is killed."""
        async with self._room:
            if not self._idle and self._starting:
                await asyncio.wait(set(self._starting))
            process = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await self._ask(process, {"op": op, **fields})
            except BaseException:
                _kill(process)
                await process.wait()
                raise
            self._idle.append(process)
        if "error" in answer:
            kind: type[errors.CorralError] = getattr(errors, answer["error"]["kind"])
            raise kind(answer["error"]["message"])
        result: dict[str, Any] = answer["result"]
        return result

    @staticmethod
    async def _start() -> asyncio.subprocess.Process:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-m", "corral.build.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=environment, start_new_session=True, limit=_LINE_MAX_BYTES,
        )  # fmt: skip

    @staticmethod
    async def _ask(process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise WorkerDied(await process.wait())
        answer: dict[str, Any] = json.loads(line)
        return answer


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        try:
            process.kill()
        except ProcessLookupError:
            return
