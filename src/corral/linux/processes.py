"""Processes: who inherits orphans."""

from __future__ import annotations

import ctypes

from corral.linux import libc

_PR_SET_CHILD_SUBREAPER = 36

_prctl = libc.function("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def set_child_subreaper() -> None:
    """Orphaned descendants become children of the caller (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    libc.check(_prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
