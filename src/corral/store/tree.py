"""Trees below a root: unpack a tar into one, pack one into a tar.

Shared by image layers, `docker cp` and `docker export`.  The root is a directory descriptor and may be as hostile
as the archive: every directory is opened by the kernel as if the root were `/` (openat2 with RESOLVE_IN_ROOT), so
neither `..` nor a symlink leaves it, even while a running container moves things about.  The last component is
always handled by name inside its opened parent and never followed.

Times are kept to the nanosecond, owners as numbers, set-id bits as they are; devices and fifos are made as asked
(callers who hand the result to the unprivileged mount it `nodev`).
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from typing import Self

from corral.errors import InvalidParameter, System
from corral.linux import files
from corral.oci.idmap import IdMap
from corral.store import filecaps, tar

_OPEN_DIRECTORIES_MAX = 200
_SYMLINK_DEPTH_MAX = 40
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TIME_MAX_NS = 1 << 62
_MACHINE_FAULTS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EACCES)
)


class OutsideTree(InvalidParameter):
    """A member's path leads out of the place where it is unpacked."""

    def __init__(self, name: str) -> None:
        super().__init__(f'cannot unpack "{name}": it is outside of the destination')


class BadMember(InvalidParameter):
    """A member that cannot exist where the archive wants it."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f'cannot unpack "{name}": {reason}')


class CannotUnpack(System):
    """The machine failed while a member was written."""

    def __init__(self, name: str, error: OSError) -> None:
        super().__init__(f'cannot unpack "{name}": {error.strerror}')


class DirectoryInTheWay(InvalidParameter):
    """Docker's refusal to swap a directory and something else."""

    def __init__(self, name: str, existing_is_directory: bool) -> None:
        old, new = ("directory", "non-directory") if existing_is_directory else ("non-directory", "directory")
        super().__init__(f'cannot overwrite {old} "{name}" with {new} "{name}"')


@dataclass(frozen=True, slots=True)
class UnpackOptions:
    """`owner` replaces every member's; `keep_kind` refuses to swap a directory and something else.

    `ids` are of the container whose files these are, seen from the host; members and `owner` have the container's.
    """

    owner: tuple[int, int] | None = None
    ids: IdMap | None = None
    keep_kind: bool = False
    umask_is_zero: bool = False


def clean(name: str) -> str:
    """A member's path below the root without `.` and `..`; "" is the root itself.  Raises OutsideTree."""
    if "\0" in name:
        raise BadMember(name.replace("\0", "?"), "its name has a null byte")
    path = posixpath.normpath(name.lstrip("/")) if name.strip("/") else ""
    if path == ".":
        return ""
    if path == ".." or path.startswith("../"):
        raise OutsideTree(name)
    return path


class Unpacker:
    """Writes members below `root_fd`; `finish` must be called, it sets the times of directories."""

    def __init__(self, root_fd: int, options: UnpackOptions | None = None, base: str = "") -> None:
        self._root_fd = root_fd
        self._options = options or UnpackOptions()
        self._base = base.strip("/")
        self._open: dict[str, tuple[int, bool]] = {}
        self._times: dict[str, int] = {}
        self._is_root = os.geteuid() == 0
        self.implied: set[str] = set()  # directories that no member described
        self.root_described = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def unpack(self, reader: tar.TarReader) -> None:
        """All members of an archive, then `finish`."""
        while (entry := reader.next()) is not None:
            self.add(entry, reader)
        self.finish()

    def add(self, entry: tar.Entry, reader: tar.Data) -> None:
        """Write one member; raises OutsideTree, BadMember, DirectoryInTheWay or CannotUnpack."""
        path = clean(entry.name)
        if self._base:
            path = f"{self._base}/{path}" if path else self._base
        try:
            self._add(path, entry, reader)
        except OSError as error:
            raise self._explain(entry.name, error) from error

    def finish(self) -> None:
        """Set the times of directories, which writing into them has changed."""
        for path, mtime_ns in reversed(self._times.items()):
            try:
                if path:
                    parent, name = self._parent(path)
                    _set_time(name, mtime_ns, parent)
                else:
                    _set_time(".", mtime_ns, self._root_fd)
            except OSError as error:
                raise self._explain(path, error) from error
        self._times.clear()

    def close(self) -> None:
        """Close the directories held open."""
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()

    def directory(self, path: str) -> int:
        """The descriptor of a directory, made if it is missing; valid until the next call of any method."""
        return self._parent(f"{path}/x")[0] if path else self._root_fd

    @staticmethod
    def _explain(name: str, error: OSError) -> Exception:
        if error.errno in _MACHINE_FAULTS:
            return CannotUnpack(name, error)
        return BadMember(name, error.strerror or str(error))

    def _add(self, path: str, entry: tar.Entry, reader: tar.Data) -> None:
        if not path:
            if entry.type == tar.DIRECTORY:
                self.root_described = True
                self._describe_directory("", ".", self._root_fd, entry)
            return
        directory, name = self._parent(path)
        if entry.type == tar.REGULAR:
            self._add_file(path, name, directory, entry, reader)
        elif entry.type == tar.DIRECTORY:
            self._add_directory(path, name, directory, entry)
        else:
            self._add_special(path, name, directory, entry)

    # --- members by kind -------------------------------------------------------------------------------------

    def _add_file(self, path: str, name: str, directory: int, entry: tar.Entry, reader: tar.Data) -> None:
        try:
            fd = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=directory)
        except FileExistsError:
            directory = self._make_room(path, name, directory, entry)
            fd = os.open(name, _NEW_FILE, entry.mode & 0o777, dir_fd=directory)
        try:
            if entry.sparse is not None:
                _write_sparse(fd, entry, reader)
            elif entry.size <= 65536:
                data = reader.read_all()
                if data and os.write(fd, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            else:
                for piece in reader.chunks():
                    _write_all(fd, piece)
            self._set_owner_and_mode(fd, entry, self._inherits_group(path))
            if entry.xattrs:
                self._set_xattrs(fd, entry)
            _set_time(fd, entry.mtime_ns)
        finally:
            os.close(fd)

    def _add_directory(self, path: str, name: str, directory: int, entry: tar.Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=directory)
        except FileExistsError:
            found = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISDIR(found.st_mode):
                directory = self._make_room(path, name, directory, entry)
                os.mkdir(name, 0o700, dir_fd=directory)
        self._describe_directory(path, name, directory, entry)

    def _describe_directory(self, path: str, name: str, directory: int, entry: tar.Entry) -> None:
        fd = os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
        try:
            owner = self._owner_of(entry)
            os.fchown(fd, *owner)
            os.fchmod(fd, entry.mode & 0o7777)
            if entry.xattrs:
                self._set_xattrs(fd, entry)
        except BaseException:
            os.close(fd)
            raise
        self._remember(path, fd, bool(entry.mode & stat.S_ISGID))
        self.implied.discard(path)
        self._times[path] = entry.mtime_ns

    def _add_special(self, path: str, name: str, directory: int, entry: tar.Entry) -> None:
        try:
            self._make_special(path, name, directory, entry)
        except FileExistsError:
            directory = self._make_room(path, name, directory, entry)
            self._make_special(path, name, directory, entry)
        if entry.type == tar.HARD_LINK:
            return
        owner = self._owner_of(entry)
        os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
        if entry.type != tar.SYMLINK:
            os.chmod(name, entry.mode & 0o7777, dir_fd=directory)
        _set_time(name, entry.mtime_ns, directory)

    def _make_special(self, path: str, name: str, directory: int, entry: tar.Entry) -> None:
        if entry.type == tar.SYMLINK:
            os.symlink(entry.linkname, name, dir_fd=directory)
        elif entry.type == tar.HARD_LINK:
            self._link(path, name, directory, entry)
        elif entry.type == tar.FIFO:
            os.mkfifo(name, 0o600, dir_fd=directory)
        else:
            kind = stat.S_IFCHR if entry.type == tar.CHARACTER else stat.S_IFBLK
            os.mknod(name, 0o600 | kind, os.makedev(entry.devmajor, entry.devminor), dir_fd=directory)

    def _link(self, path: str, name: str, directory: int, entry: tar.Entry) -> None:
        target = clean(entry.linkname)
        if self._base:
            target = f"{self._base}/{target}"
        source_directory, source = self._parent(target)
        if source_directory == directory and source == name:
            return
        # Opening one directory may have closed the other (there is a limit on how many are held); a second look
        # finds both open.
        directory = self._parent(path)[0]
        source_directory = self._parent(target)[0]
        os.link(source, name, src_dir_fd=source_directory, dst_dir_fd=directory, follow_symlinks=False)

    def _owner_of(self, entry: tar.Entry) -> tuple[int, int]:
        owner = self._options.owner or (entry.uid, entry.gid)
        return self._options.ids.to_host(*owner) if self._options.ids else owner

    # --- attributes ------------------------------------------------------------------------------------------

    def _set_owner_and_mode(self, fd: int, entry: tar.Entry, group_inherited: bool) -> None:
        uid, gid = self._owner_of(entry)
        if uid or gid or group_inherited or not self._is_root:
            os.fchown(fd, uid, gid)
            os.fchmod(fd, entry.mode & 0o7777)  # chown clears the set-id bits, so the mode comes second
        elif entry.mode & 0o7000 or not self._options.umask_is_zero:
            os.fchmod(fd, entry.mode & 0o7777)

    def _set_xattrs(self, fd: int, entry: tar.Entry) -> None:
        for name, value in entry.xattrs.items():
            # overlayfs takes orders from these (redirect, opaque, metacopy): an archive may not give any.
            if name.startswith(("trusted.overlay.", "user.overlay.")):
                continue
            if self._options.ids and name == filecaps.XATTR:
                value = filecaps.seen_outside(value, self._options.ids)
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno != errno.ENOTSUP:
                    raise

    def _inherits_group(self, path: str) -> bool:
        held = self._open.get(path.rpartition("/")[0])
        return held is not None and held[1]

    # --- directories -----------------------------------------------------------------------------------------

    def _parent(self, path: str) -> tuple[int, str]:
        """The opened directory that holds `path`, made if it is missing, and the last component."""
        parent, _, name = path.rpartition("/")
        if not parent:
            return self._root_fd, name
        held = self._open.get(parent)
        if held is not None:
            return held[0], name
        return self._open_directory(parent), name

    def _open_directory(self, path: str, depth: int = 0) -> int:
        try:
            fd = files.openat2(self._root_fd, path, _OPEN_DIRECTORY)
        except FileNotFoundError:
            self._make_directory(path, depth)
            fd = files.openat2(self._root_fd, path, _OPEN_DIRECTORY)
        except NotADirectoryError:
            self._clear_way(path)
            fd = files.openat2(self._root_fd, path, _OPEN_DIRECTORY)
        self._remember(path, fd, bool(os.fstat(fd).st_mode & stat.S_ISGID))
        return fd

    def _make_directory(self, path: str, depth: int) -> None:
        """Make a directory that the archive took for granted; through a dangling symlink if need be."""
        if depth > _SYMLINK_DEPTH_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        parent, _, name = path.rpartition("/")
        directory = self._root_fd
        if parent:
            held = self._open.get(parent)
            directory = held[0] if held else self._open_directory(parent, depth)
        try:
            os.mkdir(name, 0o755, dir_fd=directory)
            os.chmod(name, 0o755, dir_fd=directory)
            self.implied.add(path)
        except FileExistsError:
            try:
                target = os.readlink(name, dir_fd=directory)
            except OSError:
                return  # somebody made the directory meanwhile; opening it decides
            joined = posixpath.normpath("/" + posixpath.join(parent, target)).lstrip("/")
            if joined:
                self._open_directory(joined, depth + 1)

    def _clear_way(self, path: str) -> None:
        """Something that is no directory stands where one is needed; only a layer may put one there."""
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)

    def _remember(self, path: str, fd: int, setgid: bool) -> None:
        old = self._open.pop(path, None)
        if old is not None:
            os.close(old[0])
        elif len(self._open) >= _OPEN_DIRECTORIES_MAX:
            self.close()
        self._open[path] = (fd, setgid)

    def _make_room(self, path: str, name: str, directory: int, entry: tar.Entry) -> int:
        """Remove what stands at `path`; returns the parent again, since the held directories are closed."""
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        is_directory = stat.S_ISDIR(found.st_mode)
        if self._options.keep_kind and is_directory != (entry.type == tar.DIRECTORY):
            raise DirectoryInTheWay(path, is_directory)
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            if not stat.S_ISLNK(found.st_mode):
                return directory
        else:
            remove_tree(name, directory)
            below = path + "/"
            for held in [held for held in self._times if held == path or held.startswith(below)]:
                del self._times[held]
            self.implied = {held for held in self.implied if held != path and not held.startswith(below)}
        self.close()  # a held path may have led through what is gone
        return self._parent(path)[0]


def remove_tree(name: str, directory: int) -> None:
    """Remove `name` and everything below it, never following a link; absent is fine."""
    try:
        fd = os.open(name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=directory)
        return
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        os.unlink(name, dir_fd=directory)
        return
    try:
        with os.scandir(fd) as found:
            entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
        for child, is_directory in entries:
            if is_directory:
                remove_tree(child, fd)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _write_sparse(fd: int, entry: tar.Entry, reader: tar.Data) -> None:
    pieces = entry.sparse or []
    if sum(length for _, length in pieces) != entry.size or entry.real_size < 0:
        raise tar.InvalidTar("sparse map does not match the data")
    end = 0
    for offset, length in pieces:
        if offset < end or offset + length > entry.real_size:
            raise tar.InvalidTar("sparse map is out of order")
        end = offset + length
    os.ftruncate(fd, entry.real_size)
    source = reader.chunks()
    held = memoryview(b"")
    for offset, length in pieces:
        while length:
            if not held:
                held = next(source)
            written = os.pwrite(fd, held[:length], offset)
            held = held[written:]
            offset += written
            length -= written


def _set_time(what: int | str, mtime_ns: int, directory: int | None = None) -> None:
    mtime_ns = min(max(mtime_ns, -_TIME_MAX_NS), _TIME_MAX_NS)
    if isinstance(what, int):
        os.utime(what, ns=(mtime_ns, mtime_ns))
    else:
        os.utime(what, ns=(mtime_ns, mtime_ns), dir_fd=directory, follow_symlinks=False)
