"""Namespaces: leave, join, and processes as descriptors."""

from __future__ import annotations

import ctypes

from corral.linux import libc

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


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (unshare(2)); CLONE_NEWPID counts for its next child."""
    libc.check(_unshare(flags))


def setns(fd: int, flags: int = 0) -> None:
    """Move the calling thread into the namespace that `fd` names, or into those of a pidfd (setns(2))."""
    libc.check(_setns(fd, flags))
