"""`docker diff`: what a container changed in its own layer, without what the engine put there."""

from __future__ import annotations

import os
import stat
from typing import Any

from corral.engine.record import Container
from corral.store.snapshots import OverlayMount

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


def changes(record: Container, overlay: OverlayMount) -> list[dict[str, Any]]:
    """Every changed path with its kind, sorted; blocks on the disk."""
    hidden = {*_INJECTED, *(point.destination for point in record.mounts)}
    found: list[tuple[str, int]] = []
    _walk(overlay, "", hidden, found)
    return [{"Path": path, "Kind": kind} for path, kind in sorted(found)]


def _walk(overlay: OverlayMount, folder: str, hidden: set[str], found: list[tuple[str, int]]) -> bool:
    """Collect changes below `folder` of the upper directory; returns whether there are any."""
    before = len(found)
    with os.scandir(overlay.upper + folder) as entries:
        children = sorted(entries, key=lambda entry: entry.name)
    for entry in children:
        path = f"{folder}/{entry.name}"
        if path in hidden:
            continue
        status = entry.stat(follow_symlinks=False)
        below = _lower(overlay, path)
        if _is_whiteout(status):
            if below is not None:
                found.append((path, _DELETED))
        elif stat.S_ISDIR(status.st_mode):
            _directory(overlay, path, status, below, hidden, found)
        else:
            found.append((path, _ADDED if below is None else _MODIFIED))
    return len(found) > before


def _directory(
    overlay: OverlayMount,
    path: str,
    status: os.stat_result,
    below: os.stat_result | None,
    hidden: set[str],
    found: list[tuple[str, int]],
) -> None:
    changed = _walk(overlay, path, hidden, found)
    if _opaque(overlay.upper + path) and below is not None:
        changed |= _deleted_below(overlay, path, found)
    if below is None:
        holds_mount = any(name.startswith(path + "/") for name in hidden)
        if changed or not holds_mount:
            found.append((path, _ADDED))
    elif changed or _differs(status, below):
        found.append((path, _MODIFIED))


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _opaque(path: str) -> bool:
    try:
        return os.getxattr(path, _OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _lower(overlay: OverlayMount, path: str) -> os.stat_result | None:
    """The topmost thing that the layers below have at `path`."""
    for layer in overlay.lower:
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


def _deleted_below(overlay: OverlayMount, path: str, found: list[tuple[str, int]]) -> bool:
    names: set[str] = set()
    for layer in overlay.lower:
        if os.path.isdir(layer + path):
            names.update(os.listdir(layer + path))
    gone = [
        name
        for name in names
        if not os.path.lexists(f"{overlay.upper}{path}/{name}") and _lower(overlay, f"{path}/{name}")
    ]
    found += [(f"{path}/{name}", _DELETED) for name in gone]
    return bool(gone)


def _differs(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_mode, one.st_uid, one.st_gid) != (other.st_mode, other.st_uid, other.st_gid)
