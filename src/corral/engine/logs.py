"""Reading a container's log: from the files the shim writes, oldest first, and on as they grow.

Blocks of whole lines are decoded at once and what belongs to one stream is sent in one frame, so a long log costs
little more than reading it.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote_plus

import msgspec

from corral.engine import logdrivers
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import timestamp
from corral.engine.tasks import ShimGone
from corral.errors import InvalidParameter, Unsupported
from corral.shim.logs import PACKED, file_key, packed_key

T = TypeVar("T")

_BLOCK_BYTES = 512 << 10


class NothingSelected(InvalidParameter):
    """Neither stream is wanted."""


class NotReadable(Unsupported):
    """The log driver keeps nothing."""


class _Entry(msgspec.Struct):
    log: str
    stream: str
    time: str
    attrs: dict[str, str] | None = None


_decode_lines = msgspec.json.Decoder(_Entry).decode_lines


@dataclass(frozen=True)
class Wanted:
    """What to show.  Times in nanoseconds since 1970; `tail` None is everything."""

    stdout: bool
    stderr: bool
    since_ns: int = 0
    until_ns: int | None = None
    tail: int | None = None
    timestamps: bool = False
    details: bool = False
    follow: bool = False
    framed: bool = True


def check(live: Live, wanted: Wanted) -> None:
    """Raise unless there is something to read."""
    if not (wanted.stdout or wanted.stderr):
        raise NothingSelected("Bad parameters: you must choose at least one stream")
    if not logdrivers.is_readable(live.record.host.log_config):
        raise NotReadable("configured logging driver does not support reading")


async def read(engine: Engine, live: Live, wanted: Wanted) -> AsyncGenerator[bytes, None]:
    """The log as the API streams it."""
    path = engine.paths.file(live.id, live.record.log_path)
    reader = _Reader(path, wanted)
    try:
        await _whole(reader.seek)
        while True:
            if wanted.follow:
                live.log_grew.clear()
                await _watch(live)
            ended = not (live.has_process or live.record.state.status == "restarting")
            while block := await _whole(reader.next):
                yield block
            if reader.past_until or not wanted.follow or (ended and not live.log_grew.is_set()):
                return
            await live.log_grew.wait()
    finally:
        reader.close()


async def _whole(work: Callable[[], T]) -> T:
    """Run `work` in a thread to its end even when cancelled: its reader must not be closed under it."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()  # nobody is left to be told
        raise


async def _watch(live: Live) -> None:
    """Ask for word of the log's next growth; the end of the container is such word too."""
    if live.task is not None and live.has_process:
        try:
            await live.task.request("watch_log")
        except ShimGone:
            return


class _Reader:
    """The files of one log, read in order, across rotations.  Its methods block."""

    def __init__(self, path: str, wanted: Wanted) -> None:
        self._path = path
        self._wanted = wanted
        self._fd = -1
        self._key = b""  # of a compressed file
        self._rest = b""
        self._since = timestamp(wanted.since_ns) if wanted.since_ns else ""
        self._until = timestamp(wanted.until_ns) if wanted.until_ns is not None else ""
        self.past_until = False

    def seek(self) -> None:
        """Open the oldest file, or stand where the last `tail` lines begin."""
        if self._wanted.tail is None:
            for path in reversed(self._files()):
                if self._open(path):
                    return
            return
        lines = self._wanted.tail
        for path in self._files():
            if not self._open(path):
                continue
            start, found = _tail_start(self._fd, lines)
            os.lseek(self._fd, start, os.SEEK_SET)
            lines -= found
            if lines <= 0:
                return

    def next(self) -> bytes:
        """The next piece to send, or nothing when the end is reached for now."""
        while not self.past_until:
            if self._fd < 0 and not self._open(self._path):
                return b""
            data = os.read(self._fd, _BLOCK_BYTES)
            if not data:
                if not self._advance():
                    return b""
                continue
            data = self._rest + data
            end = data.rfind(b"\n") + 1
            self._rest = data[end:]
            if piece := self._render(data[:end]):
                return piece
        return b""

    def close(self) -> None:
        """Close what is open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _files(self) -> list[str]:
        """Existing files, newest first."""
        found = [self._path]
        while path := _existing(f"{self._path}.{len(found)}"):
            found.append(path)
        return found

    def _open(self, path: str) -> bool:
        try:
            key = _packed_key(path) if path.endswith(PACKED) else b""
            fd = _unpacked(path) if path.endswith(PACKED) else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        self.close()
        self._fd = fd
        self._key = key
        self._rest = b""
        return True

    def _advance(self) -> bool:
        """Go on to the file that follows the present one, if there is one."""
        newer = ""
        for path in self._files():
            try:
                if self._is_present(path):
                    break
            except FileNotFoundError:
                continue
            newer = path
        return bool(newer) and self._open(newer)

    def _is_present(self, path: str) -> bool:
        """Whether `path` is the file that is being read; it may have been compressed since it was opened."""
        status = os.fstat(self._fd)
        if path.endswith(PACKED):
            return _packed_key(path) == (self._key or file_key(status))
        return not self._key and os.stat(path).st_ino == status.st_ino

    def _render(self, block: bytes) -> bytes:
        wanted = self._wanted
        entries = _entries(block)
        if self._until:
            kept = [entry for entry in entries if entry.time <= self._until]
            self.past_until = len(kept) < len(entries)
            entries = kept
        if self._since:
            entries = [entry for entry in entries if entry.time >= self._since]
        if not (wanted.stdout and wanted.stderr):
            only = "stdout" if wanted.stdout else "stderr"
            entries = [entry for entry in entries if entry.stream == only]
        return b"".join(self._frames(entries))

    def _frames(self, entries: list[_Entry]) -> Iterator[bytes]:
        """Whole runs of one stream in a frame; to a follower each line in its own, as docker-py's users expect."""
        longest = 1 if self._wanted.follow else len(entries)
        start = 0
        while start < len(entries):
            stream = entries[start].stream
            end = start
            while end < len(entries) and entries[end].stream == stream and end - start < longest:
                end += 1
            run = entries[start:end]
            if self._wanted.timestamps or self._wanted.details:
                text = "".join(map(self._told, run))
            else:
                text = "".join([entry.log for entry in run])
            data = text.encode()
            if self._wanted.framed:
                number = 1 if stream == "stdout" else 2
                yield bytes((number, 0, 0, 0)) + len(data).to_bytes(4, "big")
            yield data
            start = end

    def _told(self, entry: _Entry) -> str:
        """A line with its time and its labels, if they are asked for."""
        text = entry.log
        if self._wanted.details:
            pairs = sorted((entry.attrs or {}).items())
            text = ",".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs) + f" {text}"
        return f"{entry.time} {text}" if self._wanted.timestamps else text


def _entries(block: bytes) -> list[_Entry]:
    """The lines of a block; one that a crash of the machine has left half written is passed over."""
    try:
        return _decode_lines(block)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = []
        for line in block.splitlines():
            try:
                found += _decode_lines(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
        return found


def _existing(path: str) -> str:
    """A rotated file, compressed or not; "" when there is none."""
    return next((found for found in (path, path + PACKED) if os.path.exists(found)), "")


def _packed_key(path: str) -> bytes:
    with open(path, "rb") as file:
        return packed_key(file.read(64))


def _unpacked(path: str) -> int:
    """A descriptor of a nameless file with the content of a compressed one."""
    fd = os.open("/tmp", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    with gzip.open(path, "rb") as packed, open(fd, "wb", closefd=False) as plain:
        shutil.copyfileobj(packed, plain, _BLOCK_BYTES)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _tail_start(fd: int, lines: int) -> tuple[int, int]:
    """Where the last `lines` lines of a file begin, and how many there are; reads only the tail."""
    position = os.fstat(fd).st_size
    found = 0
    while position > 0 and found <= lines:
        size = min(64 << 10, position)
        position -= size
        block = os.pread(fd, size, position)
        count = block.count(b"\n")
        if found + count <= lines:
            found += count
            continue
        cut = len(block)
        for _ in range(lines - found + 1):
            cut = block.rfind(b"\n", 0, cut)
        return position + cut + 1, lines
    return 0, found
