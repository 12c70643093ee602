"""The control groups of one container: make, limit, join, freeze, measure, remove.

    version 1    /sys/fs/cgroup/CONTROLLER/PATH     one directory per hierarchy, each joined by itself
    version 2    /sys/fs/cgroup/PATH                one directory

A hybrid host (version 1 hierarchies and an empty version 2 one) counts as version 1, as it does for every runtime.
A relative path is below the cgroup of the calling process, an absolute one below the mount.
"""

from __future__ import annotations

import errno
import os
import select
import time

from corral.linux import cgroupfs, mount
from corral.runtime import resources as settings
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CONTROLLERS_1 = (
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids",
    "hugetlb", "net_cls", "net_prio", "perf_event", "rdma",
)  # fmt: skip
_REMOVE_TIMEOUT_S = 10.0


class Hierarchy:
    """A mounted hierarchy: its controllers, mount point, the mount's root, and where the caller is in it."""

    __slots__ = ("controllers", "mount_point", "own", "root")

    def __init__(self, controllers: list[str], mount_point: str, root: str, own: str) -> None:
        self.controllers = controllers
        self.mount_point = mount_point
        self.root = root
        self.own = own

    def directory(self, path: str) -> str:
        """The directory of a cgroupsPath."""
        if path.startswith("/"):
            return self.mount_point + "/" + os.path.normpath(path).lstrip("/")
        own = self.own
        if self.root != "/" and own.startswith(self.root):
            own = own[len(self.root) :]
        return os.path.normpath(f"{self.mount_point}/{own.lstrip('/')}/{path}")


_hierarchies: tuple[int, list[Hierarchy]] | None = None


def hierarchies() -> tuple[int, list[Hierarchy]]:
    """(version, hierarchies) of the host; looked up once per process."""
    global _hierarchies
    if _hierarchies is None:
        _hierarchies = _discover(mount.mountinfo(), _own_cgroups())
    return _hierarchies


def _own_cgroups() -> dict[str, str]:
    own = {}
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, names, path = line.rstrip("\n").split(":", 2)
            for name in names.split(","):
                own[name] = path
    return own


def _discover(mounts: list[mount.MountEntry], own: dict[str, str]) -> tuple[int, list[Hierarchy]]:
    found: list[Hierarchy] = []
    unified: list[Hierarchy] = []
    seen: set[str] = set()
    for entry in mounts:
        if entry.fstype == "cgroup2":
            unified.append(Hierarchy([""], entry.target, entry.root, own.get("", "/")))
        if entry.fstype != "cgroup":
            continue
        names = [name for name in entry.super_options if name in _CONTROLLERS_1 or name == "name=systemd"]
        if names and not seen.intersection(names):
            seen.update(names)
            found.append(Hierarchy(names, entry.target, entry.root, own.get(names[0], "/")))
    if found:
        return 1, found
    return 2, unified[:1]


class Cgroup:
    """One container's directories: `paths` by controller (version 2: the key is "")."""

    __slots__ = ("paths", "version")

    def __init__(self, version: int, paths: dict[str, str]) -> None:
        self.version = version
        self.paths = paths

    def directories(self) -> list[str]:
        return list(dict.fromkeys(self.paths.values()))

    def mounts(self) -> list[tuple[str, str]]:
        """(name of the mount directory, own directory), as `plan.Facts` wants them."""
        version, all_mounted = hierarchies()
        if version == 2:
            return [("", self.paths[""])]
        return [
            (
                ",".join(name.removeprefix("name=") for name in hierarchy.controllers),
                self.paths[hierarchy.controllers[0]],
            )
            for hierarchy in all_mounted
            if hierarchy.controllers[0] in self.paths
        ]


def locate(path: str) -> Cgroup:
    """The cgroup at a cgroupsPath, which need not exist."""
    version, mounted = hierarchies()
    if ".." in path.split("/"):
        raise Failure("spec", errno.EINVAL, path, "cgroupsPath may not contain ..")
    if path.count(":") == 2 and not path.startswith("/"):
        raise Failure("spec", errno.EINVAL, path, "cgroupsPath is in systemd's form, which is not supported")
    if not path.strip("/."):
        raise Failure("spec", errno.EINVAL, path, "cgroupsPath must name a cgroup of the container's own")
    paths = {}
    for hierarchy in mounted:
        directory = hierarchy.directory(path)
        for controller in hierarchy.controllers:
            paths[controller] = directory
    return Cgroup(version, paths)


def require_empty(group: Cgroup) -> None:
    """A container's cgroup is its own: everything in it dies with the container, so nobody else may live there."""
    found: list[int] = []
    for directory in group.directories():
        _collect(directory, found)
        if found:
            detail = f"container's cgroup is not empty: {len(found)} process(es) found"
            raise Failure("cgroup", errno.EBUSY, directory, detail)


def make(group: Cgroup, needed: list[str]) -> None:
    """Make the directories; in version 2 enable the `needed` controllers on the way down."""
    made: list[str] = []
    try:
        if group.version == 2:
            _make2(group.paths[""], needed, made)
        else:
            for directory in group.directories():
                _make_one(directory, made)
            if "cpuset" in group.paths:
                _inherit_cpuset(group.paths["cpuset"])
    except OSError as error:
        for directory in reversed(made):
            _remove_directory(directory)
        raise Failure.from_os_error("cgroup", error) from error


def _make_one(directory: str, made: list[str]) -> None:
    try:
        os.mkdir(directory, 0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_one(os.path.dirname(directory), made)
        os.mkdir(directory, 0o755)
    made.append(directory)


def _inherit_cpuset(directory: str) -> None:
    """A new cpuset of version 1 is empty and lets nobody in: take over what the nearest filled ancestor has."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if cgroupfs.read(directory, name):
            continue
        missing = [directory]
        while not (value := cgroupfs.read(os.path.dirname(missing[-1]), name)):
            missing.append(os.path.dirname(missing[-1]))
        for below in reversed(missing):
            cgroupfs.write(below, name, value)


def _make2(directory: str, needed: list[str], made: list[str]) -> None:
    mount_point = hierarchies()[1][0].mount_point
    available = cgroupfs.read(mount_point, "cgroup.controllers").split()
    current = mount_point
    for part in os.path.relpath(directory, mount_point).split("/"):
        enabled = cgroupfs.read(current, "cgroup.subtree_control").split()
        for controller in available:
            if controller in enabled:
                continue
            try:
                cgroupfs.write(current, "cgroup.subtree_control", f"+{controller}")
            except OSError:
                # EBUSY: processes live here (fine for the root); ENOENT: the parent does not pass it on. Only what
                # the container asks for is worth an error, and the write of its limit gives a better one.
                continue
        current = f"{current}/{part}"
        _make_one(current, made)
    missing = set(needed) - set(cgroupfs.read(directory, "cgroup.controllers").split())
    missing -= {"devices", "cgroup", "freezer", "cpuacct", "misc_unknown"}
    if missing:
        raise OSError(errno.ENOENT, f"controllers not available: {' '.join(sorted(missing))}", directory)


def apply(group: Cgroup, resources: dict[str, Any], update: bool = False) -> None:
    """Write the limits. On update, values that bound each other are written in the order that always fits."""
    writes = settings.version2(resources) if group.version == 2 else settings.version1(resources)
    if update:
        writes = _reordered(group, writes)
    for controller, file, text in writes:
        _write(group, controller, file, text)
    rules = settings.device_rules(resources.get("devices") or [])
    if rules is not None:
        if group.version == 2:
            _filter_devices(group, rules)
        elif "devices" in group.paths:
            for controller, file, text in settings.device_writes(rules):
                _write(group, controller, file, text)


def change_devices(group: Cgroup, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> None:
    """Go from some device rules to others: by what differs, or (version 2) by another program in place of the first."""
    old, new = settings.device_rules(before), settings.device_rules(after)
    if old is None or new is None:
        return
    if group.version == 2:
        _filter_devices(group, new)
    elif "devices" in group.paths:
        for controller, file, text in settings.device_changes(old, new):
            _write(group, controller, file, text)


def _write(group: Cgroup, controller: str, file: str, text: str) -> None:
    directory = group.paths.get("" if group.version == 2 else controller)
    if directory is None:
        raise Failure("cgroup", errno.ENOENT, file, f"cgroup controller {controller} is not mounted")
    try:
        cgroupfs.write(directory, file, text)
    except OSError as error:
        raise Failure.from_os_error("cgroup", error, f"{directory}/{file}") from error


def _reordered(group: Cgroup, writes: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """memory+swap bounds memory: when the new memory limit is above the present sum, raise the sum first.

    The same for period and quota of version 1.
    """
    values = {file: text for _, file, text in writes}
    limit, total = values.get("memory.limit_in_bytes"), values.get("memory.memsw.limit_in_bytes")
    if limit is None or total is None or group.version == 2:
        return writes
    present = int(cgroupfs.read(group.paths["memory"], "memory.memsw.limit_in_bytes"))
    if total == "-1" or (limit != "-1" and int(limit) > present):
        writes.sort(key=lambda write: write[1] != "memory.memsw.limit_in_bytes")
    return writes


def _filter_devices(group: Cgroup, rules: settings.DeviceRules) -> None:
    from corral.runtime import devicefilter

    fd = os.open(group.paths[""], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened = [fd]
    try:
        old = cgroupfs.attached_device_filters(fd)
        opened += old
        program = cgroupfs.load_device_filter(devicefilter.compile_rules(rules))
        opened.append(program)
        cgroupfs.attach_device_filter(fd, program, old[0] if old else -1)
    except OSError as error:
        raise Failure.from_os_error("cgroup", error, group.paths[""]) from error
    finally:
        for descriptor in opened:
            os.close(descriptor)


def join(directories: list[str], pid: int = 0) -> None:
    """Move `pid` (0: the caller, which has one thread) into every directory."""
    text = str(pid)
    for directory in directories:
        # Version 1 has `tasks`: a thread that moves itself there is spared the lock that holds up every fork on the
        # machine, and with it an RCU grace period of 10 ms and more (cgroup_procs_write_start in kernel/cgroup).
        single = pid == 0 and os.path.exists(f"{directory}/tasks")
        try:
            cgroupfs.write(directory, "tasks" if single else "cgroup.procs", text)
        except OSError as error:
            raise Failure.from_os_error("cgroup", error) from error


def pids(group: Cgroup) -> list[int]:
    """Every process in the cgroup and in those below it, as the caller's pid namespace numbers them."""
    directory = group.paths.get("") or group.paths.get("pids") or group.paths.get("devices")
    if directory is None:
        directory = group.directories()[0]
    found: list[int] = []
    _collect(directory, found)
    return found


def _collect(directory: str, found: list[int]) -> None:
    try:
        found.extend(int(line) for line in cgroupfs.read(directory, "cgroup.procs").split())
        for name in cgroupfs.children(directory):
            _collect(f"{directory}/{name}", found)
    except (FileNotFoundError, OSError) as error:
        # ENODEV: removed between open and read.
        if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            raise


def freeze(group: Cgroup, frozen: bool, timeout_s: float = 5.0) -> None:
    """Stop or continue every process of the cgroup, and wait until that is so."""
    if group.version == 2:
        _freeze2(group.paths[""], frozen, timeout_s)
        return
    directory = group.paths.get("freezer")
    if directory is None:
        raise Failure("cgroup", errno.ENOENT, "freezer.state", "cgroup controller freezer is not mounted")
    wanted = "FROZEN" if frozen else "THAWED"
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            cgroupfs.write(directory, "freezer.state", wanted)
            if cgroupfs.read(directory, "freezer.state") == wanted:
                return
            # A process that forks or execs just now keeps the group FREEZING; writing again makes progress.
            if time.monotonic() > deadline:
                cgroupfs.write(directory, "freezer.state", "THAWED")
                raise Failure("cgroup", errno.ETIMEDOUT, directory, "cannot freeze")
            select.select([], [], [], 0.001)
    except OSError as error:
        raise Failure.from_os_error("cgroup", error, directory) from error


def _freeze2(directory: str, frozen: bool, timeout_s: float) -> None:
    try:
        fd = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            cgroupfs.write(directory, "cgroup.freeze", "1" if frozen else "0")
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            deadline = time.monotonic() + timeout_s
            while f"frozen {int(frozen)}".encode() not in os.pread(fd, 4096, 0):
                if not poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
                    cgroupfs.write(directory, "cgroup.freeze", "0")
                    raise Failure("cgroup", errno.ETIMEDOUT, directory, "cannot freeze")
        finally:
            os.close(fd)
    except OSError as error:
        raise Failure.from_os_error("cgroup", error, directory) from error


def is_frozen(group: Cgroup) -> bool:
    """Whether the cgroup exists and is frozen (or about to be)."""
    try:
        if group.version == 2:
            return cgroupfs.read(group.paths[""], "cgroup.freeze") == "1"
        return "freezer" in group.paths and cgroupfs.read(group.paths["freezer"], "freezer.state") != "THAWED"
    except OSError:
        return False


def kill(group: Cgroup, signal: int) -> None:
    """Send `signal` to every process of the cgroup; SIGKILL reaches frozen ones and those forked meanwhile."""
    if signal == 9 and group.version == 2:
        try:
            cgroupfs.write(group.paths[""], "cgroup.kill", "1")
            return
        except FileNotFoundError:
            pass  # the cgroup is gone, or the kernel is older than 5.14
    seen: set[int] = set()
    while True:
        fresh = [pid for pid in pids(group) if pid not in seen]
        for pid in fresh:
            try:
                os.kill(pid, signal)
            except ProcessLookupError:
                pass
        seen.update(fresh)
        if not fresh or signal != 9:
            break
    if signal == 9 and is_frozen(group):
        freeze(group, False)


def remove(group: Cgroup) -> None:
    """Remove the directories and those below them; waits for processes that are about to be gone."""
    for directory in group.directories():
        _remove_tree(directory)


def _remove_tree(directory: str) -> None:
    deadline = time.monotonic() + _REMOVE_TIMEOUT_S
    pause_s = 0.0005
    while True:
        try:
            if _remove_directory(directory):
                return
            for name in cgroupfs.children(directory):
                _remove_tree(f"{directory}/{name}")
            if _remove_directory(directory):
                return
        except FileNotFoundError:
            return
        # EBUSY while the kernel still takes a killed process apart; there is no event for the end of that.
        if time.monotonic() > deadline:
            raise Failure("cgroup", errno.EBUSY, directory)
        select.select([], [], [], pause_s)
        pause_s = min(pause_s * 2, 0.05)


def _remove_directory(directory: str) -> bool:
    """rmdir; True if it is gone, False if it is busy or has children."""
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise Failure.from_os_error("cgroup", error) from error
    return True
