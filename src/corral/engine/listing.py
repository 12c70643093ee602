"""Which containers `ps` shows: Docker's filters, order and limits."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable

from corral.engine import filters as matching
from corral.engine.context import Engine
from corral.engine.filters import Filters, InvalidFilter
from corral.engine.live import Live
from corral.errors import CorralError, InvalidParameter
from corral.quantities import duration_ns

_STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTHS = ("none", "starting", "healthy", "unhealthy")
_NAMES = (
    "ancestor before exited expose health id is-task isolation label label! name network publish since status until "
    "volume"
).split()

Predicate = Callable[[Live], bool]


def select(engine: Engine, filters: Filters, *, everything: bool, limit: int) -> list[Live]:
    """The containers to show, newest first; a filter on status or exit code implies `everything`."""
    keep = predicate(engine, filters)
    wide = everything or limit > 0 or any(filters.get(name) for name in ("status", "exited", "before", "since"))
    found = [live for live in engine.index if (wide or live.record.state.status in _SHOWN) and keep(live)]
    found.sort(key=lambda live: live.record.created_ns, reverse=True)
    return found[:limit] if limit > 0 else found


_SHOWN = ("running", "paused", "restarting")


def predicate(engine: Engine, filters: Filters) -> Predicate:
    """The test that the filters are; raises InvalidFilter."""
    matching.check_names(filters, _NAMES)
    for status in filters.get("status", ()):
        if status not in _STATUSES:
            raise InvalidFilter(f"invalid filter 'status={status}'")
    for health in filters.get("health", ()):
        if health not in _HEALTHS:
            raise InvalidFilter(f"unrecognized filter value for health: {health}")
    codes = _exit_codes(filters)
    before = _created_of(engine, filters, "before")
    since = _created_of(engine, filters, "since")
    until = _until(filters)
    images = {found for ref in filters.get("ancestor", ()) for found in _image_ids(engine, ref)}

    def keep(live: Live) -> bool:
        record = live.record
        state = record.state
        labels = record.config.labels or {}
        return matching.every(
            (
                lambda: not filters.get("id") or any(record.id.startswith(value) for value in filters["id"]),
                lambda: (
                    not filters.get("name") or matching.match_pattern(filters["name"], (record.name, f"/{record.name}"))
                ),
                lambda: matching.match_labels(filters.get("label", ()), labels),
                lambda: not filters.get("label!") or not matching.match_labels(filters["label!"], labels),
                lambda: not filters.get("status") or state.status in filters["status"],
                lambda: not codes or (state.exit_code in codes and state.status in ("exited", "dead")),
                lambda: before is None or record.created_ns < before,
                lambda: since is None or record.created_ns > since,
                lambda: until is None or record.created_ns < until,
                lambda: (
                    not filters.get("ancestor") or record.image_id in images or record.image_ref in filters["ancestor"]
                ),
                lambda: not filters.get("network") or _on_network(live, filters["network"]),
                lambda: not filters.get("volume") or _with_volume(live, filters["volume"]),
                lambda: not filters.get("publish") or _with_port(live, filters["publish"], published=True),
                lambda: not filters.get("expose") or _with_port(live, filters["expose"], published=False),
                lambda: (
                    not filters.get("health") or (live.health.status if live.health else "none") in filters["health"]
                ),
                lambda: matching.boolean(filters, "is-task") is not True,
            )
        )

    return keep


def _exit_codes(filters: Filters) -> set[int]:
    try:
        return {int(value) for value in filters.get("exited", ())}
    except ValueError:
        raise InvalidFilter(f"invalid filter 'exited={filters['exited'][0]}'") from None


def _created_of(engine: Engine, filters: Filters, name: str) -> int | None:
    values = filters.get(name)
    return engine.index.get(values[0]).record.created_ns if values else None


def _until(filters: Filters) -> int | None:
    values = filters.get("until")
    return time_ns(values[0]) if values else None


def _image_ids(engine: Engine, ref: str) -> set[str]:
    try:
        return {engine.images.get(ref).id}
    except CorralError:
        return set()


def _on_network(live: Live, wanted: list[str]) -> bool:
    names = set(live.record.networks) | {asked.network_id for asked in live.record.networks.values()}
    names |= {endpoint.network_name for endpoint in live.record.endpoints}
    return any(value in names or any(name.startswith(value) for name in names if len(name) == 64) for value in wanted)


def _with_volume(live: Live, wanted: list[str]) -> bool:
    return any(
        value in (point.name, point.destination, point.source) for point in live.record.mounts for value in wanted
    )


def _with_port(live: Live, wanted: list[str], *, published: bool) -> bool:
    if published:
        own = {(binding.host_port, binding.proto) for binding in live.record.ports}
    else:
        own = set()
        for port in live.record.config.exposed_ports or {}:
            number, _, proto = port.partition("/")
            own.add((int(number), proto or "tcp"))
    for value in wanted:
        span, _, proto = value.partition("/")
        first, _, last = span.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            raise InvalidFilter(f"invalid filter 'publish={value}'")
        if any(int(first) <= number <= int(last or first) and kind == (proto or "tcp") for number, kind in own):
            return True
    return False


def time_ns(text: str) -> int:
    """A point in time as Docker takes it: seconds[.fraction], RFC 3339, or a duration before now (`10m`, `1h30m`)."""
    stripped = text.strip()
    try:
        seconds, _, fraction = stripped.partition(".")
        if seconds.isdecimal() and (not fraction or fraction.isdecimal()):
            return int(seconds) * 1_000_000_000 + int((fraction or "0").ljust(9, "0")[:9])
        if stripped and stripped[-1] in "smh" and "T" not in stripped:
            return time.time_ns() - duration_ns(stripped)
        return _rfc3339_ns(stripped)
    except ValueError:
        raise InvalidParameter(f"invalid time: {text}") from None


def _rfc3339_ns(text: str) -> int:
    whole, _, rest = text.partition(".")
    digits = re.match(r"[0-9]*", rest)
    assert digits is not None
    found = datetime.datetime.fromisoformat(whole + rest[digits.end() :])
    if found.tzinfo is None:
        found = found.astimezone()
    return int(found.timestamp()) * 1_000_000_000 + int(digits[0][:9].ljust(9, "0"))
