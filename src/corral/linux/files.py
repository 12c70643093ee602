"""Files: paths resolved below a root by the kernel, and writes that are whole or absent."""

from __future__ import annotations

import ctypes
import os

from corral.linux import libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

CLOSE_RANGE_CLOEXEC = 4

_SYS_close_range = 436
_SYS_openat2 = 437  # the same number on every architecture


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(root_fd: int, path: str, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open `path` with symlinks and `..` resolved as if `root_fd` were `/` (openat2(2)); always close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    encoded = ctypes.c_char_p(os.fsencode(path))
    while True:
        result = libc.syscall(
            ctypes.c_long(_SYS_openat2),
            ctypes.c_int(root_fd),
            encoded,
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        # EAGAIN: a rename raced with the resolution of `..`; the man page asks callers to try again.
        if result >= 0 or ctypes.get_errno() != 11:
            return libc.check(result, path)


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data`: readers see the old or the new content, and so does a machine that lost power."""
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path) or ".")


def sync_directory(path: str) -> None:
    """Make the names in `path` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close the descriptors `first`..`last`, or with CLOSE_RANGE_CLOEXEC mark them (close_range(2))."""
    result = libc.syscall(
        ctypes.c_long(_SYS_close_range), ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(flags)
    )
    libc.check(result)
