"""Pull: manifests and blobs, whole or in part, with conditions and negotiation."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from corral.oci.image import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from corral.registry import documents, names
from corral.registry.blobs import Blobs
from corral.registry.http.messages import Answer, FilePart, Flow, refusal
from corral.registry.http.ranges import Unsatisfiable, parse_range
from corral.registry.manifests import Manifests, Stored
from corral.registry.refusals import BlobUnknown, ManifestUnknown
from corral.registry.surface import Call

if TYPE_CHECKING:
    from corral.registry.upstream import Upstream

_FOREVER = "public, max-age=31536000, immutable"
_BLOB_TYPE = "application/octet-stream"


class Pulls:
    """The handlers of `GET` and `HEAD`; with an `upstream`, what is missing is fetched from there."""

    def __init__(self, blobs: Blobs, manifests: Manifests, upstream: Upstream | None) -> None:
        self._blobs = blobs
        self._manifests = manifests
        self._upstream = upstream

    def manifest(self, call: Call) -> Answer:
        """`GET /v2/<name>/manifests/<reference>`."""
        if self._upstream is not None:
            self._upstream.refresh(call.repository, call.argument)
        stored = self._manifests.get(call.repository, call.argument)
        stored = self._negotiated(call, stored)
        etag = f'"{stored.digest}"'
        headers = (("Docker-Content-Digest", stored.digest), ("ETag", etag))
        if _matches(call.request.head.headers.get("if-none-match"), stored.digest):
            return Answer(304, b"", headers)
        return Answer(200, stored.data, headers, stored.media_type)

    def _negotiated(self, call: Call, stored: Stored) -> Stored:
        """What a client gets that does not accept the stored type, as distribution does it.

        An index in Docker's format asked for by tag: its manifest for linux/amd64.  Something in OCI's: not found.
        """
        accept = call.request.head.headers.get("accept")
        types = [word.partition(";")[0].strip().lower() for word in (accept or "*/*").split(",")]
        if stored.media_type in types or "*/*" in types or "application/*" in types:
            return stored
        if stored.media_type in (OCI_MANIFEST, OCI_INDEX):
            kind = "manifest" if stored.media_type == OCI_MANIFEST else "index"
            plural = "manifests" if stored.media_type == OCI_MANIFEST else "indexes"
            why = f"OCI {kind} found, but accept header does not support OCI {plural}"
            raise ManifestUnknown(call.argument, why)
        if stored.media_type == DOCKER_LIST and ":" not in call.argument and DOCKER_MANIFEST in types:
            child = documents.default_platform(stored.data)
            if child is not None:
                if self._upstream is not None:
                    self._upstream.refresh(call.repository, child)
                return self._manifests.get(call.repository, child)
        return stored

    def blob_head(self, call: Call) -> Answer:
        """`HEAD /v2/<name>/blobs/<digest>`."""
        digest = names.digest(call.argument)
        try:
            size = self._blobs.announce(call.repository, digest)
        except BlobUnknown:
            if self._upstream is None:
                raise
            size = self._upstream.blob_size(call.repository, digest)
        return Answer(200, Flow(iter(()), size), _blob_headers(digest), _BLOB_TYPE)

    def blob(self, call: Call) -> Answer:
        """`GET /v2/<name>/blobs/<digest>`, with `Range`."""
        digest = names.digest(call.argument)
        if _matches(call.request.head.headers.get("if-none-match"), digest):
            self._blobs.announce(call.repository, digest)
            return Answer(304, b"", _blob_headers(digest))
        try:
            fd, size = self._blobs.open(call.repository, digest)
        except BlobUnknown:
            if self._upstream is None:
                raise
            flow = self._upstream.blob(call.repository, digest)
            return Answer(200, flow, _blob_headers(digest), _BLOB_TYPE)
        wanted = call.request.head.headers.get("range")
        if wanted is None:
            return Answer(200, FilePart(fd, 0, size), _blob_headers(digest), _BLOB_TYPE)
        return _part(fd, size, wanted, digest)


def _part(fd: int, size: int, wanted: str, digest: str) -> Answer:
    try:
        part = parse_range(wanted, size)
    except Unsatisfiable:
        os.close(fd)
        return refusal(416, "SIZE_INVALID", "range not satisfiable", headers=(("Content-Range", f"bytes */{size}"),))
    if part is None:
        return Answer(200, FilePart(fd, 0, size), _blob_headers(digest), _BLOB_TYPE)
    start, count = part
    headers = (*_blob_headers(digest), ("Content-Range", f"bytes {start}-{start + count - 1}/{size}"))
    return Answer(206, FilePart(fd, start, count), headers, _BLOB_TYPE)


def _blob_headers(digest: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Docker-Content-Digest", digest),
        ("ETag", f'"{digest}"'),
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", _FOREVER),
    )


def _matches(condition: str | None, digest: str) -> bool:
    if condition is None:
        return False
    words = [word.strip().removeprefix("W/").strip('"') for word in condition.split(",")]
    return digest in words or "*" in words
