"""Diffs: what a container's upper directory changes, as a layer's tar and as `docker diff` lists it.

Reads overlayfs's marks (see `corral.image.whiteouts`) and writes the tar's.  The upper directory may belong to a
running container, so it is walked through descriptors like any other tree (`corral.store.pack`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from corral.errors import System
from corral.image import whiteouts
from corral.store import pack, tar, tarwriter

MODIFIED, ADDED, DELETED = 0, 1, 2
_REDIRECT_XATTR = "trusted.overlay.redirect"


class RedirectedDirectory(System):
    """The container's root was mounted with `redirect_dir`: its upper directory does not tell the whole change."""

    def __init__(self, path: str) -> None:
        super().__init__(f"cannot read changes: directory /{path} was renamed by overlayfs redirection")


@dataclass(frozen=True, slots=True)
class Change:
    """One line of `docker diff`: `kind` as in the API (0 modified, 1 added, 2 deleted), `path` absolute."""

    path: str
    kind: int


def pack_diff(upper: str) -> Iterator[bytes]:
    """The layer tar of an upper directory, its root included; equal trees give equal bytes."""
    packer = _LayerPacker()
    fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from packer.walk(fd, ".", "")
    finally:
        os.close(fd)
    yield packer.rest() + tarwriter.END


class _LayerPacker(pack.Packer):
    def directory(self, fd: int, name: str, *, covered: bool = False) -> None:
        super().directory(fd, name, covered=covered)
        if _xattr(fd, _REDIRECT_XATTR):
            raise RedirectedDirectory(name)
        if _xattr(fd, whiteouts.OPAQUE_XATTR) == whiteouts.OPAQUE_VALUE:
            self._out += tarwriter.header(tar.Entry(f"{name}/{whiteouts.OPAQUE_NAME}", tar.REGULAR, 0o600))

    def _special(self, status: os.stat_result, entry: tar.Entry) -> tar.Entry:
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return tar.Entry(whiteouts.whiteout_name(entry.name), tar.REGULAR, 0o600)
        return entry


def _xattr(fd: int, name: str) -> bytes:
    try:
        return os.getxattr(fd, name)
    except OSError:  # ENODATA for nearly every directory; ENOTSUP where there is nothing to find either
        return b""


def changes(upper: str, lower: Sequence[str]) -> list[Change]:
    """Every path that `upper` adds, changes or deletes against `lower` (top-most first), sorted."""
    found: list[Change] = []
    _compare(upper, [path for path in lower if os.path.isdir(path)], "", found)
    return sorted(found, key=lambda change: change.path)


def _compare(upper: str, lower: Sequence[str], prefix: str, found: list[Change]) -> bool:
    """Compare one directory; whether anything in it changed."""
    before = len(found)
    with os.scandir(upper) as entries:
        listed = list(entries)
    for entry in listed:
        path = f"{prefix}/{entry.name}"
        status = entry.stat(follow_symlinks=False)
        below = layers_with(lower, entry.name)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if below:
                found.append(Change(path, DELETED))
            continue
        old = os.lstat(below[0]) if below else None
        if not stat.S_ISDIR(status.st_mode):
            found.append(Change(path, MODIFIED if old else ADDED))
            continue
        old_is_directory = old is not None and stat.S_ISDIR(old.st_mode)
        opaque = _is_opaque(entry.path)
        inside = _compare(entry.path, [] if opaque or not old_is_directory else below, path, found)
        if opaque and old_is_directory:
            inside = _compare_hidden(entry.path, below, path, found) or inside
        if old is None:
            found.append(Change(path, ADDED))
        elif inside or not old_is_directory or _attributes(old) != _attributes(status):
            found.append(Change(path, MODIFIED))
    return len(found) > before


def _compare_hidden(upper: str, lower: Sequence[str], prefix: str, found: list[Change]) -> bool:
    """What an opaque directory hides is deleted, unless it is there again."""
    kept = set(os.listdir(upper))
    hidden: set[str] = set()
    for layer in lower:
        hidden.update(name for name in os.listdir(layer) if layers_with([layer], name))
        if _is_opaque(layer):
            break
    found += [Change(f"{prefix}/{name}", DELETED) for name in hidden - kept]
    return bool(hidden - kept)


def layers_with(lower: Sequence[str], name: str) -> list[str]:
    """The paths of `name` in the layers that show it: down to the first that hides, replaces or cuts off the rest."""
    paths: list[str] = []
    for layer in lower:
        path = f"{layer}/{name}"
        try:
            status = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            status = None
        if status is not None:
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                break
            if paths and not stat.S_ISDIR(status.st_mode):
                break
            paths.append(path)
            if not stat.S_ISDIR(status.st_mode) or _is_opaque(path):
                break
        if _is_opaque(layer):
            break
    return paths


def _is_opaque(path: str) -> bool:
    try:
        return os.getxattr(path, whiteouts.OPAQUE_XATTR, follow_symlinks=False) == whiteouts.OPAQUE_VALUE
    except OSError:
        return False


def _attributes(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns
