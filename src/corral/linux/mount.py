"""Mounts: the classic calls, the file-descriptor based ones, and /proc/self/mountinfo.

Targets are given as descriptors wherever a path could be changed under us by somebody else's symlink.
Functions that create a mount return a descriptor of it, attached nowhere until `move_mount`.
"""

from __future__ import annotations

import ctypes
import os

from corral.linux import libc

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_UNBINDABLE = 0x20000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_I_VERSION = 0x800000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOSYMFOLLOW = 0x200000

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_MOVE_MOUNT_T_EMPTY_PATH = 0x40
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1

# The same numbers on every architecture.
_SYS_open_tree = 428
_SYS_move_mount = 429
_SYS_fsopen = 430
_SYS_fsconfig = 431
_SYS_fsmount = 432
_SYS_mount_setattr = 442

_mount = libc.function("mount", ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_umount2 = libc.function("umount2", ctypes.c_char_p, ctypes.c_int)
_pivot_root = libc.function("pivot_root", ctypes.c_char_p, ctypes.c_char_p)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2); the error names the target."""
    result = _mount(
        os.fsencode(source) or None,
        os.fsencode(target),
        os.fsencode(fstype) or None,
        flags,
        os.fsencode(data) or None,
    )
    libc.check(result, target)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2), lazily unless told otherwise."""
    libc.check(_umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    libc.check(_pivot_root(os.fsencode(new_root), os.fsencode(put_old)), new_root)


def open_tree(path: str, recursive: bool, dir_fd: int = AT_FDCWD) -> int:
    """A detached copy of the mount at `path` (open_tree(2) with OPEN_TREE_CLONE); "" is `dir_fd` itself."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    result = libc.syscall(
        ctypes.c_long(_SYS_open_tree), ctypes.c_int(dir_fd), ctypes.c_char_p(os.fsencode(path)), ctypes.c_uint(flags)
    )
    return libc.check(result, path)


def move_mount(tree_fd: int, target_fd: int, name: str | None = None) -> None:
    """Attach the detached mount `tree_fd` over the object `target_fd` (AT_FDCWD: the working directory)."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    result = libc.syscall(
        ctypes.c_long(_SYS_move_mount),
        ctypes.c_int(tree_fd),
        ctypes.c_char_p(b""),
        ctypes.c_int(target_fd),
        ctypes.c_char_p(b""),
        ctypes.c_uint(flags),
    )
    libc.check(result, name)


def mount_setattr(
    fd: int, *, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, recursive: bool = False, userns_fd: int = 0
) -> None:
    """Change attributes or propagation of the mount `fd`, and with `recursive` of all below it (mount_setattr(2))."""
    attr = _MountAttr(attr_set, attr_clr, propagation, userns_fd)
    result = libc.syscall(
        ctypes.c_long(_SYS_mount_setattr),
        ctypes.c_int(fd),
        ctypes.c_char_p(b""),
        ctypes.c_uint(AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
    )
    libc.check(result)


def new_filesystem(fstype: str, options: list[tuple[str, str | None]], attributes: int = 0) -> int:
    """A detached mount of a new file system instance: fsopen, one fsconfig per option, fsmount.

    An option is (key, value), or (key, None) for a flag. Errors carry the key that was refused.
    """
    fs_fd = libc.check(
        libc.syscall(ctypes.c_long(_SYS_fsopen), ctypes.c_char_p(os.fsencode(fstype)), ctypes.c_uint(_FSOPEN_CLOEXEC)),
        fstype,
    )
    try:
        for key, value in options:
            if value is None:
                _fsconfig(fs_fd, _FSCONFIG_SET_FLAG, key, None)
            else:
                _fsconfig(fs_fd, _FSCONFIG_SET_STRING, key, value)
        _fsconfig(fs_fd, _FSCONFIG_CMD_CREATE, None, None)
        result = libc.syscall(
            ctypes.c_long(_SYS_fsmount), ctypes.c_int(fs_fd), ctypes.c_uint(_FSMOUNT_CLOEXEC), ctypes.c_uint(attributes)
        )
        return libc.check(result, fstype)
    finally:
        os.close(fs_fd)


def _fsconfig(fd: int, command: int, key: str | None, value: str | None) -> None:
    result = libc.syscall(
        ctypes.c_long(_SYS_fsconfig),
        ctypes.c_int(fd),
        ctypes.c_uint(command),
        ctypes.c_char_p(None if key is None else os.fsencode(key)),
        ctypes.c_char_p(None if value is None else os.fsencode(value)),
        ctypes.c_int(0),
    )
    libc.check(result, value or key)


class MountEntry:
    """One line of mountinfo (proc_pid_mountinfo(5))."""

    __slots__ = ("fstype", "optional", "options", "root", "source", "super_options", "target")

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.root = _unescape(fields[3])
        self.target = _unescape(fields[4])
        self.options = fields[5].split(",")
        self.optional = fields[6:]
        tail = right.split(" ")
        self.fstype = tail[0]
        self.source = _unescape(tail[1])
        self.super_options = tail[2].split(",") if len(tail) > 2 else []


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def mountinfo(process: str = "self") -> list[MountEntry]:
    """The mounts that `process` ("self" or a pid) sees, in mount order."""
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [MountEntry(line.rstrip("\n")) for line in file]
