"""Containers in memory: each record with what exists only while the daemon runs, and how they are found."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from corral.engine.record import Container
from corral.engine.tasks import Task
from corral.errors import InvalidParameter, NotFound


class NoSuchContainer(NotFound):
    """No container has this name, id or unique id prefix."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such container: {ref}")


class AmbiguousContainer(InvalidParameter):
    """An id prefix that several containers share."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"multiple IDs found with provided prefix: {ref}")


@dataclass
class Client:
    """A connection to the streams of a container: our descriptor, and what the shim is told about it."""

    fd: int
    stdin: bool
    outputs: list[str]
    detach_keys: bytes
    initial: bytes

    def described(self) -> dict[str, Any]:
        """As the shim protocol says it."""
        return {
            "stdin": self.stdin,
            "outputs": self.outputs,
            "detach_keys": self.detach_keys.hex(),
            "initial": self.initial.hex(),
        }

    def close(self) -> None:
        """Give up our descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class HealthView(Protocol):
    """What others see of a running container's health."""

    status: str

    def shown(self) -> dict[str, Any]: ...

    def stop(self) -> None: ...


@dataclass(eq=False)
class Live:
    """A container and its running side."""

    record: Container
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: Task | None = None
    early_clients: list[Client] = field(default_factory=list)
    stop_waiters: list[asyncio.Future[int]] = field(default_factory=list)
    remove_waiters: list[asyncio.Future[int]] = field(default_factory=list)
    exec_ids: list[str] = field(default_factory=list)
    log_grew: asyncio.Event = field(default_factory=asyncio.Event)
    restart_timer: asyncio.TimerHandle | None = None
    restart_delay_s: float = 0.0
    started_monotonic: float = 0.0
    removing: bool = False
    stopping: bool = False
    health: HealthView | None = None
    kept: bool = False  # auto-remove waits

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def has_process(self) -> bool:
        """Whether it runs, perhaps paused."""
        return self.record.state.status in ("running", "paused")

    def notify_stopped(self) -> None:
        """Tell everybody who waits for the end of this run."""
        _resolve(self.stop_waiters, self.record.state.exit_code)

    def notify_removed(self) -> None:
        """Tell everybody who waits for the container to be gone."""
        _resolve(self.stop_waiters, self.record.state.exit_code)
        _resolve(self.remove_waiters, self.record.state.exit_code)

    @contextlib.contextmanager
    def waiter(self, waiters: list[asyncio.Future[int]]) -> Iterator[asyncio.Future[int]]:
        """A future in `waiters`, taken out again when its owner gives up."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiters.append(future)
        try:
            yield future
        finally:
            if future in waiters:
                waiters.remove(future)


def _resolve(waiters: list[asyncio.Future[int]], code: int) -> None:
    for future in waiters:
        if not future.done():
            future.set_result(code)
    waiters.clear()


class Index:
    """Every container, by id and by name."""

    def __init__(self) -> None:
        self._by_id: dict[str, Live] = {}
        self._by_name: dict[str, str] = {}

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, ref: str) -> Live:
        """By id, then name, then unique id prefix, as Docker prefers; raises NoSuchContainer."""
        if not ref:
            raise NoSuchContainer(ref)
        if ref in self._by_id:
            return self._by_id[ref]
        owner = self._by_name.get(ref.removeprefix("/"))
        if owner is not None and owner in self._by_id:
            return self._by_id[owner]
        matches = [live for key, live in self._by_id.items() if key.startswith(ref)]
        if not matches:
            raise NoSuchContainer(ref)
        if len(matches) > 1:
            raise AmbiguousContainer(ref)
        return matches[0]

    def find(self, ref: str) -> Live | None:
        """Like `get`, or None."""
        try:
            return self.get(ref)
        except (NotFound, InvalidParameter):
            return None

    def owner_of(self, name: str) -> str | None:
        """The id of the container that has, or is about to have, `name`."""
        return self._by_name.get(name)

    def reserve(self, name: str, owner: str) -> None:
        """Keep `name` for a container that is being made or renamed; the caller has checked `owner_of`."""
        self._by_name[name] = owner

    def release(self, name: str) -> None:
        """Give a name back."""
        self._by_name.pop(name, None)

    def add(self, live: Live) -> None:
        """Add a container whose record is durable."""
        self._by_id[live.id] = live
        self._by_name[live.record.name] = live.id

    def discard(self, live: Live) -> None:
        """Forget a container."""
        self._by_id.pop(live.id, None)
        if self._by_name.get(live.record.name) == live.id:
            del self._by_name[live.record.name]


OnEvent = Callable[[Live, Task, dict[str, Any]], None]
