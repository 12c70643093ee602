"""Counters for Prometheus, shared by all processes that serve: numbers in one piece of shared memory.

Every process has a row of its own and is the only one to write to it, so nothing is locked between processes; a
reading adds the rows up.  All series exist from the beginning, and those that are 0 are not shown.
"""

from __future__ import annotations

import mmap
import threading

from corral.registry.http.messages import REASONS

OPERATIONS = ("base", "catalog", "tags", "manifests", "blobs", "uploads", "referrers", "token", "system", "other")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "-")
_STATUSES = (*sorted(REASONS), 499)
BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
EVENTS = {
    "corral_registry_received_bytes_total": ("counter", "Bytes of request bodies"),
    "corral_registry_sent_bytes_total": ("counter", "Bytes of answers' bodies"),
    "corral_registry_upstream_fetches_total": ("counter", "Blobs fetched from the upstream registry"),
    "corral_registry_upstream_bytes_total": ("counter", "Bytes fetched from the upstream registry"),
    "corral_registry_upstream_errors_total": ("counter", "Requests to the upstream registry that failed"),
    "corral_registry_collections_total": ("counter", "Garbage collections"),
    "corral_registry_collected_bytes_total": ("counter", "Bytes that garbage collection has freed"),
    "corral_registry_collected_blobs_total": ("counter", "Blobs that garbage collection has removed"),
    "corral_registry_retired_tags_total": ("counter", "Tags that retention has removed"),
    "corral_registry_stored_bytes": ("gauge", "Bytes of all blobs, at the last collection"),
    "corral_registry_stored_blobs": ("gauge", "Number of blobs, at the last collection"),
}
_REQUESTS = len(OPERATIONS) * len(_METHODS) * len(_STATUSES)
_TIMES = len(OPERATIONS) * (len(BUCKETS_S) + 2)  # and the sum in microseconds, and the count
_ROW = _REQUESTS + _TIMES + len(EVENTS)


class Metrics:
    """The counters; made before the processes are."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._memory = mmap.mmap(-1, max(1, processes) * _ROW * 8)
        self._numbers = memoryview(self._memory).cast("Q")
        self._base = 0
        self._lock = threading.Lock()
        self._operations = {name: index for index, name in enumerate(OPERATIONS)}
        self._methods = {name: index for index, name in enumerate(_METHODS)}
        self._statuses = {status: index for index, status in enumerate(_STATUSES)}
        self._events = {name: _REQUESTS + _TIMES + index for index, name in enumerate(EVENTS)}

    def be(self, process: int) -> None:
        """In a new process: write to its row."""
        self._base = process * _ROW

    def request(self, operation: str, method: str, status: int, received: int, sent: int, seconds: float) -> None:
        """Count a request."""
        which = self._operations[operation]
        place = (which * len(_METHODS) + self._methods.get(method, len(_METHODS) - 1)) * len(_STATUSES)
        place += self._statuses.get(status, self._statuses[500])
        times = _REQUESTS + which * (len(BUCKETS_S) + 2)
        with self._lock:
            numbers, base = self._numbers, self._base
            numbers[base + place] += 1
            for index, bound in enumerate(BUCKETS_S):
                if seconds <= bound:
                    numbers[base + times + index] += 1
            numbers[base + times + len(BUCKETS_S)] += int(seconds * 1e6)
            numbers[base + times + len(BUCKETS_S) + 1] += 1
            numbers[base + self._events["corral_registry_received_bytes_total"]] += received
            numbers[base + self._events["corral_registry_sent_bytes_total"]] += sent

    def add(self, event: str, number: int = 1) -> None:
        """Count an event."""
        with self._lock:
            self._numbers[self._base + self._events[event]] += number

    def set(self, event: str, number: int) -> None:
        """Set a gauge, which one process only does."""
        with self._lock:
            self._numbers[self._base + self._events[event]] = number

    def _sum(self, place: int) -> int:
        return sum(self._numbers[process * _ROW + place] for process in range(self._processes))

    def text(self) -> str:
        """All that is not 0 in Prometheus' text format."""
        lines = [
            "# HELP corral_registry_requests_total Requests",
            "# TYPE corral_registry_requests_total counter",
        ]
        place = 0
        for operation in OPERATIONS:
            for method in _METHODS:
                for status in _STATUSES:
                    if count := self._sum(place):
                        labels = f'operation="{operation}",method="{method}",status="{status}"'
                        lines.append(f"corral_registry_requests_total{{{labels}}} {count}")
                    place += 1
        lines += [
            "# HELP corral_registry_request_seconds Time from a request's head to the end of its answer",
            "# TYPE corral_registry_request_seconds histogram",
        ]
        for operation in OPERATIONS:
            lines += self._histogram(operation)
        for event, (kind, what) in EVENTS.items():
            lines += [f"# HELP {event} {what}", f"# TYPE {event} {kind}", f"{event} {self._sum(self._events[event])}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, operation: str) -> list[str]:
        times = _REQUESTS + self._operations[operation] * (len(BUCKETS_S) + 2)
        count = self._sum(times + len(BUCKETS_S) + 1)
        if not count:
            return []
        name = "corral_registry_request_seconds"
        lines = [
            f'{name}_bucket{{operation="{operation}",le="{bound}"}} {self._sum(times + index)}'
            for index, bound in enumerate(BUCKETS_S)
        ]
        return [
            *lines,
            f'{name}_bucket{{operation="{operation}",le="+Inf"}} {count}',
            f'{name}_sum{{operation="{operation}"}} {self._sum(times + len(BUCKETS_S)) / 1e6}',
            f'{name}_count{{operation="{operation}"}} {count}',
        ]
