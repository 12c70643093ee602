"""The last mile of every process that starts in a container: who it is, what it may do, and execve.

Shared by a container's init and by `exec`. Runs inside the container's namespaces, in a child that has no other
purpose; every error becomes a Failure.
"""

from __future__ import annotations

import errno
import os
import resource

from corral.linux import credentials, files, seccomp
from corral.runtime import users
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAX_DATABASE = 4 << 20  # passwd and group come from an image; more than this is not read
_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
_CAP_BITS = {name: bit for bit, name in enumerate(credentials.CAPABILITIES)}
_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3,
    "SCHED_ISO": 4, "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
}  # fmt: skip
_SCHED_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4, "SCHED_FLAG_KEEP_POLICY": 8,
    "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32, "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}


class Launch:
    """A process of the spec, resolved step by step until `execute`."""

    __slots__ = (
        "argv", "cwd", "environment", "filter_flags", "groups", "identity", "no_new_privileges", "path",
        "preserve_fds", "program", "reaped", "spec", "target_caps", "user",
    )  # fmt: skip

    def __init__(self, spec: dict[str, Any], user: str | None, groups: tuple[str, ...]) -> None:
        self.spec = spec
        self.user = user
        self.groups = groups
        self.argv: list[str] = spec.get("args") or []
        self.environment: dict[str, str] = {}
        for item in spec.get("env") or []:
            name, _, value = item.partition("=")
            self.environment[name] = value
        self.cwd: str = spec.get("cwd") or "/"
        self.no_new_privileges = bool(spec.get("noNewPrivileges"))
        self.identity = users.Identity(0, 0, [], "")
        self.path = b""
        self.program = b""
        self.filter_flags = 0
        self.preserve_fds = 0
        self.reaped = False  # whether an init of ours is to stay between the container's first process and this one
        self.target_caps = (0, 0, 0)


def prepare(launch: Launch) -> None:
    """Everything that does not need the filter or the signal to start: limits, user, capabilities, cwd, program."""
    spec = launch.spec
    _resolve_user(launch)
    _limits(spec.get("rlimits") or [])
    _scheduling(spec)
    in_cwd = _enter_cwd(launch.cwd, last_try=False)
    _own_stdio(launch.identity.uid)
    _become(launch)
    if not in_cwd:
        _enter_cwd(launch.cwd, last_try=True)
    _check_inside(launch.cwd)
    launch.path = find_program(launch.argv[0] if launch.argv else "", launch.environment.get("PATH", ""))


def execute(launch: Launch, tell: int = -1, ack: int = -1) -> None:
    """Close what must not be inherited, load the filter, execve. Returns only by raising Failure."""
    files.close_range(3 + launch.preserve_fds, 0xFFFFFFFF, files.CLOSE_RANGE_CLOEXEC)
    argv = [os.fsencode(argument) for argument in launch.argv]
    env = [os.fsencode(f"{name}={value}") for name, value in launch.environment.items()]
    try:
        seccomp.exec_filtered(launch.path, argv, env, launch.program, launch.filter_flags, tell, ack)
    except OSError as error:
        if error.filename == "seccomp":
            raise Failure("seccomp", error.errno or 0) from error
        raise Failure("exec", error.errno or 0, launch.argv[0]) from error


def _read_database(path: str) -> str:
    """The text of an image's passwd or group file; a missing one is empty, a fifo does not block."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return ""
    with open(fd, "rb") as file:
        try:
            return file.read(_MAX_DATABASE).decode("utf-8", "surrogateescape")
        except (OSError, TypeError):  # a directory, or a fifo without a writer
            return ""


def _resolve_user(launch: Launch) -> None:
    if launch.user is None:
        user = launch.spec.get("user") or {}
        uid, gid = user.get("uid") or 0, user.get("gid") or 0
        launch.identity = users.Identity(uid, gid, list(user.get("additionalGids") or []), "")
        if "HOME" not in launch.environment:
            launch.identity.home = users.home_of(uid, _read_database("/etc/passwd"))
    else:
        launch.identity = users.resolve(
            launch.user, launch.groups, _read_database("/etc/passwd"), _read_database("/etc/group")
        )
    if not launch.environment.get("HOME"):
        launch.environment["HOME"] = launch.identity.home or "/"


def raise_limits(rlimits: list[dict[str, Any]]) -> None:
    """Raise hard limits that are too low, while still in the host's user namespace; soft ones stay as they are.

    Without CAP_SYS_RESOURCE this cannot be, and the present limit is kept: images and engines ask for high limits
    routinely, refusing to start would make them useless on such a machine, and the process can read what it got.
    """
    for limit in rlimits:
        name = limit.get("type", "")
        number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
        if number is None:
            raise Failure("rlimit", errno.EINVAL, name, "unknown rlimit")
        soft, hard = resource.getrlimit(number)
        wanted = _as_limit(limit["hard"])
        if not _above(wanted, hard):
            continue
        try:
            resource.setrlimit(number, (soft, wanted))
        except (OSError, ValueError) as error:
            if credentials.capget()[0] >> credentials.CAP_SYS_RESOURCE & 1:
                raise Failure("rlimit", getattr(error, "errno", 0) or errno.EINVAL, name) from error


def _limits(rlimits: list[dict[str, Any]]) -> None:
    """Set the limits, late: a low one would hinder ourselves. Lowering takes no privilege."""
    for limit in rlimits:
        name = limit["type"]
        number = getattr(resource, name)
        soft, hard = _as_limit(limit["soft"]), _as_limit(limit["hard"])
        present = resource.getrlimit(number)[1]
        hard = present if _above(hard, present) else hard
        # A soft limit above its hard one is the spec's mistake only if the hard one is what the spec says.
        soft = hard if _above(soft, hard) and hard == present else soft
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:
            raise Failure("rlimit", getattr(error, "errno", 0) or errno.EINVAL, name) from error


def _as_limit(value: int) -> int:
    """The spec writes unlimited as 2^64-1, Python as -1."""
    return -1 if value >= 2**63 else value


def _above(value: int, bound: int) -> bool:
    return bound != -1 and (value == -1 or value > bound)


def _scheduling(spec: dict[str, Any]) -> None:
    scheduler = spec.get("scheduler")
    try:
        if scheduler:
            flags = 0
            for name in scheduler.get("flags") or []:
                flags |= _SCHED_FLAGS[name]
            credentials.sched_setattr(
                _POLICIES[scheduler["policy"]],
                flags,
                scheduler.get("nice") or 0,
                scheduler.get("priority") or 0,
                scheduler.get("runtime") or 0,
                scheduler.get("deadline") or 0,
                scheduler.get("period") or 0,
            )
        priority = spec.get("ioPriority")
        if priority:
            credentials.ioprio_set(_IO_CLASSES[priority["class"]] << 13 | (priority.get("priority") or 0))
        affinity = (spec.get("execCPUAffinity") or {}).get("final")
        if affinity:
            os.sched_setaffinity(0, parse_cpus(affinity))
    except OSError as error:
        raise Failure("init", error.errno or 0, "scheduler") from error


def parse_cpus(text: str) -> set[int]:
    """The numbers in a list such as "0-2,4"."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise Failure("spec", errno.EINVAL, text, "not a list of CPUs")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _enter_cwd(cwd: str, last_try: bool) -> bool:
    """Try as root first (the folder may be closed to the user), then as the user (root may be squashed on NFS)."""
    try:
        os.chdir(cwd)
    except PermissionError as error:
        if last_try:
            raise Failure("chdir", error.errno or 0, cwd) from error
        return False
    except OSError as error:
        raise Failure("chdir", error.errno or 0, cwd) from error
    return True


def _check_inside(cwd: str) -> None:
    """A working directory outside the root would be a way out of the container (CVE-2024-21626)."""
    try:
        os.getcwd()
    except OSError as error:
        raise Failure("chdir", error.errno or 0, cwd, "working directory is not below the root") from error


def _own_stdio(uid: int) -> None:
    """Let the user reopen /dev/stdout and its like; not the null device, which is everybody's."""
    if not uid:
        return
    null = os.makedev(1, 3)
    for fd in (0, 1, 2):
        try:
            info = os.fstat(fd)
            if info.st_rdev != null and info.st_uid != uid:
                os.fchown(fd, uid, info.st_gid)
        except OSError as error:
            # A read-only file system, or in a user namespace an owner that has no name here.
            if error.errno not in (errno.EROFS, errno.EPERM, errno.EINVAL, errno.EBADF):
                raise Failure("console", error.errno or 0, f"/proc/self/fd/{fd}") from error


def known_capabilities() -> set[str]:
    """Names that this kernel has and this machine may give out."""
    _, permitted, _ = credentials.capget()
    return {name for name, bit in _CAP_BITS.items() if permitted >> bit & 1}


def capability_mask(names: list[str] | None) -> int:
    """Bits of the named capabilities; names unknown to us are passed over (the command warns of them)."""
    mask = 0
    for name in names or []:
        bit = _CAP_BITS.get(name)
        if bit is not None:
            mask |= 1 << bit
    return mask


def _become(launch: Launch) -> None:
    """Drop to the user and the capability sets, in the order the kernel wants.

    Bounding first (needs CAP_SETPCAP), then the ids with the permitted set kept, then the three sets, then ambient
    (every bit must be permitted and inheritable by then). What this machine does not have is left out: a set is a
    wish for at most that.
    """
    capabilities = launch.spec.get("capabilities") or {}
    sets = {name: capability_mask(capabilities.get(name)) for name in _SETS}
    umask = (launch.spec.get("user") or {}).get("umask")
    try:
        _, permitted, _ = credentials.capget()
        credentials.limit_bounding(sets["bounding"])
        credentials.set_user(launch.identity.uid, launch.identity.gid, _groups_to_set(launch.identity.groups))
        os.umask(0o022 if umask is None else umask)
        have = permitted & sets["permitted"]
        effective, inheritable = have & sets["effective"], permitted & sets["inheritable"]
        early_filter = launch.program and not launch.no_new_privileges
        extra = permitted & (1 << credentials.CAP_SYS_ADMIN) if early_filter else 0
        # Loading a filter without no_new_privs takes CAP_SYS_ADMIN. Keeping it until execve is harmless (execve
        # computes the sets anew from bounding, inheritable and ambient) and spares the filter a capset.
        credentials.capset(effective | extra, have | extra, inheritable)
        credentials.set_ambient(have & inheritable & sets["ambient"])
        if launch.no_new_privileges:
            credentials.prctl(credentials.PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        raise Failure("capabilities", error.errno or 0, "", error.strerror or "") from error


def _groups_to_set(groups: list[int]) -> list[int] | None:
    """None if this user namespace forbids setgroups and nothing is asked for."""
    if not groups:
        try:
            with open("/proc/self/setgroups", encoding="utf-8") as file:
                if file.read().strip() == "deny":
                    return None
        except OSError:
            return groups
    return groups


def find_program(name: str, search_path: str) -> bytes:
    """Where `name` is, as a shell would look: ENOENT if nowhere, EACCES if what it names may not be executed."""
    if not name:
        raise Failure("exec", errno.ENOENT, name)
    if "/" in name:
        try:
            info = os.stat(name)
        except OSError as error:
            raise Failure("exec", error.errno or 0, name) from error
        if info.st_mode & 0o170000 == 0o040000 or not os.access(name, os.X_OK, effective_ids=True):
            raise Failure("exec", errno.EACCES, name)
        return os.fsencode(name)
    for folder in search_path.split(":"):
        candidate = os.path.join(folder or ".", name)
        try:
            info = os.stat(candidate)
        except OSError:
            continue
        if info.st_mode & 0o170000 == 0o100000 and os.access(candidate, os.X_OK, effective_ids=True):
            return os.fsencode(candidate)
    raise Failure("exec", errno.ENOENT, name)
