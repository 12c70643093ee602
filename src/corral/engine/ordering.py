"""Start order: before a container starts, what it depends on runs, is healthy, or has done its work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from corral.engine import extensions, lifecycle
from corral.engine.context import Engine
from corral.engine.extensions import Dependency
from corral.engine.live import Live
from corral.errors import Conflict, NotFound

Starter = Callable[[Live, tuple[str, ...]], Awaitable[None]]


class DependencyMissing(NotFound):
    """A container that has to come first does not exist."""


class DependencyFailed(Conflict):
    """A container that has to come first cannot get where it has to be."""


async def settle(engine: Engine, live: Live, waiting: tuple[str, ...], start: Starter) -> None:
    """Bring everything that `live` depends on where it has to be; `waiting` are those who wait for it already.

    Raises DependencyMissing or DependencyFailed, or what starting raises.
    """
    record = live.record
    for wanted in extensions.dependencies(record.host, record.config.labels or {}):
        for other in _containers(engine, live, wanted):
            if other.id == live.id or other.id in waiting:
                raise DependencyFailed(f"dependency cycle: {record.name} and {other.record.name} wait for each other")
            state = other.record.state
            done = wanted.condition == "completed" and state.status == "exited" and not state.exit_code
            if not done and state.status not in lifecycle.ALIVE:
                await start(other, (*waiting, live.id))
            await _reached(engine, other, wanted.condition)


def _containers(engine: Engine, live: Live, wanted: Dependency) -> Iterable[Live]:
    if wanted.service:  # Compose may have left a service out: then there is nothing to wait for
        return [other for other in engine.index if extensions.is_service(other.record.config.labels or {}, wanted)]
    found = engine.index.find(wanted.name)
    if found is None:
        raise DependencyMissing(f"dependency of {live.record.name} not found: No such container: {wanted.name}")
    return [found]


async def _reached(engine: Engine, other: Live, condition: str) -> None:
    subscription = engine.events.subscribe()
    try:
        if _is_reached(other, condition):
            return
        async for event in subscription:
            if event["Actor"]["ID"] == other.id and _is_reached(other, condition):
                return
        raise DependencyFailed(f"dependency failed to start: lost sight of container {other.record.name}")
    finally:
        subscription.close()


def _is_reached(other: Live, condition: str) -> bool:
    """Whether the container is where it has to be; raises DependencyFailed when it cannot get there."""
    state, name = other.record.state, other.record.name
    alive = state.status in lifecycle.ALIVE
    if condition == "completed":
        if not alive and state.exit_code:
            raise DependencyFailed(f"dependency failed to start: container {name} exited ({state.exit_code})")
        return not alive
    if not alive:
        raise DependencyFailed(f"dependency failed to start: container {name} exited ({state.exit_code})")
    if condition == "started":
        return other.has_process
    if other.health is None:
        if other.has_process:
            raise DependencyFailed(f"dependency failed to start: container {name} has no healthcheck configured")
        return False
    if other.health.status == "unhealthy":
        raise DependencyFailed(f"dependency failed to start: container {name} is unhealthy")
    return other.health.status == "healthy"
