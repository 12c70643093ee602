"""`docker diff`: what a container changed in its own layer, without what the engine put there."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any

from corral.engine.record import Container

_MODIFIED, _ADDED, _DELETED = 0, 1, 2
_INJECTED = (
    "/dev",
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/.dockerenv",
    "/sbin/docker-init",
)
_OPAQUE = "trusted.overlay.opaque"


def changes(record: Container, own: Sequence[str], lower: Sequence[str]) -> list[dict[str, Any]]:
    """Every changed path with its kind, sorted; blocks on the disk.

    `own` are the directories that the container wrote, `lower` those of its image, each top-most first.
    """
    hidden = {*_INJECTED, *(point.destination for point in record.mounts)}
    found: list[tuple[str, int]] = []
    _Walk(lower, hidden, found).folder(own, "")
    return [{"Path": path, "Kind": kind} for path, kind in sorted(found)]


class _Walk:
    """Collects into `found`.  `own` narrows on the way down to the directories that a path is merged from."""

    def __init__(self, lower: Sequence[str], hidden: set[str], found: list[tuple[str, int]]) -> None:
        self._lower, self._hidden, self._found = lower, hidden, found

    def folder(self, own: Sequence[str], folder: str) -> bool:
        """Collect changes below `folder`; returns whether there are any."""
        before = len(self._found)
        for name in sorted({name for top in own for name in os.listdir(top + folder)}):
            path = f"{folder}/{name}"
            if path not in self._hidden:
                self._entry(own, path)
        return len(self._found) > before

    def _entry(self, own: Sequence[str], path: str) -> None:
        status, merged, covering = _merged(own, path)
        below = _below(self._lower, path)
        if _is_whiteout(status):
            if below is not None:
                self._found.append((path, _DELETED))
        elif stat.S_ISDIR(status.st_mode):
            self._directory(merged, path, status, below, covering)
        else:
            self._found.append((path, _ADDED if below is None else _MODIFIED))

    def _directory(
        self, own: Sequence[str], path: str, status: os.stat_result, below: os.stat_result | None, covering: bool
    ) -> None:
        changed = self.folder(own, path)
        if covering and below is not None:
            changed |= self._deleted(own, path)
        if below is None:
            holds_mount = any(name.startswith(path + "/") for name in self._hidden)
            if changed or not holds_mount:
                self._found.append((path, _ADDED))
        elif changed or _differs(status, below):
            self._found.append((path, _MODIFIED))

    def _deleted(self, own: Sequence[str], path: str) -> bool:
        """Collect what the image has in a directory that the container made anew."""
        names: set[str] = set()
        for layer in self._lower:
            if os.path.isdir(layer + path):
                names.update(os.listdir(layer + path))
        gone = [
            name
            for name in names
            if not any(os.path.lexists(f"{top}{path}/{name}") for top in own) and _below(self._lower, f"{path}/{name}")
        ]
        self._found += [(f"{path}/{name}", _DELETED) for name in gone]
        return bool(gone)


def _merged(own: Sequence[str], path: str) -> tuple[os.stat_result, list[str], bool]:
    """The top-most thing at `path`; of a directory, what it is merged from, and whether it covers what is below."""
    status: os.stat_result | None = None
    merged: list[str] = []
    for top in own:
        try:
            found = os.lstat(top + path)
        except FileNotFoundError:
            continue
        status = status or found
        if not stat.S_ISDIR(found.st_mode):
            return status, merged, True
        merged.append(top)
        if _opaque(top + path):
            return status, merged, True
    assert status is not None  # the caller has it from a listing
    return status, merged, False


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _below(lower: Sequence[str], path: str) -> os.stat_result | None:
    """The topmost thing that the layers of the image have at `path`."""
    for layer in lower:
        try:
            status = os.lstat(layer + path)
        except (FileNotFoundError, NotADirectoryError):
            if _hidden_in(layer, path):
                return None
            continue
        return None if _is_whiteout(status) else status
    return None


def _hidden_in(layer: str, path: str) -> bool:
    """Whether a folder above `path` is whited out or opaque in `layer`."""
    folder = os.path.dirname(path)
    while folder != "/":
        try:
            status = os.lstat(layer + folder)
        except OSError:
            pass
        else:
            if _is_whiteout(status) or _opaque(layer + folder):
                return True
        folder = os.path.dirname(folder)
    return False


def _differs(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid)
