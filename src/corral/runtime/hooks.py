"""Hooks of the bundle: programs that get the container's state as JSON on stdin."""

from __future__ import annotations

import errno
import os
import select
import signal
import time

from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_OUTPUT = 2000


def run_all(hooks: list[dict[str, Any]], state: str, kind: str) -> None:
    """Run one after the other; the first that fails raises Failure("hook", exit status or errno, path)."""
    for hook in hooks:
        run(hook, state, kind)


def run(hook: dict[str, Any], state: str, kind: str) -> None:
    """Run one hook: args[0] is its name, env its whole environment, `timeout` seconds of patience."""
    path = hook["path"]
    environment = dict(item.partition("=")[::2] for item in hook.get("env") or [])
    input_read, input_write = os.pipe2(os.O_CLOEXEC)
    output_read, output_write = os.pipe2(os.O_CLOEXEC)
    actions: list[tuple[int, int, int]] = [
        (os.POSIX_SPAWN_DUP2, input_read, 0),
        (os.POSIX_SPAWN_DUP2, output_write, 1),
        (os.POSIX_SPAWN_DUP2, output_write, 2),
    ]
    try:
        pid = os.posix_spawn(
            path,
            hook.get("args") or [path],
            environment,
            file_actions=actions,
            setpgroup=0,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            setsigmask=(),
        )
    except OSError as error:
        os.close(input_write)
        os.close(output_read)
        raise Failure("hook", error.errno or 0, path, f"{kind} hook cannot be run") from error
    finally:
        os.close(input_read)
        os.close(output_write)
    _wait(pid, hook, kind, input_write, output_read, state.encode())


def _wait(pid: int, hook: dict[str, Any], kind: str, input_fd: int, output_fd: int, state: bytes) -> None:
    """Feed the state, collect output, enforce the timeout. Reaps `pid` and nothing else."""
    pidfd = os.pidfd_open(pid)
    deadline = time.monotonic() + hook["timeout"] if hook.get("timeout") else None
    output = b""
    os.set_blocking(input_fd, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output_fd, select.POLLIN)
    poll.register(input_fd, select.POLLOUT)
    try:
        while True:
            wait_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            events = poll.poll(wait_ms)
            if not events:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise Failure("hook", errno.ETIMEDOUT, hook["path"], f"{kind} hook took too long")
            ready = {fd for fd, _ in events}
            if input_fd in ready:
                state = _feed(input_fd, state)
                if not state:
                    poll.unregister(input_fd)
                    os.close(input_fd)
                    input_fd = -1
            if output_fd in ready:
                chunk = os.read(output_fd, 4096)
                output = (output + chunk)[-_MAX_OUTPUT:]
                if not chunk:
                    poll.unregister(output_fd)
            if pidfd in ready:
                break
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
        os.close(output_fd)
        if input_fd >= 0:
            os.close(input_fd)
    if status:
        text = output.decode("utf-8", "replace").strip()
        code = os.waitstatus_to_exitcode(status)
        raise Failure("hook", 0, hook["path"], f"{kind} hook failed with status {code}: {text}".rstrip(": "))


def _feed(fd: int, data: bytes) -> bytes:
    """What is left to write; nothing once the hook has closed its end."""
    try:
        return data[os.write(fd, data) :]
    except BrokenPipeError:
        return b""
