"""What images take on the disk, counted from what each reaches: shared, unique, and what removing would free.  Pure.

A blob or layer that several images reach is stored once.  So an image has a size (everything that it reaches), a
shared part (what others reach, too) and a unique part (what goes when it goes).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# What a target keeps: a blob is named by its digest, a layer by "layer:" and its chain id (which may equal a digest).
Parts = frozenset[str]


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """Bytes of one image."""

    size: int
    shared: int

    @property
    def unique(self) -> int:
        return self.size - self.shared


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """Bytes of all images together; `reclaimable` goes when those that nobody uses are removed."""

    images: Mapping[str, ImageUsage]
    total: int
    reclaimable: int


def layer_part(chain: str) -> str:
    """How a layer is named among the parts."""
    return f"layer:{chain}"


def measure(reaches: Mapping[str, Parts], sizes: Mapping[str, int], used: Iterable[str], kept: Parts) -> StoreUsage:
    """Count the images `reaches`; parts without a size are not here.

    `used` are images that containers were made of, `kept` the parts that stay whatever happens to the images.
    """
    holders = Counter(part for parts in reaches.values() for part in parts)
    images = {}
    for digest, parts in reaches.items():
        size = shared = 0
        for part in parts:
            held = sizes.get(part, 0)
            size += held
            if holders[part] > 1:
                shared += held
        images[digest] = ImageUsage(size, shared)
    stays = set(kept)
    for digest in used:
        stays |= reaches.get(digest, frozenset())
    total = sum(sizes.get(part, 0) for part in holders)
    return StoreUsage(images, total, sum(sizes.get(part, 0) for part in holders if part not in stays))


class Removal:
    """What would be freed if images went one after another."""

    def __init__(self, reaches: Mapping[str, Parts], sizes: Mapping[str, int], kept: Parts) -> None:
        self._reaches = reaches
        self._sizes = sizes
        self._kept = kept
        self._holders = Counter(part for parts in reaches.values() for part in parts)

    def take(self, digest: str) -> int:
        """Count an image as removed; the bytes that this frees."""
        freed = 0
        for part in self._reaches[digest]:
            self._holders[part] -= 1
            if not self._holders[part] and part not in self._kept:
                freed += self._sizes.get(part, 0)
        return freed
