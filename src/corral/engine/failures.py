"""What a runtime failure means to a client: Docker's text, status and exit code."""

from __future__ import annotations

import errno
import os

from corral.errors import CorralError, InvalidParameter, System
from corral.runtime.failure import Failure


class CommandNotFound(InvalidParameter):
    """The program does not exist in the container."""

    exit_code = 127


class CommandNotExecutable(InvalidParameter):
    """The program exists but may not or cannot be run."""

    exit_code = 126


class StartRefused(InvalidParameter):
    """The container cannot start because of what was asked for."""

    exit_code = 128


class NoSuchUser(InvalidParameter):
    """The image has no such user or group: Docker looks for it itself, so no runtime is named."""

    exit_code = 128
    exec_exit_code = 126


class StartFailed(System):
    """The container cannot start because the machine refused something."""

    exit_code = 128


_CREATE = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "unable to start container process: "
)
_EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "


def of_start(failure: Failure) -> CorralError:
    """The error of a start that met `failure`."""
    return _translate(failure, _CREATE)


def of_exec(failure: Failure) -> CorralError:
    """The error of an exec that met `failure`."""
    return _translate(failure, _EXEC)


def exec_exit_code(error: CorralError) -> int:
    """The exit code that a failed exec leaves."""
    return getattr(error, "exec_exit_code", exit_code(error))


def exit_code(error: CorralError) -> int:
    """The exit code that a failed start leaves."""
    return getattr(error, "exit_code", 128)


def _translate(failure: Failure, prefix: str) -> CorralError:
    reason = os.strerror(failure.errno).lower() if failure.errno else failure.detail
    if failure.stage == "exec":
        return _of_command(failure, prefix, reason)
    if failure.stage == "runtime" and failure.detail:
        return _of_other_runtime(failure, prefix)
    if failure.stage == "user":
        return NoSuchUser(f"unable to find user {failure.path}: no matching entries in passwd file")
    if failure.stage == "group":
        return NoSuchUser(f"unable to find group {failure.path}: no matching entries in group file")
    if failure.stage == "chdir":
        text = f'chdir to cwd ("{failure.path}") set in config.json failed: {reason}: unknown'
        kinds = {errno.EACCES: CommandNotExecutable, errno.ENOENT: CommandNotFound}
        return kinds.get(failure.errno, StartRefused)(f"{prefix}{text}")
    where = f" {failure.path}" if failure.path else ""
    detail = f" ({failure.detail})" if failure.detail and failure.errno else ""
    return StartFailed(f"{prefix}cannot {failure.stage}{where}: {reason}{detail}: unknown")


def _of_command(failure: Failure, prefix: str, reason: str) -> CorralError:
    if failure.errno == errno.ENOENT:
        if "/" in failure.path:
            return CommandNotFound(
                f'{prefix}exec: "{failure.path}": stat {failure.path}: no such file or directory: unknown'
            )
        return CommandNotFound(f'{prefix}exec: "{failure.path}": executable file not found in $PATH: unknown')
    return CommandNotExecutable(f'{prefix}exec: "{failure.path}": {reason}: unknown')


def _of_other_runtime(failure: Failure, prefix: str) -> CorralError:
    """Another OCI runtime tells its story in words only, so here they decide, as they do in the docker CLI."""
    text = f"{prefix}{failure.detail}: unknown"
    lower = failure.detail.lower()
    if "not found" in lower or "no such file or directory" in lower:
        return CommandNotFound(text)
    if "permission denied" in lower:
        return CommandNotExecutable(text)
    return StartFailed(text)
