"""The files of a build context on this machine: which there are, and an archive of those that the daemon lacks."""

from __future__ import annotations

import os
import stat

from corral.build.dockerignore import Ignore, read
from corral.build.problems import DockerfileError
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

_PIECE = 1 << 20


def ignore_of(folder: str, dockerfile: str) -> Ignore:
    """What `NAME.dockerignore`, or else the context's `.dockerignore`, excludes; raises CliError."""
    for path in (f"{dockerfile}.dockerignore", os.path.join(folder, ".dockerignore")):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return Ignore(read(file.read()))
        except FileNotFoundError:
            continue
        except DockerfileError as error:
            raise CliError(f"error checking context: {error.reason}") from None
    return Ignore([])


def entries(folder: str, ignore: Ignore) -> dict[str, list[Any]]:
    """path -> [kind, mode, size, time in ns, link target] of everything that is not ignored."""
    found: dict[str, list[Any]] = {}
    pending = [""]
    while pending:
        prefix = pending.pop()
        try:
            with os.scandir(os.path.join(folder, prefix)) as listed:
                children = sorted(listed, key=lambda child: child.name)
        except PermissionError as error:
            raise CliError(f"error checking context: can't stat '{error.filename}'") from None
        for child in children:
            path = prefix + child.name
            ignored = bool(ignore) and ignore.ignores(path)
            status = child.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                if not ignored or ignore.has_exceptions:
                    pending.append(f"{path}/")
                if not ignored:
                    found[path] = ["d", stat.S_IMODE(status.st_mode), 0, 0, ""]
            elif ignored:
                continue
            elif stat.S_ISLNK(status.st_mode):
                found[path] = ["l", 0o777, 0, 0, os.readlink(child.path)]
            elif stat.S_ISREG(status.st_mode):
                found[path] = ["f", stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns, ""]
    for path in list(found):  # a directory that is ignored but for something in it
        parent = path.rpartition("/")[0]
        while parent and parent not in found:
            found[parent] = ["d", 0o755, 0, 0, ""]
            parent = parent.rpartition("/")[0]
    return found


class _Pieces:
    """What tarfile writes into, emptied between members."""

    def __init__(self) -> None:
        self.held: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.held.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self.held)
        self.held.clear()
        return data


def archive(folder: str, paths: Iterable[str], texts: Mapping[str, bytes] | None = None) -> Iterator[bytes]:
    """A tar of these paths below the folder, and of files that are not there."""
    import io
    import tarfile

    pieces = _Pieces()
    with tarfile.open(fileobj=pieces, mode="w|", format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for path in sorted(paths):
            place = os.path.join(folder, path)
            try:
                info = tar.gettarinfo(place, path)
            except FileNotFoundError:
                raise CliError(f"error building context: {path} went away") from None
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            if info.islnk():  # tarfile finds names of one file; the daemon is to have files of their own
                info.type, info.size = tarfile.REGTYPE, os.stat(place).st_size
            if info.isreg():
                with open(place, "rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
            if sum(map(len, pieces.held)) >= _PIECE:
                yield pieces.take()
        for name, data in (texts or {}).items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    yield pieces.take()
