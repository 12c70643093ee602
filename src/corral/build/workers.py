"""The worker processes of one build, as the daemon sees them: started when there is work, ended with the build."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from corral import errors

_LINE_MAX_BYTES = 64 << 20


class WorkerDied(errors.System):
    """A worker process ended without an answer."""

    def __init__(self, status: int | None) -> None:
        super().__init__(f"build worker ended with status {status}")


class Workers:
    """At most `limit` processes; each does one thing at a time."""

    def __init__(self, limit: int) -> None:
        self._room = asyncio.Semaphore(limit)
        self._idle: list[asyncio.subprocess.Process] = []
        self._all: set[asyncio.subprocess.Process] = set()
        self._warming: asyncio.Task[None] | None = None

    def warm(self) -> None:
        """Start one process now, so that its start overlaps with what comes before the first work."""
        self._warming = asyncio.ensure_future(self._warm())

    async def _warm(self) -> None:
        self._idle.append(await self._start())

    async def call(self, op: str, **fields: Any) -> dict[str, Any]:
        """The result of an operation; raises the worker's error as its kind.  When cancelled the worker is killed."""
        async with self._room:
            if self._warming is not None and not self._idle:
                await self._warming
                self._warming = None
            process = self._idle.pop() if self._idle else await self._start()
            try:
                answer = await self._ask(process, {"op": op, **fields})
            except BaseException:
                self._kill(process)
                raise
            self._idle.append(process)
        if "error" in answer:
            kind: type[errors.CorralError] = getattr(errors, answer["error"]["kind"])
            raise kind(answer["error"]["message"])
        result: dict[str, Any] = answer["result"]
        return result

    async def close(self) -> None:
        """End every process; waits until they are gone."""
        if self._warming is not None:
            await asyncio.wait((self._warming,))
        for process in list(self._all):
            self._kill(process)
        await asyncio.gather(*(process.wait() for process in self._all))
        self._all.clear()
        self._idle.clear()

    async def _start(self) -> asyncio.subprocess.Process:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-m", "corral.build.worker",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=environment, start_new_session=True, limit=_LINE_MAX_BYTES,
        )  # fmt: skip
        self._all.add(process)
        return process

    @staticmethod
    async def _ask(process: asyncio.subprocess.Process, request: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise WorkerDied(await process.wait())
        answer: dict[str, Any] = json.loads(line)
        return answer

    @staticmethod
    def _kill(process: asyncio.subprocess.Process) -> None:
        if process.returncode is None:
            try:
                process.kill()
            except ProcessLookupError:
                return
