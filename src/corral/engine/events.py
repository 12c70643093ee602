"""Events: what happened to which object, to everybody who listens and, for a while, to who asks later."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Any

from corral.engine.eventlog import EventLog

_KEPT = 256  # how many past events `since` reaches without the disk
_QUEUE_LIMIT = 4096

Event = dict[str, Any]


class Events:
    """The bus.  `publish` never waits; a subscriber that does not keep up is cut off."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._past: deque[Event] = deque(maxlen=_KEPT)
        self.published = 0
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def publish(self, kind: str, action: str, actor: str, attributes: Mapping[str, str]) -> None:
        """Tell everybody that `action` happened to the object of `kind` whose id is `actor`."""
        now = time.time_ns()
        event: Event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": actor, "Attributes": dict(attributes)},
            "scope": "local",
            "time": now // 1_000_000_000,
            "timeNano": now,
        }
        if kind == "container":
            event |= {"status": action, "id": actor, "from": attributes.get("image", "")}
        elif kind == "image":
            event |= {"status": action, "id": actor}
        self.published += 1
        self._past.append(event)
        self._log.append(event)
        for queue in list(self._queues):
            if queue.qsize() >= _QUEUE_LIMIT:
                self._queues.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(event)

    @property
    def listeners(self) -> int:
        """How many subscribers there are."""
        return len(self._queues)

    async def past(self, since_ns: int, until_ns: int | None) -> list[Event]:
        """Kept events within the bounds, oldest first."""
        if len(self._past) < _KEPT or since_ns < self._past[0]["timeNano"]:
            return await asyncio.to_thread(self._log.read, since_ns, until_ns)
        return [
            event
            for event in self._past
            if event["timeNano"] >= since_ns and (until_ns is None or event["timeNano"] <= until_ns)
        ]

    def subscribe(self) -> Subscription:
        """Everything published from now on."""
        return Subscription(self._queues)


class Subscription:
    """Future events, until `close`."""

    def __init__(self, queues: set[asyncio.Queue[Event | None]]) -> None:
        self._queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self._queues = queues
        queues.add(self._queue)

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self._queue.get()) is not None:
            yield event

    def close(self) -> None:
        """Stop listening."""
        self._queues.discard(self._queue)
