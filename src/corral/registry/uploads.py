"""Uploads: bytes on their way in.  An upload is one file, and the file's size is the upload's offset.

So an upload outlives a connection, a worker process and a restart of the registry, and goes on in any worker.  The
running hash cannot go with it: it is remembered by the process that took the bytes, and where another one finishes
the upload the file is read once more.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from corral.errors import Conflict
from corral.oci.digest import algorithm_of, is_hex
from corral.registry.blobs import Blobs
from corral.registry.layout import Layout
from corral.registry.refusals import Coded, DigestRefused, UploadUnknown

if TYPE_CHECKING:
    from hashlib import _Hash

    Piece = bytes | bytearray | memoryview

_ID_LENGTH = 32
_HASHES_MAX = 512
_PIECE = 1 << 20


class UploadBusy(Coded, Conflict):
    """Two requests for one upload at the same time."""

    code = "BLOB_UPLOAD_INVALID"

    def __init__(self) -> None:
        super().__init__("another request for this upload is running")


class OutOfOrder(Coded, Conflict):
    """A chunk that does not begin where the upload ends (416); the upload can go on."""

    code = "BLOB_UPLOAD_INVALID"

    def __init__(self, start: int, size: int) -> None:
        super().__init__(f"chunk begins at {start}, the upload is at {size}")
        self.size = size


class _Hashes:
    """The running hashes of this process's uploads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[int, _Hash]] = OrderedDict()

    def take(self, upload: str, algorithm: str, offset: int) -> _Hash | None:
        """The hash of the first `offset` bytes, if known."""
        if offset == 0:
            return hashlib.new(algorithm)
        with self._lock:
            found = self._known.pop(upload, None)
        return found[1] if found and found[0] == offset and found[1].name == algorithm else None

    def keep(self, upload: str, offset: int, value: _Hash) -> None:
        with self._lock:
            self._known[upload] = (offset, value)
            if len(self._known) > _HASHES_MAX:
                self._known.popitem(last=False)


class Uploads:
    """The uploads of all repositories.  Safe from any thread of any process."""

    def __init__(self, layout: Layout, blobs: Blobs) -> None:
        self._layout = layout
        self._blobs = blobs
        self._hashes = _Hashes()

    def begin(self, name: str) -> str:
        """A new upload's id."""
        upload = secrets.token_hex(_ID_LENGTH // 2)
        folder = self._layout.uploads(name)
        try:
            self._create(folder, upload)
        except FileNotFoundError:
            with self._layout.sharing():
                self._layout.make_folder(folder)
                self._create(folder, upload)
        return upload

    @staticmethod
    def _create(folder: str, upload: str) -> None:
        # Not brought to disk: an upload that a power cut takes is an upload to begin again.
        os.close(os.open(f"{folder}/{upload}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def size(self, name: str, upload: str) -> int:
        """How many bytes have arrived; raises UploadUnknown."""
        try:
            return os.stat(self._path(name, upload)).st_size
        except FileNotFoundError as error:
            raise UploadUnknown(upload) from error

    def cancel(self, name: str, upload: str) -> None:
        """Forget it; raises UploadUnknown."""
        try:
            os.unlink(self._path(name, upload))
        except FileNotFoundError as error:
            raise UploadUnknown(upload) from error

    def append(
        self, name: str, upload: str, pieces: Iterable[Piece], start: int | None = None, algorithm: str = "sha256"
    ) -> int:
        """Add bytes; answers the new size.  What came before an error of `pieces` stays.

        `start` is where the client says that they belong.  Raises UploadUnknown, OutOfOrder or UploadBusy.
        """
        with self._locked(name, upload) as fd:
            return self._append(fd, upload, pieces, start, algorithm)

    def finish(self, name: str, upload: str, pieces: Iterable[Piece], digest: str, start: int | None = None) -> None:
        """Add the last bytes, verify, and give the repository the blob; a wrong digest ends the upload.

        Raises UploadUnknown, OutOfOrder, UploadBusy or DigestRefused.
        """
        algorithm = algorithm_of(digest)
        with self._locked(name, upload) as fd:
            size = self._append(fd, upload, pieces, start, algorithm)
            value = self._hashes.take(upload, algorithm, size) or _hash_file(fd, algorithm)
            path = self._path(name, upload)
            if f"{algorithm}:{value.hexdigest()}" != digest:
                os.unlink(path)
                raise DigestRefused(digest, "provided digest did not match uploaded content")
            os.fsync(fd)
            with self._layout.sharing():
                self._blobs.adopt(path, digest)
                self._blobs.link(name, digest)

    def _append(self, fd: int, upload: str, pieces: Iterable[Piece], start: int | None, algorithm: str) -> int:
        offset = os.fstat(fd).st_size
        if start is not None and start != offset:
            raise OutOfOrder(start, offset)
        value = self._hashes.take(upload, algorithm, offset)
        try:
            for piece in pieces:
                _write(fd, piece, offset)
                offset += len(piece)
                if value is not None:
                    value.update(piece)
        finally:
            if value is not None and offset:
                self._hashes.keep(upload, offset, value)
        return offset

    @contextmanager
    def _locked(self, name: str, upload: str) -> Iterator[int]:
        try:
            fd = os.open(self._path(name, upload), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise UploadUnknown(upload) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self._is_current(name, upload, fd):
                raise UploadUnknown(upload)
            yield fd
        except BlockingIOError as error:
            raise UploadBusy() from error
        finally:
            os.close(fd)

    def _is_current(self, name: str, upload: str, fd: int) -> bool:
        """Whether the file is still the upload: whoever had the lock before may have made a blob of it."""
        try:
            return os.path.samestat(os.stat(self._path(name, upload)), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _path(self, name: str, upload: str) -> str:
        if len(upload) != _ID_LENGTH or not is_hex(upload):
            raise UploadUnknown(upload)
        return f"{self._layout.uploads(name)}/{upload}"


def _write(fd: int, piece: Piece, offset: int) -> None:
    written = os.pwrite(fd, piece, offset)
    while written < len(piece):
        written += os.pwrite(fd, memoryview(piece)[written:], offset + written)


def _hash_file(fd: int, algorithm: str) -> _Hash:
    value = hashlib.new(algorithm)
    buffer = memoryview(bytearray(_PIECE))
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        value.update(buffer[:count])
        offset += count
    return value
