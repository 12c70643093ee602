"""`exec`: a further process inside a container that exists."""

from __future__ import annotations

import errno
import os

from corral.linux import cgroupfs, credentials, namespaces
from corral.runtime import cgroup, forks, init, process
from corral.runtime import channel as channels
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime.channel import Channel
    from corral.runtime.container import Container, Stdio

_FILES = {
    "user": namespaces.CLONE_NEWUSER,
    "ipc": namespaces.CLONE_NEWIPC,
    "uts": namespaces.CLONE_NEWUTS,
    "net": namespaces.CLONE_NEWNET,
    "cgroup": namespaces.CLONE_NEWCGROUP,
    "mnt": namespaces.CLONE_NEWNS,
    "pid": namespaces.CLONE_NEWPID,
    "time": namespaces.CLONE_NEWTIME,
}


class Join:
    """What the child needs: where to go and what to become."""

    __slots__ = ("directories", "flags", "launch", "pidfd", "stdio_fds")

    def __init__(self, launch: process.Launch, pidfd: int, flags: int, directories: list[str], stdio: Stdio) -> None:
        self.launch = launch
        self.pidfd = pidfd
        self.flags = flags
        self.directories = directories
        self.stdio_fds = [stdio.stdin, stdio.stdout, stdio.stderr]


def run(
    container: Container,
    spec: dict[str, Any],
    stdio: Stdio,
    user: str | None,
    groups: tuple[str, ...],
    preserve_fds: int,
    cgroup_path: str,
) -> tuple[int, int]:
    """(pid, terminal or -1)."""
    launch = process.Launch(spec, user, groups)
    launch.preserve_fds = preserve_fds
    seccomp = (container.spec.get("linux") or {}).get("seccomp")
    if seccomp:
        from corral.runtime import bpf

        launch.program, launch.filter_flags = bpf.compile_cached(seccomp, os.uname().machine)
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        raise Failure("state", errno.ESRCH, container.id, "container not running") from None
    ours, theirs = channels.pair()
    try:
        flags = _differing(container.pid)
        join = Join(launch, pidfd, flags, _directories(container, cgroup_path), stdio)

        def enter() -> None:
            namespaces.setns(pidfd, namespaces.CLONE_NEWPID)

        def child() -> None:
            _child(join, theirs)

        pid = forks.fork_into(enter if flags & namespaces.CLONE_NEWPID else None, child)
        theirs.close()
        return pid, _converse(container, ours, pid)
    finally:
        ours.close()
        os.close(pidfd)


def _differing(pid: int) -> int:
    """Flags of the namespaces in which the container is not where we are; joining our own user namespace fails."""
    flags = 0
    for name, flag in _FILES.items():
        try:
            if os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"):
                flags |= flag
        except FileNotFoundError as error:
            if not os.path.exists(f"/proc/self/ns/{name}"):
                continue  # a kernel without this kind
            raise Failure("state", errno.ESRCH, f"/proc/{pid}", "container not running") from error
        except OSError as error:
            raise Failure.from_os_error("namespace", error, name) from error
    return flags


def _directories(container: Container, below: str) -> list[str]:
    if below and ".." in below.split("/"):
        raise Failure("spec", errno.EINVAL, below, "cgroup may not contain ..")
    suffix = f"/{below.strip('/')}" if below.strip("/") else ""
    return [directory + suffix for directory in container.cgroup.directories()]


def _converse(container: Container, line: Channel, pid: int) -> int:
    """Until execve closes the line, or a failure comes through it."""
    console = -1
    try:
        while True:
            message, fd = line.receive()
            if message[:1] == b"C":
                console = fd
            elif message[:1] == b"N":
                from corral.runtime import notify

                notify.hand_over(container, pid, int(message[1:]))
                line.send(b"G")
            elif message[:1] == b"E":
                raise Failure.from_bytes(message[1:])
            else:
                return console
    except BaseException:
        forks.kill_and_reap(pid)
        if console >= 0:
            os.close(console)
        raise


def _child(join: Join, line: Channel) -> None:
    """Never returns."""
    try:
        preserved = list(range(3, 3 + join.launch.preserve_fds))
        init.isolate([line.fileno(), join.pidfd, *preserved], join.stdio_fds)
        # Processes of the container must not trace us before we are one of them.
        credentials.prctl(credentials.PR_SET_DUMPABLE, 0)
        init.set_oom_score(join.launch.spec.get("oomScoreAdj"))
        process.raise_limits(join.launch.spec.get("rlimits") or [])
        _join_cgroups(join)
        init.forbid_imports()
        flags = join.flags & ~namespaces.CLONE_NEWPID
        if flags:
            namespaces.setns(join.pidfd, flags)
        if flags & namespaces.CLONE_NEWUSER:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            credentials.prctl(credentials.PR_SET_DUMPABLE, 0)
        os.chdir("/")
        if join.launch.spec.get("terminal"):
            init.open_terminal(join.launch.spec, line)
        process.prepare(join.launch)
        process.execute(join.launch, line.fileno(), line.fileno())
    except Failure as failure:
        init.report(line, failure)
    except OSError as error:
        init.report(line, Failure.from_os_error("exec", error))
    except BaseException as error:  # noqa: BLE001  a bug must not run on in a copy of the caller
        init.report(line, Failure("init", 0, "", f"{type(error).__name__}: {error}"))
    os._exit(1)


def _join_cgroups(join: Join) -> None:
    try:
        cgroup.join(join.directories)
    except Failure as failure:
        # Version 2: the container has made cgroups of its own, and processes may live only in the leaves.
        if failure.errno != errno.EBUSY or len(join.directories) != 1:
            raise
        leaves = cgroupfs.children(join.directories[0])
        if not leaves:
            raise
        cgroup.join([f"{join.directories[0]}/{leaves[0]}"])
