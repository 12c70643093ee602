"""Which images go when the disk fills up: marks, and what is kept whatever happens.  Pure.

The key of daemon.json:

    "image-gc": {
        "high-water": "85%",        begin when the file system is this full, or the images take this much ("40GB")
        "low-water": "70%",         go on until it is down to this
        "keep-last-used": "24h",    never an image that was used, named or pulled within this time
        "keep": ["debian:*"]        never an image with a name that fits
    }

An image that a container was made of always stays.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corral.errors import InvalidParameter
from corral.image.usage import Parts, Removal
from corral.quantities import duration_ns, parse_size

_KEYS = ("high-water", "low-water", "keep-last-used", "keep")


class InvalidPolicy(InvalidParameter):
    """The policy of daemon.json cannot be used."""

    def __init__(self, why: str) -> None:
        super().__init__(f"image-gc: {why}")


@dataclass(frozen=True, slots=True)
class Mark:
    """A share of the file system (0 to 1), or bytes of images."""

    share: float = 0.0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """When to begin, how far to go, what to keep.  `keep_last_used_s` in seconds."""

    high: Mark
    low: Mark
    keep_last_used_s: float = 0.0
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that could go; `last_used` in nanoseconds since the epoch."""

    digest: str
    names: tuple[str, ...]
    last_used: int
    in_use: bool


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the file system, and of all images."""

    size: int
    used: int
    images: int


@dataclass(frozen=True, slots=True)
class Choice:
    """An image that goes, and what that frees."""

    digest: str
    names: tuple[str, ...]
    bytes: int


def parse_policy(settings: Mapping[str, Any]) -> Policy:
    """The policy that daemon.json asks for; raises InvalidPolicy."""
    unknown = sorted(set(settings) - set(_KEYS))
    if unknown:
        raise InvalidPolicy(f"there is no key {unknown[0]}")
    keep = settings.get("keep", [])
    if not isinstance(keep, list) or not all(isinstance(item, str) for item in keep):
        raise InvalidPolicy("keep must be a list of patterns")
    if "high-water" not in settings:
        raise InvalidPolicy("high-water is missing")
    high = _mark("high-water", settings["high-water"])
    low = _mark("low-water", settings["low-water"]) if "low-water" in settings else high
    if (high.share > 0) != (low.share > 0):
        raise InvalidPolicy("high-water and low-water must both be shares or both be sizes")
    if (low.share, low.bytes) > (high.share, high.bytes):
        raise InvalidPolicy("low-water is above high-water")
    age = settings.get("keep-last-used", "0s")
    try:
        seconds = duration_ns(age) / 1e9 if isinstance(age, str) else -1
    except ValueError:
        seconds = -1
    if seconds < 0:
        raise InvalidPolicy(f"keep-last-used: {age!r} is not a duration such as 24h")
    return Policy(high, low, seconds, tuple(keep))


def _mark(key: str, value: Any) -> Mark:
    text = value.strip() if isinstance(value, str) else ""
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            if not 0 < share <= 1:
                raise ValueError
            return Mark(share=share)
        found = parse_size(text)
        if found <= 0:
            raise ValueError
    except ValueError:
        raise InvalidPolicy(f"{key}: {value!r} is neither a share such as 85% nor a size such as 40GB") from None
    return Mark(bytes=found)


def excess(policy: Policy, disk: Disk) -> int:
    """Bytes to free now: 0 below the high mark, else down to the low one."""
    if policy.high.share:
        if disk.used <= policy.high.share * disk.size:
            return 0
        return int(disk.used - policy.low.share * disk.size)
    return disk.images - policy.low.bytes if disk.images > policy.high.bytes else 0


def choose(
    policy: Policy, candidates: Iterable[Candidate], wanted: int, now: int, reaches: Mapping[str, Parts],
    sizes: Mapping[str, int], kept: Parts,
) -> Sequence[Choice]:  # fmt: skip
    """The images that go so that `wanted` bytes are freed: nameless ones first, then the longest unused."""
    going = sorted(
        (found for found in candidates if not _stays(policy, found, now)),
        key=lambda found: (bool(found.names), found.last_used, found.digest),
    )
    removal = Removal(reaches, sizes, kept)
    chosen = []
    freed = 0
    for found in going:
        if freed >= wanted:
            break
        size = removal.take(found.digest)
        freed += size
        chosen.append(Choice(found.digest, found.names, size))
    return chosen


def _stays(policy: Policy, found: Candidate, now: int) -> bool:
    if found.in_use or now - found.last_used < policy.keep_last_used_s * 1e9:
        return True
    return any(_fits(pattern, name) for pattern in policy.keep for name in found.names)


def _fits(pattern: str, name: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.rpartition(":")[0] or name, pattern)
