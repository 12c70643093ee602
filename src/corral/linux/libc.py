"""The C library: one loaded handle and the rule that a failed call raises.

Every other module of this package declares its functions through `function` and calls them through
`check`, so that a kernel error always arrives as an `OSError` that carries the path concerned.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def function(name: str, *argtypes: object, restype: object = ctypes.c_int) -> ctypes._NamedFuncPointer:
    """The C function `name`, typed."""
    found = getattr(_libc, name)
    found.argtypes = argtypes
    found.restype = restype
    return found  # type: ignore[no-any-return]


def check(result: int, path: str | None = None) -> int:
    """Return `result`, or raise OSError(errno, text, path) when it is negative."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result


syscall = function("syscall", ctypes.c_long, restype=ctypes.c_long)
syscall.argtypes = None  # type: ignore[assignment]  # variadic: each caller wraps its arguments itself
