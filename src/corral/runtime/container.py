"""The parent side: one container from `create` to `delete`, used by the shim as a library and by the command.

The caller must have one thread (it forks) and the host's root. Every pid returned is a child of the caller, or with
a user namespace one that is reparented to the nearest subreaper; intermediate processes are reaped here, by their
pid. Every error is a Failure, and after one from `create` nothing is left.
"""

from __future__ import annotations

import errno
import os
import select
import signal

from corral.linux import namespaces
from corral.runtime import cgroup, cgroup_stats, forks, hooks, state, validate
from corral.runtime import plan as planning
from corral.runtime.channel import Channel
from corral.runtime.failure import Failure
from corral.runtime.setup import Setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION = "1.2.1"


class Stdio:
    """Descriptors that become 0, 1, 2 of the process (unused with a terminal)."""

    __slots__ = ("stderr", "stdin", "stdout")

    def __init__(self, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr


class Rootfs:
    """An overlay to mount as the root: `lower` top-most first; `upper` "" means read-only."""

    __slots__ = ("lower", "mappings", "options", "upper", "work")

    def __init__(
        self,
        lower: list[str],
        upper: str = "",
        work: str = "",
        options: list[str] | None = None,
        mappings: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None,
    ) -> None:
        self.lower = lower
        self.upper = upper
        self.work = work
        self.options = options or []
        self.mappings = mappings
        """Of users and groups: files on disk have the container's ids, and the mount shows the host's."""


class Container:
    """A container that has been created: its init waits, runs or has ended."""

    __slots__ = (
        "bundle",
        "cgroup",
        "created",
        "hook_failures",
        "id",
        "owner_reaps",
        "pid",
        "root_path",
        "spec",
        "start_time",
        "state_dir",
    )

    def __init__(
        self, container_id: str, state_dir: str, bundle: str, spec: dict[str, Any], group: cgroup.Cgroup
    ) -> None:
        self.id = container_id
        self.state_dir = state_dir
        self.bundle = bundle
        self.spec = spec
        self.cgroup = group
        self.pid = 0
        self.start_time = 0
        self.created = ""
        self.owner_reaps = True
        self.root_path = ""
        self.hook_failures: list[Failure] = []
        """Failures of poststop hooks: they are worth a warning and stop nothing."""

    def status(self) -> str:
        """created, running, paused or stopped; a dead init that nobody has reaped yet counts as stopped."""
        letter, start_time = state.process_start(self.pid)
        if letter in ("", "Z", "X") or start_time != self.start_time:
            return "stopped"
        if cgroup.is_frozen(self.cgroup):
            return "paused"
        return "created" if os.path.exists(f"{self.state_dir}/{state.START_FIFO}") else "running"

    def oci_state(self, status: str | None = None) -> dict[str, Any]:
        """The state as the specification's JSON has it."""
        now = status or self.status()
        return forks.oci_state(self.id, now, 0 if now == "stopped" else self.pid, self.bundle, self.spec)

    def start(self) -> None:
        """Release init and wait until it has become the program.

        Failure("state", ...) if it was started before or is dead, ("exec", ...) if execve fails, ("hook", ...).
        """
        path = f"{self.state_dir}/{state.START_FIFO}"
        if self.status() == "stopped":
            raise Failure("state", errno.ESRCH, self.id, "cannot start a container that has stopped")
        try:
            fifo = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                # Whoever removes the name is the one who starts; init, waiting in open(2), has met us by now.
                os.unlink(path)
            except FileNotFoundError:
                os.close(fifo)
                raise
        except FileNotFoundError:
            detail = f"cannot start a container in the {self.status()} state"
            raise Failure("state", errno.EEXIST, self.id, detail) from None
        try:
            forks.await_exec(self, fifo)
        finally:
            os.close(fifo)
        try:
            self._run_hooks("poststart", "running")
        except Failure:
            self.kill(signal.SIGKILL, all=True)
            raise

    def exec(
        self,
        process: dict[str, Any],
        stdio: Stdio,
        user: str | None = None,
        groups: tuple[str, ...] = (),
        *,
        preserve_fds: int = 0,
        cgroup_path: str = "",
    ) -> tuple[int, int]:
        """Run another process inside; returns (its pid, terminal or -1) once it has become the program."""
        status = self.status()
        if status == "stopped":
            raise Failure("state", errno.ESRCH, self.id, "cannot exec in a stopped container")
        if status == "paused":
            raise Failure("state", errno.EBUSY, self.id, "cannot exec in a paused container")
        validate.check_process(process)
        from corral.runtime import joining

        return joining.run(self, process, stdio, user, groups, preserve_fds, cgroup_path)

    def kill(self, signum: int, all: bool = False) -> None:
        """Signal init, or with `all` every process. Failure("state", ESRCH) if init has ended (and not `all`)."""
        if all:
            cgroup.kill(self.cgroup, signum)
            return
        if self.status() == "stopped":
            raise Failure("state", errno.ESRCH, self.id, "container not running")
        try:
            os.kill(self.pid, signum)
        except OSError as error:
            raise Failure.from_os_error("signal", error, self.id) from error

    def pause(self) -> None:
        """Freeze every process."""
        if self.status() not in ("running", "created"):
            raise Failure("state", errno.EINVAL, self.id, "container not running or created")
        cgroup.freeze(self.cgroup, True)

    def resume(self) -> None:
        """Thaw every process."""
        if self.status() != "paused":
            raise Failure("state", errno.EINVAL, self.id, "container not paused")
        cgroup.freeze(self.cgroup, False)

    def update(self, resources: dict[str, Any]) -> None:
        """Apply a `linux.resources` object on top of the present limits."""
        cgroup.apply(self.cgroup, resources, update=True)

    def stats(self) -> dict[str, Any]:
        """Raw numbers of the cgroup: see cgroup_stats."""
        return cgroup_stats.read(self.cgroup)

    def pids(self) -> list[int]:
        """Every process of the container, as the caller numbers them."""
        return cgroup.pids(self.cgroup)

    def oom_killed(self) -> bool:
        """Whether the kernel killed something in this cgroup for want of memory."""
        return cgroup_stats.oom_kills(self.cgroup) > 0

    def delete(self, force: bool = False) -> None:
        """Remove cgroups and state; idempotent. Without `force` Failure("state", EBUSY) while init lives."""
        if not force and (status := self.status()) != "stopped":
            detail = f"cannot delete container {self.id} that is not stopped: {status}"
            raise Failure("state", errno.EBUSY, self.id, detail)
        cgroup.kill(self.cgroup, signal.SIGKILL)
        if self.status() != "stopped":
            self._kill_init()
        if not self.owner_reaps and self.pid:
            forks.reap(self.pid)
        cgroup.remove(self.cgroup)
        existed = os.path.exists(f"{self.state_dir}/{state.FILE}")
        state.clear(self.state_dir)
        if existed:
            self.hook_failures = self._run_poststop()

    def _kill_init(self) -> None:
        """Without a cgroup of its own init is all we know; wait until it is dead or a zombie."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], 10)
        except ProcessLookupError:
            pass
        finally:
            os.close(pidfd)

    def _run_hooks(self, kind: str, status: str) -> None:
        table = (self.spec.get("hooks") or {}).get(kind)
        if table:
            hooks.run_all(table, forks.state_text(self.oci_state(status)), kind)

    def _run_poststop(self) -> list[Failure]:
        """Run every poststop hook; their failures are returned, for nothing may stop a deletion."""
        failures = []
        for hook in (self.spec.get("hooks") or {}).get("poststop") or []:
            try:
                hooks.run(hook, forks.state_text(self.oci_state("stopped")), "poststop")
            except Failure as failure:
                failures.append(failure)
        return failures

    def save(self) -> None:
        """Write state.json."""
        state.save(
            self.state_dir,
            {
                "ociVersion": OCI_VERSION,
                "id": self.id,
                "pid": self.pid,
                "startTime": self.start_time,
                "bundle": self.bundle,
                "rootfs": self.root_path,
                "created": self.created,
                "cgroupVersion": self.cgroup.version,
                "cgroupPaths": self.cgroup.paths,
                "spec": self.spec,
            },
        )


def load(state_dir: str) -> Container:
    """The container whose state is in `state_dir`; Failure("state", ENOENT, ...) if there is none."""
    record = state.load(state_dir)
    group = cgroup.Cgroup(record["cgroupVersion"], record["cgroupPaths"])
    container = Container(record["id"], state_dir, record["bundle"], record["spec"], group)
    container.pid = record["pid"]
    container.start_time = record["startTime"]
    container.created = record["created"]
    container.root_path = record["rootfs"]
    return container


def create(
    container_id: str,
    *,
    bundle: str,
    spec: dict[str, Any],
    state_dir: str,
    stdio: Stdio,
    rootfs: Rootfs | None = None,
    user: str | None = None,
    groups: tuple[str, ...] = (),
    owner_reaps: bool = True,
    preserve_fds: int = 0,
    no_pivot: bool = False,
    new_keyring: bool = True,
) -> tuple[Container, int]:
    """Do everything up to "init waits for start"; returns (container, master of its terminal or -1).

    `state_dir` may exist, but must not hold a container. `user` is Docker's text, looked up inside the new root,
    in place of spec.process.user; `groups` are supplementary names or ids. `owner_reaps`: the caller waits for the
    returned pid itself; otherwise `delete` does.
    """
    validate.check(spec)
    made_dir = _claim(state_dir, container_id)
    try:
        container, setup = _prepare(container_id, bundle, spec, state_dir, rootfs)
        container.owner_reaps = owner_reaps
        setup.stdio_fds = [stdio.stdin, stdio.stdout, stdio.stderr]
        setup.preserve_fds = preserve_fds
        setup.no_pivot = no_pivot
        setup.new_keyring = new_keyring
        setup.set_process(spec, user, groups)
    except BaseException:
        _unclaim(state_dir, made_dir)
        raise
    console = -1
    made_cgroup = False
    try:
        forks.make_fifos(setup)
        cgroup.require_empty(container.cgroup)
        setup.open_namespaces()
        setup.open_idmaps()

        def make_cgroup() -> None:
            nonlocal made_cgroup
            cgroup.make(container.cgroup, _controllers(spec))
            made_cgroup = True
            cgroup.apply(container.cgroup, (spec.get("linux") or {}).get("resources") or {})

        console = forks.spawn_init(container, setup, make_cgroup)
        container.start_time = state.process_start(container.pid)[1]
        container.created = forks.timestamp()
        container.save()
    except BaseException:
        _abandon(container, console, made_cgroup, made_dir)
        raise
    finally:
        setup.close_namespaces()
    return container, console


def describe_plan(container_id: str, bundle: str, spec: dict[str, Any], state_dir: str) -> list[str]:
    """What `create` would do to the file system, one line per operation; changes nothing."""
    validate.check(spec)
    return _prepare(container_id, bundle, spec, state_dir, None)[1].plan.describe()


def _claim(state_dir: str, container_id: str) -> bool:
    """Take the id, against others who try at the same time; True if the directory is new.

    Failure("state", EEXIST) if a container is there, or just being made.
    """
    try:
        made_dir = True
        try:
            os.makedirs(state_dir, 0o711)
        except FileExistsError:
            made_dir = False
        claimed = state.claim(state_dir)
    except OSError as error:
        raise Failure.from_os_error("state", error, state_dir) from error
    if not claimed:
        raise Failure("state", errno.EEXIST, container_id, "container with given ID already exists")
    return made_dir


def _unclaim(state_dir: str, made_dir: bool) -> None:
    state.clear(state_dir, made_dir)


def _abandon(container: Container, console: int, made_cgroup: bool, made_dir: bool) -> None:
    """Take back what `create` did."""
    if console >= 0:
        os.close(console)
    had_init = container.pid != 0
    if had_init:
        forks.kill_and_reap(container.pid)
    if made_cgroup:
        cgroup.kill(container.cgroup, signal.SIGKILL)
        cgroup.remove(container.cgroup)
    _unclaim(container.state_dir, made_dir)
    if had_init:
        container.hook_failures = container._run_poststop()


def _prepare(
    container_id: str, bundle: str, spec: dict[str, Any], state_dir: str, rootfs: Rootfs | None
) -> tuple[Container, Setup]:
    linux = spec.get("linux") or {}
    group = cgroup.locate(linux.get("cgroupsPath") or container_id)
    container = Container(container_id, state_dir, bundle, spec, group)
    path = (spec.get("root") or {}).get("path") or "rootfs"
    container.root_path = os.path.normpath(os.path.join(bundle, path))
    setup = Setup(container_id, bundle, spec, state_dir)
    setup.root_path = container.root_path
    setup.rootfs = rootfs
    setup.cgroup = group
    facts = planning.Facts(
        group.version,
        group.mounts(),
        bool(setup.new_flags & namespaces.CLONE_NEWCGROUP),
        setup.user_ns,
    )
    setup.plan = planning.build(spec, facts)
    return container, setup


def _controllers(spec: dict[str, Any]) -> list[str]:
    """Controllers of version 2 without which the limits of the spec cannot be kept."""
    from corral.runtime import resources

    limits = (spec.get("linux") or {}).get("resources") or {}
    return [controller for controller, _, _ in resources.version2(limits)] if cgroup.hierarchies()[0] == 2 else []


__all__ = ["Channel", "Container", "Failure", "Rootfs", "Stdio", "create", "load"]
