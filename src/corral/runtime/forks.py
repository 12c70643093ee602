"""The forks of the parent side and the conversation with the child."""

from __future__ import annotations

import errno
import gc
import json
import os
import select
import signal
import time

from corral.linux import namespaces
from corral.runtime import channel as channels
from corral.runtime import hooks, init, state
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corral.runtime.channel import Channel
    from corral.runtime.container import Container
    from corral.runtime.setup import Setup

_OCI_VERSION = "1.2.1"
_FIFO_MODE = 0o622  # init opens it for writing after it has become the container's user


def timestamp() -> str:
    """Now, as RFC 3339 with nanoseconds."""
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


def oci_state(container_id: str, status: str, pid: int, bundle: str, spec: dict[str, Any]) -> dict[str, Any]:
    """The specification's state object."""
    record: dict[str, Any] = {"ociVersion": _OCI_VERSION, "id": container_id, "status": status}
    if status != "stopped":
        record["pid"] = pid
    record["bundle"] = bundle
    if spec.get("annotations"):
        record["annotations"] = spec["annotations"]
    return record


def state_text(record: dict[str, Any]) -> str:
    """As JSON."""
    return json.dumps(record)


def make_fifos(setup: Setup) -> None:
    """The fifo on which init waits, and the one for handing over a listener."""
    for name in (setup.fifo_name, setup.ack_name):
        if name:
            path = f"{setup.state_dir}/{name}"
            try:
                os.mkfifo(path, _FIFO_MODE)
                os.chmod(path, _FIFO_MODE if name == setup.fifo_name else 0o666)
            except OSError as error:
                raise Failure.from_os_error("state", error, path) from error


def fork_into(enter: Callable[[], None] | None, child: Callable[[], None]) -> int:
    """Fork a child whose pid namespace is the one that `enter` sets for children; the caller's own is restored."""
    if enter is None:
        own = -1
    else:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            enter()
        except OSError as error:
            os.close(own)
            raise Failure.from_os_error("namespace", error, "pid") from error
    try:
        pid = os.fork()
        if pid == 0:
            gc.disable()  # a collection would write to, and so copy, every page shared with the parent
            child()
            os._exit(1)
    except OSError as error:
        raise Failure.from_os_error("fork", error) from error
    finally:
        if own >= 0:
            namespaces.setns(own, namespaces.CLONE_NEWPID)
            os.close(own)
    return pid


def spawn_init(container: Container, setup: Setup, meanwhile: Callable[[], None]) -> int:
    """Fork init and see it through until it is ready; sets container.pid, returns the terminal's master or -1.

    `meanwhile` makes the cgroup while the child, on another core, opens what it will mount.
    """
    ours, theirs = channels.pair()
    enter: Callable[[], None] | None = None
    if not setup.second_fork:
        if setup.new_flags & namespaces.CLONE_NEWPID:
            enter = _unshare_pid
        elif "pid" in setup.namespace_fds:
            joined = setup.namespace_fds["pid"]

            def enter() -> None:
                namespaces.setns(joined, namespaces.CLONE_NEWPID)

    def child() -> None:
        init.run(setup, theirs)

    try:
        first = fork_into(enter, child)
        container.pid = first
        theirs.close()
        meanwhile()
        return _converse(container, setup, ours, first)
    finally:
        ours.close()


def _unshare_pid() -> None:
    namespaces.unshare(namespaces.CLONE_NEWPID)


def _converse(container: Container, setup: Setup, line: Channel, first: int) -> int:
    """Answer the child until it is ready. On failure the child is left to the caller to kill and reap."""
    console = -1
    try:
        while True:
            message, fd = line.receive()
            kind, body = message[:1], message[1:]
            if kind == b"R":
                return console
            if kind == b"C":
                console = fd
            elif kind == b"J":
                line.send(b"G")
            elif kind == b"M":
                write_id_maps(first, setup.id_mappings)
                line.send(b"G")
            elif kind == b"P":
                container.pid = int(body)
                reap(first)
            elif kind == b"H":
                _creation_hooks(container)
                line.send(b"G")
            elif kind == b"E":
                raise Failure.from_bytes(body)
            else:
                raise Failure("init", errno.ECHILD, "", _obituary(container))
    except BaseException:
        if console >= 0:
            os.close(console)
        raise


def _obituary(container: Container) -> str:
    """How init died, when it could not say so itself."""
    pid, container.pid = container.pid, 0
    try:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return "init died"
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL and container.oom_killed():
        return "init was killed for want of memory: the memory limit is too low"
    return f"init died with status {code}"


def _creation_hooks(container: Container) -> None:
    table = container.spec.get("hooks") or {}
    text = state_text(container.oci_state("creating"))
    for kind in ("prestart", "createRuntime"):
        hooks.run_all(table.get(kind) or [], text, kind)


def write_id_maps(pid: int, mappings: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """uid_map and gid_map of a process that has just made its user namespace."""
    for name, entries in zip(("uid_map", "gid_map"), mappings, strict=True):
        text = "".join(f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in entries)
        try:
            fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, text.encode())
            finally:
                os.close(fd)
        except OSError as error:
            raise Failure.from_os_error("namespace", error, f"user: {name}") from error


def _ready(fifo: int, pidfd: int, timeout_ms: int | None) -> set[int]:
    """Which of the two has something to say: the fifo (data, or a writer that came and went), the process (its end)."""
    poll = select.poll()
    poll.register(fifo, select.POLLIN)
    if pidfd >= 0:
        poll.register(pidfd, select.POLLIN)
    return {fd for fd, _ in poll.poll(timeout_ms)}


def await_exec(container: Container, fifo: int) -> None:
    """Read the start fifo until execve closes it; hands a seccomp listener over on the way."""
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        pidfd = -1  # it has been reaped already: the fifo says whether it became a program before that
    try:
        while True:
            ready = _ready(fifo, pidfd, None if pidfd >= 0 else 0)
            if fifo not in ready and pidfd >= 0:
                # Looked at one after the other: between the looks init may have become a program and ended.
                ready = _ready(fifo, pidfd, 0)
            if fifo not in ready:
                raise Failure("init", errno.ECHILD, container.id, "init died before start")
            message = os.read(fifo, 4096)
            if not message:
                return
            if message[:1] == b"E":
                raise Failure.from_bytes(message[1:])
            from corral.runtime import notify

            notify.hand_over(container, container.pid, int(message[1:]))
            notify.release(container.state_dir)
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def reap(pid: int) -> None:
    """Wait for exactly this child, if it is one."""
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def kill_and_reap(pid: int) -> None:
    """SIGKILL, then wait; a process that is not our child is only killed."""
    if state.process_start(pid)[0]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    reap(pid)
