"""Files as tar archives, which is how they travel into containers and builds."""

from __future__ import annotations

import io
import os
import stat
import time
from collections.abc import Iterator, Mapping

from corral.client.errors import BadArgument, UnreadableAnswer

TYPE_CHECKING = False
if TYPE_CHECKING:
    import tarfile

_PIECE_BYTES = 1 << 20


def of_files(files: Mapping[str, bytes], *, mode: int, uid: int, gid: int) -> bytes:
    """An archive of `path -> content`, to be unpacked at the root; folders on the way are not part of it."""
    import tarfile  # 6 ms that a program without files need not spend

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path.lstrip("/"))
            info.size, info.mode, info.mtime = len(content), mode, int(time.time())
            info.uid, info.gid = uid, gid
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def only_file(archive: bytes, path: str) -> bytes:
    """The content of the one file in an archive; raises BadArgument if it is something else."""
    import tarfile

    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            member = tar.next()
            file = tar.extractfile(member) if member is not None and member.isreg() else None
            if file is None:
                raise BadArgument(f"cannot read {path}: it is no regular file")
            return file.read()
    except tarfile.TarError as error:
        raise UnreadableAnswer(f"cannot read {path}: {error}") from error


def split(path: str) -> tuple[str, str]:
    """Folder and name of a path in a container; raises BadArgument."""
    clean = os.path.normpath(path)
    if not path.startswith("/") or clean == "/" or path.endswith("/"):
        raise BadArgument(f"{path!r} is not the absolute path of a file")
    return os.path.split("/" + clean.lstrip("/"))


class _Pieces:
    """What tarfile writes into, emptied between members."""

    def __init__(self) -> None:
        self.held: list[bytes] = []
        self.size = 0

    def write(self, data: bytes) -> int:
        self.held.append(bytes(data))
        self.size += len(data)
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self.held)
        self.held, self.size = [], 0
        return data


def of_folder(folder: str, dockerfile: str) -> Iterator[bytes]:
    """A folder as the context of a build, without what `.dockerignore` names; the Dockerfile is always part of it."""
    import tarfile

    from corral.build.dockerignore import Ignore, read

    if not os.path.isdir(folder):
        raise BadArgument(f"{folder!r} is no folder")
    patterns: list[str] = []
    for path in (f"{dockerfile}.dockerignore", ".dockerignore"):
        try:
            with open(os.path.join(folder, path), encoding="utf-8", errors="replace") as file:
                patterns = read(file.read())
            break
        except FileNotFoundError:
            continue
    ignore = Ignore(patterns)
    kept = {".dockerignore", f"{dockerfile}.dockerignore", os.path.normpath(dockerfile)}
    pieces = _Pieces()
    with tarfile.open(fileobj=pieces, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for path in _paths(folder, ignore, kept):
            _add(tar, folder, path)
            if pieces.size >= _PIECE_BYTES:
                yield pieces.take()
    yield pieces.take()


def _paths(folder: str, ignore: object, kept: set[str]) -> Iterator[str]:
    from corral.build.dockerignore import Ignore

    assert isinstance(ignore, Ignore)
    for base, folders, files in os.walk(folder):
        below = os.path.relpath(base, folder)
        prefix = "" if below == "." else f"{below}/"
        for name in sorted(folders):
            path = prefix + name
            ignored = ignore.ignores(path)
            if ignored and not ignore.has_exceptions and not any(one.startswith(f"{path}/") for one in kept):
                folders.remove(name)
            elif not ignored or os.path.islink(os.path.join(folder, path)):
                yield path
        folders.sort()
        yield from (
            prefix + name for name in sorted(files) if prefix + name in kept or not ignore.ignores(prefix + name)
        )


def _add(tar: tarfile.TarFile, folder: str, path: str) -> None:
    full = os.path.join(folder, path)
    if stat.S_ISSOCK(os.lstat(full).st_mode):
        return  # tar has no word for one
    info = tar.gettarinfo(full, path)
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    if info.isreg():
        with open(full, "rb") as file:
            tar.addfile(info, file)
    else:
        tar.addfile(info)
