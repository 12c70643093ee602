"""`docker save`: one archive that is an OCI layout and a docker-archive at once.

Blobs go in byte for byte, so that a load anywhere gives the same digests; `manifest.json` names the same files for
readers that know only Docker's older form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import msgspec

from corral.image.catalog import Catalog
from corral.image.model import Image
from corral.oci import image as oci
from corral.oci import reference
from corral.oci.digest import algorithm_of, hex_of
from corral.store import tar, tarwriter
from corral.store.content import Content

_PIECE = 1 << 20


def archive(content: Content, catalog: Catalog, images: Sequence[tuple[Image, list[str]]]) -> Iterator[bytes]:
    """The archive's bytes; each image comes with the canonical names to save it under."""
    saved: set[str] = set()
    for folder in ("blobs/", "blobs/sha256/"):
        yield tarwriter.header(tar.Entry(folder, tar.DIRECTORY, 0o755))
    for image, _ in images:
        for digest in sorted(catalog.reach(image.id).blobs):
            if digest not in saved and content.has(digest):
                saved.add(digest)
                yield from _blob(content, digest)
    yield tarwriter.small_file(tar.Entry("index.json"), _index(images))
    yield tarwriter.small_file(tar.Entry("manifest.json"), _docker_manifest(images))
    yield tarwriter.small_file(tar.Entry("oci-layout"), b'{"imageLayoutVersion":"1.0.0"}')
    yield tarwriter.END


def _blob(content: Content, digest: str) -> Iterator[bytes]:
    with open(content.path(digest), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        entry = tar.Entry(f"blobs/{algorithm_of(digest)}/{hex_of(digest)}", size=size)
        yield tarwriter.header(entry)
        while data := file.read(_PIECE):
            yield data
        yield tarwriter.padding(size)


def _index(images: Sequence[tuple[Image, list[str]]]) -> bytes:
    manifests = []
    for image, names in images:
        if not names:
            manifests.append(image.descriptor)
        for name in names:
            tag = reference.parse(name).tag
            annotations = {oci.ANNOTATION_IMAGE_NAME: name}
            if tag:
                annotations[oci.ANNOTATION_REF_NAME] = tag
            manifests.append(msgspec.structs.replace(image.descriptor, annotations=annotations))
    return oci.encode(oci.Index(schema_version=2, media_type=oci.OCI_INDEX, manifests=manifests))


def _docker_manifest(images: Sequence[tuple[Image, list[str]]]) -> bytes:
    found = []
    for image, names in images:
        tags = [reference.parse(name).familiar for name in names if reference.parse(name).tag]
        paths = [_path(layer.digest) for layer in image.manifest.layers]
        found.append({"Config": _path(image.config_digest), "RepoTags": tags or None, "Layers": paths})
    return msgspec.json.encode(found)


def _path(digest: str) -> str:
    return f"blobs/{algorithm_of(digest)}/{hex_of(digest)}"
