"""File systems as a whole and what they know beside names and bytes: syncing, swapping names, flags."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os

from corral.linux import libc

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2

# linux/fs.h; the ioctl numbers carry the size of a long, though the kernel reads and writes an int.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_TOPDIR_FL = 0x00020000

_syncfs = libc.function("syncfs", ctypes.c_int)
_renameat2 = libc.function("renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def sync(path: str) -> None:
    """Bring everything written to the file system of a directory to disk (syncfs(2))."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.check(_syncfs(fd), path)
    finally:
        os.close(fd)


def exchange(one: str, other: str) -> None:
    """Swap two names of one file system, so that nobody sees either missing (renameat2(2), RENAME_EXCHANGE)."""
    libc.check(_renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE), one)


def spread_directories(path: str) -> None:
    """Ask ext4 to place each directory made in `path` in a part of the disk of its own (chattr(1), `T`).

    ext4 does not reuse an inode for some minutes after its deletion and searches past such inodes one by one, so
    unpacking next to layers that were just deleted is ten times slower (measured: 5,000 files in 1.6 s against
    0.13 s).  A hint: file systems that do not know it do not need it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flags = array.array("l", [0])
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, flags, True)
        flags[0] |= _FS_TOPDIR_FL
        fcntl.ioctl(fd, _FS_IOC_SETFLAGS, flags)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
            raise
    finally:
        os.close(fd)
