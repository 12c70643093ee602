"""Credentials: capabilities, user and group switch, no_new_privs, limits, keyring, scheduling, personality."""

from __future__ import annotations

import ctypes
import errno
import os

from corral.linux import libc

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# Bit numbers in order (linux/capability.h).
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
CAP_SYS_ADMIN = 21
CAP_SYS_RESOURCE = 24

_prctl = libc.function("prctl", *[ctypes.c_ulong] * 5)
_prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_capset = libc.function("capset", ctypes.c_void_p, ctypes.c_void_p)
_capget = libc.function("capget", ctypes.c_void_p, ctypes.c_void_p)
_personality = libc.function("personality", ctypes.c_ulong)
_setfsuid = libc.function("setfsuid", ctypes.c_uint)
_setfsgid = libc.function("setfsgid", ctypes.c_uint)
_CAPABILITY_VERSION_3 = 0x20080522


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


_CapData = ctypes.c_uint32 * 6  # (effective, permitted, inheritable) low words, then high words


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2)."""
    return libc.check(_prctl(option, arg2, arg3, arg4, arg5))


def capget() -> tuple[int, int, int]:
    """(effective, permitted, inheritable) of the calling thread as bit masks."""
    data = _CapData()
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    libc.check(_capget(ctypes.byref(header), data))
    return data[0] | data[3] << 32, data[1] | data[4] << 32, data[2] | data[5] << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the three sets of the calling thread (capset(2))."""
    low = 0xFFFFFFFF
    data = _CapData(
        effective & low, permitted & low, inheritable & low, effective >> 32, permitted >> 32, inheritable >> 32
    )
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    libc.check(_capset(ctypes.byref(header), data))


def limit_bounding(keep: int) -> None:
    """Drop every capability but `keep` from the bounding set (dropping what is not there is no error)."""
    for bit in range(64):
        if keep >> bit & 1:
            continue
        try:
            prctl(PR_CAPBSET_DROP, bit)
        except OSError as error:
            if error.errno == errno.EINVAL:  # beyond what this kernel knows
                return
            raise


def set_ambient(mask: int) -> None:
    """Replace the ambient set; every bit must be permitted and inheritable."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for bit in range(64):
        if mask >> bit & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit)


def set_user(uid: int, gid: int, groups: list[int] | None) -> None:
    """Become uid:gid with supplementary `groups` (None: leave them), keeping the permitted capabilities."""
    prctl(PR_SET_KEEPCAPS, 1)
    if groups is not None:
        os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    prctl(PR_SET_KEEPCAPS, 0)


class FileOwner:
    """While in the block, what the calling thread makes in file systems belongs to `uid`:`gid`; its rights stay.

    A file system, or a mount with mapped ids, in which the thread's own ids have no meaning refuses them (EOVERFLOW).
    """

    __slots__ = ("_gid", "_uid")

    def __init__(self, uid: int, gid: int) -> None:
        self._uid = uid
        self._gid = gid

    def __enter__(self) -> None:
        _set_file_ids(self._uid, self._gid)

    def __exit__(self, *_: object) -> None:
        _set_file_ids(os.geteuid(), os.getegid())


def _set_file_ids(uid: int, gid: int) -> None:
    before = capget()
    _setfsgid(gid)
    _setfsuid(uid)
    capset(*before)  # leaving 0 has taken the capabilities that concern files


_KEYCTL = {"x86_64": 250, "aarch64": 219}.get(os.uname().machine, -1)
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}.get(os.uname().machine, -1)
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}.get(os.uname().machine, -1)
_KEYCTL_JOIN_SESSION_KEYRING = 1


def join_session_keyring(name: str) -> None:
    """Give the process a new session keyring, so that keys of the host's session stay out of reach."""
    libc.check(
        libc.syscall(
            ctypes.c_long(_KEYCTL),
            ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING),
            ctypes.c_char_p(os.fsencode(name)),
            ctypes.c_long(0),
            ctypes.c_long(0),
            ctypes.c_long(0),
        )
    )


def ioprio_set(value: int) -> None:
    """I/O class << 13 | level of the calling process (ioprio_set(2))."""
    libc.check(libc.syscall(ctypes.c_long(_IOPRIO_SET), ctypes.c_int(1), ctypes.c_int(0), ctypes.c_int(value)))


class _SchedAttr(ctypes.Structure):
    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def sched_setattr(
    policy: int, flags: int, nice: int, priority: int, runtime_ns: int, deadline_ns: int, period_ns: int
) -> None:
    """Scheduling policy of the calling thread (sched_setattr(2))."""
    attr = _SchedAttr(48, policy, flags, nice, priority, runtime_ns, deadline_ns, period_ns)
    libc.check(libc.syscall(ctypes.c_long(_SCHED_SETATTR), ctypes.c_int(0), ctypes.byref(attr), ctypes.c_uint(0)))


def personality(persona: int) -> None:
    """Execution domain of the process (personality(2))."""
    libc.check(_personality(persona))
