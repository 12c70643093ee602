"""The bridge between the event loop and the threads where image work is done.

`with_stream` carries an asynchronous stream into a thread as a plain source, with a bounded number of bytes on the way;
`relay` carries progress records back, in order; `in_thread` runs work that can be told to stop; `own_thread` is for
work that waits for a client.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
Progress = Callable[[dict[str, Any]], None]

_ON_THE_WAY_MAX_BYTES = 4 << 20

# Transfers wait for the network, for minutes at times: they have threads of their own, not the loop's few.
_threads = ThreadPoolExecutor(64, thread_name_prefix="image")


class Stop:
    """Told to work in a thread when nobody waits for it any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.is_set = False

    def set(self) -> None:
        """Stop: calls what `on` has registered.

        Under the lock: once a block of `on` has ended its callback is not running, and what it would stop may belong
        to somebody else.
        """
        with self._lock:
            self.is_set = True
            for callback in self._callbacks:
                callback()

    @contextmanager
    def on(self, callback: Callable[[], None]) -> Iterator[None]:
        """Have `callback` called, from any thread, if the stop comes during the block or has come already."""
        with self._lock:
            self._callbacks.append(callback)
            late = self.is_set
        if late:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


def own_thread(work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
    """Run work that waits for a client in a thread of its own.

    A client may stand still for ever. If its work sat in one of the loop's threads, of which there are a handful, a
    handful of such clients would keep everybody else's work from being done.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="client")
    try:
        return asyncio.get_running_loop().run_in_executor(thread, work, *arguments)
    finally:
        thread.shutdown(wait=False)


async def in_thread(work: Callable[[Stop], T]) -> T:
    """Run `work(stop)` in a thread; when this task is cancelled it is told to stop, and its end is awaited."""
    stop = Stop()
    working = asyncio.ensure_future(asyncio.get_running_loop().run_in_executor(_threads, work, stop))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait((working,))
        if not working.cancelled():
            working.exception()  # nobody is left to be told
        raise


class _Feed:
    """Bytes between the loop (puts) and one thread (takes)."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._room = asyncio.Event()
        self._waiting = 0  # bytes in the queue; only the loop changes it
        self._taken = 0
        self._ended = False

    async def put(self, piece: bytes) -> None:
        self._waiting += len(piece)
        self._queue.put(piece)
        while self._waiting > _ON_THE_WAY_MAX_BYTES:
            self._room.clear()
            await self._room.wait()

    def end(self, error: BaseException | None) -> None:
        self._queue.put(error or b"")

    def take(self) -> bytes:
        """In the thread: the next piece; b"" at the end; raises what the stream raised."""
        if self._ended:
            return b""
        piece = self._queue.get()
        if isinstance(piece, BaseException):
            self._ended = True
            raise piece
        if not piece:
            self._ended = True
            return b""
        self._taken += len(piece)
        if self._taken >= _ON_THE_WAY_MAX_BYTES // 4:
            self._loop.call_soon_threadsafe(self._note_taken, self._taken)
            self._taken = 0
        return piece

    def _note_taken(self, count: int) -> None:
        self._waiting -= count
        self._room.set()


async def with_stream(stream: AsyncIterator[bytes], work: Callable[[Callable[[], bytes]], T]) -> T:
    """Run `work(source)` in a thread while `stream` feeds the source.

    When `work` ends early the rest of the stream is left unread; when the stream fails, or this task is cancelled,
    the source raises in the thread, and its end is awaited.
    """
    feed = _Feed(asyncio.get_running_loop())

    async def pump() -> None:
        try:
            async for piece in stream:
                if piece:
                    await feed.put(piece)
        except BaseException as error:
            feed.end(error if isinstance(error, Exception) else BrokenStream())
            raise
        feed.end(None)

    pumping = asyncio.create_task(pump())
    working = own_thread(work, feed.take)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        pumping.cancel()
        await asyncio.wait((working,))
        if not working.cancelled():
            working.exception()  # nobody is left to be told
        raise
    finally:
        pumping.cancel()
        await asyncio.wait((pumping,))
        if not pumping.cancelled():
            pumping.exception()  # the thread has raised it already


class BrokenStream(ConnectionError):
    """The client went away in the middle of its stream."""

    def __init__(self) -> None:
        super().__init__("the client's stream ended early")


def relay(progress: Progress) -> Progress:
    """A progress callback for threads: records arrive at `progress` on the loop, in order."""
    loop = asyncio.get_running_loop()

    def say(record: dict[str, Any]) -> None:
        loop.call_soon_threadsafe(progress, record)

    return say
