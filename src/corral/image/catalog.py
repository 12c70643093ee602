"""The catalog: which names point to which content, and what images that makes.

Names are canonical references (`docker.io/library/busybox:latest`, `docker.io/library/busybox@sha256:...`), or
`@sha256:...` for an image that has lost its last name.  The table `image` is the truth; index.json of the content
store is written after it, for other tools.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import msgspec

from corral.errors import CorralError, NotFound
from corral.image.model import AmbiguousReference, Image, ImageRecord, NoSuchImage, NoSuchPlatform
from corral.image.usage import Parts, layer_part
from corral.oci import image as oci
from corral.oci import reference
from corral.oci.digest import ChainID, Digest, chain_ids, hex_of, is_hex
from corral.oci.platform import Platform, best
from corral.store.content import Content
from corral.store.db import Database, Statement
from corral.store.snapshots import Snapshots

_ID_PREFIX_MIN = 1
_INDEX_DEPTH_MAX = 4
_decode_record = msgspec.json.Decoder(ImageRecord).decode


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything below one target: blobs (itself included), and the chain ids of its stacks."""

    blobs: frozenset[str]
    chains: frozenset[ChainID]

    def __or__(self, other: Reach) -> Reach:
        return Reach(self.blobs | other.blobs, self.chains | other.chains)


class Catalog:
    """Names and images.  Reading is quick and safe from any thread."""

    def __init__(self, db: Database, content: Content, snapshots: Snapshots, platform: Platform) -> None:
        self._db = db
        self._content = content
        self._snapshots = snapshots
        self.platform = platform
        self._lock = threading.RLock()
        self._names: dict[str, ImageRecord] = {
            name: _decode_record(record) for name, record in db.read("SELECT name, record FROM image")
        }
        self._images: dict[tuple[str, str], Image] = {}
        self._reach: dict[str, Reach] = {}
        self._incomplete: set[str] = set()
        self._used_at: dict[str, int] = {}
        self._write_index()

    # --- names -----------------------------------------------------------------------------------------------

    def target(self, name: str) -> ImageRecord | None:
        """What a canonical name points to."""
        return self._names.get(name)

    def names_of(self, digest: str) -> list[str]:
        """The canonical names of a target, sorted."""
        return sorted(name for name, record in self._names.items() if record.digest == digest)

    def targets(self) -> set[str]:
        """The digests that names point to."""
        return {record.digest for record in self._names.values()}

    def point(self, names: Iterable[str], descriptor: oci.Descriptor) -> None:
        """Let `names` (none: a dangling image) point to a target, durably.  What loses its last name dangles."""
        wanted = list(names)
        if not wanted:
            wanted = [] if self.names_of(descriptor.digest) else [f"@{descriptor.digest}"]
        record = ImageRecord(descriptor.digest, descriptor.media_type, descriptor.size, time.time_ns())
        with self._lock:
            after = {**self._names, **dict.fromkeys(wanted, record)}
            named = {held.digest for name, held in after.items() if not name.startswith("@")}
            for name in wanted:
                old = self._names.get(name)
                if old is not None and old.digest not in {held.digest for held in after.values()}:
                    after[f"@{old.digest}"] = replace_time(old)
            for name in [name for name, held in after.items() if name.startswith("@") and held.digest in named]:
                del after[name]
            self._replace(after)

    def name(self, name: str, descriptor: oci.Descriptor, platform: Platform | None) -> Image:
        """Point one name, and the image it names then; nobody can take the name away in between."""
        with self._lock:
            self.point([name], descriptor)
            return self.image(descriptor.digest, platform, name)

    def drop(self, names: Iterable[str], keep_dangling: str = "") -> None:
        """Remove names durably; the target `keep_dangling` stays as a dangling image if it loses its last one."""
        with self._lock:
            after = dict(self._names)
            for name in names:
                lost = after.pop(name, None)
                if lost and lost.digest == keep_dangling and lost.digest not in {r.digest for r in after.values()}:
                    after[f"@{lost.digest}"] = replace_time(lost)
            self._replace(after)

    def _replace(self, after: dict[str, ImageRecord]) -> None:
        statements: list[Statement] = [
            ("DELETE FROM image WHERE name = ?", (name,)) for name in self._names if name not in after
        ]
        for name, record in after.items():
            if self._names.get(name) is not record:
                row = (name, msgspec.json.encode(record))
                statements.append(("INSERT OR REPLACE INTO image VALUES (?, ?)", row))
        if statements:
            self._db.submit(*statements).result()
        self._forget(after)
        self._names = after
        self._write_index()

    def _forget(self, after: dict[str, ImageRecord]) -> None:
        """Drop what is remembered of targets whose names change, or of which more may have come."""
        before = self._names
        changed = {record.digest for name, record in after.items() if before.get(name) is not record}
        changed |= {record.digest for name, record in before.items() if after.get(name) is not record}
        changed |= self._incomplete
        self._incomplete = set()
        self._reach = {digest: reach for digest, reach in self._reach.items() if digest not in changed}
        self._images = {key: image for key, image in self._images.items() if key[0] not in changed}

    # --- use -------------------------------------------------------------------------------------------------

    def used(self, digest: str) -> None:
        """Note that a container was made of an image; `keep_uses` makes it durable."""
        self._used_at[digest] = time.time_ns()

    def last_used(self, digest: str) -> int:
        """When an image was last used or named, in nanoseconds since the epoch."""
        records = [record for record in self._names.values() if record.digest == digest]
        noted = max((max(record.used_at, record.tagged_at) for record in records), default=0)
        return max(noted, self._used_at.get(digest, 0))

    def keep_uses(self) -> None:
        """Write down what `used` noted."""
        with self._lock:
            noted, self._used_at = self._used_at, {}
            statements: list[Statement] = []
            for name, record in self._names.items():
                if noted.get(record.digest, 0) > record.used_at:
                    record = msgspec.structs.replace(record, used_at=noted[record.digest])
                    self._names[name] = record
                    statements.append(
                        ("UPDATE image SET record = ? WHERE name = ?", (msgspec.json.encode(record), name))
                    )
            if statements:
                self._db.submit(*statements).result()

    def _write_index(self) -> None:
        manifests = []
        for name, record in sorted(self._names.items()):
            annotations = None
            if not name.startswith("@"):
                annotations = {oci.ANNOTATION_IMAGE_NAME: name, oci.ANNOTATION_REF_NAME: _layout_name(name)}
            manifests.append(
                oci.Descriptor(
                    media_type=record.media_type, digest=record.digest, size=record.size, annotations=annotations
                )
            )
        index = oci.Index(schema_version=2, media_type=oci.OCI_INDEX, manifests=manifests)
        self._content.write_index(oci.encode(index))

    # --- finding ---------------------------------------------------------------------------------------------

    def resolve(self, text: str) -> tuple[str, str | None]:
        """The target's digest for a name, an id or the unique beginning of one, and the canonical name if it was one.

        Raises NoSuchImage, AmbiguousReference or InvalidReference.
        """
        full_id = text.removeprefix("sha256:")
        if len(full_id) == 64 and is_hex(full_id):
            digest = f"sha256:{full_id}"
            if digest in self.targets():
                return digest, None
            raise NoSuchImage(text)
        if text.startswith("sha256:") and is_hex(full_id):
            return self._by_prefix(full_id, text), None
        parsed = reference.parse(text)
        record = self._names.get(parsed.tagged().canonical)
        if record is not None:
            return record.digest, parsed.tagged().canonical
        if parsed.digest is not None:
            found = self._by_repository_and_digest(parsed)
            if found is not None:
                return parsed.digest, found
        if is_hex(text) and len(text) >= _ID_PREFIX_MIN:
            return self._by_prefix(text, parsed.tagged().familiar), None
        raise NoSuchImage(parsed.tagged().familiar)

    def _by_prefix(self, prefix: str, shown: str) -> str:
        found = {digest for digest in self.targets() if hex_of(digest).startswith(prefix)}
        if len(found) > 1:
            raise AmbiguousReference(prefix)
        if not found:
            raise NoSuchImage(shown)
        return found.pop()

    def _by_repository_and_digest(self, parsed: reference.Reference) -> str | None:
        """`name@digest` and `name:tag@digest` find an image by its digest if one of its names is of that repository."""
        exact = replace(parsed, digest=None).canonical if parsed.tag else None
        for name in self.names_of(str(parsed.digest)):
            if name == exact or (exact is None and not name.startswith("@") and _repository(name) == parsed.name):
                return name
        return None

    def tags_of(self, parsed: reference.Reference) -> list[str]:
        """The canonical names that a push means: the one given, or all tags of the repository."""
        if parsed.tag or parsed.digest:
            return [parsed.canonical] if parsed.canonical in self._names else []
        found = (reference.parse(name) for name in self._names if not name.startswith("@"))
        return sorted(held.canonical for held in found if held.name == parsed.name and held.tag)

    def is_complete(self, digest: str) -> bool:
        """Whether all content below a target is here (of an index, often one platform's is)."""
        return all(self._content.has(blob) for blob in self.reach(digest).blobs)

    def get(self, text: str, platform: Platform | None = None) -> Image:
        """The image that a name, id or unique beginning of an id stands for."""
        return self.image(self.resolve(text)[0], platform, shown=text)

    def list(self) -> list[Image]:
        """Every image once, newest first; those whose documents are missing or damaged are left out."""
        found = []
        for digest in self.targets():
            try:
                found.append(self.image(digest))
            except CorralError:
                continue
        return sorted(found, key=lambda image: image.created, reverse=True)

    def image(self, digest: str, platform: Platform | None = None, shown: str = "") -> Image:
        """The image of a target; raises NoSuchPlatform when nothing in it serves `platform`."""
        key = (digest, str(platform or ""))
        image = self._images.get(key)
        if image is not None:
            return image
        with self._lock:
            image = self._images[key] = self._build(digest, platform, shown or digest)
        return image

    def _build(self, digest: str, platform: Platform | None, shown: str) -> Image:
        names = self.names_of(digest)
        record = self._names[names[0]] if names else None
        if record is None:
            raise NoSuchImage(shown)
        manifest_digest = self._manifest_for(record, platform, shown)
        manifest = oci.parse_manifest(self._content.read(manifest_digest))
        raw = self._content.read(manifest.config.digest)
        config = oci.parse_config(raw)
        if platform is not None and best(platform, [config.platform], lambda found: found) is None:
            raise NoSuchPlatform(shown, str(platform), str(config.platform))
        chains = chain_ids(config.rootfs.diff_ids)
        parsed = [reference.parse(name) for name in names if not name.startswith("@")]
        return Image(
            id=Digest(digest),
            descriptor=oci.Descriptor(media_type=record.media_type, digest=digest, size=record.size),
            manifest=manifest,
            manifest_digest=manifest_digest,
            config=config,
            config_raw=raw,
            config_digest=Digest(manifest.config.digest),
            repo_tags=tuple(found.familiar for found in parsed if found.tag),
            repo_digests=tuple(sorted({found.with_digest(Digest(digest)).familiar for found in parsed})),
            size=self._size(digest),
            created=config.created or "",
            architecture=config.architecture,
            os=config.os or "linux",
            variant=config.variant,
            diff_ids=tuple(config.rootfs.diff_ids),
            chain_id=chains[-1] if chains else None,
            tagged_at=max(self._names[name].tagged_at for name in names),
        )

    def _manifest_for(self, record: ImageRecord, platform: Platform | None, shown: str) -> Digest:
        if record.media_type not in oci.INDEX_TYPES:
            return Digest(record.digest)
        offers = [found for found in self._manifests(record.digest) if self._complete(found)]
        chosen = best(platform or self.platform, offers, lambda found: found.platform)
        if chosen is None and platform is None and offers:
            chosen = offers[0]
        if chosen is None:
            others = ", ".join(str(found.platform) for found in self._manifests(record.digest) if found.platform)
            raise NoSuchPlatform(shown, str(platform or self.platform), others)
        return Digest(chosen.digest)

    def _complete(self, descriptor: oci.Descriptor) -> bool:
        try:
            manifest = oci.parse_manifest(self._content.read(descriptor.digest))
        except CorralError:
            return False
        return self._content.has(manifest.config.digest)

    def _manifests(self, digest: str) -> Iterator[oci.Descriptor]:
        """The image manifests that an index leads to; attestations are not images."""
        return (descriptor for descriptor in self._below(digest, 0) if not descriptor.is_attestation)

    # --- reach -----------------------------------------------------------------------------------------------

    def reach(self, digest: str) -> Reach:
        """What a target keeps from being swept; documents that are missing end a branch."""
        found = self._reach.get(digest)
        if found is not None:
            return found
        with self._lock:  # what is remembered must not be older than what `_forget` forgot
            blobs: set[str] = set()
            chains: set[ChainID] = set()
            if not self._walk(digest, blobs, chains, 0):
                self._incomplete.add(digest)
            found = self._reach[digest] = Reach(frozenset(blobs), frozenset(chains))
        return found

    def walk(self, digest: str) -> Reach:
        """What any one document keeps; it need not be a target."""
        blobs: set[str] = set()
        chains: set[ChainID] = set()
        self._walk(digest, blobs, chains, 0)
        return Reach(frozenset(blobs), frozenset(chains))

    def look_again(self, digest: str) -> None:
        """Forget what is remembered of a target: some of its content was removed."""
        with self._lock:
            self._reach.pop(digest, None)
            self._images = {key: image for key, image in self._images.items() if key[0] != digest}

    def reach_all(self) -> tuple[set[str], set[str]]:
        """What all names together keep: blobs and chain ids."""
        blobs: set[str] = set()
        chains: set[str] = set()
        for digest in self.targets():
            blobs |= self.reach(digest).blobs
            chains |= self.reach(digest).chains
        return blobs, chains

    def _walk(self, digest: str, blobs: set[str], chains: set[ChainID], depth: int) -> bool:
        """Collect what is below a document; whether everything of it was here to look at."""
        if digest in blobs or depth > _INDEX_DEPTH_MAX:
            return True
        blobs.add(digest)
        try:
            data = self._content.read(digest)
        except NotFound:
            return False
        if oci.media_type_of(data) in oci.INDEX_TYPES:
            below = oci.parse_index(data).manifests
            found = [self._walk(child.digest, blobs, chains, depth + 1) for child in below]
            return all(found)
        manifest = oci.parse_manifest(data)
        blobs.add(manifest.config.digest)
        blobs.update(layer.digest for layer in manifest.layers)
        complete = all(self._content.has(layer.digest) for layer in manifest.layers)
        try:
            config = oci.parse_config(self._content.read(manifest.config.digest))
        except NotFound:
            return False
        except CorralError:  # an attestation's or artifact's configuration: then there are no layers
            return complete
        stack = chain_ids(config.rootfs.diff_ids)
        chains.update(stack)
        return complete and all(self._snapshots.has_layer(chain) for chain in stack)

    # --- usage -----------------------------------------------------------------------------------------------

    def parts(self) -> dict[str, Parts]:
        """Every target with what it keeps, for `corral.image.usage`."""
        found = {}
        for digest in self.targets():
            reach = self.reach(digest)
            found[digest] = reach.blobs | {layer_part(chain) for chain in reach.chains}
        return found

    def sizes(self) -> dict[str, int]:
        """Bytes of every part that is here."""
        found = self._content.sizes()
        for chain, layer in self._snapshots.layers().items():
            found[layer_part(chain)] = layer.size
        return found

    def kept_parts(self) -> Parts:
        """The layers that containers stand on, with their blobs: they stay when images go."""
        layers = self._snapshots.layers()
        chains = [chain for chain in self._snapshots.used_chains() if chain in layers]
        return frozenset([*map(layer_part, chains), *(layers[chain].blob for chain in chains)])

    def below(self, digest: str) -> Iterator[oci.Descriptor]:
        """The manifests of a target, attestations too; of a target that is a manifest, itself."""
        record = next(record for record in self._names.values() if record.digest == digest)
        if record.media_type not in oci.INDEX_TYPES:
            yield oci.Descriptor(media_type=record.media_type, digest=digest, size=record.size)
            return
        yield from self._below(digest, 0)

    def _below(self, digest: str, depth: int) -> Iterator[oci.Descriptor]:
        for descriptor in oci.parse_index(self._content.read(digest)).manifests:
            if descriptor.is_index and depth < _INDEX_DEPTH_MAX and self._content.has(descriptor.digest):
                yield from self._below(descriptor.digest, depth + 1)
            else:
                yield descriptor

    def _size(self, digest: str) -> int:
        return self.size_of(self.reach(digest))

    def size_of(self, reach: Reach) -> int:
        """Bytes of what is here of a target: content and unpacked layers."""
        return self.content_size(reach) + self.unpacked_size(reach)

    def content_size(self, reach: Reach) -> int:
        """Bytes of the blobs that are here."""
        return sum(self._content.size(blob) for blob in reach.blobs if self._content.has(blob))

    def unpacked_size(self, reach: Reach) -> int:
        """Bytes of the layers that are here."""
        layers = self._snapshots.layers()
        return sum(layers[chain].size for chain in reach.chains if chain in layers)


def replace_time(record: ImageRecord) -> ImageRecord:
    """The same target, named now."""
    return msgspec.structs.replace(record, tagged_at=time.time_ns())


def _repository(name: str) -> str:
    return reference.parse(name).name


def _layout_name(name: str) -> str:
    """What other tools call the image in the layout: they select by this annotation."""
    return reference.parse(name).familiar
