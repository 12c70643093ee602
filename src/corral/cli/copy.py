"""`corral cp`: files between a container and this machine, through tar archives."""

from __future__ import annotations

import base64
import os
import sys
import tarfile

from corral import jsontext
from corral.cli.archives import blocks
from corral.cli.command import Command, Session, error_line
from corral.cli.flags import Flag
from corral.cli.problems import CliError, DaemonError
from corral.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

_GO_DIRECTORY = 1 << 31
_GO_SYMLINK = 1 << 27


def split(argument: str) -> tuple[str, str]:
    """Container and path; the container is empty for a path of this machine (absolute, or `./a:b`)."""
    if os.path.isabs(argument):
        return "", argument
    container, colon, path = argument.partition(":")
    if not colon or container.startswith("."):
        return "", argument
    return container, path


def _copy(session: Session) -> int:
    (from_container, source), (to_container, target) = map(split, session.arguments)
    if not source:
        raise CliError("source can not be empty")
    if not target:
        raise CliError("destination can not be empty")
    if from_container and to_container:
        raise CliError("copying between containers is not supported")
    if from_container:
        return _from_container(session, from_container, source, target)
    if to_container:
        return _to_container(session, source, to_container, target)
    raise CliError("must specify at least one container source")


def _stat(session: Session, container: str, path: str) -> dict[str, Any]:
    response = session.client.request("HEAD", f"/containers/{container}/archive", {"path": path})
    found: dict[str, Any] = jsontext.loads(base64.b64decode(response.headers["x-docker-container-path-stat"]))
    return found


def _joined(base: str, link: str) -> str:
    """Where a link of a container leads."""
    return link if link.startswith("/") else os.path.join(os.path.dirname(base.rstrip("/")), link)


def _from_container(session: Session, container: str, source: str, target: str) -> int:
    if target != "-":
        _check_target(target)
    keep_slash = "/" if source.endswith("/") and len(source) > 1 else ""
    if session.flags["follow-link"]:
        found = _stat(session, container, source)
        if found["mode"] & _GO_SYMLINK:
            source = _joined(source, found["linkTarget"]) + keep_slash
    response = session.client.request("GET", f"/containers/{container}/archive", {"path": source})
    found = jsontext.loads(base64.b64decode(response.headers["x-docker-container-path-stat"]))
    if target == "-":
        from corral.cli.relay import write_all

        for data in response.chunks():
            write_all(1, data)
        return 0
    from corral.cli import progress

    quiet = session.flags["quiet"]
    pipe = Reader(progress.metered(response.chunks(), f"Copying from {container}", int(found.get("size") or 0), quiet))
    _extract(pipe, found, source, target, session.flags["archive"])
    pipe.drain()
    _tell(session, pipe.size_bytes, f"{container}:{source}", target)
    return 0


def _check_target(target: str) -> None:
    """Refuse to replace a device, as an account that may would; raises CliError with Docker's text."""
    import stat

    try:
        mode = os.stat(target).st_mode
    except OSError:
        return
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        what = "device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "named pipe or socket"
        raise CliError(f'invalid output path: "{target}" must be a directory or a regular file: got a {what}')


def _tell(session: Session, size_bytes: int, source: str, target: str) -> None:
    if not session.flags["quiet"] and sys.stderr.isatty():
        error_line(f"Successfully copied {human_size(float(size_bytes), 3)} to {target}")


class Reader:
    """An answer's body as a file that tarfile can read."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._buffer = b""
        self.size_bytes = 0

    def read(self, size: int) -> bytes:
        """So many bytes, fewer only at the end."""
        while len(self._buffer) < size:
            part = next(self._parts, b"")
            if not part:
                break
            self.size_bytes += len(part)
            self._buffer += part
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def drain(self) -> None:
        """Read what is left."""
        while self.read(1 << 16):
            pass


def _extract(reader: Reader, found: dict[str, Any], source: str, target: str, keep_owner: bool) -> None:
    """Unpack below the target, renamed as `cp` would; every member stays below it."""
    is_folder = bool(found["mode"] & _GO_DIRECTORY)
    name = os.path.basename(source.rstrip("/"))
    target = os.path.realpath(target) + ("/" if target.endswith("/") else "") if os.path.islink(target) else target
    contents_only = source.endswith("/.") or source == "."
    if os.path.isdir(target):
        base, root = target, "" if contents_only else (name or found["name"])
    elif target.endswith("/") and not is_folder:
        raise CliError(f"open {target}: no such file or directory" if not os.path.exists(target) else "not a directory")
    else:
        base, root = os.path.dirname(target.rstrip("/")) or ".", os.path.basename(target.rstrip("/"))
        if os.path.exists(target) and is_folder:
            raise CliError("cannot copy directory")
        if not os.path.isdir(base):
            raise CliError(f'invalid output path: directory "{base}" does not exist')
    try:
        with tarfile.open(fileobj=reader, mode="r|") as archive:  # type: ignore[call-overload]
            Unpacker(archive, base, root, keep_owner).run()
    except tarfile.TarError as error:
        raise CliError(f"cannot read the daemon's archive: {error}") from None


class Unpacker:
    """Unpacks an archive that may be hostile: a container's owner chose its names and links.

    Every member must lie below `base` after all links on its way are followed; links that are there are replaced, not
    written through.  The first part of every name becomes `root`, or goes away if `root` is empty.
    """

    def __init__(self, archive: tarfile.TarFile, base: str, root: str, keep_owner: bool) -> None:
        self._archive = archive
        self._base = os.path.realpath(base)
        self._root = root
        self._keep_owner = keep_owner
        self._folders: list[tuple[str, tarfile.TarInfo]] = []

    def run(self) -> None:
        """Unpack everything; folders get their mode and times at the end, when nothing is written to them any more."""
        for member in self._archive:
            self._member(member)
        for path, member in reversed(self._folders):
            os.chmod(path, member.mode & 0o7777)
            os.utime(path, (member.mtime, member.mtime))

    def _renamed(self, name: str) -> str:
        """Where a member goes, relative to `base`."""
        rest = name.strip("/").partition("/")[2]
        return os.path.normpath(os.path.join(self._root, rest))

    def _inside(self, path: str) -> bool:
        return path == self._base or path.startswith(self._base.rstrip("/") + "/")

    def _member(self, member: tarfile.TarInfo) -> None:
        """Unpack one member; raises CliError for one that would leave `base`."""
        name = self._renamed(member.name)
        path = os.path.join(self._base, name)
        if name == ".":
            return
        if os.path.isabs(name) or not self._inside(os.path.realpath(os.path.dirname(path))):
            raise CliError(f"refused to unpack {member.name}: it would leave {self._base}")
        member.name = name
        if not self._keep_owner:
            member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
        if member.isdir():
            if os.path.islink(path) or not os.path.isdir(path):
                os.mkdir(path, 0o700)
            self._folders.append((path, member))
            return
        if member.islnk():
            member.linkname = self._renamed(member.linkname)
            if not self._inside(os.path.realpath(os.path.join(self._base, member.linkname))):
                raise CliError(f"refused to unpack {name}: it links out of {self._base}")
        if os.path.lexists(path):
            os.unlink(path)
        self._archive.extract(member, self._base, numeric_owner=True)


def _to_container(session: Session, source: str, container: str, target: str) -> int:
    flags = session.flags
    found = _resolved(session, container, target)
    query = {"copyUIDGID": flags["archive"] or None}
    if source == "-":
        if found is None or not found[1]:
            raise CliError(f'destination "{container}:{target}" must be a directory')
        session.client.request(
            "PUT",
            f"/containers/{container}/archive",
            {**query, "path": found[0], "noOverwriteDirNonDir": True},
            stream=blocks(0),
        ).read()
        return 0
    from corral.cli import progress

    folder, name, contents_only = _target(source, target, found)
    pipe_read, pipe_write = os.pipe()
    writer = _Writer(source, name, contents_only, pipe_write, flags["follow-link"])
    writer.start()
    try:
        query |= {"path": folder, "noOverwriteDirNonDir": True}
        size = os.stat(source).st_size if os.path.isfile(source) else 0
        stream = progress.metered(writer.parts(pipe_read), f"Copying to {container}", size, flags["quiet"])
        session.client.request("PUT", f"/containers/{container}/archive", query, stream=stream).read()
    finally:
        os.close(pipe_read)
        writer.join()
    _tell(session, writer.size_bytes, source, f"{container}:{target}")
    return 0


def _resolved(session: Session, container: str, target: str) -> tuple[str, bool] | None:
    """The target with its last link followed, and whether it is a folder; None if it does not exist."""
    try:
        found = _stat(session, container, target)
        if found["mode"] & _GO_SYMLINK:
            target = _joined(target, found["linkTarget"])
            found = _stat(session, container, target)
    except DaemonError as error:
        if error.code != 404 or "No such container" in error.message:
            raise
        return None
    except CliError:
        return None
    return target, bool(found["mode"] & _GO_DIRECTORY)


def _target(source: str, target: str, found: tuple[str, bool] | None) -> tuple[str, str, bool]:
    """Folder to unpack in, name of the first member, whether only a folder's contents are meant."""
    if not os.path.lexists(source):
        raise CliError(f"lstat {os.path.abspath(source)}: no such file or directory")
    contents_only = os.path.basename(source) == "." and os.path.isdir(source)
    base = os.path.basename(os.path.abspath(source))
    if found is not None and found[1]:
        return found[0], "." if contents_only else base, contents_only
    if found is not None:
        if os.path.isdir(source):
            raise CliError("cannot copy directory")
        if target.endswith("/"):
            raise CliError("not a directory")
        return os.path.dirname(found[0]) or "/", os.path.basename(found[0]), False
    if target.endswith("/") and not os.path.isdir(source):
        raise CliError("no such directory")
    clean = target.rstrip("/")
    return os.path.dirname(clean) or "/", os.path.basename(clean), False


class _Writer:
    """Packs a file or a folder in a thread of its own, into a pipe that the request reads."""

    def __init__(self, source: str, name: str, contents_only: bool, fd: int, follow: bool) -> None:
        import threading

        self._source = os.path.realpath(source) if follow else source
        self._name = name
        self._fd = fd
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.size_bytes = 0
        self._contents_only = contents_only

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        try:
            with open(self._fd, "wb") as file:
                self._pack(file)
        except BrokenPipeError:
            pass  # the daemon has answered before the end, and its answer says why
        except (OSError, tarfile.TarError) as error:
            self._error = error

    def _pack(self, file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            archive.add(self._source, arcname=self._name)

    def parts(self, fd: int) -> Iterator[bytes]:
        """What is written; raises CliError if packing failed."""
        for data in blocks(fd):
            self.size_bytes += len(data)
            yield data
        self._thread.join()
        if self._error is not None:
            raise CliError(f"cannot read {self._source}: {self._error}")


CP = Command(
    _copy,
    "Copy files between a container and this machine",
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\ncp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    (
        Flag("archive", "a", "bool", "Keep owner and group"),
        Flag("follow-link", "L", "bool", "Follow a link that the source is"),
        Flag("quiet", "q", "bool", "Do not say how much was copied"),
    ),
    least=2,
    most=2,
    aliases="container cp, cp",
    details="`-` as the source reads a tar archive from standard input and unpacks it in a folder of the container;\n"
    "`-` as the target writes a tar archive to standard output.",
    examples=("cp web:/etc/nginx/nginx.conf .", "cp ./site/. web:/srv/www"),
)
