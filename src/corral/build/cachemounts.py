"""Cache mounts on disk: folders that outlive builds, what they are called, how large they are, and who uses them now.

    DATA_ROOT/build/mounts/<digest>          the folder
    DATA_ROOT/build/mounts/<digest>.json     its Note

Private ones that were taken by several builds at once are further folders, `<digest>.1` and so on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter

import msgspec

from corral.store.snapshots import disk_usage

_SUFFIX = ".json"


class Note(msgspec.Struct):
    """What is known of a cache mount; times in nanoseconds, size in bytes."""

    id: str
    created_ns: int
    used_ns: int
    size: int = 0
    uses: int = 0


class CacheMounts:
    """The cache mounts of a daemon."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._busy: Counter[str] = Counter()
        os.makedirs(root, mode=0o711, exist_ok=True)
        for name in os.listdir(root):
            if name.endswith((".new", ".work", ".gone")):  # of a daemon that died
                shutil.rmtree(os.path.join(root, name), ignore_errors=True)

    def path(self, name: str) -> str:
        """Where the folder is or would be."""
        return os.path.join(self._root, name)

    def take(self, name: str, mount_id: str) -> None:
        """A step uses the folder from now on; `give_back` when it has ended."""
        self._busy[name] += 1
        now = time.time_ns()
        note = self._read(name) or Note(mount_id, now, now)
        note.used_ns = now
        note.uses += 1
        self._write(name, note)

    def give_back(self, name: str) -> None:
        """The step has ended: see how large the folder is now.  Blocks."""
        note = self._read(name)
        if note is not None:
            note.size = disk_usage(self.path(name)).bytes
            self._write(name, note)
        self._busy[name] -= 1

    def all(self) -> dict[str, Note]:
        """Every cache mount by the name of its folder."""
        names = [name.removesuffix(_SUFFIX) for name in os.listdir(self._root) if name.endswith(_SUFFIX)]
        return {name: note for name in names if (note := self._read(name)) is not None}

    def in_use(self, name: str) -> bool:
        """Whether a step has it now."""
        return self._busy[name] > 0

    def drop(self, name: str) -> int:
        """Remove a cache mount that nobody uses; the bytes freed.  Blocks."""
        note = self._read(name)
        if note is None or self.in_use(name):
            return 0
        gone = self.path(f"{name}.gone")
        os.unlink(self.path(name + _SUFFIX))
        try:
            os.rename(self.path(name), gone)
        except FileNotFoundError:
            return 0
        shutil.rmtree(gone, ignore_errors=True)
        return note.size

    def _read(self, name: str) -> Note | None:
        try:
            with open(self.path(name + _SUFFIX), "rb") as file:
                return msgspec.json.decode(file.read(), type=Note)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def _write(self, name: str, note: Note) -> None:
        path = self.path(name + _SUFFIX)
        with open(path + ".tmp", "wb") as file:
            file.write(msgspec.json.encode(note))
        os.rename(path + ".tmp", path)
