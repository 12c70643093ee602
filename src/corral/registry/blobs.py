"""Blobs: one store of content, and which repositories have which of it."""

from __future__ import annotations

import os
import secrets
import time

from corral.oci.digest import algorithm_of, hex_of
from corral.registry.layout import Layout
from corral.registry.refusals import BlobUnknown

_TOUCH_AFTER_S = 600.0


class Blobs:
    """The blobs of all repositories.  Safe from any thread of any process."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def has(self, name: str, digest: str) -> bool:
        """Whether the repository has the blob."""
        return os.path.exists(self._layout.blob_link(name, digest)) and os.path.exists(self._layout.blob(digest))

    def announce(self, name: str, digest: str) -> int:
        """Its size, for a client that asks whether to upload it; raises BlobUnknown.

        Makes the link young again: the client will rely on the blob, and the collector must not take it meanwhile.
        """
        link = self._layout.blob_link(name, digest)
        try:
            age_s = time.time() - os.stat(link).st_mtime
            if age_s > _TOUCH_AFTER_S:
                with self._layout.sharing():
                    os.utime(link)
            return os.stat(self._layout.blob(digest)).st_size
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BlobUnknown(digest) from error
        except PermissionError:  # a root that we may only read has no collector of ours either
            return os.stat(self._layout.blob(digest)).st_size

    def open(self, name: str, digest: str) -> tuple[int, int]:
        """A descriptor, which the caller owns, and the size; raises BlobUnknown."""
        try:
            os.stat(self._layout.blob_link(name, digest))
            fd = os.open(self._layout.blob(digest), os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise BlobUnknown(digest) from error
        return fd, os.fstat(fd).st_size

    def link(self, name: str, digest: str) -> None:
        """Give the repository a blob that is stored; the caller shares the lock.  Raises BlobUnknown.

        The blob is made young first: a collector that has looked through the repositories before must not take it.
        """
        try:
            os.utime(self._layout.blob(digest))
        except FileNotFoundError as error:
            raise BlobUnknown(digest) from error
        self._layout.mark(self._layout.blob_link(name, digest))

    def mount(self, name: str, digest: str, origin: str) -> bool:
        """Give a repository another one's blob; whether that has it."""
        with self._layout.sharing():
            if not self.has(origin, digest):
                return False
            self.link(name, digest)
            return True

    def unlink(self, name: str, digest: str) -> None:
        """Take the blob from the repository; raises BlobUnknown."""
        if not self._layout.remove(self._layout.blob_link(name, digest)):
            raise BlobUnknown(digest)

    def adopt(self, path: str, digest: str) -> None:
        """Store the file at `path`: written, verified and brought to disk by the caller, who shares the lock."""
        target = self._layout.blob(digest)
        os.rename(path, target)
        self._layout.sync(os.path.dirname(target))

    def store(self, data: bytes, digest: str) -> None:
        """Store a document whose digest the caller has made; the caller shares the lock."""
        target = self._layout.blob(digest)
        try:
            os.utime(target)
        except FileNotFoundError:
            pass
        else:
            self._layout.sync(os.path.dirname(target))  # whoever stores it just now may not have come so far
            return
        path = f"{self._layout.incoming}/{secrets.token_hex(16)}"
        with open(path, "wb", buffering=0) as file:
            file.write(data)
            os.fsync(file.fileno())
        self.adopt(path, digest)

    def read(self, digest: str) -> bytes:
        """A stored document, whichever repository has it; raises BlobUnknown."""
        try:
            with open(self._layout.blob(digest), "rb", buffering=0) as file:
                return file.read()
        except FileNotFoundError as error:
            raise BlobUnknown(f"{algorithm_of(digest)}:{hex_of(digest)}") from error
