"""The parts of an image that has several: its manifests, what one platform's part keeps, and removing one part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from corral.errors import Conflict, CorralError, NotFound
from corral.image.catalog import Catalog, Reach
from corral.image.model import Image, User, short
from corral.oci import image as oci
from corral.oci.digest import ChainID, chain_ids
from corral.oci.platform import Platform, rank
from corral.store.content import Content
from corral.store.gc import Leases
from corral.store.snapshots import Snapshots

ANNOTATION_REFERENCE_DIGEST = "vnd.docker.reference.digest"
ANNOTATION_PREDICATE = "in-toto.io/predicate-type"
_STATEMENT_TYPES = frozenset(("application/vnd.in-toto+json",))


class NoSuchPart(NotFound):
    """The image has nothing for that platform."""

    def __init__(self, shown: str, platform: Platform) -> None:
        super().__init__(f"no matching manifest for {platform} in the image {shown}: not found")


class PartInUse(Conflict):
    """A container was made of that part."""

    def __init__(self, digest: str, user: User) -> None:
        super().__init__(
            f"conflict: unable to delete {short(digest)} (must be forced) - "
            f"image is being used by {'running' if user.running else 'stopped'} container {short(user.container_id)}"
        )


@dataclass(frozen=True, slots=True)
class Part:
    """One manifest below an image's target.  Sizes in bytes, of what is here.

    `kind` is image, attestation or unknown; `subject` is the manifest that an attestation is about.
    """

    descriptor: oci.Descriptor
    kind: str
    available: bool
    content_size: int
    unpacked_size: int
    platform: Platform | None
    chain: ChainID | None
    subject: str = ""


def parts_of(catalog: Catalog, content: Content, digest: str) -> Iterator[Part]:
    """Every manifest of an image, here or not."""
    for descriptor in catalog.below(digest):
        reach = catalog.walk(descriptor.digest)
        config = _config_of(content, descriptor.digest)
        chains = chain_ids(config.rootfs.diff_ids) if config else []
        kind = "attestation" if descriptor.is_attestation else "image"
        if kind == "image" and config is None and content.has(descriptor.digest):
            kind = "unknown"
        yield Part(
            descriptor,
            kind,
            all(content.has(blob) for blob in reach.blobs),
            catalog.content_size(reach),
            catalog.unpacked_size(reach),
            descriptor.platform or (config.platform if config else None),
            chains[-1] if chains else None,
            (descriptor.annotations or {}).get(ANNOTATION_REFERENCE_DIGEST, ""),
        )


def _config_of(content: Content, manifest_digest: str) -> oci.ImageConfig | None:
    try:
        manifest = oci.parse_manifest(content.read(manifest_digest))
        return oci.parse_config(content.read(manifest.config.digest))
    except CorralError:  # not here, or not an image's
        return None


def serves(part: Part, wanted: Iterable[Platform]) -> bool:
    """Whether a part is an image for one of these platforms."""
    return (
        part.kind == "image"
        and part.platform is not None
        and any(rank(platform, part.platform) == 0 for platform in wanted)
    )


def blobs_for(catalog: Catalog, content: Content, image: Image, wanted: Sequence[Platform]) -> frozenset[str]:
    """What an archive of these platforms needs: the target's documents, their manifests and attestations."""
    whole = catalog.reach(image.id).blobs
    if not wanted or not image.descriptor.is_index:
        return whole
    others = list(parts_of(catalog, content, image.id))
    chosen = {part.descriptor.digest for part in others if serves(part, wanted)}
    chosen |= {part.descriptor.digest for part in others if part.subject in chosen}
    left_out: set[str] = set()
    kept: set[str] = set()
    for part in others:
        into = kept if part.descriptor.digest in chosen else left_out
        into |= catalog.walk(part.descriptor.digest).blobs
    return whole - (left_out - kept)


@dataclass(frozen=True, slots=True)
class Statement:
    """An in-toto statement about an image; `body` is the document as stored."""

    descriptor: oci.Descriptor
    predicate_type: str
    manifest: str
    body: bytes


def statements(catalog: Catalog, content: Content, image: Image, types: Sequence[str]) -> Iterator[Statement]:
    """The attestations of the manifest that `image` is seen through; all, or those of some predicate types."""
    for part in parts_of(catalog, content, image.id) if image.descriptor.is_index else ():
        if part.kind != "attestation" or part.subject != image.manifest_digest or not part.available:
            continue
        for layer in oci.parse_manifest(content.read(part.descriptor.digest)).layers:
            predicate = (layer.annotations or {}).get(ANNOTATION_PREDICATE, "")
            if layer.media_type in _STATEMENT_TYPES and (not types or predicate in types):
                yield Statement(layer, predicate, part.descriptor.digest, content.read(layer.digest))


def removable(
    catalog: Catalog, content: Content, image: Image, wanted: Sequence[Platform], users: Sequence[tuple[User, str]],
    force: bool,
) -> list[Part]:  # fmt: skip
    """The parts of an index that a removal by platform means; `users` come with their stack's chain id.

    Raises NoSuchPart or PartInUse.
    """
    here = [part for part in parts_of(catalog, content, image.id) if content.has(part.descriptor.digest)]
    chosen = []
    for platform in wanted:
        found = [part for part in here if serves(part, (platform,))]
        if not found:
            raise NoSuchPart(image.repo_tags[0] if image.repo_tags else image.id, platform)
        chosen += found
    for part in chosen:
        for user, chain in users:
            if chain == part.chain and (user.running or not force):
                raise PartInUse(part.descriptor.digest, user)
    return chosen


def remove_parts(
    catalog: Catalog, content: Content, snapshots: Snapshots, leases: Leases, digest: str, going: Sequence[Part]
) -> int:
    """Delete what only these parts of one image keep; the bytes freed."""
    gone = {part.descriptor.digest for part in going}
    with leases.lock:
        keep = Reach(frozenset(), frozenset())
        for other in catalog.targets() - {digest}:
            keep = keep | catalog.reach(other)
        for descriptor in catalog.below(digest):
            if descriptor.digest not in gone:
                keep = keep | catalog.walk(descriptor.digest)
        used = snapshots.used_chains()
        mine = Reach(frozenset(), frozenset())
        for name in gone:
            mine = mine | catalog.walk(name)
        layers = snapshots.layers()
        dead = [c for c in mine.chains - keep.chains if c in layers and c not in used and not leases.is_held(c)]
        needed = {layer.blob for chain, layer in layers.items() if chain not in dead}
        freed = sum(layers[chain].size for chain in dead)
        snapshots.remove_layers(dead)
        for blob in mine.blobs - keep.blobs - needed:
            if not leases.is_held(blob):
                freed += content.remove(blob)
        catalog.look_again(digest)
    return freed
