"""Images: the store as the engine uses it.  One object per daemon; methods are Docker's verbs.

Reading (`get`, `list`) is quick and synchronous.  What writes or moves bytes is a coroutine that does its work in a
thread and in worker processes, and returns once the result is durable.  Progress records are Docker's JSON progress
messages as dicts, delivered on the event loop, all of them before the coroutine returns.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from corral.image import removal
from corral.image.archive import ArchiveLoader, Loaded
from corral.image.bridge import Progress, relay, with_stream
from corral.image.catalog import Catalog
from corral.image.crew import Crew
from corral.image.install import Installer, unpack_blob
from corral.image.layers import Source
from corral.image.model import Deleted, Image, Untagged
from corral.oci import reference
from corral.oci.digest import ChainID, Digest
from corral.oci.platform import machine_platform, parse_platform
from corral.store.content import Content
from corral.store.db import Database
from corral.store.gc import Lease, Leases, sweep
from corral.store.snapshots import Snapshots

Names: TypeAlias = list[str]
Removed: TypeAlias = list[Untagged | Deleted]
Events = Callable[[str, str, dict[str, str]], None]


class Images:
    """The image store below `root` (the data root).  Call `recover` once before use."""

    def __init__(self, db: Database, root: str, events: Events) -> None:
        """`events(action, id, attributes)` is called on the event loop after a change is durable."""
        self.platform = machine_platform(os.uname().machine)
        self.snapshots = Snapshots(db, os.path.join(root, "overlay"))
        self.content = Content(os.path.join(root, "image"))
        self.catalog = Catalog(db, self.content, self.snapshots, self.platform)
        self.leases = Leases()
        self._events = events

    def recover(self) -> None:
        """Repair what a crash of daemon or machine left: unpack torn layers again, drop layers without an owner."""
        self.snapshots.recover()
        torn = self.snapshots.torn_layers()
        if torn:
            with Crew() as crew:
                for chain in torn:
                    self._unpack_again(crew, chain)
            self.snapshots.later()
        blobs, chains = self.catalog.reach_all()
        stray = set(self.content.digests()) - blobs
        sweep(self.content, self.snapshots, self.leases, stray, blobs, chains)

    def _unpack_again(self, crew: Crew, chain: ChainID) -> None:
        from corral.image import layers

        layer = self.snapshots.layer(chain)
        unpacked, directory = unpack_blob(self.content, self.snapshots, crew, layer.blob)
        parent = ChainID(layer.parent) if layer.parent else None
        layers.settle(unpacked, directory, self.snapshots.layer_paths(parent))
        self.snapshots.replace_layer(chain, directory, unpacked.size)

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, ref: str, platform: str | None = None) -> Image:
        """The image of `name[:tag][@digest]`, an id or the unique beginning of one.

        Raises NoSuchImage, NoSuchPlatform, AmbiguousReference or InvalidReference.
        """
        return self.catalog.get(ref, parse_platform(platform, self.platform.architecture) if platform else None)

    def list(self) -> list[Image]:
        """Every image once with all its names, dangling ones too, newest first."""
        return self.catalog.list()

    # --- names -----------------------------------------------------------------------------------------------

    async def tag(self, ref: str, repo: str, tag: str = "") -> None:
        """Give an image another name; a name that pointed elsewhere moves."""
        name = reference.parse_repository(repo).with_tag(tag or reference.DEFAULT_TAG)
        image = self.get(ref)
        with self.leases.hold() as lease:
            lease.add(*self.catalog.reach(image.id).blobs, *self.catalog.reach(image.id).chains)
            await asyncio.to_thread(self.catalog.point, [name.canonical], image.descriptor)
        self._events("tag", image.id, {"name": name.familiar})

    async def remove(
        self, ref: str, *, force: bool = False, prune: bool = True, in_use: removal.InUse = lambda _: ()
    ) -> Removed:
        """Remove a name, or an image by its id; what happened, in Docker's order.

        With `prune` false an image that loses its last name stays, dangling.  Raises NoSuchImage or RemoveConflict.
        """
        found, name = self.catalog.resolve(ref)
        digest = Digest(found)
        names = self.catalog.names_of(digest)
        decided = removal.plan(ref, digest, name, names, in_use(digest), force)
        keep = digest if not decided.delete or not prune else ""
        await asyncio.to_thread(self._remove, digest, decided.names, keep)
        done: Removed = []
        for gone in decided.names:
            if not gone.startswith("@"):
                familiar = reference.parse(gone).familiar
                done.append(Untagged(familiar))
                self._events("untag", digest, {"name": familiar})
        if digest not in self.catalog.targets():
            done.append(Deleted(digest))
            self._events("delete", digest, {"name": digest})
        return done

    def _remove(self, digest: Digest, names: tuple[str, ...], keep_dangling: str) -> None:
        blobs = self.catalog.reach(digest).blobs
        self.catalog.drop(names, keep_dangling)
        if digest not in self.catalog.targets():
            keep_blobs, keep_chains = self.catalog.reach_all()
            sweep(self.content, self.snapshots, self.leases, blobs, keep_blobs, keep_chains)

    # --- arrivals --------------------------------------------------------------------------------------------

    async def load(
        self, stream: AsyncIterator[bytes], progress: Progress, *, platform: str | None = None, quiet: bool = False
    ) -> Names:
        """Load a docker-archive or OCI layout; the names, or ids of nameless images, that were loaded."""
        wanted = parse_platform(platform, self.platform.architecture) if platform else None
        say = relay((lambda _: None) if quiet else progress)

        def work(source: Source) -> list[Loaded]:
            with self._arrival() as (crew, installer):
                found = ArchiveLoader(self.content, self.snapshots, crew, installer, wanted).load(source, say)
                for loaded in found:
                    self.catalog.point(loaded.names, loaded.descriptor)
            return found

        shown = []
        for loaded in await with_stream(stream, work):
            for name in loaded.names:
                shown.append(reference.parse(name).familiar)
                progress({"stream": f"Loaded image: {shown[-1]}\n"})
            if not loaded.names:
                shown.append(loaded.descriptor.digest)
                progress({"stream": f"Loaded image ID: {shown[-1]}\n"})
            self._events("load", loaded.descriptor.digest, {"name": shown[-1]})
        return shown

    @contextmanager
    def _arrival(self) -> Iterator[tuple[Crew, Installer]]:
        """A crew and an installer under a lease; what is not committed at the end is dropped."""
        with self.leases.hold() as lease:
            installer: Installer | None = None
            try:
                with Crew() as crew:
                    installer = self._installer(crew, lease)
                    yield crew, installer
            finally:
                if installer is not None:  # after the crew is gone: nobody writes there any more
                    installer.clean_up()

    def _installer(self, crew: Crew, lease: Lease) -> Installer:
        return Installer(self.content, self.snapshots, crew, lease)

    def close(self) -> None:
        """Wait for background work of the snapshots."""
        self.snapshots.close()
