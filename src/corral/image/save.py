"""`docker save`: one archive that is an OCI layout and a docker-archive at once.

Blobs go in byte for byte, so that a load anywhere gives the same digests; `manifest.json` names the same files for
readers that know only Docker's older form.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from corral.image.model import Image
from corral.oci import image as oci
from corral.oci import reference
from corral.oci.digest import algorithm_of, hex_of
from corral.store import tar, tarwriter
from corral.store.content import Content

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Saved:
    """A target to save: seen through each platform asked for, its canonical names there, the blobs that go in."""

    images: Sequence[Image]
    names: list[str]
    blobs: frozenset[str]


def archive(content: Content, targets: Sequence[Saved]) -> Iterator[bytes]:
    """The archive's bytes."""
    blobs = sorted({blob for target in targets for blob in target.blobs if content.has(blob)})
    for folder in ("blobs/", *sorted({f"blobs/{algorithm_of(blob)}/" for blob in blobs})):
        yield tarwriter.header(tar.Entry(folder, tar.DIRECTORY, 0o755))
    for digest in blobs:
        yield from _blob(content, digest)
    images = [(image, target.names) for target in targets for image in target.images]
    yield tarwriter.small_file(
        tar.Entry("index.json"), _index([(target.images[0], target.names) for target in targets])
    )
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
