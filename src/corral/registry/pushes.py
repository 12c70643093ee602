"""Push: uploads in one piece or many, mounts, manifests; and deletion."""

from __future__ import annotations

from corral.oci.digest import algorithm_of
from corral.registry import names
from corral.registry.blobs import Blobs
from corral.registry.documents import MANIFEST_MAX_BYTES
from corral.registry.gate import Gate
from corral.registry.http.messages import Answer, refusal
from corral.registry.http.ranges import parse_chunk
from corral.registry.manifests import Manifests
from corral.registry.refusals import ManifestInvalid, NameInvalid, SizeInvalid, UploadUnknown
from corral.registry.surface import Call
from corral.registry.uploads import OutOfOrder, Uploads


class Pushes:
    """The handlers of what changes repositories."""

    def __init__(self, blobs: Blobs, uploads: Uploads, manifests: Manifests, gate: Gate) -> None:
        self._blobs = blobs
        self._uploads = uploads
        self._manifests = manifests
        self._gate = gate

    # -- uploads -----------------------------------------------------------------------------------

    def begin(self, call: Call) -> Answer:
        """`POST /v2/<name>/blobs/uploads/`: with `mount`, with `digest` and the whole blob, or to begin an upload."""
        head = call.request.head
        mount = head.parameter("mount")
        if mount is not None and self._mount(call, mount, head.parameter("from") or ""):
            return _created(call.repository, "blobs", names.digest(mount))
        whole = head.parameter("digest")
        digest = names.digest(whole) if whole is not None else None
        algorithm = head.parameter("digest-algorithm")
        if algorithm is not None:
            names.digest(f"{algorithm}:{'0' * {'sha256': 64, 'sha512': 128}.get(algorithm, 0)}")
        upload = self._uploads.begin(call.repository)
        if digest is None:
            return _accepted(call.repository, upload, 0)
        try:
            self._uploads.finish(call.repository, upload, call.request.body.pieces(), digest)
        except Exception:
            self._forget(call.repository, upload)
            raise
        return _created(call.repository, "blobs", digest)

    def _forget(self, repository: str, upload: str) -> None:
        """The client never learnt the upload's id."""
        try:
            self._uploads.cancel(repository, upload)
        except UploadUnknown:
            pass

    def _mount(self, call: Call, mount: str, origin: str) -> bool:
        digest = names.digest(mount)
        if not origin:
            return False
        try:
            names.repository(origin)
        except NameInvalid:
            return False
        # Without the right to pull there, an upload begins as if the blob were not there.
        return self._gate.may(call.request, origin, "pull") and self._blobs.mount(call.repository, digest, origin)

    def append(self, call: Call) -> Answer:
        """`PATCH <location>`: a chunk."""
        try:
            start = self._chunk_start(call)
            size = self._uploads.append(
                call.repository, call.argument, call.request.body.pieces(), start, self._algorithm(call)
            )
        except OutOfOrder as error:
            return _out_of_order(call, error)
        return _accepted(call.repository, call.argument, size)

    def finish(self, call: Call) -> Answer:
        """`PUT <location>?digest=...`: the last chunk, if any, and the end."""
        digest = names.digest(call.request.head.parameter("digest") or "")
        try:
            start = self._chunk_start(call)
            self._uploads.finish(call.repository, call.argument, call.request.body.pieces(), digest, start)
        except OutOfOrder as error:
            return _out_of_order(call, error)
        return _created(call.repository, "blobs", digest)

    @staticmethod
    def _algorithm(call: Call) -> str:
        digest = call.request.head.parameter("digest")
        return algorithm_of(names.digest(digest)) if digest is not None else "sha256"

    def _chunk_start(self, call: Call) -> int | None:
        text = call.request.head.headers.get("content-range")
        if text is None:
            return None
        chunk = parse_chunk(text)
        if chunk is None:
            size = self._uploads.size(call.repository, call.argument)
            raise OutOfOrder(-1, size)
        start, length = chunk
        if call.request.body.length not in (None, length):
            raise SizeInvalid("Content-Range and Content-Length differ")
        return start

    def status(self, call: Call) -> Answer:
        """`GET <location>`."""
        size = self._uploads.size(call.repository, call.argument)
        return Answer(204, b"", _upload_headers(call.repository, call.argument, size))

    def cancel(self, call: Call) -> Answer:
        """`DELETE <location>`."""
        self._uploads.cancel(call.repository, call.argument)
        return Answer(204)

    # -- manifests ---------------------------------------------------------------------------------

    def put_manifest(self, call: Call) -> Answer:
        """`PUT /v2/<name>/manifests/<reference>`."""
        data = call.request.read(MANIFEST_MAX_BYTES)
        if not data:
            raise ManifestInvalid("cannot read manifest: it is empty")
        declared = call.request.head.headers.get("content-type", "")
        digest, document = self._manifests.put(call.repository, call.argument, data, declared)
        subject = (("OCI-Subject", document.subject),) if document.subject is not None else ()
        return _created(call.repository, "manifests", digest, subject)

    def delete_manifest(self, call: Call) -> Answer:
        """`DELETE /v2/<name>/manifests/<reference>`: of a tag the tag alone, of a digest the manifest and its tags."""
        if ":" in call.argument:
            self._manifests.delete(call.repository, names.digest(call.argument))
        else:
            self._manifests.delete_tag(call.repository, call.argument)
        return Answer(202)

    def delete_blob(self, call: Call) -> Answer:
        """`DELETE /v2/<name>/blobs/<digest>`."""
        self._blobs.unlink(call.repository, names.digest(call.argument))
        return Answer(202)


def _upload_headers(repository: str, upload: str, size: int) -> tuple[tuple[str, str], ...]:
    return (
        ("Location", f"/v2/{repository}/blobs/uploads/{upload}"),
        ("Range", f"0-{max(0, size - 1)}"),
        ("Docker-Upload-UUID", upload),
    )


def _accepted(repository: str, upload: str, size: int) -> Answer:
    return Answer(202, b"", _upload_headers(repository, upload, size))


def _out_of_order(call: Call, error: OutOfOrder) -> Answer:
    headers = _upload_headers(call.repository, call.argument, error.size)
    return refusal(416, error.code, str(error), headers=headers)


def _created(repository: str, kind: str, digest: str, more: tuple[tuple[str, str], ...] = ()) -> Answer:
    headers = (("Location", f"/v2/{repository}/{kind}/{digest}"), ("Docker-Content-Digest", digest), *more)
    return Answer(201, b"", headers)
