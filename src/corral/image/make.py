"""Images made here: from a root file system's tar (`docker import`), and from a container (`docker commit`)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

import msgspec

from corral.errors import CorralError
from corral.image import layers
from corral.image.archive import make_manifest
from corral.image.crew import Crew
from corral.image.install import Arrived, Installer
from corral.image.model import Image
from corral.image.unwrap import unwrap
from corral.oci import image as oci
from corral.oci.digest import Digest, chain_ids, hex_of
from corral.oci.platform import Platform
from corral.store.content import Content
from corral.store.gc import Lease
from corral.store.snapshots import Snapshots

_TELL_EVERY = 512 << 10
_IN_TOTO = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """What a commit says besides the files: the run configuration is final, changes applied.

    `created_by` is shown by `docker history`; `parent` is the container's image while it exists.
    """

    run: oci.RunConfig
    parent: Image | None = None
    author: str = ""
    comment: str = ""
    created_by: str = ""
    platform: Platform = field(default_factory=Platform)


def now() -> str:
    """The time in the form of image documents: RFC 3339, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def import_tar(
    source: layers.Source, config: oci.ImageConfig, content: Content, snapshots: Snapshots, installer: Installer,
    crew: Crew,
) -> oci.Descriptor:  # fmt: skip
    """A one-layer image of a root's tar (compressed or not); `config` lacks the diff id.  Returns the target."""
    crew.warm()
    source = unwrap(source)
    arrived = Arrived(layers.Unpacked(), content.ingest_path(), snapshots.begin_layer())
    installer.arrived(arrived)
    with open(arrived.path, "wb", buffering=0) as file:
        job = crew.submit("unpack", blob=arrived.path, layer=arrived.directory, follow=True)
        written = told = 0
        while data := source():
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            written += len(data)
            if written - told >= _TELL_EVERY:
                told = written
                job.grown()
    job.complete()
    arrived.unpacked = layers.Unpacked.of(crew.wait(job))
    installer.lease.add(arrived.digest)
    config = msgspec.structs.replace(config, rootfs=oci.Rootfs(diff_ids=[arrived.unpacked.diff_id]))
    return _finish(config, [arrived], [], content, installer)


def commit_snapshot(
    key: str, request: CommitRequest, content: Content, snapshots: Snapshots, installer: Installer, crew: Crew
) -> oci.Descriptor:
    """An image of a snapshot: its stack of layers, and one more with the changes (one for each committed snapshot
    below it, too).  Returns the target.
    """
    parent = snapshots.parent(key)
    changed = [_diff(upper, content, snapshots, installer, crew) for upper in reversed(snapshots.own(key))]
    below: list[Arrived] = []
    chain: str = parent or ""
    while chain:
        layer = snapshots.layer(chain)
        installer.lease.add(layer.blob, chain)
        below.insert(0, _stored(content, layer.blob, layer.diff_id))
        chain = layer.parent
    config = _commit_config(request, [held.unpacked.diff_id for held in [*below, *changed]], len(changed))
    base = list(request.parent.manifest.layers) if request.parent else []
    return _finish(config, [*below, *changed], base, content, installer)


def _diff(upper: str, content: Content, snapshots: Snapshots, installer: Installer, crew: Crew) -> Arrived:
    arrived = Arrived(layers.Unpacked(), content.ingest_path(), snapshots.begin_layer())
    installer.arrived(arrived)
    job = crew.submit("diff", upper=upper, blob=arrived.path, layer=arrived.directory)
    arrived.unpacked = layers.Unpacked.of(crew.wait(job))
    installer.lease.add(arrived.digest)
    return arrived


@dataclass(frozen=True, slots=True)
class Assembly:
    """An image whose layers are all in the store: `config` names them, `base` are descriptors to keep as they came.

    `predicates` are types and JSON of what is attested about it; with any, the target is an index.
    """

    config: oci.ImageConfig
    base: tuple[oci.Descriptor, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()
    predicates: tuple[tuple[str, bytes], ...] = ()


def assemble(assembly: Assembly, content: Content, snapshots: Snapshots, lease: Lease) -> oci.Descriptor:
    """Write the documents of an image; returns the target."""
    arrived = []
    for chain in chain_ids(assembly.config.rootfs.diff_ids):
        layer = snapshots.layer(chain)
        lease.add(layer.blob, chain)
        arrived.append(_stored(content, layer.blob, layer.diff_id))
    raw = oci.encode(assembly.config)
    lease.add(content.put(raw))
    manifest = _with_base(make_manifest(raw, arrived), list(assembly.base))
    if assembly.annotations:
        manifest = msgspec.structs.replace(manifest, annotations=dict(assembly.annotations))
    data = oci.encode(manifest)
    digest = content.put(data)
    lease.add(digest)
    made = oci.describe(oci.OCI_MANIFEST, data, digest)
    if assembly.predicates:
        made = _attested(made, assembly, content, lease)
    content.sync()
    return made


def _attested(made: oci.Descriptor, assembly: Assembly, content: Content, lease: Lease) -> oci.Descriptor:
    """An index of the image and of what is attested about it, as Docker's tools lay it out."""

    def put(data: bytes) -> Digest:
        digest = content.put(data)
        lease.add(digest)
        return digest

    layers = []
    for kind, predicate in assembly.predicates:
        subject = {"name": "_", "digest": {"sha256": hex_of(made.digest)}}
        statement = {
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicateType": kind,
            "subject": [subject],
            "predicate": msgspec.Raw(predicate),
        }
        data = msgspec.json.encode(statement)
        described = oci.describe(_IN_TOTO, data, put(data))
        layers.append(msgspec.structs.replace(described, annotations={"in-toto.io/predicate-type": kind}))
    nowhere = Platform(os="unknown", architecture="unknown")
    config = oci.encode(
        oci.ImageConfig(
            architecture="unknown", os="unknown", rootfs=oci.Rootfs(diff_ids=[layer.digest for layer in layers])
        )
    )
    manifest = oci.encode(
        oci.Manifest(
            schema_version=2,
            media_type=oci.OCI_MANIFEST,
            config=oci.describe(oci.OCI_CONFIG, config, put(config)),
            layers=layers,
        )
    )
    notes = {oci.ANNOTATION_REFERENCE_TYPE: "attestation-manifest", "vnd.docker.reference.digest": made.digest}
    attestation = oci.describe(oci.OCI_MANIFEST, manifest, put(manifest))
    entries = [
        msgspec.structs.replace(made, platform=assembly.config.platform),
        msgspec.structs.replace(attestation, platform=nowhere, annotations=notes),
    ]
    index = oci.encode(oci.Index(schema_version=2, media_type=oci.OCI_INDEX, manifests=entries))
    return oci.describe(oci.OCI_INDEX, index, put(index))


def _with_base(made: oci.Manifest, base: list[oci.Descriptor]) -> oci.Manifest:
    """The base's descriptors are kept as they came (their media types may be Docker's): layers stay recognisable."""
    known = {layer.digest: layer for layer in base}
    return msgspec.structs.replace(made, layers=[known.get(layer.digest, layer) for layer in made.layers])


def _stored(content: Content, digest: str, diff_id: str) -> Arrived:
    unpacked = layers.Unpacked()
    unpacked.digest, unpacked.diff_id, unpacked.blob_size = digest, diff_id, content.size(digest)
    with open(content.path(digest), "rb") as file:
        head = file.read(4)
    if head.startswith(layers.GZIP_MAGIC):
        unpacked.media = "gzip"
    elif head == layers.ZSTD_MAGIC:
        unpacked.media = "zstd"
    return Arrived(unpacked)


def _commit_config(request: CommitRequest, diff_ids: list[str], new: int) -> oci.ImageConfig:
    """The last `new` of the layers get an item of history each."""
    created = now()
    history = list(request.parent.config.history or []) if request.parent else []
    item = oci.History(created=created, created_by=request.created_by, author=request.author, comment=request.comment)
    history += [item] * new
    platform = request.parent.config.platform if request.parent else request.platform
    return oci.ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        author=request.author,
        comment=request.comment,
        config=request.run,
        rootfs=oci.Rootfs(diff_ids=diff_ids),
        history=history,
    )


def _finish(
    config: oci.ImageConfig, arrived: list[Arrived], base: list[oci.Descriptor], content: Content, installer: Installer
) -> oci.Descriptor:
    raw = oci.encode(config)
    installer.install(config, arrived)
    installer.document(raw)
    data = oci.encode(_with_base(make_manifest(raw, arrived), base))
    digest = installer.document(data)
    content.sync()
    return oci.describe(oci.OCI_MANIFEST, data, digest)


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One line of `docker history`, newest first; `size` in bytes, `created` in RFC 3339 or ""."""

    id: str
    created: str
    created_by: str
    tags: tuple[str, ...]
    size: int
    comment: str


def history(image: Image, snapshots: Snapshots) -> list[HistoryItem]:
    """How an image came to be; a step's size is that of its unpacked layer."""

    sizes = [_layer_size(snapshots, chain) for chain in chain_ids(image.diff_ids)]
    steps = list(image.config.history or []) or [oci.History(created=image.config.created) for _ in sizes]
    items = []
    for step in steps:
        size = 0 if step.empty_layer or not sizes else sizes.pop(0)
        items.append(HistoryItem("<missing>", step.created or "", step.created_by, (), size, step.comment))
    items.reverse()
    if items:
        first = items[0]
        items[0] = HistoryItem(image.id, first.created, first.created_by, image.repo_tags, first.size, first.comment)
    return items


def _layer_size(snapshots: Snapshots, chain: str) -> int:
    try:
        return snapshots.layer(chain).size
    except CorralError:  # content that was never unpacked here (another platform's)
        return 0


def import_config(run: oci.RunConfig, message: str, platform: Platform) -> oci.ImageConfig:
    """The configuration of an imported image, without its layer."""
    created = now()
    return oci.ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        comment=message,
        config=run,
        rootfs=oci.Rootfs(),
        history=[oci.History(created=created, comment=message)],
    )
