"""Pack a tree into a tar: `docker export`, `docker cp` out of a container, and the base of a layer's diff.

The tree is walked through directory descriptors below the root (see `corral.store.tree`), so a running container
that swaps a directory for a symlink gets at most an error, never another tree's files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from corral.linux import files
from corral.oci.idmap import IdMap
from corral.store import filecaps, tar, tarwriter

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PIECE = 256 << 10
_SKIPPED_XATTRS = ("trusted.overlay.", "user.overlay.", "security.selinux", "security.ima", "security.evm", "system.")
_KINDS = {
    stat.S_IFLNK: tar.SYMLINK,
    stat.S_IFCHR: tar.CHARACTER,
    stat.S_IFBLK: tar.BLOCK_DEVICE,
    stat.S_IFIFO: tar.FIFO,
}


def pack(
    root_fd: int, path: str, name: str, *, one_file_system: bool = False, ids: IdMap | None = None
) -> Iterator[bytes]:
    """The tar of `path` below `root_fd`, its members named `name` and `name/...`; "" leaves the top itself out.

    The last component of `path` is not followed when it is a symlink.  With `one_file_system`, a directory where
    something else is mounted is packed empty.  With `ids`, owners are written as a container with these sees them.
    Raises OSError when `path` does not exist.
    """
    packer = Packer(one_file_system=one_file_system, ids=ids)
    parent, _, leaf = path.strip("/").rpartition("/")
    leaf = leaf or "."
    fd = files.openat2(root_fd, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield from packer.walk(fd, leaf, name)
    finally:
        os.close(fd)
    yield packer.rest() + tarwriter.END


class Packer:
    """Collects members into pieces of about 256 KiB."""

    def __init__(self, *, one_file_system: bool = False, ids: IdMap | None = None) -> None:
        self._out = bytearray()
        self._links: dict[tuple[int, int], str] = {}
        self._one_file_system = one_file_system
        self._ids = ids

    def rest(self) -> bytes:
        """What has been collected and not yet been yielded."""
        data = bytes(self._out)
        self._out.clear()
        return data

    def walk(self, directory: int, leaf: str, name: str) -> Iterator[bytes]:
        """`leaf` of `directory` as `name`, and everything below it."""
        status = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
        if not stat.S_ISDIR(status.st_mode):
            yield from self._member(directory, leaf, name, stat.S_ISREG(status.st_mode))
            return
        stack: list[tuple[int, list[tuple[str, bool, bool]], str]] = []
        try:
            top = self._enter(directory, leaf, name, status.st_dev)
            assert top is not None
            stack.append(top)
            while stack:
                fd, children, prefix = stack[-1]
                if not children:
                    os.close(stack.pop()[0])
                    continue
                child, is_directory, is_file = children.pop()
                if is_directory:
                    below = self._enter(fd, child, prefix + child, status.st_dev)
                    if below:
                        stack.append(below)
                else:
                    yield from self._member(fd, child, prefix + child, is_file)
                if len(self._out) >= _PIECE:
                    yield self.rest()
        finally:
            for fd, _, _ in stack:
                os.close(fd)

    def directory(self, fd: int, name: str, *, covered: bool = False) -> None:
        """The member for an opened directory; `covered` if what is seen is mounted over it."""
        entry = self._describe(os.fstat(fd), name)
        if covered and self._ids:
            entry.uid = entry.gid = 0  # the owner of a file system of the host's kernel says nothing of what it covers
        entry.xattrs = self._xattrs(fd)
        self._out += tarwriter.header(entry)

    def _enter(
        self, directory: int, leaf: str, name: str, device: int
    ) -> tuple[int, list[tuple[str, bool, bool]], str] | None:
        try:
            fd = os.open(leaf, _OPEN_DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            return None
        try:
            covered = self._one_file_system and os.fstat(fd).st_dev != device
            if name:
                self.directory(fd, name, covered=covered)
            if covered:
                children = []
            else:
                with os.scandir(fd) as found:
                    children = [
                        (e.name, e.is_dir(follow_symlinks=False), e.is_file(follow_symlinks=False)) for e in found
                    ]
            children.sort(reverse=True)
        except BaseException:
            os.close(fd)
            raise
        return fd, children, f"{name}/" if name else ""

    def _member(self, directory: int, leaf: str, name: str, is_file: bool) -> Iterator[bytes]:
        try:
            if is_file:
                fd = os.open(leaf, _OPEN_FILE, dir_fd=directory)
                try:
                    yield from self._file(fd, name)
                finally:
                    os.close(fd)
                return
            status = os.stat(leaf, dir_fd=directory, follow_symlinks=False)
            if stat.S_IFMT(status.st_mode) not in _KINDS:  # sockets cannot be archived
                return
            entry = self._special(status, self._describe(status, name))
            if entry.type == tar.SYMLINK:
                entry.linkname = os.readlink(leaf, dir_fd=directory)
            if entry.type == tar.REGULAR or not self._linked(status, entry):
                self._out += tarwriter.header(entry)
        except FileNotFoundError:
            return  # it went away while we were looking: so be it, as in any archive of a living tree

    def _special(self, status: os.stat_result, entry: tar.Entry) -> tar.Entry:
        """What stands in the archive for a member that is neither file nor directory; for subclasses."""
        return entry

    def _file(self, fd: int, name: str) -> Iterator[bytes]:
        status = os.fstat(fd)
        entry = self._describe(status, name)
        if self._linked(status, entry):
            return
        entry.xattrs = self._xattrs(fd)
        size = entry.size = entry.real_size = status.st_size
        self._out += tarwriter.header(entry)
        left = size
        while left:
            data = os.read(fd, min(left, _PIECE))
            if not data:  # it shrank meanwhile; the header has promised `size` bytes
                self._out += bytes(left)
                break
            self._out += data
            left -= len(data)
            if left and len(self._out) >= _PIECE:
                yield self.rest()
        self._out += bytes(-size % tar.BLOCK)

    def _describe(self, status: os.stat_result, name: str) -> tar.Entry:
        entry = describe(status, name)
        if self._ids:
            entry.uid, entry.gid = self._ids.to_container(entry.uid, entry.gid)
        return entry

    def _xattrs(self, fd: int) -> dict[str, bytes]:
        found = xattrs(fd)
        if self._ids and filecaps.XATTR in found:
            found[filecaps.XATTR] = filecaps.seen_inside(found[filecaps.XATTR], self._ids)
        return found

    def _linked(self, status: os.stat_result, entry: tar.Entry) -> bool:
        """Write a hard link if this inode is in the archive already."""
        if status.st_nlink < 2:
            return False
        first = self._links.setdefault((status.st_dev, status.st_ino), entry.name)
        if first == entry.name:
            return False
        entry.type, entry.linkname, entry.size = tar.HARD_LINK, first, 0
        self._out += tarwriter.header(entry)
        return True


def describe(status: os.stat_result, name: str) -> tar.Entry:
    """An entry with a file's attributes; size, link target and xattrs are the caller's."""
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        letter = tar.REGULAR
    elif kind == stat.S_IFDIR:
        letter = tar.DIRECTORY
    else:
        letter = _KINDS[kind]
    entry = tar.Entry(name, letter, stat.S_IMODE(status.st_mode))
    entry.uid, entry.gid, entry.mtime_ns = status.st_uid, status.st_gid, status.st_mtime_ns
    if letter in (tar.CHARACTER, tar.BLOCK_DEVICE):
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry


def xattrs(fd: int) -> dict[str, bytes]:
    """The extended attributes that travel: capabilities and users' own, not labels and overlayfs's bookkeeping."""
    try:
        names = os.listxattr(fd)
    except OSError:  # not supported by this file system
        return {}
    return {name: os.getxattr(fd, name) for name in names if not name.startswith(_SKIPPED_XATTRS)}
