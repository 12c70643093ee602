"""Layers: a compressed tar becomes an overlay directory, in one pass over its bytes.

    bytes -> digest -> decompress -> diff id -> members -> files

Overlay layers are independent directories, so a layer is unpacked before the ones below it are even known; that is
what lets layers arrive in any order and in parallel.  Three things cannot be decided alone, and are noted in the
result for `settle`, which runs once the stack is known:

    implied      directories that no member describes (the root, too) take their attributes from the layer below
    links        hard links to a file of a lower layer (the file is copied up)
    whiteouts    marks that hide nothing are removed (overlayfs would show them in a directory that it does not merge)

This module runs in worker processes and in threads: it is synchronous and starts light.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import shutil
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from corral.errors import InvalidParameter
from corral.image import whiteouts
from corral.linux import files
from corral.store import tar, tree

if TYPE_CHECKING:
    from corral.oci.digest import Digest

Source = Callable[[], bytes]

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
UNPACKED_MAX_BYTES = 128 << 30
FILES_MAX = 4_000_000
_PIECE = 1 << 20
_WHITEOUT_DEVICE = os.makedev(0, 0)


class CorruptLayer(InvalidParameter):
    """A layer whose compressed stream is damaged, ends early or is too large."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot unpack layer: {reason}")


class Unpacked:
    """What is known after a layer's bytes went by.  Sizes in bytes; `size` is the unpacked files'."""

    __slots__ = ("blob_size", "diff_id", "digest", "implied", "links", "media", "root_described", "size", "whiteouts")

    def __init__(self) -> None:
        self.digest = ""
        self.blob_size = 0
        self.diff_id = ""
        self.media = "tar"  # tar, gzip or zstd
        self.size = 0
        self.root_described = False
        self.implied: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.whiteouts: list[str] = []

    def fields(self) -> dict[str, Any]:
        """As JSON for the trip between processes."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def of(cls, fields: dict[str, Any]) -> Unpacked:
        """The other end of the trip."""
        unpacked = cls()
        for name in cls.__slots__:
            setattr(unpacked, name, fields[name])
        return unpacked


class Meter:
    """A source that passes bytes on and keeps their digest and count."""

    def __init__(self, source: Source, limit: int | None = None) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.limit = limit
        self.count = 0

    def __call__(self) -> bytes:
        data = self._source()
        if data:
            self._hash.update(data)
            self.count += len(data)
            if self.limit is not None and self.count > self.limit:
                raise CorruptLayer(f"it is larger than {self.limit} bytes")
        return data

    @property
    def digest(self) -> Digest:
        """Of everything so far."""
        return "sha256:" + self._hash.hexdigest()  # type: ignore[return-value]


def apply(source: Source, directory: str, *, limit: int = UNPACKED_MAX_BYTES, files_max: int = FILES_MAX) -> Unpacked:
    """Unpack the layer that `source` delivers into the empty directory `directory`.

    `limit` bounds the uncompressed tar, `files_max` its members.  Raises CorruptLayer, tar.InvalidTar, or what
    `tree.Unpacker.add` raises; the directory's content is then undefined and the caller's to remove.
    """
    compressed = Meter(source)
    media, plain_source = decompress(compressed)
    plain = Meter(plain_source, limit) if media != "tar" else None
    if plain is None:
        compressed.limit = limit
    reader = tar.TarReader(plain or plain_source)
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    umask = os.umask(0)
    try:
        with LayerUnpacker(root_fd, files_max) as unpacker:
            unpacker.unpack(reader)
            result = unpacker.result()
    finally:
        os.umask(umask)
        os.close(root_fd)
    reader.drain()
    while compressed():
        pass
    result.digest, result.blob_size, result.media = compressed.digest, compressed.count, media
    result.diff_id = plain.digest if plain else result.digest
    return result


def measure(source: Source, *, limit: int = UNPACKED_MAX_BYTES) -> Unpacked:
    """As `apply`, for the digests alone."""
    compressed = Meter(source)
    media, plain_source = decompress(compressed)
    plain = Meter(plain_source, limit)
    while plain():
        pass
    while compressed():
        pass
    result = Unpacked()
    result.digest, result.blob_size, result.media = compressed.digest, compressed.count, media
    result.diff_id = plain.digest
    return result


def write_layer(pieces: Iterator[bytes], path: str, directory: str) -> Unpacked:
    """Compress a layer's tar into the file `path`, on disk when this returns, and unpack it into `directory`.

    gzip at its fastest, because every client reads it; no time and no name in its header, so that equal layers are
    equal blobs.
    """
    deflater = zlib.compressobj(1, zlib.DEFLATED, 31)
    hashed = hashlib.sha256()
    size = 0
    with open(path, "wb") as file:

        def write(data: bytes) -> None:
            nonlocal size
            hashed.update(data)
            size += file.write(data)

        def read() -> bytes:
            data = next(pieces, b"")
            if data:
                write(deflater.compress(data))
            return data

        result = apply(read, directory)
        write(deflater.flush())
        file.flush()
        os.fsync(file.fileno())
    result.digest, result.blob_size, result.media = "sha256:" + hashed.hexdigest(), size, "gzip"
    return result


def decompress(source: Source) -> tuple[str, Source]:
    """Look at the first bytes: the compression's name, and a source of plain bytes."""
    head = b""
    while len(head) < 4 and (piece := source()):
        head += piece

    def again() -> bytes:
        nonlocal head
        if head:
            data, head = head, b""
            return data
        return source()

    if head.startswith(GZIP_MAGIC):
        return "gzip", _gunzip(again)
    if head.startswith(ZSTD_MAGIC):
        return "zstd", _unzstd(again)
    return "tar", again


def _gunzip(source: Source) -> Source:
    inflater = zlib.decompressobj(31)
    pending = b""

    def read() -> bytes:
        nonlocal inflater, pending
        while True:
            if not pending:
                pending = source()
                if not pending:
                    if not inflater.eof:
                        raise CorruptLayer("unexpected EOF")
                    return b""
            try:
                if inflater.eof:  # several members one after another are one stream (RFC 1952, 2.2)
                    if not pending.startswith(b"\x1f"):
                        pending = b""  # bytes after the last member: gzip(1) ignores them, and so do we
                        continue
                    inflater = zlib.decompressobj(31)
                data = inflater.decompress(pending, _PIECE)
            except zlib.error as error:
                raise CorruptLayer(f"gzip: {error}") from error
            pending = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if data:
                return data

    return read


def _unzstd(source: Source) -> Source:
    import zstandard  # most layers are gzip: the library is loaded for those that need it

    class Raw:
        """What stream_reader wants to see: an object with `read`."""

        def __init__(self) -> None:
            self.held = b""

        def read(self, size: int = -1) -> bytes:
            if not self.held:
                self.held = source()
            data, self.held = self.held[:size], self.held[size:]
            return data

    # 128 MiB is what zstd(1) accepts without --long, and the most that a hostile frame can make us allocate.
    decompressor = zstandard.ZstdDecompressor(max_window_size=128 << 20)
    stream = decompressor.stream_reader(Raw(), read_across_frames=True)  # type: ignore[arg-type]

    def read() -> bytes:
        try:
            return stream.read(_PIECE)
        except zstandard.ZstdError as error:
            raise CorruptLayer(f"zstd: {error}") from error

    return read


class LayerUnpacker(tree.Unpacker):
    """An Unpacker that turns whiteouts into overlayfs's form and notes what has to wait for the lower layers."""

    def __init__(self, root_fd: int, files_max: int = FILES_MAX) -> None:
        super().__init__(root_fd, tree.UnpackOptions(umask_is_zero=True))
        self._size = 0
        self._files_max = files_max
        self._whiteouts: set[str] = set()
        self._links: list[tuple[str, str]] = []

    def result(self) -> Unpacked:
        """What `settle` needs to know."""
        unpacked = Unpacked()
        unpacked.size = self._size
        unpacked.root_described = self.root_described
        unpacked.implied = sorted(self.implied)
        unpacked.links = self._links
        unpacked.whiteouts = sorted(self._whiteouts)
        return unpacked

    def _add(self, path: str, entry: tar.Entry, reader: tar.Data) -> None:
        self._files_max -= 1
        if self._files_max < 0:
            raise CorruptLayer("it has too many files")
        leaf = path.rpartition("/")[2]
        if leaf.startswith(whiteouts.PREFIX):
            self._add_whiteout(path, leaf)
        else:
            self._size += entry.size
            super()._add(path, entry, reader)

    def _add_whiteout(self, path: str, leaf: str) -> None:
        if whiteouts.is_metadata(leaf):
            return
        if leaf == whiteouts.OPAQUE_NAME:
            self._make_opaque(path.rpartition("/")[0])
            return
        name = whiteouts.hidden_name(leaf)
        if not name or name in (".", ".."):
            raise tree.BadMember(path, "whiteout of no name")
        directory, _ = self._parent(path)
        try:
            os.mknod(name, stat.S_IFCHR, _WHITEOUT_DEVICE, dir_fd=directory)
            self._whiteouts.add(path[: -len(leaf)] + name)
        except FileExistsError:
            # This layer has the name too: its file hides the lower one anyway, its directory must not merge with it.
            if stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                self._make_opaque(path[: -len(leaf)] + name)

    def _make_opaque(self, path: str) -> None:
        os.setxattr(self.directory(path), whiteouts.OPAQUE_XATTR, whiteouts.OPAQUE_VALUE)

    def _add_directory(self, path: str, name: str, directory: int, entry: tar.Entry) -> None:
        super()._add_directory(path, name, directory, entry)
        if path in self._whiteouts:  # deleted and made anew in one layer
            self._whiteouts.discard(path)
            self._make_opaque(path)

    def _make_room(self, path: str, name: str, directory: int, entry: tar.Entry) -> int:
        if entry.type != tar.DIRECTORY:
            self._whiteouts.discard(path)
        return super()._make_room(path, name, directory, entry)

    def _clear_way(self, path: str) -> None:
        """A whiteout stands where a directory is needed now: the directory replaces it and hides what was below."""
        if path not in self._whiteouts:
            super()._clear_way(path)
        directory, name = self._parent(path)
        os.unlink(name, dir_fd=directory)
        os.mkdir(name, 0o755, dir_fd=directory)
        self._whiteouts.discard(path)
        self._make_opaque(path)

    def _link(self, path: str, name: str, directory: int, entry: tar.Entry) -> None:
        try:
            super()._link(path, name, directory, entry)
        except FileNotFoundError:
            self._links.append((path, tree.clean(entry.linkname)))


def settle(unpacked: Unpacked, directory: str, lower: Sequence[str]) -> None:
    """Finish a layer in `directory` now that the layers below it (`lower`, top-most first) are known."""
    if lower and not unpacked.root_described:
        root = os.stat(lower[0])
        os.chown(directory, root.st_uid, root.st_gid)
        os.chmod(directory, stat.S_IMODE(root.st_mode))
        os.utime(directory, ns=(root.st_mtime_ns, root.st_mtime_ns))
    for path in unpacked.implied:
        _take_attributes(path, directory, lower)
    for path, target in unpacked.links:
        _link_to_lower(path, target, directory, lower)
    for path in unpacked.whiteouts:
        if _find(path, lower) is None:
            parent_fd, name = _open_parent(directory, path)
            try:
                os.unlink(name, dir_fd=parent_fd)
            finally:
                os.close(parent_fd)


def _find(path: str, lower: Sequence[str]) -> tuple[str, os.stat_result] | None:
    """The top-most layer that has `path`, with its status; None where it is missing or hidden by a whiteout."""
    for layer in lower:
        try:
            parent_fd, name = _open_parent(layer, path)
        except OSError:
            continue
        try:
            status = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            continue
        finally:
            os.close(parent_fd)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == _WHITEOUT_DEVICE:
            return None
        return layer, status
    return None


def _take_attributes(path: str, directory: str, lower: Sequence[str]) -> None:
    found = _find(path, lower)
    if found is None or not stat.S_ISDIR(found[1].st_mode):
        return
    status = found[1]
    parent_fd, name = _open_parent(directory, path)
    try:
        os.chown(name, status.st_uid, status.st_gid, dir_fd=parent_fd, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent_fd)
        times = (status.st_mtime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)


def _link_to_lower(path: str, target: str, directory: str, lower: Sequence[str]) -> None:
    """Copy a lower layer's file up under its own name and link to it, as overlayfs does at run time."""
    found = _find(target, lower)
    if found is None or not stat.S_ISREG(found[1].st_mode):
        raise tree.BadMember(path, f'hard link to "{target}", which does not exist')
    layer, status = found
    parent = posixpath.dirname(target)
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    source_fd, name = _open_parent(layer, target)
    try:
        with tree.Unpacker(root_fd) as unpacker:
            target_fd = unpacker.directory(parent)
            for implied in sorted(unpacker.implied):
                _take_attributes(implied, directory, lower)
            with (
                open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source_fd), "rb") as source,
                open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target_fd), "wb") as copy,
            ):
                shutil.copyfileobj(source, copy, _PIECE)
                copy.flush()
                os.fchown(copy.fileno(), status.st_uid, status.st_gid)
                os.fchmod(copy.fileno(), stat.S_IMODE(status.st_mode))
                for key in os.listxattr(source.fileno()):
                    os.setxattr(copy.fileno(), key, os.getxattr(source.fileno(), key))
                os.utime(copy.fileno(), ns=(status.st_mtime_ns, status.st_mtime_ns))
            link_fd, link = _open_parent(directory, path)
            try:
                os.link(name, link, src_dir_fd=target_fd, dst_dir_fd=link_fd, follow_symlinks=False)
            finally:
                os.close(link_fd)
    finally:
        os.close(root_fd)
        os.close(source_fd)


def _open_parent(directory: str, path: str) -> tuple[int, str]:
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        parent, _, name = path.rpartition("/")
        return files.openat2(root_fd, parent or ".", os.O_RDONLY | os.O_DIRECTORY), name
    finally:
        os.close(root_fd)
