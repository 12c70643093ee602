"""`docker cp`, `export` and the archive endpoints: trees in and out of a container.

Every path is resolved by the kernel below the container's root, so neither a symlink nor a rename by the running
container leads out of it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import posixpath
import queue
import stat
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

import msgspec

from corral.engine import filesystem
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.errors import Forbidden, InvalidParameter, NotFound
from corral.image.bridge import own_thread
from corral.linux import credentials, files
from corral.runtime import users
from corral.runtime.failure import Failure
from corral.store import pack, tar, tree

_AHEAD = 8  # pieces between the thread that works on the disk and the event loop
_GO_MODE_DIR, _GO_MODE_SYMLINK = 1 << 31, 1 << 27
_GO_KINDS = {stat.S_IFIFO: 1 << 25, stat.S_IFSOCK: 1 << 24, stat.S_IFBLK: 1 << 26, stat.S_IFCHR: 1 << 26 | 1 << 21}


class NoSuchPath(NotFound):
    """The path does not exist in the container."""

    def __init__(self, path: str, container: str) -> None:
        super().__init__(f"Could not find the file {path} in container {container}")


class NotADirectory(InvalidParameter):
    """Something is in the way, or a directory is wanted."""

    def __init__(self) -> None:
        super().__init__("not a directory")


class ReadOnly(Forbidden):
    """The place may not be written to."""


def go_mode(mode: int) -> int:
    """A file mode as Go's os.FileMode, which clients read."""
    result = stat.S_IMODE(mode) & 0o777
    result |= {stat.S_IFDIR: _GO_MODE_DIR, stat.S_IFLNK: _GO_MODE_SYMLINK}.get(stat.S_IFMT(mode), 0)
    result |= _GO_KINDS.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        if mode & bit:
            result |= go_bit
    return result


def stat_path(root_fd: int, path: str, container: str) -> dict[str, Any]:
    """The X-Docker-Container-Path-Stat object; the last component is not followed."""
    parent, leaf, must_be_directory = split(path)
    try:
        status, target = _look(root_fd, parent, leaf)
    except NotADirectoryError:
        raise NotADirectory from None
    except OSError as error:
        raise NoSuchPath(path, container) from error
    if must_be_directory and not stat.S_ISDIR(status.st_mode):
        resolved = follow(root_fd, path)
        if resolved is None or not stat.S_ISDIR(resolved.st_mode):
            raise NotADirectory
    seconds, rest = divmod(status.st_mtime_ns, 1_000_000_000)
    import time

    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + (f".{rest:09d}".rstrip("0") if rest else "") + "Z"
    name = leaf or "/"
    return {"name": name, "size": status.st_size, "mode": go_mode(status.st_mode), "mtime": text, "linkTarget": target}


def _look(root_fd: int, parent: str, leaf: str) -> tuple[os.stat_result, str]:
    directory = files.openat2(root_fd, parent or "/", os.O_PATH | os.O_DIRECTORY)
    try:
        status = os.stat(leaf or ".", dir_fd=directory, follow_symlinks=False)
        target = os.readlink(leaf, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else ""
        if target:
            target = _absolute_link(root_fd, posixpath.join("/", parent, leaf))
        return status, target
    finally:
        os.close(directory)


def _absolute_link(root_fd: int, path: str) -> str:
    """Where a symlink leads, as a path from the container's root; scoped by the kernel while it is walked."""
    for _ in range(40):
        parent, leaf = posixpath.split(path)
        directory = files.openat2(root_fd, parent, os.O_PATH | os.O_DIRECTORY)
        try:
            target = os.readlink(leaf, dir_fd=directory)
        except OSError:
            return path
        finally:
            os.close(directory)
        path = posixpath.normpath(posixpath.join("/", parent, target))
    return path


def follow(root_fd: int, path: str) -> os.stat_result | None:
    """What a path leads to below the root, or None."""
    try:
        fd = files.openat2(root_fd, path, os.O_PATH)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def split(path: str) -> tuple[str, str, bool]:
    """Parent, last component, and whether the path ends in `/` or `/.`, which means a directory is meant."""
    must_be_directory = path.endswith(("/", "/.")) or path in (".", "")
    clean = posixpath.normpath(posixpath.join("/", path))
    parent, leaf = posixpath.split(clean.lstrip("/"))
    return parent, leaf, must_be_directory and bool(leaf)


def stat_header(found: dict[str, Any]) -> str:
    """The header's value: base64 of the JSON."""
    return base64.b64encode(msgspec.json.encode(found)).decode()


class Archive:
    """A tar of one path, ready to be streamed: the container's root stays reachable until it is closed."""

    def __init__(self, engine: Engine, live: Live, ref: str, path: str) -> None:
        """`ref` is what the client calls the container, for what is told about it."""
        self._engine = engine
        self._ref = ref
        self._context = filesystem.root(engine, live)
        self._ids = engine.ids_of(live.record)
        self._live = live
        self._path = path
        self.stat: dict[str, Any] = {}
        self._root_fd = -1

    async def open(self) -> None:
        """Find the path; raises NoSuchPath or NotADirectory."""
        self._root_fd = await self._context.__aenter__()
        try:
            self.stat = await asyncio.to_thread(stat_path, self._root_fd, self._path, self._ref)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let the root go."""
        await self._context.__aexit__(None, None, None)

    async def read(self) -> AsyncIterator[bytes]:
        """The tar."""
        self._engine.publish(self._live, "archive-path", path=self._path)
        parent, leaf, _ = split(self._path)
        inside = posixpath.join(parent, leaf)
        name = leaf or "/"
        if self._path.endswith(("/", "/.")) and self.stat["linkTarget"]:
            inside = self.stat["linkTarget"].lstrip("/")
        if self._path.endswith("/.") or not leaf:
            name = "."
        root_fd = self._root_fd
        try:
            async with contextlib.aclosing(
                in_thread(lambda: pack.pack(root_fd, inside, name, ids=self._ids))
            ) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            await self.close()


async def export(engine: Engine, live: Live) -> AsyncGenerator[bytes, None]:
    """The whole file system as a tar, without what is mounted in it."""
    ids = engine.ids_of(live.record)
    async with filesystem.root(engine, live) as root_fd:
        engine.publish(live, "export")
        async with contextlib.aclosing(
            in_thread(lambda: pack.pack(root_fd, "", "", one_file_system=True, ids=ids))
        ) as pieces:
            async for piece in pieces:
                yield piece


async def extract(
    engine: Engine, live: Live, ref: str, path: str, body: AsyncIterator[bytes], *, keep_kind: bool, copy_owner: bool
) -> None:
    """Unpack a tar into the folder `path`; with `copy_owner` everything becomes the container's user's."""
    async with filesystem.root(engine, live) as root_fd:
        target = await asyncio.to_thread(_target, live, ref, root_fd, path)
        owner = await asyncio.to_thread(_owner, live, root_fd) if copy_owner else None
        options = tree.UnpackOptions(owner=owner, keep_kind=keep_kind, ids=engine.ids_of(live.record))
        await feed_thread(body, lambda source: _unpack(root_fd, target, source, options))
    engine.publish(live, "extract-to-dir", path=path)


def _target(live: Live, ref: str, root_fd: int, path: str) -> str:
    resolved = follow(root_fd, path)
    if resolved is None:
        raise NoSuchPath(path, ref)
    if not stat.S_ISDIR(resolved.st_mode):
        raise NotADirectory
    clean = posixpath.normpath(posixpath.join("/", path))
    fd = files.openat2(root_fd, clean, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            raise ReadOnly("container rootfs is marked read-only")
    finally:
        os.close(fd)
    volume = next((point for point in live.record.mounts if _below(clean, point.destination)), None)
    if volume is not None and not volume.rw:
        raise ReadOnly("mounted volume is marked read-only")
    if volume is None and live.record.host.readonly_rootfs:
        raise ReadOnly("container rootfs is marked read-only")
    return clean


def _owner(live: Live, root_fd: int) -> tuple[int, int] | None:
    """The container's user, who owns what is copied with `-a`, as in Docker; None without one."""
    user = live.record.config.user
    if not user:
        return None
    try:
        found = users.resolve(user, (), _text(root_fd, "etc/passwd"), _text(root_fd, "etc/group"))
    except Failure as failure:
        raise InvalidParameter(f"unable to find user {failure.path}: no matching entries in passwd file") from failure
    return found.uid, found.gid


def _text(root_fd: int, path: str) -> str:
    try:
        fd = files.openat2(root_fd, path, os.O_RDONLY)
    except OSError:
        return ""
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(4 << 20)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _unpack(root_fd: int, target: str, source: Callable[[], bytes], options: tree.UnpackOptions) -> None:
    with contextlib.ExitStack() as stack:
        if options.ids:
            stack.enter_context(credentials.FileOwner(*options.ids.root))
        unpacker = stack.enter_context(tree.Unpacker(root_fd, options, base=target))
        unpacker.unpack(tar.TarReader(source))


async def in_thread(make: Callable[[], Iterator[bytes]]) -> AsyncGenerator[bytes, None]:
    """Run a blocking generator in a thread, a few pieces ahead of whoever reads."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
    room = threading.Semaphore(_AHEAD)
    stopped = threading.Event()

    def tell(piece: bytes | BaseException | None) -> None:
        loop.call_soon_threadsafe(pieces.put_nowait, piece)

    def work() -> None:
        try:
            for piece in make():
                room.acquire()
                if stopped.is_set():
                    return
                tell(piece)
        except BaseException as error:  # noqa: BLE001  raised again on the event loop
            tell(error)
        else:
            tell(None)

    worker = own_thread(work)
    try:
        while (piece := await pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            room.release()
            yield piece
    finally:
        stopped.set()
        room.release()
        await worker


async def feed_thread(body: AsyncIterator[bytes], work: Callable[[Callable[[], bytes]], None]) -> None:
    """Run `work(read)` in a thread, where `read` returns the next piece of `body` and b"" at its end."""
    loop = asyncio.get_running_loop()
    pieces: queue.Queue[bytes | BaseException] = queue.Queue()
    room = asyncio.Semaphore(_AHEAD)
    failure: list[BaseException] = []

    def read() -> bytes:
        piece = pieces.get()
        if isinstance(piece, BaseException):
            raise piece
        loop.call_soon_threadsafe(room.release)
        return piece

    worker = own_thread(work, read)
    try:
        async for piece in body:
            if piece:
                await _room_or_end(room, worker)
                if worker.done():
                    break
                pieces.put(piece)
        pieces.put(b"")
    except BaseException as error:  # noqa: BLE001  raised again below, once the thread has ended
        failure.append(error)
        pieces.put(InvalidParameter("unexpected EOF"))
    try:
        await worker
    except BaseException:
        if not failure:
            raise
    if failure:
        raise failure[0]


async def _room_or_end(room: asyncio.Semaphore, worker: asyncio.Future[None]) -> None:
    waiting = asyncio.ensure_future(room.acquire())
    both: set[asyncio.Future[Any]] = {waiting, worker}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
