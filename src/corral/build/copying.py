"""COPY and ADD on disk: files of a context, of another stage or of an archive, into a mounted root.

For worker processes.  Both sides are walked through descriptors below their roots (openat2), so no link leads out of
either; what is written goes through `corral.store.tree`, as layers and `docker cp` do.
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Sequence

from corral.build.dockerignore import Ignore
from corral.build.trees import Chosen, SourceMissing
from corral.errors import InvalidParameter
from corral.image import layers, unwrap
from corral.linux import files
from corral.runtime import users
from corral.runtime.failure import Failure
from corral.store import pack, tar, tree

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20
_SYMBOLIC = re.compile(r"[ugoa]*(?:[-+=][rwxXst]*)+(?:,[ugoa]*(?:[-+=][rwxXst]*)+)*")


class BadOwner(InvalidParameter):
    """--chown names somebody whom the image does not know."""


class BadMode(InvalidParameter):
    """--chmod that is neither octal nor symbolic."""


class Into:
    """Where copies go: a mounted root, and what every copy gets."""

    def __init__(
        self, root_fd: int, *, chown: str = "", chmod: str = "", default_owner: tuple[int, int] | None
    ) -> None:
        self.root_fd = root_fd
        self.owner = owner_of(root_fd, chown) if chown else default_owner
        self.change_mode = mode_change(chmod)

    def unpacker(self) -> tree.Unpacker:
        return tree.Unpacker(self.root_fd, tree.UnpackOptions(owner=self.owner, keep_kind=True))

    def is_directory(self, path: str) -> bool:
        """Whether `path` leads to a directory."""
        try:
            fd = files.openat2(self.root_fd, path or ".", os.O_PATH)
        except OSError:
            return False
        try:
            return stat.S_ISDIR(os.fstat(fd).st_mode)
        finally:
            os.close(fd)


class _FileData:
    """An open file as the data of a tar member."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def read_all(self) -> bytes:
        pieces = []
        while data := os.read(self._fd, _PIECE):
            pieces.append(data)
        return b"".join(pieces)

    def chunks(self) -> Iterator[memoryview]:
        while data := os.read(self._fd, _PIECE):
            yield memoryview(data)


class _Bytes:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_all(self) -> bytes:
        return self._data

    def chunks(self) -> Iterator[memoryview]:
        yield memoryview(self._data)


def copy(into: Into, destination: str, source_fd: int, chosen: Sequence[Chosen], *, exclude: Ignore,
         parents: bool = False, unpack: bool = False) -> None:  # fmt: skip
    """Copy what was chosen below `source_fd`; with `unpack`, files that are archives are unpacked instead (ADD)."""
    inside = destination.strip("/")
    as_directory = destination.endswith("/") or len(chosen) > 1 or parents or into.is_directory(inside)
    with into.unpacker() as unpacker:
        for source in chosen:
            folder = inside
            if parents:
                kept = source.pivot or source.name
                folder = _join(inside, kept if source.is_directory else posixpath.dirname(kept))
            if source.is_directory:
                _copy_directory(into, unpacker, source_fd, source, folder, exclude)
                continue
            if exclude and exclude.ignores(posixpath.basename(source.name)):
                continue
            if unpack and _unpack(into, source_fd, source.path, inside):
                continue
            leaf = posixpath.basename(source.name) or posixpath.basename(source.path)
            target = _join(folder, leaf) if as_directory else folder
            _copy_file(into, unpacker, source_fd, source, target)
        unpacker.finish()
        _own(into, unpacker)


def write_files(into: Into, destination: str, documents: Sequence[tuple[str, bytes]], mtime_ns: int) -> None:
    """Here-documents of COPY and ADD."""
    inside = destination.strip("/")
    as_directory = destination.endswith("/") or len(documents) > 1 or into.is_directory(inside)
    with into.unpacker() as unpacker:
        for name, data in documents:
            entry = tar.Entry(_join(inside, name) if as_directory else inside, tar.REGULAR, 0o644, len(data))
            entry.mode = into.change_mode(entry.mode, False)
            entry.mtime_ns = mtime_ns
            unpacker.add(entry, _Bytes(data))
        unpacker.finish()
        _own(into, unpacker)


def put_file(into: Into, destination: str, name: str, fd: int, *, mode: int, mtime_ns: int) -> None:
    """One file of another origin (ADD of a URL); `name` is used when the destination is a directory."""
    inside = destination.strip("/")
    with into.unpacker() as unpacker:
        target = _join(inside, name) if destination.endswith("/") or into.is_directory(inside) else inside
        size = os.fstat(fd).st_size
        entry = tar.Entry(target, tar.REGULAR, into.change_mode(mode, False), size)
        entry.mtime_ns = mtime_ns
        unpacker.add(entry, _FileData(fd))
        unpacker.finish()
        _own(into, unpacker)


def make_directory(root_fd: int, path: str, owner: tuple[int, int] = (0, 0)) -> None:
    """The folder of a WORKDIR, with its parents."""
    with tree.Unpacker(root_fd, tree.UnpackOptions(owner=owner)) as unpacker:
        unpacker.directory(path.strip("/"))
        for implied in unpacker.implied if owner != (0, 0) else ():
            parent, _, name = implied.rpartition("/")
            os.chown(name, *owner, dir_fd=unpacker.directory(parent), follow_symlinks=False)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}".strip("/") if folder else name.strip("/")


def _own(into: Into, unpacker: tree.Unpacker) -> None:
    """Folders that were made on the way belong to whom the files belong to."""
    uid, gid = into.owner or (0, 0)
    if uid or gid:
        for path in sorted(unpacker.implied):
            parent, _, name = path.rpartition("/")
            os.chown(name, uid, gid, dir_fd=unpacker.directory(parent), follow_symlinks=False)


def _copy_file(into: Into, unpacker: tree.Unpacker, source_fd: int, source: Chosen, target: str) -> None:
    parent, _, leaf = source.path.rpartition("/")
    directory = files.openat2(source_fd, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        _copy_member(into, unpacker, directory, leaf, target)
    except FileNotFoundError:
        raise SourceMissing(source.name) from None
    finally:
        os.close(directory)


def _copy_member(into: Into, unpacker: tree.Unpacker, directory: int, leaf: str, target: str) -> None:
    status = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
    if stat.S_ISSOCK(status.st_mode):
        return
    entry = pack.describe(status, target)
    if stat.S_ISREG(status.st_mode):
        fd = os.open(leaf, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            entry.size = entry.real_size = status.st_size
            entry.xattrs = pack.xattrs(fd)
            entry.mode = into.change_mode(entry.mode, False)
            unpacker.add(entry, _FileData(fd))
        finally:
            os.close(fd)
        return
    if entry.type == tar.SYMLINK:
        entry.linkname = os.readlink(leaf, dir_fd=directory)
    unpacker.add(entry, _Bytes(b""))


def _copy_directory(
    into: Into, unpacker: tree.Unpacker, source_fd: int, source: Chosen, target: str, exclude: Ignore
) -> None:
    fd = files.openat2(source_fd, source.path or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not into.is_directory(target):
            _describe(into, unpacker, fd, target)
        _walk(into, unpacker, fd, target, "", exclude)
    finally:
        os.close(fd)


def _describe(into: Into, unpacker: tree.Unpacker, fd: int, target: str) -> None:
    entry = pack.describe(os.fstat(fd), target)
    entry.xattrs = pack.xattrs(fd)
    entry.mode = into.change_mode(entry.mode, True)
    unpacker.add(entry, _Bytes(b""))


def _walk(into: Into, unpacker: tree.Unpacker, fd: int, target: str, prefix: str, exclude: Ignore) -> None:
    with os.scandir(fd) as found:
        names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    for name, is_directory in names:
        relative = prefix + name
        ignored = bool(exclude) and exclude.ignores(relative)
        if not is_directory:
            if not ignored:
                _copy_member(into, unpacker, fd, name, _join(target, relative))
            continue
        if ignored and not exclude.has_exceptions:
            continue
        below = os.open(name, _OPEN_DIRECTORY, dir_fd=fd)
        try:
            if not ignored:
                _describe(into, unpacker, below, _join(target, relative))
            _walk(into, unpacker, below, target, f"{relative}/", exclude)
        finally:
            os.close(below)


# --- archives --------------------------------------------------------------------------------------------------


def _unpack(into: Into, source_fd: int, path: str, destination: str) -> bool:
    """Unpack the file if it is an archive; whether it was."""
    fd = files.openat2(source_fd, path, os.O_RDONLY)
    try:
        return unpack_archive(into, fd, destination)
    finally:
        os.close(fd)


def unpack_archive(into: Into, fd: int, destination: str) -> bool:
    """Unpack an open file into the folder `destination` if it is an archive; whether it was."""
    if not stat.S_ISREG(os.fstat(fd).st_mode) or not is_archive(fd):
        return False
    os.lseek(fd, 0, os.SEEK_SET)
    inside = destination.strip("/")
    options = tree.UnpackOptions(owner=into.owner if into.owner != (0, 0) else None)
    if inside:
        make_directory(into.root_fd, inside, into.owner or (0, 0))
    with tree.Unpacker(into.root_fd, options, base=inside) as unpacker:
        unpacker.unpack(tar.TarReader(plain_source(lambda: os.read(fd, _PIECE))))
    return True


def plain_source(source: Callable[[], bytes]) -> Callable[[], bytes]:
    """A source of uncompressed bytes: gzip, zstd, bzip2 and xz are recognised."""
    return layers.decompress(unwrap.unwrap(source))[1]


def is_archive(fd: int) -> bool:
    """Whether an open file is a tar, compressed or not; looks at its first header."""
    os.lseek(fd, 0, os.SEEK_SET)
    try:
        reader = tar.TarReader(plain_source(lambda: os.read(fd, _PIECE)))
        return reader.next() is not None
    except (InvalidParameter, EOFError):
        return False


# --- attributes ------------------------------------------------------------------------------------------------


def owner_of(root_fd: int, text: str) -> tuple[int, int]:
    """`user[:group]` by the image's own files; a user alone is its own group's too.  Raises BadOwner."""
    user, colon, group = text.partition(":")
    if user.isdecimal() and (group.isdecimal() or not colon):
        return int(user), int(group) if colon else int(user)
    try:
        found = users.resolve(text, (), text_of(root_fd, "etc/passwd"), text_of(root_fd, "etc/group"))
    except Failure as failure:
        kind, what = ("group", "gid") if failure.stage == "group" else ("user", "uid")
        raise BadOwner(
            f"unable to convert uid/gid chown string to host mapping: can't find {what} for {kind} "
            f"{failure.path}: no such {kind}: {failure.path}"
        ) from failure
    if user.isdecimal() and not colon:
        return found.uid, int(user)
    return found.uid, found.gid


def text_of(root_fd: int, path: str, limit: int = 4 << 20) -> str:
    """The text of a file of the image; "" where there is none."""
    try:
        fd = files.openat2(root_fd, path, os.O_RDONLY)
    except OSError:
        return ""
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read(limit)


def mode_change(text: str) -> Callable[[int, bool], int]:
    """What --chmod does to a mode; the second argument says whether it is a directory's.  Raises BadMode."""
    if not text:
        return lambda mode, directory: mode
    if re.fullmatch(r"[0-7]{1,5}", text):
        fixed = int(text, 8) & 0o7777
        return lambda mode, directory: fixed
    if not _SYMBOLIC.fullmatch(text):
        raise BadMode(f'invalid chmod parameter: "{text}". it should be octal string and between 0 and 07777')
    clauses = text.split(",")

    def change(mode: int, directory: bool) -> int:
        for clause in clauses:
            mode = _symbolic(mode, clause, directory)
        return mode

    return change


def _symbolic(mode: int, clause: str, directory: bool) -> int:
    match = re.match(r"[ugoa]*", clause)
    who = match[0] if match else ""
    classes = "ugo" if not who or "a" in who else who
    for operator, letters in re.findall(r"([-+=])([rwxXst]*)", clause):
        bits = 0
        any_execute = bool(mode & 0o111)
        for shift, name in ((6, "u"), (3, "g"), (0, "o")):
            if name not in classes:
                continue
            own = 4 * ("r" in letters) | 2 * ("w" in letters)
            own |= "x" in letters or ("X" in letters and (directory or any_execute))
            bits |= own << shift
            if operator == "=":
                mode &= ~(7 << shift)
        bits |= 0o4000 * ("s" in letters and "u" in classes) | 0o2000 * ("s" in letters and "g" in classes)
        bits |= 0o1000 * ("t" in letters)
        mode = mode & ~bits if operator == "-" else mode | bits
    return mode
