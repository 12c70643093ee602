"""Content: blobs by digest, as an OCI image layout that other tools read in place.

    DATA_ROOT/image/
        oci-layout              {"imageLayoutVersion":"1.0.0"}
        index.json              the named images (derived from the database, for other tools)
        blobs/sha256/<hex>      content, complete and verified; never changed
        ingest/<n>              content on its way in; emptied when the store opens
        partial/<hex>           the beginning of a blob whose transfer broke off; kept a week for another try
        partial/<hex>.whole     a blob that is all here, of an image that is not; kept as long

A blob is written into `ingest`, brought to disk, renamed, and its directory brought to disk (`sync`) before any
record that names it is committed.  So whatever happens, a blob in `blobs` is whole, and a record's blobs exist.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import time

from corral.errors import DataLoss, NotFound
from corral.linux import files
from corral.oci.digest import Digest, algorithm_of, digest_of, hex_of, parse_digest, verify

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_PARTIAL_MAX_AGE_S = 7 * 86400


class NoSuchContent(NotFound):
    """No blob of that digest."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"content digest {digest}: not found")


class CorruptContent(DataLoss):
    """A stored blob is not what its name says: the disk, or somebody, changed it."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"content digest {digest}: stored bytes do not match")


class Content:
    """The open store below `root` (DATA_ROOT/image).  Safe from any thread."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._blobs = os.path.join(root, "blobs", "sha256")
        self._ingest = os.path.join(root, "ingest")
        self.partial = os.path.join(root, "partial")
        self._numbers = itertools.count()
        os.makedirs(self._blobs, mode=0o700, exist_ok=True)
        shutil.rmtree(self._ingest, ignore_errors=True)
        os.makedirs(self._ingest, mode=0o700)
        os.makedirs(self.partial, mode=0o700, exist_ok=True)
        self.forget_old_partials()
        layout = os.path.join(root, "oci-layout")
        if not os.path.exists(layout):
            files.write_atomic(layout, _LAYOUT, 0o644)

    def forget_old_partials(self) -> None:
        """Drop what nobody has come back for."""
        oldest = time.time() - _PARTIAL_MAX_AGE_S
        with os.scandir(self.partial) as found:
            for entry in found:
                with contextlib.suppress(FileNotFoundError):  # a pull may take it away meanwhile
                    if entry.stat().st_mtime < oldest:
                        os.unlink(entry.path)

    def path(self, digest: str) -> str:
        """Where the blob is or would be; raises InvalidDigest, so that no path is made of anything else."""
        parse_digest(digest)
        if algorithm_of(digest) == "sha256":
            return os.path.join(self._blobs, hex_of(digest))
        folder = os.path.join(self.root, "blobs", algorithm_of(digest))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        return os.path.join(folder, hex_of(digest))

    def has(self, digest: str) -> bool:
        """Whether the blob is here."""
        return os.path.exists(self.path(digest))

    def size(self, digest: str) -> int:
        """Bytes; raises NoSuchContent."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError as error:
            raise NoSuchContent(digest) from error

    def read(self, digest: str) -> bytes:
        """A whole blob, verified: for documents.  Raises NoSuchContent or CorruptContent."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read()
        except FileNotFoundError as error:
            raise NoSuchContent(digest) from error
        try:
            verify(data, digest)
        except DataLoss as error:
            raise CorruptContent(digest) from error
        return data

    def ingest_path(self) -> str:
        """A fresh path to write content into."""
        return os.path.join(self._ingest, str(next(self._numbers)))

    def commit(self, path: str, digest: str) -> None:
        """Move the file at `path`, written, verified and synced by the caller, to its place; then call `sync`."""
        os.rename(path, self.path(digest))

    def put(self, data: bytes) -> Digest:
        """Store a document; durable after `sync`."""
        digest = digest_of(data)
        if not self.has(digest):
            path = self.ingest_path()
            with open(path, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self.commit(path, digest)
        return digest

    def sync(self) -> None:
        """Make the names of committed blobs durable."""
        for algorithm in os.listdir(os.path.join(self.root, "blobs")):
            files.sync_directory(os.path.join(self.root, "blobs", algorithm))

    def remove(self, digest: str) -> int:
        """Drop a blob; returns the bytes freed, 0 when it was not here."""
        path = self.path(digest)
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        return size

    def sizes(self) -> dict[str, int]:
        """Every blob here, with its bytes."""
        found: dict[str, int] = {}
        with os.scandir(os.path.join(self.root, "blobs")) as algorithms:
            for algorithm in algorithms:
                with os.scandir(algorithm.path) as blobs:
                    for blob in blobs:
                        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                            found[f"{algorithm.name}:{blob.name}"] = blob.stat().st_size
        return found

    def write_index(self, data: bytes) -> None:
        """Replace index.json.  Not synced: it is written anew when the store opens."""
        path = os.path.join(self.root, "index.json")
        with open(path + ".tmp", "wb") as file:
            file.write(data)
        os.rename(path + ".tmp", path)
