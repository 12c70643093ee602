"""Ids of a user namespace: what a container calls 0 is another id on the host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from corral.errors import InvalidParameter

OVERFLOW_ID = 65534  # what the kernel shows for an id without a mapping
Range = tuple[int, int, int]  # first id in the container, first id on the host, count


class UnmappedId(InvalidParameter):
    """An id that the container cannot have."""

    def __init__(self, number: int) -> None:
        super().__init__(f"Container ID {number} cannot be mapped to a host ID")


@dataclass(frozen=True)
class IdMap:
    """The users and groups of a container as ranges of the host's."""

    uids: tuple[Range, ...]
    gids: tuple[Range, ...]

    @property
    def root(self) -> tuple[int, int]:
        """The host's user and group that are 0 inside."""
        return self.to_host(0, 0)

    def to_host(self, uid: int, gid: int) -> tuple[int, int]:
        """Owner on the host of what `uid` and `gid` own inside; raises UnmappedId."""
        return _outside(self.uids, uid), _outside(self.gids, gid)

    def to_container(self, uid: int, gid: int) -> tuple[int, int]:
        """Owner as the container sees it."""
        return _inside(self.uids, uid), _inside(self.gids, gid)

    def described(self) -> tuple[list[dict[str, int]], list[dict[str, int]]]:
        """`linux.uidMappings` and `linux.gidMappings` of the runtime specification."""
        return _described(self.uids), _described(self.gids)


def chained(ranges: Iterable[Range], onto: Iterable[Range]) -> tuple[Range, ...]:
    """`ranges` (first, second, count) with every second id replaced by what `onto` makes of it; the rest is cut off."""
    found = []
    onto = list(onto)
    for first, middle, size in ranges:
        for inside, outside, count in onto:
            start, end = max(middle, inside), min(middle + size, inside + count)
            if start < end:
                found.append((first + start - middle, outside + start - inside, end - start))
    return tuple(sorted(found))


def consecutive(subordinate: Iterable[tuple[int, int]]) -> tuple[Range, ...]:
    """The ids from 0 on spread over a user's ranges (first id, count) on the host, lowest first."""
    found: list[Range] = []
    inside = 0
    for first, count in sorted(subordinate):
        found.append((inside, first, count))
        inside += count
    return tuple(found)


def _outside(ranges: tuple[Range, ...], number: int) -> int:
    for inside, outside, count in ranges:
        if inside <= number < inside + count:
            return outside + number - inside
    raise UnmappedId(number)


def _inside(ranges: tuple[Range, ...], number: int) -> int:
    for inside, outside, count in ranges:
        if outside <= number < outside + count:
            return inside + number - outside
    return OVERFLOW_ID


def _described(ranges: tuple[Range, ...]) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": outside, "size": count} for inside, outside, count in ranges]
