"""Manifests, tags and referrers of repositories."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from typing import Any

from corral.oci.digest import Digest, algorithm_of, hex_of
from corral.registry import documents, names
from corral.registry.blobs import Blobs
from corral.registry.documents import Document
from corral.registry.layout import Layout, list_directory, read_link
from corral.registry.refusals import (
    BlobUnknown,
    DigestRefused,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameUnknown,
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A manifest of a repository, byte for byte."""

    digest: Digest
    media_type: str
    data: bytes


class Manifests:
    """The manifests of all repositories.  Safe from any thread of any process."""

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs

    # -- reading -----------------------------------------------------------------------------------

    def get(self, name: str, reference: str) -> Stored:
        """A manifest by tag or digest; raises ManifestUnknown or DigestRefused."""
        digest = self.resolve(name, reference)
        media_type = read_link(self._layout.manifest_link(name, digest))
        if media_type is None:
            raise ManifestUnknown(reference)
        try:
            return Stored(digest, media_type, self._blobs.read(digest))
        except BlobUnknown as error:
            raise ManifestUnknown(reference) from error

    def resolve(self, name: str, reference: str) -> Digest:
        """The digest that a tag names, or a digest itself."""
        if ":" in reference:
            return names.digest(reference)
        # What cannot be a tag is none that is here: 404, as the specification's conformance tests want it.
        digest = read_link(f"{self._layout.tags(name)}/{reference}") if names.is_tag(reference) else None
        if digest is None:
            raise ManifestUnknown(reference)
        return names.digest(digest)

    def tags(self, name: str) -> list[str]:
        """Every tag, sorted; raises NameUnknown."""
        found = list_directory(self._layout.tags(name))
        if not found and not self.exists(name):
            raise NameUnknown(name)
        return sorted(found)

    def exists(self, name: str) -> bool:
        """Whether a manifest was ever put into the repository and it has not been removed since."""
        return os.path.isdir(f"{self._layout.repository(name)}/_manifests")

    def digests(self, name: str) -> list[Digest]:
        """Every manifest of the repository."""
        folder = f"{self._layout.repository(name)}/_manifests"
        return [
            Digest(f"{algorithm}:{value}")
            for algorithm in list_directory(folder)
            for value in list_directory(f"{folder}/{algorithm}")
        ]

    def document(self, name: str, digest: str) -> Document | None:
        """What a manifest of the repository names; None when it is not there (any more)."""
        media_type = read_link(self._layout.manifest_link(name, digest))
        try:
            return documents.parse(self._blobs.read(digest), media_type) if media_type is not None else None
        except BlobUnknown:
            return None

    # -- writing -----------------------------------------------------------------------------------

    def put(self, name: str, reference: str, data: bytes, declared: str) -> tuple[Digest, Document]:
        """Store a manifest under a tag or its digest; raises ManifestInvalid, ManifestBlobUnknown, DigestRefused."""
        by_digest = ":" in reference
        if by_digest:
            wanted = names.digest(reference)
            digest = Digest(f"{algorithm_of(wanted)}:{hashlib.new(algorithm_of(wanted), data).hexdigest()}")
            if digest != wanted:
                raise DigestRefused(reference, "provided digest did not match uploaded content")
        else:
            names.tag(reference)
            digest = Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
        document = documents.parse(data, declared)
        with self._layout.sharing():
            self._check(name, document)
            self._place(name, digest, data, document, None if by_digest else reference)
        return digest, document

    def adopt(self, name: str, digest: Digest, data: bytes, declared: str, tag: str | None) -> None:
        """Store a manifest whose content may be elsewhere still; raises ManifestInvalid."""
        document = documents.parse(data, declared)
        with self._layout.sharing():
            self._place(name, digest, data, document, tag)

    def _place(self, name: str, digest: Digest, data: bytes, document: Document, tag: str | None) -> None:
        self._blobs.store(data, digest)
        if document.subject is not None:
            self._layout.mark(f"{self._layout.referrers(name, document.subject)}/{digest}")
        link = self._layout.manifest_link(name, digest)
        if read_link(link) != document.media_type:
            self._layout.write_link(link, document.media_type)
        if tag is not None:
            self._layout.write_link(f"{self._layout.tags(name)}/{tag}", digest)

    def _check(self, name: str, document: Document) -> None:
        """Whatever the manifest names must be here: else a pull of it could not succeed."""
        for digest in document.blobs:
            if not self._blobs.has(name, digest):
                raise ManifestBlobUnknown(digest)
        for digest in document.manifests:
            if read_link(self._layout.manifest_link(name, digest)) is None:
                raise ManifestBlobUnknown(digest)

    def delete_tag(self, name: str, tag: str) -> None:
        """Remove a tag and nothing else; raises ManifestUnknown."""
        if not names.is_tag(tag) or not self._layout.remove(f"{self._layout.tags(name)}/{tag}"):
            raise ManifestUnknown(tag)

    def delete(self, name: str, digest: Digest) -> None:
        """Remove a manifest and its tags; raises ManifestUnknown."""
        document = self.document(name, digest)
        tags = self._layout.tags(name)
        for tag in list_directory(tags):
            if read_link(f"{tags}/{tag}") == digest:
                self._layout.remove(f"{tags}/{tag}")
        if not self._layout.remove(self._layout.manifest_link(name, digest)):
            raise ManifestUnknown(digest)
        if document is not None and document.subject is not None:
            self._layout.remove(f"{self._layout.referrers(name, document.subject)}/{digest}")

    def tag_age_s(self, name: str, tag: str) -> float:
        """Seconds since the tag was put; 0 when it has just gone."""
        try:
            return time.time() - os.lstat(f"{self._layout.tags(name)}/{tag}").st_mtime
        except FileNotFoundError:
            return 0.0

    def manifest_age_s(self, name: str, digest: str) -> float:
        """Seconds since the manifest was put first; 0 when it has just gone."""
        try:
            return time.time() - os.lstat(self._layout.manifest_link(name, digest)).st_mtime
        except FileNotFoundError:
            return 0.0

    # -- referrers ---------------------------------------------------------------------------------

    def referrers(self, name: str, subject: str) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject this is, sorted by digest.

        An index under the fall-back tag (`sha256-<hex>`), which clients maintain at registries without this API,
        counts as well: it may have been copied here from such a one.
        """
        found = {}
        for digest in list_directory(self._layout.referrers(name, subject)):
            descriptor = self._describe(name, digest)
            if descriptor is not None:
                found[digest] = descriptor
        for descriptor in self._fallback(name, subject):
            found.setdefault(str(descriptor["digest"]), descriptor)
        return [found[digest] for digest in sorted(found)]

    def _describe(self, name: str, digest: str) -> dict[str, Any] | None:
        document = self.document(name, digest)
        if document is None:
            return None
        size = os.stat(self._layout.blob(digest)).st_size
        fields: dict[str, Any] = {"mediaType": document.media_type, "digest": digest, "size": size}
        if document.artifact_type:
            fields["artifactType"] = document.artifact_type
        if document.annotations:
            fields["annotations"] = document.annotations
        return fields

    def _fallback(self, name: str, subject: str) -> list[dict[str, Any]]:
        tag = f"{algorithm_of(subject)}-{hex_of(subject)[:64]}"
        digest = read_link(f"{self._layout.tags(name)}/{tag}")
        if digest is None:
            return []
        try:
            return documents.descriptors(self._blobs.read(digest))
        except (BlobUnknown, ManifestInvalid):
            return []
