"""What may be deleted: everything that no image, no snapshot and no lease reaches.

A lease keeps content that an operation has found or made and not yet named: taken before the operation asks whether
the content is there, given back after the name is committed.  Leases live in memory; an operation does not survive
the daemon either, and what it left is swept by the next one.

Deleting happens under the lock that taking a lease needs, so content cannot go between "is it there" and "keep it".
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from corral.store.content import Content
from corral.store.snapshots import Snapshots


class Lease:
    """What one operation keeps; digests of blobs and chain ids of layers alike."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self.held: list[str] = []

    def add(self, *names: str) -> None:
        """Keep these, whether they exist yet or not."""
        with self._leases.lock:
            self._leases.counts.update(names)
            self.held += names

    def drop(self, *names: str) -> None:
        """Keep these no longer."""
        with self._leases.lock:
            for name in names:
                self.held.remove(name)
            self._leases.counts.subtract(names)
            self._leases.counts += Counter()


class Leases:
    """All leases now held."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.counts: Counter[str] = Counter()

    @contextmanager
    def hold(self) -> Iterator[Lease]:
        """A lease for the duration of the block."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            with self.lock:
                self.counts.subtract(lease.held)
                self.counts += Counter()

    def keep(self) -> Lease:
        """A lease without an end: its owner drops what it no longer wants."""
        return Lease(self)

    def is_held(self, name: str) -> bool:
        """Whether an operation keeps it."""
        return self.counts[name] > 0


@dataclass(frozen=True, slots=True)
class Garbage:
    """What nothing keeps."""

    blobs: Sequence[str]
    chains: Sequence[str]


def garbage(
    snapshots: Snapshots, leases: Leases, blobs: Iterable[str], keep_blobs: set[str], keep_chains: set[str]
) -> Garbage:
    """Those of `blobs`, and those layers, that nothing keeps; call with the lock of `leases` held.

    `keep_blobs` and `keep_chains` are what the images reach; snapshots and leases are looked at here.
    """
    keep = keep_chains | snapshots.used_chains()
    for name in list(leases.counts):
        if leases.is_held(name):
            snapshots.with_ancestors(name, keep)
    layers = snapshots.layers()
    # A layer's blob stays as long as the layer: a torn layer is unpacked from it again.
    keep_blobs = keep_blobs | {layer.blob for chain, layer in layers.items() if chain in keep}
    dead = [chain for chain in layers if chain not in keep]
    return Garbage([blob for blob in blobs if blob not in keep_blobs and not leases.is_held(blob)], dead)


def sweep(
    content: Content,
    snapshots: Snapshots,
    leases: Leases,
    blobs: Iterable[str],
    keep_blobs: set[str],
    keep_chains: set[str],
) -> int:
    """Delete those of `blobs`, and those layers, that nothing keeps; returns the bytes of blobs and files freed."""
    with leases.lock:
        found = garbage(snapshots, leases, blobs, keep_blobs, keep_chains)
        layers = snapshots.layers()
        freed = sum(layers[chain].size for chain in found.chains)
        snapshots.remove_layers(found.chains)
        for digest in found.blobs:
            freed += content.remove(digest)
    return freed
