"""Other OCI runtimes (`--runtime runc`, `crun`, ...): the same container, made by running their command.

The shim gives itself a mount namespace of its own and mounts the root there, so that nothing has to be unmounted on
the host, whoever dies first.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket

from corral.linux import files
from corral.runtime import cgroup, cgroup_stats, rootmount, users
from corral.runtime.failure import Failure
from corral.shim import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime.container import Rootfs, Stdio


class Container:
    """A container of another runtime, with the methods of the library's that the shim uses."""

    __slots__ = ("_command", "_execs", "cgroup", "id", "pid")

    def __init__(self, container_id: str, command: list[str], group: cgroup.Cgroup) -> None:
        self.id = container_id
        self.pid = 0
        self._command = [*command, "--root", os.path.abspath("state")]
        self.cgroup = group
        self._execs = 0

    def start(self) -> None:
        """Let the process run."""
        self._run("start", self.id)

    def exec(
        self, process: dict[str, Any], stdio: Stdio, user: str | None = None, groups: tuple[str, ...] = ()
    ) -> tuple[int, int]:
        """Run another process inside; returns its pid and its terminal or -1."""
        identity = _resolve(f"/proc/{self.pid}/root", user, groups)
        process = {**process, "user": _user(identity)}
        self._execs += 1
        name = f"exec-{self._execs}"
        with open(f"{name}.json", "w") as file:
            json.dump(process, file)
        try:
            words = ["exec", "--detach", "--process", f"{name}.json", "--pid-file", f"{name}.pid"]
            console = self._run_with_stdio(words, [self.id], process.get("terminal", False), stdio)
            with open(f"{name}.pid") as file:
                return int(file.read()), console
        finally:
            for suffix in ("json", "pid"):
                if os.path.exists(f"{name}.{suffix}"):
                    os.unlink(f"{name}.{suffix}")

    def kill(self, signum: int, all: bool = False) -> None:
        """Signal init, or every process."""
        if all:
            cgroup.kill(self.cgroup, signum)
            return
        try:
            os.kill(self.pid, signum)
        except OSError as error:
            raise Failure.from_os_error("signal", error, self.id) from error

    def pause(self) -> None:
        """Freeze every process."""
        self._run("pause", self.id)

    def resume(self) -> None:
        """Thaw every process."""
        self._run("resume", self.id)

    def update(self, resources: dict[str, Any]) -> None:
        """Change the limits."""
        with open("resources.json", "w") as file:
            json.dump(resources, file)
        self._run("update", "--resources", "resources.json", self.id)

    def stats(self) -> dict[str, Any]:
        """Raw numbers of the cgroup."""
        return cgroup_stats.read(self.cgroup)

    def pids(self) -> list[int]:
        """Every process."""
        return cgroup.pids(self.cgroup)

    def oom_killed(self) -> bool:
        """Whether the kernel killed something for want of memory."""
        return cgroup_stats.oom_kills(self.cgroup) > 0

    def delete(self, force: bool = False) -> None:
        """Remove what the runtime keeps."""
        try:
            self._run("delete", "--force", self.id)
        except Failure:
            cgroup.kill(self.cgroup, signal.SIGKILL)
            cgroup.remove(self.cgroup)

    def create(self, terminal: bool, stdio: Stdio) -> int:
        """Run the runtime's create; returns the terminal or -1."""
        console = self._run_with_stdio(
            ["create", "--bundle", os.getcwd(), "--pid-file", "init.pid"], [self.id], terminal, stdio
        )
        with open("init.pid") as file:
            self.pid = int(file.read())
        return console

    def _run_with_stdio(self, before: list[str], after: list[str], terminal: bool, stdio: Stdio) -> int:
        if not terminal:
            self._run(*before, *after, descriptors=[stdio.stdin, stdio.stdout, stdio.stderr])
            return -1
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
            listener.bind("console.sock")
            try:
                listener.listen(1)
                # By way of our working folder: the real path may be longer than a socket address can be.
                self._run(*before, "--console-socket", f"/proc/{os.getpid()}/cwd/console.sock", *after)
                connection, _ = listener.accept()
                with connection:
                    received = frames.receive(connection)
            finally:
                os.unlink("console.sock")
        if received is None or not received[1]:
            raise Failure("console", errno.EPIPE, self._command[0], "the runtime sent no terminal")
        return received[1][0]

    def _run(self, *words: str, descriptors: list[int] | None = None) -> None:
        """Run one command of the runtime to its end; raises Failure with what it logged."""
        log = "runtime.log"
        if os.path.exists(log):
            os.unlink(log)
        argv = [*self._command, "--log", os.path.abspath(log), "--log-format", "json", *words]
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(descriptors or [null] * 3)]
            pid = os.posix_spawnp(
                argv[0], argv, os.environ, file_actions=actions, setsigdef=[signal.SIGINT, signal.SIGHUP]
            )
        except OSError as error:
            raise Failure.from_os_error("runtime", error, argv[0]) from error
        finally:
            os.close(null)
        _, status = os.waitpid(pid, 0)
        if status:
            raise _failure_of(log, self._command[0], words[0])


def create(
    container_id: str,
    *,
    bundle: str,
    spec: dict[str, Any],
    state_dir: str,
    stdio: Stdio,
    rootfs: Rootfs,
    user: str | None,
    groups: tuple[str, ...],
    command: list[str],
) -> tuple[Container, int]:
    """Like `corral.runtime.container.create`, by `command`."""
    rootmount.leave_host()
    root = spec["root"]["path"]
    rootmount.mount_root(rootfs, root)
    rootmount.replace_own_mounts(spec, os.path.abspath("mounts"))
    process = spec["process"]
    process["user"] = _user(_resolve(root, user, groups))
    with open("config.json", "w") as file:
        json.dump(spec, file)
    os.makedirs(state_dir, 0o711, exist_ok=True)
    group = cgroup.locate(spec["linux"]["cgroupsPath"])
    container = Container(container_id, command, group)
    return container, container.create(process["terminal"], stdio)


def _resolve(root: str, user: str | None, groups: tuple[str, ...]) -> users.Identity:
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return users.resolve(user or "", groups, _read_below(root_fd, "etc/passwd"), _read_below(root_fd, "etc/group"))
    finally:
        os.close(root_fd)


def _read_below(root_fd: int, path: str) -> str:
    try:
        fd = files.openat2(root_fd, path, os.O_RDONLY)
    except OSError:
        return ""
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(4 << 20)


def _user(identity: users.Identity) -> dict[str, Any]:
    return {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)}


def _failure_of(log: str, command: str, verb: str) -> Failure:
    """What the runtime said last, as a Failure; its texts for a missing program are the field's own."""
    message = ""
    try:
        with open(log) as file:
            for line in file:
                message = str(json.loads(line).get("msg", message))
    except (OSError, ValueError):
        pass
    return Failure("runtime", 0, os.path.basename(command), message or f"{verb} failed")
