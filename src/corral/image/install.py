"""Install: what has arrived becomes part of the store, all or nothing.

Content that is not named yet is invisible: blobs and layers are committed first, each durable, then the caller
points names at the target in one transaction.  Whatever stops this in the middle leaves garbage, never half an image.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from corral.errors import InvalidParameter
from corral.image import layers
from corral.image.crew import Crew
from corral.oci import image as oci
from corral.oci.digest import ChainID, Digest, DigestMismatch, chain_ids, digest_of
from corral.store.content import Content
from corral.store.gc import Lease
from corral.store.snapshots import Snapshots


class DiffIdMismatch(InvalidParameter):
    """A layer is not the one that the configuration names."""

    def __init__(self, index: int, expected: str, got: str) -> None:
        super().__init__(f'invalid diffID for layer {index}: expected "{expected}", got "{got}"')


class LayerCountMismatch(InvalidParameter):
    """The manifest and the configuration disagree."""

    def __init__(self, expected: int, got: int) -> None:
        super().__init__(f"invalid manifest, layers length mismatch: expected {expected}, got {got}")


class Arrived:
    """A layer on its way in: bytes in `path`, files in `directory`; each "" once taken or never there."""

    def __init__(self, unpacked: layers.Unpacked, path: str = "", directory: str = "") -> None:
        self.unpacked = unpacked
        self.path = path
        self.directory = directory

    @property
    def digest(self) -> str:
        return self.unpacked.digest


class Installer:
    """Commits layers for one operation, under its lease."""

    def __init__(self, content: Content, snapshots: Snapshots, crew: Crew, lease: Lease) -> None:
        self._content = content
        self._snapshots = snapshots
        self._crew = crew
        self.lease = lease
        self._arrived: list[Arrived] = []

    def arrived(self, arrived: Arrived) -> Arrived:
        """Note what has come, so that `clean_up` finds what is left of it."""
        self._arrived.append(arrived)
        self.lease.add(arrived.digest)
        return arrived

    def clean_up(self) -> None:
        """Remove what arrived and was not taken."""
        for arrived in self._arrived:
            if arrived.path:
                _remove(arrived.path)
            if arrived.directory:
                self._snapshots.abandon_layer(arrived.directory)

    def install(self, config: oci.ImageConfig, arrived: Sequence[Arrived]) -> None:
        """Check the layers against the configuration, then commit them, lowest first.

        Raises LayerCountMismatch or DiffIdMismatch before anything is committed.
        """
        diff_ids = config.rootfs.diff_ids
        if len(diff_ids) != len(arrived):
            raise LayerCountMismatch(len(diff_ids), len(arrived))
        for index, (diff_id, layer) in enumerate(zip(diff_ids, arrived, strict=True)):
            if layer.unpacked.diff_id != diff_id:
                raise DiffIdMismatch(index, diff_id, layer.unpacked.diff_id)
        chains = chain_ids(diff_ids)
        self.lease.add(*chains)
        for layer in arrived:
            self.commit_blob(layer)
        self._content.sync()
        parent: ChainID | None = None
        for chain, layer in zip(chains, arrived, strict=True):
            if not self._snapshots.has_layer(chain):
                self._commit_layer(chain, parent, layer)
            parent = chain
        self._snapshots.later()

    def document(self, data: bytes) -> Digest:
        """Store a manifest or configuration."""
        self.lease.add(digest_of(data))  # before it is there: nothing names it yet, so a sweep would take it
        return self._content.put(data)

    def commit_blob(self, layer: Arrived) -> None:
        """Move a verified and synced blob to its place; `install` makes it durable."""
        if not layer.path:
            return
        path, layer.path = layer.path, ""
        self.lease.add(layer.digest)
        if self._content.has(layer.digest):
            _remove(path)
        else:
            self._content.commit(path, layer.digest)

    def _commit_layer(self, chain: ChainID, parent: ChainID | None, layer: Arrived) -> None:
        unpacked, directory = layer.unpacked, layer.directory
        layer.directory = ""
        if not directory:  # the blob was here without this stack, or one blob serves several layers
            unpacked, directory = unpack_blob(self._content, self._snapshots, self._crew, layer.digest)
        try:
            layers.settle(unpacked, directory, self._snapshots.layer_paths(parent))
            self._snapshots.commit_layer(directory, chain, parent, unpacked.diff_id, layer.digest, unpacked.size)
        except BaseException:
            self._snapshots.abandon_layer(directory)
            raise


def unpack_blob(content: Content, snapshots: Snapshots, crew: Crew, digest: str) -> tuple[layers.Unpacked, str]:
    """Unpack a stored blob into a fresh directory, verified; the directory is the caller's to commit or abandon."""
    directory = snapshots.begin_layer()
    try:
        job = crew.submit("unpack", blob=content.path(digest), layer=directory, sync=False)
        unpacked = layers.Unpacked.of(crew.wait(job))
        if unpacked.digest != digest:
            raise DigestMismatch(digest, unpacked.digest, "layer")
    except BaseException:
        snapshots.abandon_layer(directory)
        raise
    return unpacked, directory


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
