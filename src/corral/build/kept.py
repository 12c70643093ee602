"""Contexts that stay: what a client sent before need not be sent again.

    DATA_ROOT/build/contexts/<digest of the client's key>/files/       the files as they were last
    DATA_ROOT/build/contexts/<digest of the client's key>/index.json   path -> kind, mode and digest
    DATA_ROOT/build/contexts/<digest of the client's key>/seen.json    path -> what the client said of it

A client tells size, mode and time of every file; where they are as they were, the file here is taken for the same.  One
build at a time works on a context: a second one with the same key gets a folder of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from corral.build import context
from corral.build.request import Files
from corral.build.workers import Workers
from corral.errors import InvalidParameter, NotFound

_KEPT = 8
_GONE = "gone-"
_ABANDONED_S = 300.0

Entry = list[Any]


class NoSuchContext(NotFound):
    """No context of that id is open."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no such build context: {name[:100]}")


class BadManifest(InvalidParameter):
    """A list of files that cannot be used."""


@dataclass
class Open:
    """A context in use: its folder, what the client says it holds, and what had to be sent."""

    folder: str
    entries: Mapping[str, Entry]
    missing: list[str]
    lasting: bool
    timer: asyncio.TimerHandle | None = None

    @property
    def files(self) -> Files:
        return Files(os.path.join(self.folder, "files"), os.path.join(self.folder, "index.json"))


class Contexts:
    """The contexts of a daemon."""

    def __init__(self, root: str, workers: Workers) -> None:
        self._root = root
        self._workers = workers
        self._open: dict[str, Open] = {}
        self._busy: set[str] = set()
        os.makedirs(root, mode=0o711, exist_ok=True)
        for name in os.listdir(root):
            if name.startswith(_GONE):
                shutil.rmtree(os.path.join(root, name), ignore_errors=True)

    async def open(self, key: str, entries: Mapping[str, Entry]) -> tuple[str, list[str]]:
        """Begin with a context; its id for this build, and the paths that have to be sent."""
        name = hashlib.sha256(key.encode()).hexdigest()
        lasting = name not in self._busy
        if not lasting:
            name = f"{name[:32]}-{secrets.token_hex(8)}"
        self._busy.add(name)
        folder = os.path.join(self._root, name)
        try:
            missing = await asyncio.to_thread(_compare, folder, entries)
        except BaseException:
            self._busy.discard(name)
            raise
        context_id = secrets.token_hex(16)
        held = self._open[context_id] = Open(folder, entries, missing, lasting)
        loop = asyncio.get_running_loop()
        held.timer = loop.call_later(_ABANDONED_S, self.close, context_id)
        return context_id, missing

    async def fill(self, context_id: str, stream: AsyncIterator[bytes]) -> None:
        """Take in the archive of what was missing, and drop what the client no longer has."""
        held = self.get(context_id)
        pipe = os.path.join(held.folder, "pipe")
        seen = os.path.join(held.folder, "seen.json")
        if os.path.exists(seen):  # until all has arrived, what is here is not what was seen
            os.unlink(seen)
        await context.through_pipe(
            self._workers, pipe, stream, "update", directory=held.files.directory, index=held.files.index,
            paths=sorted(held.entries), bytes_max=context.BYTES_MAX, files_max=context.FILES_MAX,
        )  # fmt: skip
        with open(seen + ".new", "w", encoding="utf-8", errors="surrogateescape") as file:
            json.dump(dict(held.entries), file)
        os.rename(seen + ".new", seen)
        held.missing = []

    def get(self, context_id: str) -> Open:
        """An open context; raises NoSuchContext."""
        try:
            return self._open[context_id]
        except KeyError:
            raise NoSuchContext(context_id) from None

    def close(self, context_id: str) -> None:
        """The build is over: the files stay for the next one."""
        held = self._open.pop(context_id, None)
        if held is None:
            return
        if held.timer is not None:
            held.timer.cancel()
        self._busy.discard(os.path.basename(held.folder))
        if not held.lasting:
            self._drop(held.folder)
        self._make_room()

    def _drop(self, folder: str) -> None:
        """Out of the way at once; there may be very many files, so deleting them is done elsewhere."""
        gone = os.path.join(self._root, f"{_GONE}{secrets.token_hex(8)}")
        os.rename(folder, gone)
        asyncio.get_running_loop().run_in_executor(None, shutil.rmtree, gone, True)

    def _names(self) -> list[str]:
        return [name for name in os.listdir(self._root) if name not in self._busy and not name.startswith(_GONE)]

    def _make_room(self) -> None:
        """The least recently used go."""
        names = self._names()
        names.sort(key=lambda name: os.stat(os.path.join(self._root, name)).st_mtime, reverse=True)
        for name in names[_KEPT:]:
            self._drop(os.path.join(self._root, name))

    def forget(self) -> None:
        """Drop every context that is not in use."""
        for name in self._names():
            self._drop(os.path.join(self._root, name))


def _compare(folder: str, entries: Mapping[str, Entry]) -> list[str]:
    for path, entry in entries.items():
        if not path or path.startswith("/") or ".." in path.split("/") or len(entry) != 5:
            raise BadManifest(f"cannot use {path[:200]!r} in a build context")
    os.makedirs(os.path.join(folder, "files"), mode=0o755, exist_ok=True)
    os.utime(folder)
    try:
        with open(os.path.join(folder, "seen.json"), encoding="utf-8", errors="surrogateescape") as file:
            seen = json.load(file)
    except (FileNotFoundError, ValueError):
        seen = {}
    return [path for path, entry in entries.items() if seen.get(path) != entry]
