"""Load a BPF program as the thread's system call filter.

Whatever follows the load runs under the filter, so the last step of a container, "load and execve", is one
function here: everything it needs is prepared before, and nothing but `execve` (and on request a `write` and a
`read` to hand the listener over) is called after.
"""

from __future__ import annotations

import ctypes
import os

from corral.linux import libc

SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
_SECCOMP_SET_MODE_FILTER = 1
_SYS_seccomp = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine, -1)

# Through PyDLL, so that the interpreter does not even touch its lock between the filter and execve.
_pylibc = ctypes.PyDLL(None, use_errno=True)


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def load(program: bytes, flags: int = 0) -> int:
    """Install `program` (an array of struct sock_filter); returns the listener with NEW_LISTENER, else 0."""
    prog = _SockFprog(len(program) // 8, program)
    result = libc.syscall(
        ctypes.c_long(_SYS_seccomp), ctypes.c_uint(_SECCOMP_SET_MODE_FILTER), ctypes.c_uint(flags), ctypes.byref(prog)
    )
    return libc.check(result)


def exec_filtered(
    path: bytes,
    argv: list[bytes],
    env: list[bytes],
    program: bytes = b"",
    flags: int = 0,
    tell: int = -1,
    ack: int = -1,
) -> None:
    """Load `program` if any, then execve; returns only by raising OSError with `filename` "seccomp" or the path.

    With a listener flag, the listener's number is written to `tell` (as ASCII) and one byte read from `ack`
    before execve closes it.
    """
    c_argv = (ctypes.c_char_p * (len(argv) + 1))(*argv, None)
    c_env = (ctypes.c_char_p * (len(env) + 1))(*env, None)
    execve = _pylibc.execve
    execve.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p)
    path_pointer = ctypes.c_char_p(path)
    if program:
        syscall = _pylibc.syscall
        prog = _SockFprog(len(program) // 8, program)
        arguments = (
            ctypes.c_long(_SYS_seccomp),
            ctypes.c_uint(_SECCOMP_SET_MODE_FILTER),
            ctypes.c_uint(flags),
            ctypes.byref(prog),
        )
        result = syscall(*arguments)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), "seccomp")
        if flags & SECCOMP_FILTER_FLAG_NEW_LISTENER:
            os.write(tell, b"N%d" % result)
            os.read(ack, 1)
    execve(path_pointer, c_argv, c_env)
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), os.fsdecode(path))
