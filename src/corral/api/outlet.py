"""Records on their way to a client: whoever makes them can wait until the client has taken most of them."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

T = TypeVar("T")

_WAITING_MAX = 256


class Outlet(Generic[T]):
    """A queue with an end, which can always be put to and can be waited for."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[tuple[T, int] | None] = asyncio.Queue()
        self._weight = 0
        self._room = asyncio.Event()
        self._room.set()

    def put(self, item: T, weight: int = 1) -> None:
        """Add a record, which counts as `weight` usual ones; never waits."""
        self._queue.put_nowait((item, weight))
        self._weight += weight
        if self._weight >= _WAITING_MAX:
            self._room.clear()

    def end(self) -> None:
        """Nothing comes any more."""
        self._queue.put_nowait(None)

    async def drain(self) -> None:
        """Wait while the client is behind."""
        await self._room.wait()

    async def get(self) -> T | None:
        """The next record, or None at the end."""
        found = await self._queue.get()
        return None if found is None else self._taken(*found)

    def rest(self) -> list[T]:
        """What has not been taken."""
        items: list[T] = []
        while not self._queue.empty():
            found = self._queue.get_nowait()
            if found is not None:
                items.append(self._taken(*found))
        return items

    def _taken(self, item: T, weight: int) -> T:
        self._weight -= weight
        if self._weight < _WAITING_MAX // 2:
            self._room.set()
        return item
