"""A copy of a tree as it is: for snapshots and clones on the same file system.

Unlike a way through a tar, this keeps what overlayfs wrote (whiteouts, opaque directories), shares extents where the
file system can (FICLONE), keeps holes, and lets the kernel move the bytes elsewhere.  Source and destination are the
engine's own directories; what is in them is hostile, so nothing is ever followed: every step is by name inside an
opened directory.  Sockets are left out, as in every archive: they are dead without their process.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FICLONE = 0x40049409
_CANNOT_SHARE = frozenset((errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY))
# Labels belong to the place, not to the file.
_PLACE = ("security.selinux", "security.ima", "security.evm")


def duplicate(source: str, target: str) -> None:
    """Make `target` (it may be there, empty) a copy of the directory `source`.

    Raises OSError, and then leaves what it has made.
    """
    os.makedirs(target, 0o700, exist_ok=True)
    source_fd = os.open(source, _OPEN_DIRECTORY)
    try:
        target_fd = os.open(target, _OPEN_DIRECTORY)
        try:
            _Copy().directory(source_fd, target_fd)
        finally:
            os.close(target_fd)
    finally:
        os.close(source_fd)


class _Copy:
    def __init__(self) -> None:
        self._links: dict[tuple[int, int], str] = {}  # of files with several names: where the first copy is
        self._top = -1

    def directory(self, source: int, target: int) -> None:
        """Everything in an opened directory, depth first without recursion: a tree may be deeper than the stack."""
        self._top = target
        pending: list[tuple[int, int, list[str], str]] = [(source, target, sorted(os.listdir(source)), "")]
        while pending:
            source, target, names, path = pending[-1]
            if names:
                name = names.pop()
                below = self._entry(source, target, name, f"{path}{name}")
                if below:
                    pending.append((*below, sorted(os.listdir(below[0])), f"{path}{name}/"))
                continue
            pending.pop()
            _describe(source, target)
            if pending:
                os.close(source)
                os.close(target)

    def _entry(self, source: int, target: int, name: str, path: str) -> tuple[int, int] | None:
        """Copy one name; of a directory, the opened pair."""
        status = os.stat(name, dir_fd=source, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(name, 0o700, dir_fd=target)
            inner = os.open(name, _OPEN_DIRECTORY, dir_fd=source)
            try:
                return inner, os.open(name, _OPEN_DIRECTORY, dir_fd=target)
            except BaseException:
                os.close(inner)
                raise
        if stat.S_ISSOCK(status.st_mode):
            return None
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                os.link(first, name, src_dir_fd=self._top, dst_dir_fd=target, follow_symlinks=False)
                return None
        if stat.S_ISREG(status.st_mode):
            _file(source, target, name)
        else:
            _special(source, target, name, status)
        return None


def _file(source_directory: int, target_directory: int, name: str) -> None:
    source = os.open(name, _OPEN_FILE, dir_fd=source_directory)
    try:
        target = os.open(name, _NEW_FILE, 0o600, dir_fd=target_directory)
        try:
            size = os.fstat(source).st_size
            if size and not _shared(source, target):
                _bytes(source, target, size)
            _describe(source, target)
        finally:
            os.close(target)
    finally:
        os.close(source)


def _shared(source: int, target: int) -> bool:
    """Whether the file system lets both have the same extents."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        return False
    return True


def _bytes(source: int, target: int, size: int) -> None:
    """Copy the data between the holes."""
    os.truncate(target, size)
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole until the end
                raise
            return
        end = os.lseek(source, start, os.SEEK_HOLE)
        while start < end:
            moved = os.copy_file_range(source, target, end - start, start, start)
            if not moved:  # it shrank meanwhile
                return
            start += moved


def _special(source: int, target: int, name: str, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def _describe(source: int, target: int) -> None:
    """Owner, mode, attributes and times of an opened file or directory."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, stat.S_IMODE(status.st_mode))  # chown clears the set-id bits, so the mode comes second
    for name in os.listxattr(source):
        if name not in _PLACE:
            os.setxattr(target, name, os.getxattr(source, name))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
