"""Hand a seccomp listener to the agent at `listenerPath`: the process state as JSON, the descriptor beside it."""

from __future__ import annotations

import array
import json
import os
import socket

from corral.linux import namespaces
from corral.runtime import state
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corral.runtime.container import Container


def hand_over(container: Container, pid: int, number: int) -> None:
    """Take descriptor `number` out of process `pid` and send it to the agent."""
    try:
        pidfd = os.pidfd_open(pid)
        try:
            listener = namespaces.pidfd_getfd(pidfd, number)
        finally:
            os.close(pidfd)
    except OSError as error:
        raise Failure.from_os_error("seccomp", error, "listener") from error
    try:
        _send(container, listener, pid)
    finally:
        os.close(listener)


def release(state_dir: str) -> None:
    """Let a waiting init go on."""
    path = f"{state_dir}/{state.ACK_FIFO}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"G")
    finally:
        os.close(fd)
        os.unlink(path)


def _send(container: Container, listener: int, pid: int) -> None:
    """Connect to the agent and send. Failure("seccomp", errno, listenerPath) if nobody is there."""
    seccomp = (container.spec.get("linux") or {}).get("seccomp") or {}
    path = seccomp["listenerPath"]
    record = {
        "ociVersion": "1.2.1",
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": seccomp.get("listenerMetadata") or "",
        "state": container.oci_state(),
    }
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        agent.connect(path)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))]
        agent.sendmsg([json.dumps(record).encode()], rights)
    except OSError as error:
        raise Failure.from_os_error("seccomp", error, path) from error
    finally:
        agent.close()
