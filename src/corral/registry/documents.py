"""What the registry has to know of a manifest: what it names.  The bytes themselves are kept as they came.

Tolerant where the specification is: unknown fields, empty layer lists, indexes within indexes.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from corral.oci.digest import InvalidDigest, parse_digest
from corral.oci.image import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from corral.registry.refusals import ManifestInvalid

OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
MANIFEST_MAX_BYTES = 4 << 20
_MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_INDEXES = (OCI_INDEX, DOCKER_LIST)
KNOWN_TYPES = (*_MANIFESTS, *_INDEXES, OCI_ARTIFACT)
_FOREIGN = ("foreign", "nondistributable")


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index, as far as the registry is concerned."""

    media_type: str
    blobs: tuple[str, ...] = ()  # must be there
    foreign: tuple[str, ...] = ()  # may be there: layers that are to be fetched elsewhere
    manifests: tuple[str, ...] = ()
    subject: str | None = None
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


def parse(data: bytes, declared: str) -> Document:
    """Read a manifest whose Content-Type is `declared` ("" if none); raises ManifestInvalid."""
    fields = _object(data)
    media_type = _media_type(fields, declared.partition(";")[0].strip().lower())
    if fields.get("schemaVersion") != 2 and media_type != OCI_ARTIFACT:
        raise ManifestInvalid("cannot read manifest: schemaVersion is not 2")
    subject = _digest(fields["subject"], "subject") if fields.get("subject") is not None else None
    named = fields.get("artifactType")
    annotations = _annotations(fields)
    if media_type in _INDEXES:
        children = tuple(_digest(child, "manifests") for child in _list(fields, "manifests"))
        artifact_type = named if isinstance(named, str) else ""
        return Document(media_type, (), (), children, subject, artifact_type, annotations)
    blobs: list[str] = []
    foreign: list[str] = []
    for layer in _list(fields, "blobs" if media_type == OCI_ARTIFACT else "layers"):
        digest = _digest(layer, "layers")
        (foreign if _is_foreign(layer) else blobs).append(digest)
    artifact_type = named if isinstance(named, str) else ""
    if media_type != OCI_ARTIFACT:
        config = fields.get("config")
        blobs.append(_digest(config, "config"))
        assert isinstance(config, dict)
        artifact_type = artifact_type or _text(config, "mediaType")
    return Document(media_type, tuple(blobs), tuple(foreign), (), subject, artifact_type, annotations)


def _object(data: bytes) -> dict[str, Any]:
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ManifestInvalid(f"cannot read manifest: {error}") from error
    if not isinstance(fields, dict):
        raise ManifestInvalid("cannot read manifest: not an object")
    return fields


def _media_type(fields: dict[str, Any], declared: str) -> str:
    own = fields.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise ManifestInvalid("cannot read manifest: mediaType is not text")
    if declared in ("", "application/json", "application/octet-stream"):
        declared = own or (OCI_INDEX if "manifests" in fields else OCI_MANIFEST)
    if own and own != declared:
        raise ManifestInvalid(f"cannot read manifest: its mediaType is {own[:200]!r}, its Content-Type {declared!r}")
    if declared not in KNOWN_TYPES:
        raise ManifestInvalid(f"cannot read manifest: media type {declared[:200]!r} is not supported")
    return declared


def _list(fields: dict[str, Any], key: str) -> list[Any]:
    value = fields.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise ManifestInvalid(f"cannot read manifest: {key} is not a list")
    return value


def _digest(descriptor: Any, what: str) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str):
        raise ManifestInvalid(f"cannot read manifest: {what} has no digest")
    try:
        parse_digest(digest)
    except InvalidDigest as error:
        raise ManifestInvalid(f"cannot read manifest: {what}: {error}") from error
    return digest


def _is_foreign(layer: dict[str, Any]) -> bool:
    return bool(layer.get("urls")) or any(word in _text(layer, "mediaType") for word in _FOREIGN)


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) else ""


def _annotations(fields: dict[str, Any]) -> dict[str, str] | None:
    value = fields.get("annotations")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ManifestInvalid("cannot read manifest: annotations are not texts")
    return value


def default_platform(data: bytes) -> str | None:
    """The digest of an index's manifest for linux/amd64: what clients that know no indexes are given."""
    for child in _list(_object(data), "manifests"):
        platform = child.get("platform") if isinstance(child, dict) else None
        if isinstance(platform, dict) and platform.get("os") == "linux" and platform.get("architecture") == "amd64":
            return _digest(child, "manifests")
    return None


def descriptors(data: bytes) -> list[dict[str, Any]]:
    """The entries of an index, as they are; raises ManifestInvalid."""
    found = _list(_object(data), "manifests")
    for entry in found:
        _digest(entry, "manifests")
    return found
