"""Images: the store as the engine uses it.  One object per daemon; methods are Docker's verbs.

Reading (`get`, `list`) is quick and synchronous.  What writes or moves bytes is a coroutine that does its work in a
thread and in worker processes, and returns once the result is durable.  Progress records are Docker's JSON progress
messages as dicts, delivered on the event loop, all of them before the coroutine returns.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeAlias

from corral.image import layers, make, removal, save
from corral.image.archive import ArchiveLoader, Loaded
from corral.image.bridge import Progress, Stop, in_thread, relay, with_stream
from corral.image.catalog import Catalog
from corral.image.changes import apply_changes
from corral.image.crew import Crew
from corral.image.install import Installer, unpack_blob
from corral.image.model import Deleted, Image, NoSuchLocalImage, Untagged, User
from corral.image.parts import blobs_for, removable, remove_parts
from corral.image.pull import Puller, Sources, look
from corral.image.push import Pusher, PushStore, Target
from corral.image.registries import Endpoint, Registries
from corral.image.save import Saved
from corral.image.sources import Whereabouts
from corral.image.transfers import Transfers
from corral.image.usage import Removal, StoreUsage, measure
from corral.oci import reference
from corral.oci.digest import ChainID, Digest, is_hex, parse_digest
from corral.oci.image import Descriptor, RunConfig
from corral.oci.platform import Platform, machine_platform, read_platform
from corral.store.content import Content
from corral.store.db import Database
from corral.store.gc import Leases, garbage, sweep
from corral.store.snapshots import Snapshots

_PIECE = 1 << 20
_CONCURRENT = 3

Arrivals: TypeAlias = list[Loaded]
Names: TypeAlias = list[str]
History: TypeAlias = list[make.HistoryItem]
Removed: TypeAlias = list[Untagged | Deleted]
Pulled: TypeAlias = list[Image]
Platforms: TypeAlias = list[Platform]
Found: TypeAlias = list[dict[str, Any]]
Events = Callable[[str, str, dict[str, str]], None]


class Images:
    """The image store below `root` (the data root).  Call `recover` once before use."""

    def __init__(self, db: Database, root: str, events: Events, registries: Registries | None = None) -> None:
        """`events(action, id, attributes)` is called on the event loop after a change is durable."""
        self.platform = machine_platform(os.uname().machine)
        self.snapshots = Snapshots(db, os.path.join(root, "overlay"))
        self.content = Content(os.path.join(root, "image"))
        self.catalog = Catalog(db, self.content, self.snapshots, self.platform)
        self.leases = Leases()
        self.registries = registries or Registries()
        limits = self.registries.limits.fields()
        self._seen = Whereabouts()
        self._transfers = Transfers(self.content, self.snapshots, self.registries.downloads, limits)
        self._events = events

    def configure(self, registries: Registries) -> None:
        """Use other settings of registries from now on; what is under way goes on with the old ones."""
        self.registries = registries
        self._transfers.configure(registries.downloads)

    def recover(self) -> None:
        """Repair what a crash of daemon or machine left: unpack torn layers again, drop layers without an owner."""
        self.snapshots.recover()
        torn = self.snapshots.torn_layers()
        if torn:
            self.unpack_again(torn)
        self.collect_now()

    def unpack_again(self, chains: Sequence[ChainID]) -> None:
        """Replace the files of layers, lowest first, by what their blobs say."""
        with Crew() as crew:
            for chain in chains:
                self._unpack_again(crew, chain)
        self.snapshots.later()

    def _unpack_again(self, crew: Crew, chain: ChainID) -> None:
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
        return self.catalog.get(ref, self.wanted(platform))

    def wanted(self, platform: str | None) -> Platform | None:
        """The platform that a request names; raises InvalidPlatform."""
        return read_platform(platform, self.platform.architecture) if platform else None

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
        return (await self._take_away(ref, force, prune, in_use))[0]

    async def _take_away(self, ref: str, force: bool, prune: bool, in_use: removal.InUse) -> tuple[Removed, int]:
        """`remove`; also the bytes that were freed."""
        found, name = self.catalog.resolve(ref)
        digest = Digest(found)
        names = self.catalog.names_of(digest)
        decided = removal.plan(ref, digest, name, names, in_use(digest), force)
        keep = digest if not decided.delete or not prune else ""
        freed = await asyncio.to_thread(self._remove, digest, decided.names, keep)
        done: Removed = []
        for gone in decided.names:
            if not gone.startswith("@"):
                familiar = reference.parse(gone).familiar
                done.append(Untagged(familiar))
                self._events("untag", digest, {"name": familiar})
        if digest not in self.catalog.targets():
            done.append(Deleted(digest))
            self._events("delete", digest, {"name": digest})
        return done, freed

    async def remove_platforms(
        self, ref: str, platforms: Sequence[str], users: Sequence[tuple[User, str]], *, force: bool = False
    ) -> Removed:
        """Remove what an image has for some platforms; `users` come with their chain ids.

        Raises NoSuchImage, NoSuchPart or PartInUse.
        """
        image = self.get(ref)
        wanted = [platform for platform in map(self.wanted, platforms) if platform]
        going = removable(self.catalog, self.content, image, wanted, users, force)
        await asyncio.to_thread(remove_parts, self.catalog, self.content, self.snapshots, self.leases, image.id, going)
        for part in going:
            self._events("delete", part.descriptor.digest, {"name": part.descriptor.digest})
        return [Deleted(part.descriptor.digest) for part in going]

    def _remove(self, digest: Digest, names: tuple[str, ...], keep_dangling: str) -> int:
        blobs = self.catalog.reach(digest).blobs
        self.catalog.drop(names, keep_dangling)
        if digest in self.catalog.targets():
            return 0
        with self.leases.lock:
            keep_blobs, keep_chains = self.catalog.reach_all()
            return sweep(self.content, self.snapshots, self.leases, blobs, keep_blobs, keep_chains)

    # --- arrivals --------------------------------------------------------------------------------------------

    async def load(
        self, stream: AsyncIterator[bytes], progress: Progress, *, platforms: Sequence[str] = (), quiet: bool = False
    ) -> Names:
        """Load a docker-archive or OCI layout; the names, or ids of nameless images, that were loaded."""
        wanted = [platform for platform in map(self.wanted, platforms) if platform]
        say = relay((lambda _: None) if quiet else progress)

        def work(source: layers.Source) -> Arrivals:
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

    async def pull(
        self, ref: str, tag: str = "", *, platform: str | None = None, auth: Mapping[str, str] | None = None,
        progress: Progress = lambda _: None,
    ) -> Image:  # fmt: skip
        """Pull `ref` (`tag` may be a tag or a digest); `auth` is a decoded X-Registry-Auth.

        Raises InvalidReference, NotFound with Docker's texts, Unauthorized, Unavailable, DataLoss, ...
        """
        parsed = self._complete(ref, tag).tagged()
        image, new = await self._pull(parsed, platform, auth, progress)
        self._tell_result(parsed.familiar, new, progress)
        return image

    async def pull_all(
        self, ref: str, *, platform: str | None = None, auth: Mapping[str, str] | None = None,
        progress: Progress = lambda _: None,
    ) -> Pulled:  # fmt: skip
        """Pull every tag of a repository."""
        parsed = reference.parse_repository(ref)
        sources = self._sources(parsed, auth)

        def work(stop: Stop) -> Names:
            with self._transfers.visit(), self._transfers.worker(stop) as crew:
                tags: Names = sources.ask(crew, "tags")["tags"]
                return tags

        pulled, any_new = [], False
        for found in await in_thread(work):
            image, new = await self._pull(parsed.with_tag(found), platform, auth, progress)
            pulled.append(image)
            any_new = any_new or new
        self._tell_result(parsed.familiar, any_new, progress)
        return pulled

    @staticmethod
    def _tell_result(name: str, new: bool, progress: Progress) -> None:
        text = "Downloaded newer image for" if new else "Image is up to date for"
        progress({"status": f"Status: {text} {name}"})

    async def _pull(
        self, parsed: reference.Reference, platform: str | None, auth: Mapping[str, str] | None, progress: Progress
    ) -> tuple[Image, bool]:
        wanted = self.wanted(platform) or self.platform
        sources = self._sources(parsed, auth)
        say = relay(progress)

        def work(stop: Stop) -> tuple[Image, bool]:
            self.content.forget_old_partials()
            with self._transfers.visit(), self._arrival() as (_, installer):
                puller = Puller(self.content, self.snapshots, self._transfers, installer, sources, stop, say)
                descriptor, new = puller.pull(parsed, wanted, platform is not None)
                old = self.catalog.target(parsed.canonical)
                image = self.catalog.name(parsed.canonical, descriptor, wanted if platform else None)
                self._seen.note(parsed.domain, parsed.path, self.catalog.reach(image.id).blobs)
                return image, new or old is None or old.digest != image.id

        image, new = await in_thread(work)
        progress({"status": f"Digest: {image.id}"})
        self._events("pull", parsed.familiar, {"name": parsed.familiar_name})
        return image, new

    @staticmethod
    def _complete(ref: str, tag: str) -> reference.Reference:
        parsed = reference.parse(ref)
        if tag:
            return parsed.with_digest(parse_digest(tag)) if ":" in tag else parsed.with_tag(tag)
        return parsed

    def _sources(self, parsed: reference.Reference, auth: Mapping[str, str] | None) -> Sources:
        found = self.registries.endpoints(parsed, auth)
        return Sources([self.registries.fields(endpoint) for endpoint in found])

    async def import_(
        self, stream: AsyncIterator[bytes], repo: str = "", tag: str = "", *, message: str = "",
        changes: Sequence[str] = (), platform: str | None = None, progress: Progress = lambda _: None,
    ) -> Image:  # fmt: skip
        """Make an image of a root file system's tar (gzip and zstd too); without `repo` it dangles."""
        names = self._new_names(repo, tag)
        wanted = self.wanted(platform) or self.platform
        config = make.import_config(apply_changes(RunConfig(), changes), message, wanted)

        def work(source: layers.Source) -> Descriptor:
            with self._arrival() as (crew, installer):
                made = make.import_tar(source, config, self.content, self.snapshots, installer, crew)
                self.catalog.point(names, made)
                return made

        descriptor = await with_stream(stream, work)
        progress({"status": descriptor.digest})
        self._events("import", descriptor.digest, {"name": descriptor.digest})
        return self.catalog.image(descriptor.digest)

    async def commit(self, snapshot_key: str, request: make.CommitRequest, repo: str = "", tag: str = "") -> Image:
        """Make an image of a container's snapshot (the caller pauses the container if it should be)."""
        names = self._new_names(repo, tag)
        if not request.platform.architecture:
            request = replace(request, platform=self.platform)

        def work() -> Descriptor:
            with self._arrival() as (crew, installer):
                made = make.commit_snapshot(snapshot_key, request, self.content, self.snapshots, installer, crew)
                self.catalog.point(names, made)
                return made

        descriptor = await asyncio.to_thread(work)
        return self.catalog.image(descriptor.digest)

    async def assemble(self, assembly: make.Assembly, names: Sequence[str]) -> Image:
        """Make an image of layers that are here, and let `names` (none: it dangles) point to it."""
        canonical = [name for text in names for name in self._new_names(text, "")]

        def work() -> Descriptor:
            with self.leases.hold() as lease:
                made = make.assemble(assembly, self.content, self.snapshots, lease)
                self.catalog.point(canonical, made)
                return made

        descriptor = await asyncio.to_thread(work)
        for name in canonical:
            self._events("tag", descriptor.digest, {"name": reference.parse(name).familiar})
        return self.catalog.image(descriptor.digest)

    def history(self, ref: str, platform: str | None = None) -> History:
        """How an image came to be, newest step first."""
        return make.history(self.get(ref, platform), self.snapshots)

    async def save(self, names: Sequence[str], platforms: Sequence[str] = ()) -> AsyncIterator[bytes]:
        """The archive of `docker save`; every name and platform is resolved before the first byte."""
        chosen: dict[str, Saved] = {}
        for text in names:
            digest, name = self.catalog.resolve(text)
            held = self._to_save(chosen, digest, text, platforms).names
            wanted = [name] if name else []
            if name is None and not is_hex(text.removeprefix("sha256:")):
                wanted = self.catalog.names_of(digest)
            held += [found for found in wanted if found not in held]
        with self.leases.hold() as lease:
            for saved in chosen.values():
                lease.add(*saved.blobs)
            pieces = save.archive(self.content, list(chosen.values()))
            while piece := await asyncio.to_thread(_several, pieces):
                yield piece
        for digest, saved in chosen.items():
            tags = saved.images[0].repo_tags
            self._events("save", digest, {"name": tags[0] if tags else digest})

    def _to_save(self, chosen: dict[str, Saved], digest: str, shown: str, platforms: Sequence[str]) -> Saved:
        if digest not in chosen:
            wanted = [platform for platform in map(self.wanted, platforms) if platform]
            images = [self.catalog.image(digest, platform, shown) for platform in wanted or (None,)]
            chosen[digest] = Saved(images, [], blobs_for(self.catalog, self.content, images[0], wanted))
        return chosen[digest]

    async def prune(self, select: Callable[[Image], bool], in_use: removal.InUse) -> tuple[Removed, int]:
        """Remove the images that `select` chooses and no container uses; what went, and the bytes freed."""
        done: Removed = []
        freed = 0
        for image in self.list():
            if select(image) and not in_use(image.id):
                gone, size = await self._take_away(image.id, True, True, in_use)
                done += gone
                freed += size
        return done, freed + await self.collect()

    async def collect(self) -> int:
        """Drop content and layers that nothing reaches any more (a removed container's, say); the bytes freed."""
        return await asyncio.to_thread(self.collect_now)

    def stray(self) -> tuple[Names, Names]:
        """Blobs and layers that nothing keeps: what `collect` would drop."""
        with self.leases.lock:
            blobs, chains = self.catalog.reach_all()
            found = garbage(self.snapshots, self.leases, set(self.content.sizes()) - blobs, blobs, chains)
        return sorted(found.blobs), sorted(found.chains)

    def drop_blob(self, digest: str) -> None:
        """Remove a blob whose bytes are wrong, whoever keeps it."""
        self.content.remove(digest)

    def collect_now(self) -> int:
        """`collect`, in this thread."""
        with self.leases.lock:
            blobs, chains = self.catalog.reach_all()
            stray = set(self.content.sizes()) - blobs
            return sweep(self.content, self.snapshots, self.leases, stray, blobs, chains)

    def usage(self, used: Iterable[str]) -> StoreUsage:
        """What images take; `used` are those that containers were made of.  Looks at every blob's size."""
        return measure(self.catalog.parts(), self.catalog.sizes(), used, self.catalog.kept_parts())

    def would_prune(self, select: Callable[[Image], bool], in_use: removal.InUse) -> tuple[Removed, int]:
        """What `prune` would answer, without doing anything."""
        going = [image for image in self.list() if select(image) and not in_use(image.id)]
        done: Removed = []
        for image in going:
            done += [*map(Untagged, image.repo_tags), Deleted(image.id)]
        return done, self.would_free(image.id for image in going)

    def would_free(self, digests: Iterable[str]) -> int:
        """The bytes that removing these images would free."""
        going = Removal(self.catalog.parts(), self.catalog.sizes(), self.catalog.kept_parts())
        return sum(going.take(digest) for digest in digests)

    @staticmethod
    def _new_names(repo: str, tag: str) -> Names:
        if not repo:
            return []
        parsed = reference.parse(repo)
        return [(parsed.with_tag(tag) if tag else parsed.tagged()).canonical]

    async def push(
        self, ref: str, tag: str = "", *, platform: str | None = None, auth: Mapping[str, str] | None = None,
        progress: Progress = lambda _: None,
    ) -> None:  # fmt: skip
        """Push one name, or every tag of a repository when `ref` and `tag` name none; of an index, `platform` alone.

        Raises NoSuchLocalImage before the first record, and what a registry refuses with.
        """
        parsed = reference.parse(ref)
        parsed = parsed.with_tag(tag) if tag else parsed
        names = self.catalog.tags_of(parsed)
        if not names:
            raise NoSuchLocalImage(parsed.tagged().familiar)
        images = {name: self.get(name, platform) for name in names}
        say = relay(progress)
        fields = self.registries.fields(self.registries.origin(parsed, auth), "pull,push")
        foreign = self.registries.takes_foreign_layers(parsed.domain)

        def work(stop: Stop) -> None:
            with self.leases.hold() as lease, self._transfers.visit(), self._transfers.worker(stop) as crew:
                for image in images.values():
                    lease.add(*self.catalog.reach(image.id).blobs)
                say({"status": f"The push refers to repository [{parsed.name}]"})
                store = PushStore(self.content, self.catalog, self._seen)
                pusher = Pusher(store, crew, self.registries.uploads, Target(fields, parsed, foreign), say)
                for name, image in images.items():
                    pusher.push(image, reference.parse(name), platform is not None)

        await in_thread(work)
        for name, image in images.items():
            self._events("push", reference.parse(name).familiar, {"name": parsed.familiar_name, "id": image.id})

    # --- registries ------------------------------------------------------------------------------------------

    async def login(self, server: str, auth: Mapping[str, str]) -> str:
        """Try credentials at a registry; an identity token to use in place of the password, or ""."""
        endpoint = replace(self.registries.host(server, None), auth=dict(auth))
        answer = await self._ask(endpoint, "login")
        return str(answer["token"])

    async def search(self, term: str, limit: int, auth: Mapping[str, str] | None) -> Found:
        """Repositories for `[HOST/]TERM` as the registry finds them; raises NoSearch."""
        host, slash, rest = term.partition("/")
        if not (slash and ("." in host or ":" in host or host == "localhost")):
            host, rest = "", term
        endpoint = self.registries.host(host, auth)
        found: Found = (await self._ask(endpoint, "search", term=rest, limit=limit))["found"]
        return found

    async def look(self, ref: str, auth: Mapping[str, str] | None) -> tuple[Descriptor, Platforms]:
        """What a name means at its registry, without pulling it: its descriptor and the platforms it is for."""
        parsed = reference.parse(ref).tagged()
        sources = self._sources(parsed, auth)

        def work(stop: Stop) -> tuple[Descriptor, Platforms]:
            with self._transfers.visit(), self._transfers.worker(stop) as crew:
                return look(crew, sources, parsed)

        return await in_thread(work)

    async def _ask(self, endpoint: Endpoint, op: str, **request: object) -> dict[str, Any]:
        fields = self.registries.fields(endpoint)

        def work(stop: Stop) -> dict[str, Any]:
            with self._transfers.visit(), self._transfers.worker(stop) as crew:
                return crew.ask(op, registry=fields, **request)

        return await in_thread(work)

    @contextmanager
    def _arrival(self) -> Iterator[tuple[Crew, Installer]]:
        """A crew and an installer under a lease; what is not committed at the end is dropped."""
        with self.leases.hold() as lease:
            installer: Installer | None = None
            try:
                with Crew(_CONCURRENT, self.registries.limits.fields()) as crew:
                    installer = Installer(self.content, self.snapshots, crew, lease)
                    yield crew, installer
            finally:
                if installer is not None:  # after the crew is gone: nobody writes there any more
                    installer.clean_up()

    def close(self) -> None:
        """Stop transfers, and wait for background work of the snapshots."""
        self._transfers.close()
        self.snapshots.close()


def _several(pieces: Iterator[bytes]) -> bytes:
    """About a megabyte of `pieces`, so that a trip to the thread is worth it; b"" at the end."""
    collected = bytearray()
    for piece in pieces:
        collected += piece
        if len(collected) >= _PIECE:
            break
    return bytes(collected)
