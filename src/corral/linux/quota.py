"""Project quotas: how much may lie below a directory (quotactl_fd(2), ioctl_xfs_fsgetxattr(2)); ext4 and XFS have them.

A project is a number that a directory hands down to all that is made in it; the limit is the number's.  ext4 lets
whoever has CAP_SYS_RESOURCE go past a limit, XFS nobody, and overlayfs writes without that capability.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import struct

from corral.linux import libc

_SYS_quotactl_fd = 443  # the same number on every architecture; Linux 5.14
_PRJQUOTA = 2
_Q_SETQUOTA = 0x800008
_Q_XGETQSTAT = 0x5805
_FS_QUOTA_PDQ_ENFD = 1 << 5
_QIF_BLIMITS = 1
_BLOCK_BYTES = 1024

# linux/fs.h, struct fsxattr: xflags, extsize, nextents, projid, cowextsize, padding.
_FSXATTR = struct.Struct("5I8s")
_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200

_OURS = 1 << 30  # far from the small numbers that administrators give


def is_enforced(path: str) -> bool:
    """Whether the file system of a directory keeps projects within their limits."""
    state = ctypes.create_string_buffer(256)
    try:
        _quotactl(path, _Q_XGETQSTAT, 0, state)
    except OSError:  # no such call, no quotas, no such file system: many numbers for one answer
        return False
    (flags,) = struct.unpack_from("=H", state, 2)
    return bool(flags & _FS_QUOTA_PDQ_ENFD)


def limit(path: str, size_bytes: int) -> None:
    """Allow `size_bytes` below an empty directory, from now on: it becomes a project of its own."""
    number = _OURS | secrets.randbits(30)
    _set_limit(path, number, size_bytes)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fields = _attributes(fd)
        fields[0] |= _FS_XFLAG_PROJINHERIT
        fields[3] = number
        fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(*fields))
    except BaseException:
        _set_limit(path, number, 0)
        raise
    finally:
        os.close(fd)


def lift(path: str) -> None:
    """Forget the limit of a directory that is about to be deleted; one that has none is fine."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        number = _attributes(fd)[3]
    except OSError:  # a file system without projects
        return
    finally:
        os.close(fd)
    if number & _OURS:
        _set_limit(path, number, 0)


def _attributes(fd: int) -> list[int]:
    buffer = bytearray(_FSXATTR.size)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, buffer, True)
    return list(_FSXATTR.unpack(buffer))


def _set_limit(path: str, number: int, size_bytes: int) -> None:
    # struct if_dqblk: hard and soft limit in blocks of 1 KiB, ..., and which of it counts.
    blocks = -(-size_bytes // _BLOCK_BYTES)
    wanted = struct.pack("8QI4x", blocks, blocks, 0, 0, 0, 0, 0, 0, _QIF_BLIMITS)
    _quotactl(path, _Q_SETQUOTA, number, ctypes.create_string_buffer(wanted, len(wanted)))


def _quotactl(path: str, command: int, number: int, data: ctypes.Array[ctypes.c_char]) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        result = libc.syscall(
            ctypes.c_long(_SYS_quotactl_fd),
            ctypes.c_uint(fd),
            ctypes.c_uint(command << 8 | _PRJQUOTA),
            ctypes.c_uint(number),
            data,
        )
        libc.check(result, path)
    finally:
        os.close(fd)
