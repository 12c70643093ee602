"""Push: blobs that the registry lacks, then manifests from the bottom up, the tag last.

A registry that has a blob in another repository, from which it was pulled or to which it was pushed, is asked to
mount it from there instead of being sent it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from corral.image.catalog import Catalog
from corral.image.crew import Crew, Job
from corral.image.model import Image
from corral.image.sources import Whereabouts
from corral.oci import image as oci
from corral.oci import reference
from corral.oci.digest import hex_of
from corral.oci.reference import Reference
from corral.store.content import Content

Progress = Callable[[dict[str, Any]], None]

_LARGE_BYTES = 4 << 20
_STATES = {"exists": "Layer already exists", "pushed": "Pushed"}


@dataclass(frozen=True, slots=True)
class _Upload:
    blob: oci.Descriptor
    job: Job
    origin: str


@dataclass(frozen=True, slots=True)
class PushStore:
    """What is pushed from."""

    content: Content
    catalog: Catalog
    seen: Whereabouts


@dataclass(frozen=True, slots=True)
class Target:
    """Where to: `fields` is what `corral.image.registry.Registry` takes."""

    fields: dict[str, Any]
    repository: Reference
    takes_foreign: bool


class Pusher:
    """Pushes to one repository, in one thread; what it has pushed once it does not ask about again."""

    def __init__(self, store: PushStore, crew: Crew, uploads: int, target: Target, progress: Progress) -> None:
        """At most `uploads` blobs at a time."""
        self._content = store.content
        self._catalog = store.catalog
        self._seen = store.seen
        self._crew = crew
        self._uploads = uploads
        self._fields = target.fields
        self._repository = target.repository
        self._foreign = target.takes_foreign
        self._progress = progress
        self._there: set[str] = set()

    def push(self, image: Image, name: Reference, one_platform: bool) -> None:
        """Push an image under a tag: all of an index, or the manifest that `image` is seen through.

        That is so for `one_platform`, and for an index that is here in part.
        """
        whole = not one_platform and self._catalog.is_complete(image.id)
        target = image.id if whole else image.manifest_digest
        origin = self._origin(image)
        self._push_tree(target, origin, str(name.tag or name.digest))
        data = self._content.read(target)
        self._progress({"status": f"{name.tag or name.digest}: digest: {target} size: {len(data)}"})
        aux = {"Tag": name.tag or "", "Digest": target, "Size": len(data)}
        self._progress({"progressDetail": {}, "aux": aux})

    def _push_tree(self, digest: str, origin: str, tag: str) -> None:
        """What a manifest or index needs, then itself, under `tag` or, for "", under its digest."""
        data = self._content.read(digest)
        media_type = oci.media_type_of(data)
        if media_type in oci.INDEX_TYPES:
            for child in oci.parse_index(data).manifests:
                self._push_tree(child.digest, origin, "")
        else:
            manifest = oci.parse_manifest(data)
            self._push_blobs([layer for layer in manifest.layers if not self._is_skipped(layer)], origin)
            self._push_blobs([manifest.config], origin, quiet=True)
        job = self._crew.submit(
            "publish", registry=self._fields, reference=tag or digest, type=media_type, blob=self._content.path(digest)
        )
        self._crew.wait(job)

    def _is_skipped(self, layer: oci.Descriptor) -> bool:
        """Whether the registry must not be given a layer; clients get it from where its descriptor says."""
        if not layer.is_foreign or self._foreign:
            return False
        self._say(layer, "Skipped foreign layer")
        return True

    def _push_blobs(self, blobs: list[oci.Descriptor], origin: str, *, quiet: bool = False) -> None:
        wanted = {blob.digest: blob for blob in blobs if blob.digest not in self._there}
        if not quiet:
            for blob in blobs:
                self._say(blob, "Preparing" if blob.digest in wanted else "Layer already exists")
        if not wanted:
            return
        first = next(iter(wanted.values()))
        # The first one alone: its answer carries the authorization that all others then share.
        self._end(self._upload(first, origin, quiet), quiet)
        # Another worker costs more than a small blob takes.
        large = sum(blob.size >= _LARGE_BYTES for blob in wanted.values() if blob is not first)
        self._crew.limit = max(1, min(self._uploads, large))
        uploads = [self._upload(blob, origin, quiet) for blob in wanted.values() if blob is not first]
        for upload in uploads:
            self._end(upload, quiet)

    def _upload(self, blob: oci.Descriptor, origin: str, quiet: bool) -> _Upload:
        def sent(record: dict[str, Any]) -> None:
            if "retry" in record:
                seconds = record["retry"]
                self._say(blob, f"Retrying in {seconds} second{'' if seconds == 1 else 's'}")
            elif not quiet:
                self._say(blob, "Pushing", {"current": record["sent"], "total": blob.size})

        origin = self._seen.find(self._repository.domain, blob.digest, self._repository.path) or origin
        job = self._crew.submit(
            "upload", registry=self._fields, digest=blob.digest, blob=self._content.path(blob.digest), origin=origin,
            progress=sent,
        )  # fmt: skip
        return _Upload(blob, job, origin)

    def _end(self, upload: _Upload, quiet: bool) -> None:
        answer = self._crew.wait(upload.job)
        self._fields = {**self._fields, "session": answer["session"]}
        self._there.add(upload.blob.digest)
        self._seen.note(self._repository.domain, self._repository.path, [upload.blob.digest])
        if not quiet:
            self._say(upload.blob, _STATES.get(answer["state"], f"Mounted from {upload.origin}"))

    def _origin(self, image: Image) -> str:
        """Another repository of the same registry where this image is known to be."""
        for name in self._catalog.names_of(image.id):
            if name.startswith("@"):
                continue
            parsed = reference.parse(name)
            if parsed.domain == self._repository.domain and parsed.path != self._repository.path:
                return parsed.path
        return ""

    def _say(self, blob: oci.Descriptor, status: str, detail: dict[str, int] | None = None) -> None:
        self._progress({"status": status, "progressDetail": detail or {}, "id": hex_of(blob.digest)[:12]})
