"""Image documents: descriptor, manifest, index and configuration, with Docker's media types beside OCI's.

Decoding is tolerant of unknown fields (the specification asks for it) and strict about the types of known ones.
Documents are kept and passed on byte for byte; nothing here re-encodes what came from elsewhere.
"""

from __future__ import annotations

from typing import Any

import msgspec

from corral.errors import InvalidParameter
from corral.oci.digest import Digest, parse_digest
from corral.oci.platform import Platform

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"

MANIFEST_TYPES = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
INDEX_TYPES = frozenset((OCI_INDEX, DOCKER_LIST))
# Some old tools described configurations as plain bytes.
CONFIG_TYPES = frozenset((OCI_CONFIG, DOCKER_CONFIG, "application/octet-stream", ""))
_NONDISTRIBUTABLE = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)

ANNOTATION_REF_NAME = "org.opencontainers.image.ref.name"
ANNOTATION_IMAGE_NAME = "io.containerd.image.name"
ANNOTATION_REFERENCE_TYPE = "vnd.docker.reference.type"

DOCUMENT_MAX_BYTES = 4 << 20
LAYERS_MAX = 500


class InvalidImage(InvalidParameter):
    """A manifest, index or configuration that is not one."""


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What content is: its type, name and size in bytes."""

    media_type: str
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str | None = None

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def is_foreign(self) -> bool:
        """Whether it is a layer that registries must not be given: it is distributed from elsewhere."""
        return self.media_type.startswith(_NONDISTRIBUTABLE)

    @property
    def is_attestation(self) -> bool:
        return (self.annotations or {}).get(ANNOTATION_REFERENCE_TYPE) == "attestation-manifest"


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One image for one platform."""

    schema_version: int
    media_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Several manifests, normally one for each platform."""

    schema_version: int
    media_type: str = ""
    manifests: list[Descriptor]
    annotations: dict[str, str] | None = None


class HealthConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """Docker's health check; durations in nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RunConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="pascal"):
    """What to run by default: the `config` member of an image's configuration."""

    user: str = ""
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    labels: dict[str, str] | None = None
    on_build: list[str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class Rootfs(msgspec.Struct, frozen=True, kw_only=True):
    """The uncompressed layers, lowest first."""

    type: str = "layers"
    diff_ids: list[str] = []


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one layer, or one step without a layer, came to be."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"os_version": "os.version"}):
    """The image's configuration document; its digest was Docker's image id before indexes."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = ""
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: RunConfig | None = None
    rootfs: Rootfs
    history: list[History] | None = None

    @property
    def run(self) -> RunConfig:
        """`config`, or an empty one."""
        return self.config or RunConfig()

    @property
    def platform(self) -> Platform:
        return Platform(os=self.os or "linux", architecture=self.architecture, variant=self.variant)


_decode_manifest = msgspec.json.Decoder(Manifest).decode
_decode_index = msgspec.json.Decoder(Index).decode
_decode_config = msgspec.json.Decoder(ImageConfig).decode


def parse_manifest(data: bytes) -> Manifest:
    """Decode and check a manifest; raises InvalidImage."""
    _check_size(data, "manifest")
    try:
        manifest = _decode_manifest(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidImage(f"cannot read manifest: {error}") from error
    if manifest.schema_version != 2:
        raise InvalidImage(f"cannot read manifest: schema version {manifest.schema_version} is not supported")
    if len(manifest.layers) > LAYERS_MAX:
        raise InvalidImage(f"cannot read manifest: {len(manifest.layers)} layers are more than {LAYERS_MAX}")
    _check_descriptors([manifest.config, *manifest.layers])
    return manifest


def parse_index(data: bytes) -> Index:
    """Decode and check an index or manifest list; raises InvalidImage."""
    _check_size(data, "index")
    try:
        index = _decode_index(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidImage(f"cannot read index: {error}") from error
    if index.schema_version != 2:
        raise InvalidImage(f"cannot read index: schema version {index.schema_version} is not supported")
    _check_descriptors(index.manifests)
    return index


def parse_config(data: bytes) -> ImageConfig:
    """Decode and check an image configuration; raises InvalidImage."""
    _check_size(data, "image configuration")
    try:
        config = _decode_config(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidImage(f"cannot read image configuration: {error}") from error
    for diff_id in config.rootfs.diff_ids:
        parse_digest(diff_id)
    return config


def media_type_of(data: bytes) -> str:
    """The type of a manifest-like document from its own fields; raises InvalidImage when it is neither kind."""
    _check_size(data, "manifest")
    try:
        fields: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidImage(f"cannot read manifest: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidImage("cannot read manifest: not an object")
    named = fields.get("mediaType")
    if isinstance(named, str) and named:
        return named
    if "manifests" in fields:
        return OCI_INDEX
    if "config" in fields and "layers" in fields:
        return OCI_MANIFEST
    raise InvalidImage("cannot read manifest: neither a manifest nor an index")


def is_schema1(data: bytes) -> bool:
    """Whether this is a manifest of Docker's first form, which has `fsLayers` and no configuration."""
    try:
        fields: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.get("schemaVersion") == 1


def encode(document: Manifest | Index | ImageConfig | Descriptor) -> bytes:
    """The JSON of a document that is made here: deterministic, so equal documents have equal digests."""
    return msgspec.json.encode(document)


def describe(media_type: str, data: bytes, digest: Digest) -> Descriptor:
    """A descriptor of `data`."""
    return Descriptor(media_type=media_type, digest=digest, size=len(data))


def _check_size(data: bytes, what: str) -> None:
    if len(data) > DOCUMENT_MAX_BYTES:
        raise InvalidImage(f"cannot read {what}: {len(data)} bytes are more than {DOCUMENT_MAX_BYTES}")


def _check_descriptors(descriptors: list[Descriptor]) -> None:
    for descriptor in descriptors:
        parse_digest(descriptor.digest)
        if descriptor.size < 0:
            raise InvalidImage(f"cannot use {descriptor.digest}: size {descriptor.size} is negative")
