"""An upper directory becomes a layer: what a step left on disk is packed as it lies there, and not copied again.

For worker processes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from typing import Any

from corral.build import gzipping
from corral.image import diff, whiteouts
from corral.store import snapshots, tar, tree


def pack_upper(
    upper: str, blob: str, *, stubs: Sequence[str], lower: Sequence[str], epoch_ns: int | None
) -> dict[str, Any]:
    """Pack `upper` into the gzip file `blob`, on disk when this returns; `{"empty": True}` if there is nothing in it.

    `stubs` are places where something was mounted: files and folders that exist only for that are removed first.
    With `epoch_ns` no time in the layer is later than that.
    """
    for path in stubs:
        _remove_stub(upper, path.strip("/"), lower)
    with os.scandir(upper) as found:
        empty = not any(found)
    if empty and (not lower or _same_directory(os.stat(upper), os.stat(lower[0]))):
        return {"empty": True}
    if epoch_ns is not None:
        top = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _clamp(top, epoch_ns)
        finally:
            os.close(top)
    _drop_sockets(upper)
    compressed, plain = hashlib.sha256(), hashlib.sha256()
    size = 0
    with open(blob, "wb", buffering=0) as file:

        def write(data: bytes) -> None:
            nonlocal size
            compressed.update(data)
            view = memoryview(data)
            size += len(data)
            while view:
                view = view[file.write(view) :]

        gzip = gzipping.Gzip(write)
        try:
            for piece in diff.pack_diff(upper):
                plain.update(piece)
                gzip.feed(piece)
            gzip.finish()
        finally:
            gzip.close()
        os.fsync(file.fileno())
    usage = snapshots.disk_usage(upper)
    return {
        "empty": False,
        "digest": f"sha256:{compressed.hexdigest()}",
        "diff_id": f"sha256:{plain.hexdigest()}",
        "blob_size": size,
        "size": usage.bytes,
    }


def _drop_sockets(upper: str) -> None:
    """Sockets cannot be in a layer: what a command's server has left behind goes, so that files and blob agree."""
    pending = [upper]
    while pending:
        with os.scandir(pending.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                    continue
                # Only what is neither file nor link is looked at: the kinds of the others come with their names.
                plain = entry.is_file(follow_symlinks=False) or entry.is_symlink()
                if not plain and stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                    os.unlink(entry.path)


def _clamp(directory: int, epoch_ns: int) -> None:
    """No time below `directory`, its own included, stays later than an epoch."""
    with os.scandir(directory) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        if is_directory:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                _clamp(below, epoch_ns)
            finally:
                os.close(below)
        elif os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns > epoch_ns:
            os.utime(name, ns=(epoch_ns, epoch_ns), dir_fd=directory, follow_symlinks=False)
    if os.fstat(directory).st_mtime_ns > epoch_ns:
        os.utime(directory, ns=(epoch_ns, epoch_ns))


class Replay(tree.Unpacker):
    """Applies layers to a mounted root, where what they hide can simply be removed."""

    def replay(self, directory: str) -> None:
        """Everything that the layer in `directory` changes."""
        pieces = diff.pack_diff(directory)
        self.unpack(tar.TarReader(lambda: next(pieces, b"")))
        self.close()

    def _add(self, path: str, entry: tar.Entry, reader: tar.Data) -> None:
        leaf = path.rpartition("/")[2]
        if not leaf.startswith(whiteouts.PREFIX):
            super()._add(path, entry, reader)
            return
        parent, _ = self._parent(path)
        if leaf == whiteouts.OPAQUE_NAME:
            for name in os.listdir(parent):
                tree.remove_tree(name, parent)
        else:
            tree.remove_tree(leaf[len(whiteouts.PREFIX) :], parent)
        self.close()


def _remove_stub(upper: str, path: str, lower: Sequence[str]) -> None:
    """Remove an empty file or folder that no layer below has, and the folders above it that only it needed."""
    while path:
        place = f"{upper}/{path}"
        try:
            status = os.lstat(place)
        except OSError:
            status = None
        if status is not None:
            below = _status_below(lower, path)
            if stat.S_ISDIR(status.st_mode):
                if below is not None and not _same_directory(status, below):
                    return
                try:
                    os.rmdir(place)
                except OSError:
                    return  # the step put something there
            elif stat.S_ISREG(status.st_mode) and not status.st_size and below is None:
                os.unlink(place)
            else:
                return
        path = path.rpartition("/")[0]


def _status_below(lower: Sequence[str], path: str) -> os.stat_result | None:
    for layer in lower:
        try:
            status = os.lstat(f"{layer}/{path}")
        except OSError:
            continue
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            return None
        return status
    return None


def _same_directory(left: os.stat_result, right: os.stat_result) -> bool:
    return (left.st_mode, left.st_uid, left.st_gid) == (right.st_mode, right.st_uid, right.st_gid)
