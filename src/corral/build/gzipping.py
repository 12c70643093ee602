"""gzip for layers, on every processor: a stream is cut into pieces of fixed size, each a gzip member of its own.

Members one after another are one stream (RFC 1952, 2.2), which every reader of layers takes.  What comes out depends on
what goes in and on nothing else: equal layers are equal blobs, on any machine.  A piece that does not get smaller is
stored as it is.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

_MEMBER_BYTES = 4 << 20
_SAMPLE_BYTES = 64 << 10
_WORTH_IT = 0.97


class Gzip:
    """Give `feed` the bytes; `write` gets the compressed ones, in order, and `finish` ends it."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._held = bytearray()
        self._pool: ThreadPoolExecutor | None = None
        self._threads = os.cpu_count() or 1
        self._working: deque[Future[bytes]] = deque()
        self._empty = True

    def feed(self, data: bytes) -> None:
        """More of the stream."""
        self._held += data
        while len(self._held) >= _MEMBER_BYTES:
            piece = bytes(memoryview(self._held)[:_MEMBER_BYTES])
            del self._held[:_MEMBER_BYTES]
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads)
            self._working.append(self._pool.submit(_member, piece))
            self._empty = False
            if len(self._working) > self._threads:
                self._write(self._working.popleft().result())

    def finish(self) -> None:
        """The end of the stream."""
        while self._working:
            self._write(self._working.popleft().result())
        if self._held or self._empty:
            self._write(_member(bytes(self._held)))
        self.close()

    def close(self) -> None:
        """End the threads, for a stream that is given up too."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None


def _member(data: bytes) -> bytes:
    sample = data[:_SAMPLE_BYTES] + data[len(data) // 2 : len(data) // 2 + _SAMPLE_BYTES]
    level = 1
    if len(data) > _SAMPLE_BYTES and len(zlib.compress(sample, 1)) > _WORTH_IT * len(sample):
        level = 0
    deflater = zlib.compressobj(level, zlib.DEFLATED, 31)
    return deflater.compress(data) + deflater.flush()
