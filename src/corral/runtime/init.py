"""The child side of `create`: from a fork of the caller to the container's first process.

Order, and why it is so:

 1. Descriptors, signals, session: nothing of the caller is carried on.
 2. The root and the sources of binds are opened detached, still in the host's mount namespace: bundles under closed
    folders and user namespaces need no special case after that.
 3. In between the cgroup, which the caller has made meanwhile, is joined with the host's rights; the cgroup namespace
    takes its root from where we are.
 4. The user namespace first, so that all the others belong to it; then those joined by path; then the new ones.
    With a new user namespace the pid namespace takes a second fork, whose parent leaves at once.
 5. Mounts below the new root, hooks, pivot_root, console, masks.
 6. Limits, user, capabilities; the program is looked up.
 7. `R` (ready) to the caller; then open(2) of the start fifo blocks until somebody starts us. The fifo closes on
    execve, or carries the failure of it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps in enums at ten times the cost
import errno
import os
import signal
import sys

from corral.linux import credentials, files, mount, namespaces, tty
from corral.runtime import cgroup, hooks, idmaps, ops, process, reaper
from corral.runtime import plan as planning
from corral.runtime.channel import Channel
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime.setup import Setup

# All but those that cannot be changed and the two that belong to the C library.
_RESETTABLE = [number for number in range(1, 65) if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33)]


def run(setup: Setup, channel: Channel) -> None:
    """Never returns: execve, or _exit after the failure is reported."""
    try:
        _main(setup, channel)
    except Failure as failure:
        report(channel, failure)
    except OSError as error:
        report(channel, Failure.from_os_error("init", error))
    except BaseException as error:  # noqa: BLE001  a bug must not run on in a copy of the caller
        report(channel, Failure("init", 0, "", f"{type(error).__name__}: {error}"))
    os._exit(1)


def report(channel: Channel, failure: Failure) -> None:
    try:
        channel.send(b"E" + failure.to_bytes())
    except OSError:
        os._exit(1)  # nobody listens any more


def isolate(keep: list[int], stdio: list[int]) -> None:
    """Own session, default signals, and no descriptors but 0, 1, 2 (from `stdio`, if given) and `keep`."""
    os.setsid()
    default_signals()
    if stdio:
        # First out of the way of each other, then in place.
        moved = [os.dup(fd) if fd < 3 else fd for fd in stdio]
        for number, fd in enumerate(moved):
            os.dup2(fd, number)
    first = 3
    for fd in sorted(set(keep)):
        if fd > first:
            files.close_range(first, fd - 1)
        first = max(first, fd + 1)
    files.close_range(first)


def forbid_imports() -> None:
    """From here on paths mean the container's files: loading code through them would run what an image brings."""
    sys.meta_path.clear()
    sys.path.clear()


def default_signals() -> None:
    """What the caller handles, ignores or blocks is not the container's business (Python ignores SIGPIPE, SIGXFSZ)."""
    for number in _RESETTABLE:
        _signal.signal(number, _signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _main(setup: Setup, channel: Channel) -> None:
    preserved = list(range(3, 3 + setup.preserve_fds))
    maps = [fd for _, fd in setup.idmap_fds.values()]
    maps += [setup.root_idmap_fd] if setup.root_idmap_fd >= 0 else []
    isolate([channel.fileno(), *setup.namespace_fds.values(), *maps, *preserved], setup.stdio_fds)
    credentials.prctl(credentials.PR_SET_DUMPABLE, 0)
    set_oom_score(setup.oom_score_adj)
    process.raise_limits((setup.spec.get("process") or {}).get("rlimits") or [])
    if setup.launch is not None and setup.launch.reaped:
        setup.argument_area = reaper.argument_area()
    _time_offsets_need_unshare(setup)
    fifo_fd, ack_fd = _open_fifos(setup)
    root_tree = _open_root(setup)
    channel.request(b"J")
    cgroup.join(setup.cgroup.directories())
    # After the cgroup is there, for it may be among them.
    trees = ops.open_sources(setup.plan.early)
    if setup.user_ns:
        mappings = (setup.rootfs and setup.rootfs.mappings) or setup.id_mappings
        trees |= ops.open_host_made(setup.plan.early, mappings, setup.idmap_fds)
    _apply_idmaps(setup, trees)
    _enter_user_namespace(setup, channel)
    _enter_namespaces(setup)
    if setup.second_fork:
        _fork_again(channel)
    forbid_imports()
    os.umask(0)
    _name_host(setup.spec)
    _sysctls((setup.spec.get("linux") or {}).get("sysctl") or {})
    root_fd = _mount_everything(setup, root_tree, trees)
    hook_table = setup.spec.get("hooks") or {}
    if hook_table.get("prestart") or hook_table.get("createRuntime"):
        channel.request(b"H")
    # /proc is still the host's: it names us by the pid that the host knows.
    setup.pid = int(os.readlink("/proc/self"))
    hooks.run_all(hook_table.get("createContainer") or [], setup.state_text("creating"), "createContainer")
    own_fds = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    _pivot(root_fd, setup.no_pivot)
    _console(setup, channel)
    ops.perform(setup.plan.late, ops.Root(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC), {}, late=True))
    if setup.new_keyring:
        _keyring(setup.container_id)
    persona = (setup.spec.get("linux") or {}).get("personality")
    if persona:
        credentials.personality({"LINUX": 0, "LINUX32": 8}[persona["domain"]])
    if setup.launch is None:
        channel.send(b"R")
        os._exit(0)
    process.prepare(setup.launch)
    channel.send(b"R")
    channel.close()
    _wait_and_execute(setup, own_fds, fifo_fd, ack_fd)


def _wait_and_execute(setup: Setup, own_fds: int, fifo_fd: int, ack_fd: int) -> None:
    assert setup.launch is not None
    # Through a descriptor of our own /proc/self/fd: the container may have no /proc, or one that is not ours.
    start_fd = os.open(str(fifo_fd), os.O_WRONLY | os.O_CLOEXEC, dir_fd=own_fds)
    try:
        hooks.run_all(
            (setup.spec.get("hooks") or {}).get("startContainer") or [], setup.state_text("created"), "startContainer"
        )
        ack = os.open(str(ack_fd), os.O_RDWR | os.O_CLOEXEC, dir_fd=own_fds) if ack_fd >= 0 else -1
        if setup.launch.reaped:
            reaper.stay(setup.launch, setup.argument_area)
        process.execute(setup.launch, start_fd, ack)
    except Failure as failure:
        try:
            os.write(start_fd, b"E" + failure.to_bytes())
        except OSError:
            os._exit(1)  # the starter has left
    os._exit(1)


def set_oom_score(score: int | None) -> None:
    if score is None:
        return
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
            file.write(str(score))
    except PermissionError:
        # Lowering it takes CAP_SYS_RESOURCE; a machine without that still runs containers.
        if credentials.capget()[0] >> credentials.CAP_SYS_RESOURCE & 1:
            raise


def _time_offsets_need_unshare(setup: Setup) -> None:
    """A time namespace takes its offsets before its first process; only the next child enters it."""
    offsets = (setup.spec.get("linux") or {}).get("timeOffsets") or {}
    if not setup.new_flags & namespaces.CLONE_NEWTIME:
        return
    lines = "".join(
        f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}\n" for clock, offset in offsets.items()
    )
    setup.time_offsets = lines


def _open_fifos(setup: Setup) -> tuple[int, int]:
    if setup.launch is None:
        return -1, -1
    flags = os.O_PATH | os.O_CLOEXEC
    fifo = os.open(f"{setup.state_dir}/{setup.fifo_name}", flags)
    ack = os.open(f"{setup.state_dir}/{setup.ack_name}", flags) if setup.ack_name else -1
    return fifo, ack


def _open_root(setup: Setup) -> int:
    """The detached root (-1: it needs mount(2) later); the working directory becomes the place to attach it."""
    place = setup.root_path if os.path.isdir(setup.root_path) else setup.state_dir
    try:
        os.chdir(place)
    except OSError as error:
        raise Failure.from_os_error("root", error, place) from error
    if setup.rootfs is None:
        return _bind_root(setup)
    return overlay_root(setup.rootfs, setup.root_idmap_fd)


def _apply_idmaps(setup: Setup, trees: dict[int, int]) -> None:
    for key, (op, user_ns) in setup.idmap_fds.items():
        if not isinstance(op, planning.Bind):
            continue
        try:
            recursive = op.options.recursive
            mount.mount_setattr(trees[key], attr_set=mount.MOUNT_ATTR_IDMAP, userns_fd=user_ns, recursive=recursive)
        except OSError as error:
            raise Failure.from_os_error("mount", error, f"{op.target}: idmap") from error
        os.close(user_ns)


def _bind_root(setup: Setup) -> int:
    try:
        return mount.open_tree(setup.root_path, recursive=True)
    except OSError as error:
        raise Failure.from_os_error("root", error, setup.root_path) from error


def overlay_root(rootfs: Any, user_ns: int = -1) -> int:
    """The detached root mount of a Rootfs, or -1 if this kernel needs mount(2) for it (before 6.8).

    `user_ns` has the mappings of a Rootfs that has some.
    """
    if rootfs.mappings:
        return idmaps.overlay(rootfs.lower, rootfs.upper, rootfs.work, rootfs.options, rootfs.mappings, user_ns)
    if not rootfs.upper and len(rootfs.lower) == 1:
        try:
            tree = mount.open_tree(rootfs.lower[0], recursive=False)
            mount.mount_setattr(tree, attr_set=mount.MOUNT_ATTR_RDONLY, propagation=mount.MS_PRIVATE)
        except OSError as error:
            raise Failure.from_os_error("root", error, rootfs.lower[0]) from error
        return tree
    options: list[tuple[str, str | None]] = [("source", "overlay")]
    options += [("lowerdir+", folder) for folder in rootfs.lower]
    if rootfs.upper:
        options += [("upperdir", rootfs.upper), ("workdir", rootfs.work)]
    for option in rootfs.options:
        key, equals, value = option.partition("=")
        options.append((key, value if equals else None))
    try:
        return mount.new_filesystem("overlay", options)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return -1
        raise Failure.from_os_error("root", error) from error


def classic_overlay(rootfs: Any) -> None:
    """Mount a Rootfs on the working directory with mount(2)."""

    def quoted(path: str) -> str:
        return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")

    data = "lowerdir=" + ":".join(quoted(folder) for folder in rootfs.lower)
    if rootfs.upper:
        data += f",upperdir={quoted(rootfs.upper)},workdir={quoted(rootfs.work)}"
    data = ",".join([data, *rootfs.options])
    try:
        mount.mount("overlay", ".", "overlay", 0, data)
    except OSError as error:
        raise Failure.from_os_error("root", error, rootfs.upper or rootfs.lower[0]) from error


def _enter_user_namespace(setup: Setup, channel: Channel) -> None:
    try:
        if setup.new_flags & namespaces.CLONE_NEWUSER:
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            channel.request(b"M")
        elif "user" in setup.namespace_fds:
            namespaces.setns(setup.namespace_fds.pop("user"), namespaces.CLONE_NEWUSER)
        else:
            return
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        credentials.prctl(credentials.PR_SET_DUMPABLE, 0)
    except OSError as error:
        raise Failure.from_os_error("namespace", error, "user") from error


def _enter_namespaces(setup: Setup) -> None:
    order = ("ipc", "uts", "network", "cgroup", "time", "pid", "mount")
    for name in order:
        fd = setup.namespace_fds.get(name)
        if fd is None or (name == "pid" and not setup.second_fork):
            continue
        try:
            namespaces.setns(fd, namespaces.NS_FILES[name])
        except OSError as error:
            raise Failure.from_os_error("namespace", error, name) from error
    flags = setup.new_flags & ~namespaces.CLONE_NEWUSER
    if not setup.second_fork:
        flags &= ~namespaces.CLONE_NEWPID
    try:
        if flags:
            namespaces.unshare(flags)
        if setup.time_offsets:
            with open("/proc/self/timens_offsets", "w", encoding="utf-8") as file:
                file.write(setup.time_offsets)
    except OSError as error:
        raise Failure.from_os_error("namespace", error) from error


def _fork_again(channel: Channel) -> None:
    pid = os.fork()
    if pid:
        channel.send(b"P%d" % pid)
        os._exit(0)
    os.setsid()


def _name_host(spec: dict[str, Any]) -> None:
    try:
        if spec.get("hostname"):
            namespaces.sethostname(spec["hostname"])
        if spec.get("domainname"):
            namespaces.setdomainname(spec["domainname"])
    except OSError as error:
        raise Failure.from_os_error("sysctl", error) from error


def _sysctls(table: dict[str, str]) -> None:
    for key, value in table.items():
        path = "/proc/sys/" + (key if "/" in key else key.replace(".", "/"))
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(value)
        except OSError as error:
            raise Failure.from_os_error("sysctl", error, key) from error


def _mount_everything(setup: Setup, root_tree: int, trees: dict[int, int]) -> int:
    """Attach the root in our own mount namespace, mount everything below it; returns its descriptor."""
    try:
        mount.mount("", "/", "", mount.MS_SLAVE | mount.MS_REC)
        if root_tree < 0:
            classic_overlay(setup.rootfs)
            # The working directory is below the new mount, not in it: enter it by name.
            place = setup.root_path if os.path.isdir(setup.root_path) else setup.state_dir
            root_fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            mount.mount_setattr(root_tree, propagation=mount.MS_SLAVE, recursive=True)
            mount.move_mount(root_tree, mount.AT_FDCWD, setup.root_path)
            root_fd = root_tree
        os.fchdir(root_fd)
    except OSError as error:
        raise Failure.from_os_error("root", error) from error
    ops.perform(setup.plan.early, ops.Root(root_fd, trees))
    return root_fd


def _pivot(root_fd: int, no_pivot: bool) -> None:
    try:
        os.fchdir(root_fd)
        if no_pivot:
            mount.mount(".", "/", "", mount.MS_MOVE)
            os.chroot(".")
        else:
            # The old root ends up over the new one, and nothing unmounted here reaches the host: all is slave.
            mount.pivot_root(".", ".")
            mount.umount(".")
        os.chdir("/")
    except OSError as error:
        raise Failure.from_os_error("pivot", error) from error


def _console(setup: Setup, channel: Channel) -> None:
    """Make a terminal on the container's own devpts, give the master away, and bind the slave on /dev/console."""
    if setup.launch is None or not setup.launch.spec.get("terminal"):
        return
    try:
        number = open_terminal(setup.launch.spec, channel)
        fd = os.open("/dev/console", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY, 0o600)
        os.close(fd)
        target = os.open("/dev/console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        tree = mount.open_tree(f"/dev/pts/{number}", recursive=False)
        mount.move_mount(tree, target, "/dev/console")
        os.close(tree)
        os.close(target)
    except OSError as error:
        raise Failure.from_os_error("console", error) from error


def open_terminal(spec: dict[str, Any], channel: Channel) -> int:
    """A new terminal as 0, 1, 2 and controlling terminal of the caller; its master goes through the channel.

    Returns the number of the slave on the devpts.
    """
    master, slave, number = tty.new_pair("/dev/pts/ptmx")
    size = spec.get("consoleSize")
    if size and (size.get("height") or size.get("width")):
        tty.set_size(master, size.get("height") or 0, size.get("width") or 0)
    tty.make_controlling(slave)
    for standard in (0, 1, 2):
        os.dup2(slave, standard)
    channel.send(b"C", master)
    os.close(slave)
    os.close(master)
    return number


def _keyring(container_id: str) -> None:
    try:
        credentials.join_session_keyring(f"_ses.{container_id}"[:250])
    except OSError as error:
        # ENOSYS: a kernel without keyrings; EDQUOT: the user has too many, which must not stop a container.
        if error.errno not in (errno.ENOSYS, errno.EDQUOT, errno.EPERM):
            raise Failure.from_os_error("init", error, "keyring") from error
