"""Verification: is a layer's directory still what its blob says, is content still what its digest says.

Runs in a worker process: it reads everything twice.
"""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any

from corral.image import layers, whiteouts
from corral.oci.digest import algorithm_of
from corral.store import tar, tree

_PIECE = 1 << 20
_SHOWN_MAX = 5


class _Expected:
    """What the last member of a name says; `digest` is of a plain file's data."""

    __slots__ = ("digest", "entry")

    def __init__(self, entry: tar.Entry, digest: bytes) -> None:
        self.entry = entry
        self.digest = digest


def digest_of_file(path: str, digest: str) -> str:
    """The digest of a file, by the algorithm of `digest`."""
    algorithm = algorithm_of(digest)
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def differences(blob: str, directory: str) -> list[str]:
    """How the directory of a layer differs from its blob, the first few; raises what reading the blob raises."""
    found: list[str] = []
    for path, expected in sorted(_members(blob).items()):
        difference = _difference(os.path.join(directory, path), expected)
        if difference:
            found.append(f"{path}: {difference}")
            if len(found) == _SHOWN_MAX:
                break
    return found


def _members(blob: str) -> dict[str, _Expected]:
    found: dict[str, _Expected] = {}
    with open(blob, "rb") as file:
        _, plain = layers.decompress(lambda: file.read(_PIECE))
        reader = tar.TarReader(plain)
        for entry in reader:
            path = tree.clean(entry.name)
            if not path or path.rpartition("/")[2].startswith(whiteouts.PREFIX):
                continue
            hashed = hashlib.sha256()
            if entry.type == tar.REGULAR and entry.sparse is None:
                for piece in reader.chunks():
                    hashed.update(piece)
            _replace(found, path, _Expected(entry, hashed.digest()))
    return found


def _replace(found: dict[str, _Expected], path: str, expected: _Expected) -> None:
    """A later member of a name takes the place of an earlier one, and of what was below that if it was a directory."""
    before = found.get(path)
    if before is not None and before.entry.type == tar.DIRECTORY != expected.entry.type:
        for name in [name for name in found if name.startswith(f"{path}/")]:
            del found[name]
    found[path] = expected


def _difference(path: str, expected: _Expected) -> str:
    entry = expected.entry
    try:
        status = os.lstat(path)
    except OSError as error:
        return str(error.strerror)
    if entry.type == tar.HARD_LINK:
        return ""  # it is the file that it links to, looked at under that name
    kinds = {tar.REGULAR: stat.S_ISREG, tar.DIRECTORY: stat.S_ISDIR, tar.SYMLINK: stat.S_ISLNK}
    if entry.type in kinds and not kinds[entry.type](status.st_mode):
        return "another kind of file"
    if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
        return f"owner {status.st_uid}:{status.st_gid} instead of {entry.uid}:{entry.gid}"
    if entry.type == tar.SYMLINK:
        return "" if os.readlink(path) == entry.linkname else "another target"
    if stat.S_IMODE(status.st_mode) != entry.mode & 0o7777:
        return f"mode {stat.S_IMODE(status.st_mode):o} instead of {entry.mode & 0o7777:o}"
    if entry.type == tar.REGULAR:
        if status.st_size != entry.real_size:
            return f"{status.st_size} bytes instead of {entry.real_size}"
        if entry.sparse is None and not _holds(path, expected.digest):
            return "other content"
    return ""


def _holds(path: str, digest: bytes) -> bool:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest() == digest


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The worker's operation: digest the blob `blob` and, unless `layer` is empty, compare that directory with it."""
    digest = digest_of_file(request["blob"], request["digest"])
    same = digest == request["digest"]
    return {
        "same": same,
        "differences": differences(request["blob"], request["layer"]) if same and request["layer"] else [],
    }
