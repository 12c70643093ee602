"""Archives in: `docker load` of docker-archives and OCI layouts, compressed or not.

One pass over the stream, in one thread of the daemon: a member that is a layer is written to the content store's
ingest while a worker process follows the growing file (digest, decompress, unpack), so a layer is unpacked when its
last byte has come, and the next one goes to the next worker.  What belongs to which image is known only at the end,
from `manifest.json` or `index.json`; layers that nothing named are dropped then.

Formats: the image specification's image-layout.md; Docker's `manifest.json` as `docker save` has written it since
1.10.  Where an archive has both, the OCI layout counts, because it keeps the manifest that the image was pulled by.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from corral.errors import CorralError
from corral.image import layers
from corral.image.crew import Crew, Job
from corral.image.install import Arrived, Installer
from corral.image.model import InvalidArchive
from corral.image.unwrap import unwrap
from corral.oci import image as oci
from corral.oci import reference
from corral.oci.digest import Digest, DigestMismatch, digest_of, verify
from corral.oci.platform import Platform, rank
from corral.store import tar
from corral.store.content import Content
from corral.store.snapshots import Snapshots

Progress = Callable[[dict[str, Any]], None]

_DOCUMENTS_MAX_BYTES = 64 << 20
_PIECE = 256 << 10
_TELL_EVERY = 512 << 10
_LINKS_MAX = 16
_LAYOUT_BLOBS = "blobs/sha256/"
_OTHER_PLATFORM = "cannot load archive: it has no image for this platform"


class _DockerImage(msgspec.Struct, rename="pascal"):
    """One image of `manifest.json`: paths in the archive."""

    config: str
    layers: list[str] | None = None
    repo_tags: list[str] | None = None


class Loaded(msgspec.Struct, frozen=True):
    """One image of an archive: its target, and the canonical names that it had there."""

    descriptor: oci.Descriptor
    names: list[str]


class ArchiveLoader:
    """Reads one archive; `load` returns its images, their content committed and not yet named."""

    def __init__(
        self, content: Content, snapshots: Snapshots, crew: Crew, installer: Installer, platforms: Sequence[Platform]
    ) -> None:
        self._content = content
        self._snapshots = snapshots
        self._crew = crew
        self._installer = installer
        self._platforms = platforms
        self._documents: dict[str, bytes] = {}
        self._documents_size = 0
        self._links: dict[str, str] = {}
        self._jobs: dict[str, tuple[Job, str, str]] = {}
        self._arrived: dict[str, Arrived] = {}
        self._skipped: set[str] = set()
        self._failures: dict[str, CorralError] = {}

    def load(self, source: layers.Source, progress: Progress) -> list[Loaded]:
        """Raises InvalidArchive, tar.InvalidTar, or what unpacking and `Installer.install` raise."""
        self._crew.warm()
        _, plain = layers.decompress(unwrap(source))
        reader = tar.TarReader(plain)
        try:
            for entry in reader:
                self._take(entry, reader, progress)
            reader.drain()
        except BaseException:
            self._give_up()
            raise
        self._collect()
        if "oci-layout" in self._documents and "index.json" in self._documents:
            return self._load_layout()
        if "manifest.json" in self._documents:
            return self._load_docker()
        raise InvalidArchive("unrecognized image format")

    # --- members ---------------------------------------------------------------------------------------------

    def _take(self, entry: tar.Entry, reader: tar.TarReader, progress: Progress) -> None:
        path = posixpath.normpath(entry.name.lstrip("/"))
        if entry.type == tar.HARD_LINK:
            self._links[path] = posixpath.normpath(entry.linkname.lstrip("/"))
        elif entry.type == tar.SYMLINK:  # `docker save` once wrote a repeated layer as a symlink to the first
            self._links[path] = posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.linkname))
        elif entry.type != tar.REGULAR or not entry.size:
            return
        elif entry.size <= oci.DOCUMENT_MAX_BYTES and not path.endswith(".tar"):
            data = reader.read_all()
            if _is_layer(data[:512]):
                self._layer(path, entry.size, iter((memoryview(data),)), progress)
            else:
                self._keep(path, data)
        elif path.startswith(_LAYOUT_BLOBS) and self._content.has(_blob_digest(path)):
            self._skipped.add(path)
        else:
            self._layer(path, entry.size, reader.chunks(), progress)

    def _keep(self, path: str, data: bytes) -> None:
        self._documents_size += len(data)
        if self._documents_size > _DOCUMENTS_MAX_BYTES:
            raise InvalidArchive("cannot load archive: its documents are too large")
        self._documents[path] = data

    def _layer(self, path: str, size: int, pieces: Iterator[memoryview], progress: Progress) -> None:
        """Write a layer while a worker follows it."""
        shown = path.removeprefix(_LAYOUT_BLOBS)[:12]
        blob, directory = self._content.ingest_path(), self._snapshots.begin_layer()
        with open(blob, "wb", buffering=0) as file:
            job = self._crew.submit("unpack", blob=blob, layer=directory, follow=True)
            self._jobs[path] = (job, blob, directory)
            written = told = 0
            for piece in pieces:
                while piece:
                    count = file.write(piece)
                    piece = piece[count:]
                    written += count
                if written - told >= _TELL_EVERY:
                    told = written
                    job.grown()
                    detail = {"current": written, "total": size}
                    progress({"status": "Loading layer", "progressDetail": detail, "id": shown})
        job.complete()

    def _collect(self) -> None:
        """Wait for all workers; a member that looked like a layer and is none counts only if an image names it."""
        for path, (job, blob, directory) in self._jobs.items():
            try:
                unpacked = layers.Unpacked.of(self._crew.wait(job))
            except CorralError as error:  # held until it is known whether an image needs this member
                self._failures[path] = error
                unpacked = layers.Unpacked()
            self._arrived[path] = self._installer.arrived(Arrived(unpacked, blob, directory))
        self._jobs.clear()

    def _give_up(self) -> None:
        """The stream broke: whatever workers were doing is dropped with the crew."""
        for _, blob, directory in self._jobs.values():
            self._installer.arrived(Arrived(layers.Unpacked(), blob, directory))

    # --- what the archive says -------------------------------------------------------------------------------

    def _resolve(self, path: str) -> str:
        path = posixpath.normpath(path)
        for _ in range(_LINKS_MAX):
            if path not in self._links:
                return path
            path = self._links[path]
        raise InvalidArchive(f"cannot load archive: too many links at {path}")

    def _document(self, path: str) -> bytes:
        found = self._documents.get(self._resolve(path))
        if found is None:
            raise InvalidArchive(f"open {path}: no such file or directory")
        return found

    def _layer_at(self, path: str) -> Arrived:
        resolved = self._resolve(path)
        if resolved in self._failures:
            raise self._failures[resolved]
        arrived = self._arrived.get(resolved)
        if arrived is None and resolved in self._skipped:
            arrived = self._stored(_blob_digest(resolved))
        if arrived is None and self._is_here(resolved):
            arrived = self._stored(_blob_digest(resolved))
        if arrived is None and resolved in self._documents:
            arrived = self._late_layer(resolved)
        if arrived is None:
            raise InvalidArchive(f"open {path}: no such file or directory")
        if resolved.startswith(_LAYOUT_BLOBS):
            _check(arrived.digest, _blob_digest(resolved))
        return arrived

    def _is_here(self, path: str) -> bool:
        """Whether a layer that the archive has left out is in the store."""
        return path.startswith(_LAYOUT_BLOBS) and path not in self._documents and self._content.has(_blob_digest(path))

    def _late_layer(self, path: str) -> Arrived:
        """A small member that did not look like a layer and is one (an empty tar, say)."""
        data = self._documents[path]
        self._layer(path, len(data), iter((memoryview(data),)), lambda _: None)
        job, blob, directory = self._jobs.pop(path)
        arrived = self._installer.arrived(Arrived(layers.Unpacked(), blob, directory))
        arrived.unpacked = layers.Unpacked.of(self._crew.wait(job))
        self._arrived[path] = arrived
        return arrived

    def _stored(self, digest: Digest) -> Arrived:
        """A layer whose blob is in the store already: its diff id is taken from its bytes, not on trust."""
        for layer in self._snapshots.layers().values():
            if layer.blob == digest:
                unpacked = layers.Unpacked()
                unpacked.digest, unpacked.diff_id = digest, layer.diff_id
                break
        else:
            job = self._crew.submit("unpack", blob=self._content.path(digest), layer="", sync=False)
            unpacked = layers.Unpacked.of(self._crew.wait(job))
            _check(unpacked.digest, digest)
        arrived = self._arrived[_LAYOUT_BLOBS + digest.removeprefix("sha256:")] = Arrived(unpacked)
        return arrived

    # --- docker-archive --------------------------------------------------------------------------------------

    def _load_docker(self) -> list[Loaded]:
        try:
            images = msgspec.json.decode(self._documents["manifest.json"], type=list[_DockerImage])
        except msgspec.DecodeError as error:
            raise InvalidArchive(f"cannot read manifest.json: {error}") from error
        chosen = [(image, raw, config) for image in images for raw, config in self._config_of(image)]
        if images and not chosen:
            raise InvalidArchive(_OTHER_PLATFORM)
        return [self._load_docker_image(image, raw, config) for image, raw, config in chosen]

    def _config_of(self, image: _DockerImage) -> Iterator[tuple[bytes, oci.ImageConfig]]:
        """The configuration of an image, if that is for a platform asked for."""
        raw = self._document(image.config)
        config = oci.parse_config(raw)
        if self._serves(config.platform):
            yield raw, config

    def _load_docker_image(self, image: _DockerImage, raw: bytes, config: oci.ImageConfig) -> Loaded:
        names = [reference.parse(tag).tagged().canonical for tag in image.repo_tags or []]
        if len(image.layers or []) > oci.LAYERS_MAX:
            raise InvalidArchive(f"cannot load archive: {len(image.layers or [])} layers are too many")
        arrived = [self._layer_at(path) for path in image.layers or []]
        self._installer.install(config, arrived)
        manifest = oci.encode(make_manifest(raw, arrived))
        self._installer.document(raw)
        digest = self._installer.document(manifest)
        self._content.sync()
        return Loaded(oci.describe(oci.OCI_MANIFEST, manifest, digest), names)

    # --- OCI layout ------------------------------------------------------------------------------------------

    def _load_layout(self) -> list[Loaded]:
        index = oci.parse_index(self._documents["index.json"])
        found: dict[str, Loaded] = {}
        for descriptor in index.manifests:
            if descriptor.is_attestation:
                continue
            loaded = found.get(descriptor.digest)
            if loaded is None:
                if not self._load_target(descriptor, 0):
                    continue
                plain = oci.Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
                loaded = found[descriptor.digest] = Loaded(plain, [])
            name = _name_of(descriptor)
            if name and name not in loaded.names:
                loaded.names.append(name)
        self._content.sync()
        if not found:
            raise InvalidArchive(_OTHER_PLATFORM)
        return list(found.values())

    def _load_target(self, descriptor: oci.Descriptor, depth: int) -> bool:
        """Bring a manifest, or an index and what it has here, into the store; False if the archive lacks it."""
        path = _LAYOUT_BLOBS + descriptor.digest.removeprefix("sha256:")
        data = self._documents.get(path)
        if data is None or depth > 4:
            return False
        verify(data, descriptor.digest, "manifest")
        media_type = oci.media_type_of(data)
        if media_type in oci.INDEX_TYPES:
            children = [child for child in oci.parse_index(data).manifests if self._wanted(child)]
            complete = [self._load_target(child, depth + 1) for child in children]
            if not any(complete):
                return False
        elif media_type in oci.MANIFEST_TYPES:
            if not self._load_manifest(data, descriptor):
                return False
        else:
            raise InvalidArchive(f"cannot load archive: media type {media_type} is not supported")
        self._installer.document(data)
        return True

    def _wanted(self, child: oci.Descriptor) -> bool:
        return child.platform is None or child.is_attestation or self._serves(child.platform)

    def _serves(self, platform: Platform) -> bool:
        """Whether an image for `platform` is asked for."""
        return not self._platforms or any(rank(wanted, platform) is not None for wanted in self._platforms)

    def _load_manifest(self, data: bytes, descriptor: oci.Descriptor) -> bool:
        manifest = oci.parse_manifest(data)
        raw = self._documents.get(_LAYOUT_BLOBS + manifest.config.digest.removeprefix("sha256:"))
        if raw is None:
            return False
        verify(raw, manifest.config.digest, "configuration")
        paths = [_LAYOUT_BLOBS + layer.digest.removeprefix("sha256:") for layer in manifest.layers]
        if descriptor.is_attestation:
            for path in paths:
                if path in self._documents:
                    verify(self._documents[path], _blob_digest(path))
                    self._installer.document(self._documents[path])
        else:
            config = oci.parse_config(raw)
            if not self._serves(config.platform):
                return False
            self._installer.install(config, [self._layer_at(path) for path in paths])
        self._installer.document(raw)
        return True


def make_manifest(config: bytes, arrived: list[Arrived]) -> oci.Manifest:
    """The manifest for a configuration and layers that came without one; the same input gives the same digest."""
    types = {"tar": oci.OCI_LAYER, "gzip": oci.OCI_LAYER_GZIP, "zstd": oci.OCI_LAYER_ZSTD}
    found = [
        oci.Descriptor(media_type=types[layer.unpacked.media], digest=layer.digest, size=layer.unpacked.blob_size)
        for layer in arrived
    ]
    described = oci.describe(oci.OCI_CONFIG, config, digest_of(config))
    return oci.Manifest(schema_version=2, media_type=oci.OCI_MANIFEST, config=described, layers=found)


def _blob_digest(path: str) -> Digest:
    return Digest("sha256:" + path.removeprefix(_LAYOUT_BLOBS))


def _check(got: str, expected: str) -> None:
    if got != expected:
        raise DigestMismatch(expected, got, "layer")


def _is_layer(head: bytes) -> bool:
    return head.startswith((layers.GZIP_MAGIC, layers.ZSTD_MAGIC)) or head[257:262] == b"ustar"


def _name_of(descriptor: oci.Descriptor) -> str | None:
    """The canonical name that an archive gives an image; a bare tag names nothing."""
    annotations = descriptor.annotations or {}
    text = annotations.get(oci.ANNOTATION_IMAGE_NAME) or annotations.get(oci.ANNOTATION_REF_NAME) or ""
    if ":" not in text and "/" not in text:
        return None
    try:
        return reference.parse(text).tagged().canonical
    except reference.InvalidReference:
        return None
