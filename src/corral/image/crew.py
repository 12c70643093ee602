"""A crew: the worker processes of one operation, run from one thread.

    with Crew(2) as crew:
        job = crew.submit("unpack", blob=..., layer=...)     waits while all workers are busy
        fields = crew.wait(job)                              raises what the worker raised, by kind

Workers start when there is work and end with the operation.  They are started by exec, never forked, because the
daemon has threads.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from corral import errors

Progress = Callable[[dict[str, Any]], None]


class WorkerDied(errors.System):
    """A worker process ended without an answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"image worker ended with status {status}")


class Stopped(errors.Cancelled):
    """Nobody waits for the work any more."""

    def __init__(self) -> None:
        super().__init__("context canceled")


class Job:
    """One request.  `result` or `error` is set once it is done."""

    def __init__(self, worker: _Worker, progress: Progress | None) -> None:
        self.worker = worker
        self.progress = progress
        self.result: dict[str, Any] | None = None
        self.error: errors.CorralError | None = None

    @property
    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def grown(self) -> None:
        """Tell the worker that the file it follows has more."""
        self.worker.tell(b"+")

    def complete(self) -> None:
        """Tell the worker that the file it follows is whole."""
        self.worker.tell(b".")


class _Worker:
    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-m", "corral.image.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, bufsize=0, start_new_session=True,
        )  # fmt: skip
        self.job: Job | None = None
        self.held = b""

    @property
    def output(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def tell(self, data: bytes) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            return  # its death is noticed where its answer is read

    def stop(self) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        if self.job is not None and not self.job.done:
            self.process.kill()
        self.process.wait()


class Crew:
    """At most `limit` workers; `limits` bounds what they unpack (see `corral.image.registries.Limits`)."""

    def __init__(self, limit: int = 0, limits: dict[str, int] | None = None) -> None:
        self.limit = limit or min(os.cpu_count() or 1, 4)
        self._common = {"limits": limits} if limits else {}
        self._workers: list[_Worker] = []
        self._stopped = False

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._workers.clear()

    def close(self) -> None:
        """End all workers."""
        self.__exit__()

    def shrink(self) -> None:
        """Let go of all workers but one; none may be busy."""
        self.limit = 1
        for worker in self._workers[1:]:
            worker.stop()
        del self._workers[1:]

    def stop(self) -> None:
        """From any thread: kill the workers, so that whoever waits for a job gets Stopped."""
        self._stopped = True
        for worker in list(self._workers):
            worker.process.kill()

    @property
    def is_empty(self) -> bool:
        """Whether it has no worker (yet, or any more)."""
        return not self._workers

    @property
    def is_stopped(self) -> bool:
        return self._stopped

    def warm(self) -> None:
        """Start one worker now, so that its start overlaps with the first bytes' arrival."""
        if not self._workers:
            self._workers.append(_Worker())

    def submit(self, op: str, *, progress: Progress | None = None, **fields: Any) -> Job:
        """Start a request, after waiting for a free worker."""
        worker = self._free_worker()
        job = worker.job = Job(worker, progress)
        worker.tell(json.dumps({"op": op, **self._common, **fields}).encode() + b"\n")
        return job

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The result of one request."""
        return self.wait(self.submit(op, **fields))

    def wait(self, job: Job) -> dict[str, Any]:
        """The result of a job; raises the worker's error as its kind, or Stopped."""
        while not job.done:
            self.poll(None)
        if job.error is not None:
            raise job.error
        assert job.result is not None
        return job.result

    def poll(self, timeout_s: float | None) -> None:
        """Take in what workers have said; waits up to `timeout_s` for the first word."""
        busy = {worker.output: worker for worker in self._workers if worker.job and not worker.job.done}
        if not busy:
            return
        ready, _, _ = select.select(list(busy), [], [], timeout_s)
        for fd in ready:
            self._listen(busy[fd])

    def _free_worker(self) -> _Worker:
        while not self._stopped:
            for worker in self._workers:
                if worker.job is None or worker.job.done:
                    return worker
            if len(self._workers) < self.limit:
                self._workers.append(_Worker())
                return self._workers[-1]
            self.poll(None)
        raise Stopped

    def _listen(self, worker: _Worker) -> None:
        job = worker.job
        assert job is not None
        data = os.read(worker.output, 65536)
        if not data:
            status = worker.process.wait()
            job.error = Stopped() if self._stopped else WorkerDied(status)
            self._workers.remove(worker)
            worker.stop()
            return
        *lines, worker.held = (worker.held + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "progress" in message:
                if job.progress:
                    job.progress(message["progress"])
            elif "error" in message:
                kind = getattr(errors, message["error"]["kind"])
                job.error = kind(message["error"]["message"])
            else:
                job.result = message["result"]
