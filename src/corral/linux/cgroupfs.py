"""Cgroup files: read, write, list, and the device filter of version 2."""

from __future__ import annotations

import ctypes
import os

from corral.linux import libc

_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6
BPF_F_ALLOW_MULTI = 2
BPF_F_REPLACE = 4
_SYS_bpf = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)


def read(directory: str, name: str) -> str:
    """The text of a cgroup file without its last newline."""
    fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "replace").rstrip("\n")


def write(directory: str, name: str, text: str) -> None:
    """One write(2), as cgroup files demand; the error names the file."""
    path = f"{directory}/{name}"
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def children(directory: str) -> list[str]:
    """The names of the cgroups below."""
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


class _ProgLoad(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


class _ProgAttach(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("replace_bpf_fd", ctypes.c_uint32),
    )


class _ProgQuery(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("query_flags", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
        ("prog_ids", ctypes.c_uint64),
        ("prog_cnt", ctypes.c_uint32),
    )


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    result = libc.syscall(
        ctypes.c_long(_SYS_bpf),
        ctypes.c_int(command),
        ctypes.byref(attributes),
        ctypes.c_uint(ctypes.sizeof(attributes)),
    )
    return libc.check(result, "bpf")


def load_device_filter(program: bytes) -> int:
    """A descriptor of the loaded program (instructions of 8 bytes)."""
    insns = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache")
    load = _ProgLoad(
        _BPF_PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(insns), ctypes.addressof(licence)
    )
    return _bpf(_BPF_PROG_LOAD, load)


def attached_device_filters(cgroup_fd: int) -> list[int]:
    """Descriptors of the programs attached to exactly this cgroup."""
    ids = (ctypes.c_uint32 * 64)()
    query = _ProgQuery(cgroup_fd, _BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), 64)
    _bpf(16, query)
    return [_bpf(13, _GetFd(number)) for number in list(ids)[: query.prog_cnt]]


class _GetFd(ctypes.Structure):
    _fields_ = (("prog_id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32))


def attach_device_filter(cgroup_fd: int, program_fd: int, replace_fd: int = -1) -> None:
    """Attach beside the filters of the ancestors (all must allow), or in place of `replace_fd`."""
    flags = BPF_F_ALLOW_MULTI | (BPF_F_REPLACE if replace_fd >= 0 else 0)
    _bpf(_BPF_PROG_ATTACH, _ProgAttach(cgroup_fd, program_fd, _BPF_CGROUP_DEVICE, flags, max(replace_fd, 0)))
