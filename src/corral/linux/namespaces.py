"""Namespaces: leave, join, and processes as descriptors."""

from __future__ import annotations

import ctypes
import fcntl

from corral.linux import libc

_SYS_pidfd_getfd = 438

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_unshare = libc.function("unshare", ctypes.c_int)
_setns = libc.function("setns", ctypes.c_int, ctypes.c_int)


_sethostname = libc.function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = libc.function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)


def sethostname(name: str) -> None:
    """Name the UTS namespace (sethostname(2))."""
    data = name.encode()
    libc.check(_sethostname(data, len(data)), "hostname")


def setdomainname(name: str) -> None:
    """The NIS domain name of the UTS namespace (setdomainname(2))."""
    data = name.encode()
    libc.check(_setdomainname(data, len(data)), "domainname")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (unshare(2)); CLONE_NEWPID counts for its next child."""
    libc.check(_unshare(flags))


def setns(fd: int, flags: int = 0) -> None:
    """Move the calling thread into the namespace that `fd` names, or into those of a pidfd (setns(2))."""
    libc.check(_setns(fd, flags))


NS_FILES = {
    "user": CLONE_NEWUSER,
    "pid": CLONE_NEWPID,
    "network": CLONE_NEWNET,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
    "mount": CLONE_NEWNS,
}
"""The OCI names of the namespaces and their clone flags."""

_NS_GET_NSTYPE = 0xB703


def namespace_type(fd: int) -> int:
    """The CLONE_NEW* flag of the namespace `fd`; OSError(ENOTTY) if it is none (ioctl_nsfs(2))."""
    return fcntl.ioctl(fd, _NS_GET_NSTYPE)


def pidfd_getfd(pidfd: int, number: int) -> int:
    """A copy of descriptor `number` of another process (pidfd_getfd(2)); close-on-exec."""
    return libc.check(
        libc.syscall(ctypes.c_long(_SYS_pidfd_getfd), ctypes.c_int(pidfd), ctypes.c_int(number), ctypes.c_uint(0))
    )
