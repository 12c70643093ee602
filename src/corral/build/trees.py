"""Trees of files by their content: what a context or a stage holds, as digests that leave out what does not matter.

For worker processes: synchronous, and starts light.  The index of a context is made while its archive is unpacked:
path -> kind, mode, and digest of content or link target.  Times and owners are not in it: a file that was checked out
again, or by somebody else, is the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator

from corral.build.dockerignore import Ignore, compiled, has_wildcards
from corral.errors import InvalidParameter, NotFound
from corral.linux import files
from corral.store import tar, tree

Index = dict[str, str]

_PIECE = 1 << 20
_LINKS_MAX = 40


class ContextTooLarge(InvalidParameter):
    """More bytes or files than a context may have."""


class SourceMissing(NotFound):
    """A source of COPY or ADD that is not there."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"file not found in build context or excluded by .dockerignore: stat {path}: file does not exist"
        )


class _Hashing:
    """A reader that keeps the digest of the data that went by."""

    def __init__(self, reader: tar.TarReader) -> None:
        self._reader = reader
        self.hash = hashlib.sha256()

    def read_all(self) -> bytes:
        data = self._reader.read_all()
        self.hash.update(data)
        return data

    def chunks(self) -> Iterator[memoryview]:
        for piece in self._reader.chunks():
            self.hash.update(piece)
            yield piece


def unpack_context(source: Callable[[], bytes], directory: str, *, bytes_max: int, files_max: int) -> Index:
    """Unpack a context's plain tar into an empty directory; its index.  Raises InvalidTar, ContextTooLarge, ..."""
    index: Index = {}
    total = 0
    reader = tar.TarReader(source)
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with tree.Unpacker(root_fd, tree.UnpackOptions(owner=(0, 0))) as unpacker:
            while (entry := reader.next()) is not None:
                total += max(entry.real_size, entry.size)
                if total > bytes_max or len(index) >= files_max:
                    limit = f"{bytes_max} bytes" if total > bytes_max else f"{files_max} files"
                    raise ContextTooLarge(f"build context is larger than {limit}")
                if entry.type in (tar.CHARACTER, tar.BLOCK_DEVICE, tar.FIFO):
                    continue  # nothing that a build may use: as in Docker they are left out
                hashing = _Hashing(reader)
                unpacker.add(entry, hashing)
                _note(index, entry, hashing)
            unpacker.finish()
            for implied in unpacker.implied:
                index.setdefault(implied, "d755")
    finally:
        os.close(root_fd)
    return index


def _note(index: Index, entry: tar.Entry, hashing: _Hashing) -> None:
    path = tree.clean(entry.name)
    if not path:
        return
    old = index.get(path)
    if old is not None and (old[0] == "d") != (entry.type == tar.DIRECTORY):
        for below in [held for held in index if held.startswith(path + "/")]:
            del index[below]
    mode = entry.mode & 0o7777
    if entry.type == tar.DIRECTORY:
        index[path] = f"d{mode:o}"
    elif entry.type == tar.SYMLINK:
        index[path] = f"l{entry.linkname}"
    elif entry.type == tar.HARD_LINK:
        index[path] = index.get(tree.clean(entry.linkname), "f")
    else:
        index[path] = f"f{mode:o} {hashing.hash.hexdigest()}"


def index_of(root_fd: int, top: str = "") -> Index:
    """The index of the tree `top` below a root, read from disk; whoever owns the files is in it."""
    index: Index = {}
    fd = files.openat2(root_fd, top or ".", os.O_RDONLY | os.O_DIRECTORY)
    _walk(fd, f"{top}/" if top else "", index)
    return index


def _walk(fd: int, prefix: str, index: Index) -> None:
    try:
        with os.scandir(fd) as found:
            names = sorted(entry.name for entry in found)
        for name in names:
            try:
                described = describe(fd, name)
                if described[0] == "d":
                    below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except FileNotFoundError:
                continue  # where a step of this stage had something mounted: its layer, being packed, loses the stub
            index[prefix + name] = described
            if described[0] == "d":
                _walk(below, f"{prefix}{name}/", index)
    finally:
        os.close(fd)


def describe(directory: int, name: str) -> str:
    """One entry of an index, with owner."""
    status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    owner = f"{status.st_uid}:{status.st_gid}"
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISDIR(status.st_mode):
        return f"d{mode:o} {owner}"
    if stat.S_ISLNK(status.st_mode):
        return f"l{os.readlink(name, dir_fd=directory)} {owner}"
    if not stat.S_ISREG(status.st_mode):
        return f"s{status.st_mode:o} {status.st_rdev} {owner}"
    hashed = hashlib.sha256()
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory), "rb") as file:
        while data := file.read(_PIECE):
            hashed.update(data)
    return f"f{mode:o} {hashed.hexdigest()} {owner}"


# --- choosing --------------------------------------------------------------------------------------------------


class Chosen:
    """A source as it was found: `path` below the root with links followed, and `name` as it was asked for."""

    __slots__ = ("is_directory", "name", "path", "pivot")

    def __init__(self, path: str, name: str, is_directory: bool, pivot: str = "") -> None:
        self.path = path
        self.name = name
        self.is_directory = is_directory
        self.pivot = pivot  # with --parents: the part of the name that the destination keeps


def choose(root_fd: int, sources: Iterable[str], listing: Callable[[], Iterable[str]]) -> list[Chosen]:
    """The sources of a COPY, wildcards resolved; `listing` gives every path below the root.  Raises SourceMissing."""
    found: list[Chosen] = []
    for source in sources:
        pivot, _, rest = source.partition("/./")
        plain = posixpath.normpath(posixpath.join("/", source)).lstrip("/")
        if has_wildcards(source):
            expression = compiled(plain)
            names = sorted(path for path in listing() if expression.fullmatch(path))
            if not names:
                raise SourceMissing(plain)
        else:
            names = [plain]
        for name in names:
            path, is_directory = resolve(root_fd, name, source)
            kept = name
            if rest and "/./" in source:
                lead = posixpath.normpath(posixpath.join("/", pivot)).lstrip("/")
                kept = name[len(lead) :].lstrip("/") if lead and name.startswith(lead) else name
            found.append(Chosen(path, name, is_directory, kept))
    return found


def resolve(root_fd: int, name: str, shown: str) -> tuple[str, bool]:
    """Where `name` leads below the root, every link on the way followed inside it, and whether that is a directory."""
    try:
        fd = files.openat2(root_fd, name or ".", os.O_PATH)
    except FileNotFoundError:
        raise SourceMissing(shown) from None
    except NotADirectoryError:
        raise SourceMissing(shown) from None
    try:
        is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
        here, top = os.readlink(f"/proc/self/fd/{fd}"), os.readlink(f"/proc/self/fd/{root_fd}")
    finally:
        os.close(fd)
    inside = here[len(top) :] if top != "/" else here
    return inside.strip("/"), is_directory


def digest(index: Index, chosen: Iterable[Chosen], exclude: Ignore) -> str:
    """What the chosen sources hold, names relative to each source, as one digest."""
    hashed = hashlib.sha256()
    paths = sorted(index)
    for source in chosen:
        leaf = posixpath.basename(source.name)
        hashed.update(json.dumps([leaf, source.pivot, source.is_directory]).encode())
        if not source.is_directory:
            hashed.update(index.get(source.path, "?").encode("utf-8", "surrogateescape") + b"\0")
            continue
        prefix = f"{source.path}/" if source.path else ""
        hashed.update(index.get(source.path, "").encode("utf-8", "surrogateescape") + b"\0")
        for path in paths:
            if path.startswith(prefix):
                relative = path[len(prefix) :]
                if exclude and exclude.ignores(relative):
                    continue
                hashed.update(f"{relative}\0{index[path]}\0".encode("utf-8", "surrogateescape"))
    return hashed.hexdigest()
