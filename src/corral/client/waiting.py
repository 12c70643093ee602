"""Waiting: all that differs between the blocking client and the one for asyncio.

Everything above is written once, as coroutines.  With `Polling` no coroutine ever suspends, it blocks in poll(2)
instead: a caller without an event loop runs it to its end by starting it (`flavours.drive`), and asyncio is not even
imported.  With `Looping` the same coroutines are tasks like any other.
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

from corral.client.errors import TimedOut

if TYPE_CHECKING:
    import asyncio


class Waiter(Protocol):
    """How one connection waits.  At most one task waits to read and one to write."""

    async def ready(self, fd: int, reading: bool, writing: bool, timeout_s: float | None) -> None:
        """Until the descriptor is ready, or `wake`; raises TimedOut."""

    async def pause(self, seconds: float) -> None:
        """Let time pass."""

    async def addresses(self, host: str, port: int) -> list[Any]:
        """What getaddrinfo(3) says; raises OSError."""

    def wake(self) -> None:
        """The descriptor is about to be closed: who waits on it returns."""


class Polling:
    """Blocks the thread."""

    async def ready(self, fd: int, reading: bool, writing: bool, timeout_s: float | None) -> None:
        poll = select.poll()
        poll.register(fd, (select.POLLIN if reading else 0) | (select.POLLOUT if writing else 0))
        if not poll.poll(None if timeout_s is None else timeout_s * 1000):
            raise TimedOut(f"no answer within {timeout_s:g} s")

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251  this is the blocking one

    async def addresses(self, host: str, port: int) -> list[Any]:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)

    def wake(self) -> None:
        """Nothing: poll(2) returns when the connection is shut down."""


class Looping:
    """Waits in the running event loop; a kept connection may be used in another loop next time."""

    def __init__(self) -> None:
        self._waits: dict[asyncio.Future[None], tuple[asyncio.AbstractEventLoop, int, bool, bool]] = {}

    async def ready(self, fd: int, reading: bool, writing: bool, timeout_s: float | None) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waits[done] = (loop, fd, reading, writing)
        if reading:
            loop.add_reader(fd, _settle, done)
        if writing:
            loop.add_writer(fd, _settle, done)
        timer = loop.call_later(timeout_s, _expire, done, timeout_s) if timeout_s is not None else None
        try:
            await done
        finally:
            if timer is not None:
                timer.cancel()
            self._forget(done)

    async def pause(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    async def addresses(self, host: str, port: int) -> list[Any]:
        import asyncio

        return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)

    def wake(self) -> None:
        for done in list(self._waits):
            self._forget(done)  # now: the number may be another file's when the task runs
            _settle(done)

    def _forget(self, done: asyncio.Future[None]) -> None:
        wait = self._waits.pop(done, None)
        if wait is None:
            return
        loop, fd, reading, writing = wait
        if loop.is_closed():
            return
        if reading:
            loop.remove_reader(fd)
        if writing:
            loop.remove_writer(fd)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def _expire(done: asyncio.Future[None], timeout_s: float) -> None:
    if not done.done():
        done.set_exception(TimedOut(f"no answer within {timeout_s:g} s"))
