"""A build worker: reads, copies, hashes and packs files, so that the daemon does not.

    python -S -m corral.build.worker

One line of JSON for each request, {"op": ..., fields}, and one for each answer, {"result": ...} or
{"error": {"kind", "message"}}.  It works in a mount namespace of its own, where it mounts the file systems of stages;
the host sees none of it, and nothing is left when it ends or is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from corral import errors
from corral.build import copying, layering, trees
from corral.build.dockerignore import Ignore
from corral.image.worker import kind_of
from corral.linux import files, mount
from corral.runtime import rootmount
from corral.runtime.failure import Failure
from corral.store import tree
from corral.store.pack import pack as pack_tree

_OVERLAY_OPTIONS = ["redirect_dir=off", "metacopy=off"]
_PIECE = 256 << 10
_INDEXES_KEPT = 4
_PACKAGES_MAX_BYTES = 256 << 20

_indexes: dict[str, trees.Index] = {}


# --- file systems ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _mounted(root: dict[str, Any], scratch: str, name: str) -> Iterator[int]:
    """A descriptor of the root of an overlay (`upper` "" for reading only), mounted for the time of the block."""
    lower = root["lower"]
    if not lower:
        lower = [_empty(scratch)]
    target = os.path.join(scratch, f"{name}-{os.getpid()}")
    os.makedirs(target, exist_ok=True)
    rootfs = rootmount.overlay(lower, root.get("upper", ""), root.get("work", ""), _OVERLAY_OPTIONS)
    try:
        rootmount.mount_root(rootfs, target)
    except Failure as failure:
        raise errors.System(f"cannot mount the file system of a stage: {failure}") from failure
    try:
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)
    finally:
        mount.umount(target)


def _empty(scratch: str) -> str:
    path = os.path.join(scratch, "empty")
    os.makedirs(path, mode=0o755, exist_ok=True)
    return path


@contextlib.contextmanager
def _source(source: dict[str, Any], scratch: str) -> Iterator[int]:
    """The tree that a COPY takes from: a folder, or the root of a stage."""
    if "directory" not in source:
        with _mounted(source, scratch, "from") as fd:
            yield fd
        return
    fd = os.open(source["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _index(source: dict[str, Any]) -> trees.Index | None:
    """The index that was made when a context arrived."""
    path = source.get("index")
    if not path:
        return None
    if path not in _indexes:
        while len(_indexes) >= _INDEXES_KEPT:
            del _indexes[next(iter(_indexes))]
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            _indexes[path] = json.load(file)
    return _indexes[path]


def _listing(fd: int, index: trees.Index | None) -> Callable[[], list[str]]:
    return lambda: list(index if index is not None else _names(fd))


def _names(fd: int, prefix: str = "") -> Iterator[str]:
    """Every path below a directory; nothing is read."""
    with os.scandir(fd) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_directory in entries:
        yield prefix + name
        if is_directory:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            try:
                yield from _names(below, f"{prefix}{name}/")
            finally:
                os.close(below)


# --- operations ------------------------------------------------------------------------------------------------


def context(request: dict[str, Any]) -> dict[str, Any]:
    """Unpack the archive that comes through the pipe `pipe` into `directory`; its index goes into the file `index`."""
    # Whoever writes has opened it before, and may have closed it again: an open that waits for a writer would hang.
    fd = os.open(request["pipe"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(fd, True)
    try:
        source = copying.plain_source(lambda: os.read(fd, _PIECE))
        index = trees.unpack_context(
            source, request["directory"], bytes_max=request["bytes_max"], files_max=request["files_max"]
        )
        while os.read(fd, _PIECE):  # the padding behind the end: whoever writes must not find the pipe closed
            pass
    finally:
        os.close(fd)
    _keep_index(request["index"], index)
    return {"files": len(index)}


def prune_context(request: dict[str, Any]) -> dict[str, Any]:
    """Drop from a context what its ignore file excludes."""
    ignore = Ignore(request["patterns"])
    index = _index(request["source"]) or {}
    gone = [path for path in index if ignore.ignores(path)]
    kept = index.keys() - set(gone)
    parents = {"/".join(path.split("/")[:depth]) for path in kept for depth in range(1, path.count("/") + 1)}
    top = os.open(request["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in sorted(gone):
            if path in parents:
                continue
            del index[path]
            parent, _, name = path.rpartition("/")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                directory = files.openat2(top, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    tree.remove_tree(name, directory)
                finally:
                    os.close(directory)
    finally:
        os.close(top)
    _keep_index(request["index"], index)
    return {"files": len(index)}


def index(request: dict[str, Any]) -> dict[str, Any]:
    """Make the index of a context that is a folder already."""
    fd = os.open(request["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = {path: text.rsplit(" ", 1)[0] for path, text in trees.index_of(fd).items()}
    finally:
        os.close(fd)
    _keep_index(request["index"], found)
    return {"files": len(found)}


def update(request: dict[str, Any]) -> dict[str, Any]:
    """Bring a context that is here already up to date: what is not among `paths` goes, what comes replaces the rest."""
    held = _index(request) or {} if os.path.exists(request["index"]) else {}
    wanted = set(request["paths"])
    top = os.open(request["directory"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in sorted(held.keys() - wanted):
            parent, _, name = path.rpartition("/")
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                directory = files.openat2(top, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    tree.remove_tree(name, directory)
                finally:
                    os.close(directory)
    finally:
        os.close(top)
    fd = os.open(request["pipe"], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(fd, True)
    try:
        new = trees.unpack_context(
            copying.plain_source(lambda: os.read(fd, _PIECE)),
            request["directory"],
            bytes_max=request["bytes_max"],
            files_max=request["files_max"],
        )
        while os.read(fd, _PIECE):
            pass
    finally:
        os.close(fd)
    found = {path: text for path, text in {**held, **new}.items() if path in wanted}
    for path in wanted - found.keys():
        raise errors.InvalidParameter(f"cannot use the build context: {path} was announced and did not come")
    _keep_index(request["index"], found)
    return {"files": len(found)}


def packages(request: dict[str, Any]) -> dict[str, Any]:
    """The packages that a stage's package managers have installed."""
    from corral.build import attest  # it pulls in what most builds never need

    with _mounted(request["root"], request["scratch"], "packages") as root_fd:
        found = attest.debian(copying.text_of(root_fd, "var/lib/dpkg/status", _PACKAGES_MAX_BYTES))
        found += attest.alpine(copying.text_of(root_fd, "lib/apk/db/installed", _PACKAGES_MAX_BYTES))
    return {"packages": sorted(found, key=lambda package: (package["kind"], package["name"]))}


def export(request: dict[str, Any]) -> dict[str, Any]:
    """Write the tar of a stage's whole file system into the pipe `pipe`."""
    with _mounted(request["root"], request["scratch"], "export") as root_fd, open(request["pipe"], "wb") as file:
        for piece in pack_tree(root_fd, "", ""):
            file.write(piece)
    return {}


def _keep_index(path: str, found: trees.Index) -> None:
    while len(_indexes) >= _INDEXES_KEPT:
        del _indexes[next(iter(_indexes))]
    _indexes[path] = found
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        json.dump(found, file)


def digest(request: dict[str, Any]) -> dict[str, Any]:
    """What the sources of a COPY hold, as a digest that says nothing of times."""
    with _source(request["source"], request["scratch"]) as fd:
        held = _index(request["source"])
        chosen = trees.choose(fd, request["sources"], _listing(fd, held))
        exclude = Ignore(request["exclude"])
        found = held if held is not None else _index_of_chosen(fd, chosen)
        return {"digest": trees.digest(found, chosen, exclude)}


def _index_of_chosen(fd: int, chosen: list[trees.Chosen]) -> trees.Index:
    found: trees.Index = {}
    for source in chosen:
        parent, _, name = source.path.rpartition("/")
        directory = files.openat2(fd, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            found[source.path] = trees.describe(directory, name or ".")
        finally:
            os.close(directory)
        if source.is_directory:
            found |= trees.index_of(fd, source.path)
    return found


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    """Where the path of a bind leads inside its tree, links followed; "" is the tree itself."""
    with _source(request["source"], request["scratch"]) as fd:
        return {"path": trees.resolve(fd, request["path"].strip("/"), request["path"])[0]}


def copy(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out COPY or ADD of files into the overlay `root`."""
    scratch = request["scratch"]
    with _mounted(request["root"], scratch, "root") as root_fd:
        default = (0, 0) if request["take_ownership"] else None
        into = copying.Into(root_fd, chown=request["chown"], chmod=request["chmod"], default_owner=default)
        if request["sources"]:
            with _source(request["source"], scratch) as fd:
                chosen = trees.choose(fd, request["sources"], _listing(fd, _index(request["source"])))
                copying.copy(
                    into,
                    request["destination"],
                    fd,
                    chosen,
                    exclude=Ignore(request["exclude"]),
                    parents=request["parents"],
                    unpack=request["unpack"],
                )
        if request["documents"]:
            documents = [(name, text.encode("utf-8", "surrogateescape")) for name, text in request["documents"]]
            copying.write_files(into, request["destination"], documents, request["now_ns"])
        for item in request["files"]:
            _put(into, request, item)
    return {}


def _put(into: copying.Into, request: dict[str, Any], item: dict[str, Any]) -> None:
    fd = os.open(item["path"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        if request["unpack"] and copying.unpack_archive(into, fd, request["destination"].strip("/")):
            return
        os.lseek(fd, 0, os.SEEK_SET)
        copying.put_file(into, request["destination"], item["name"], fd, mode=0o600, mtime_ns=item["mtime_ns"])
    finally:
        os.close(fd)


def workdir(request: dict[str, Any]) -> dict[str, Any]:
    """Make the folder of a WORKDIR in the overlay `root`."""
    with _mounted(request["root"], request["scratch"], "root") as root_fd:
        owner = (0, 0)
        copying.make_directory(root_fd, request["path"], owner)
    return {}


def download(request: dict[str, Any]) -> dict[str, Any]:
    """Bring what `url` gives into the file `place`."""
    from corral.build.download import download as bring  # an HTTP client, which most builds never need

    found, mtime_ns = bring(request["url"], request["place"])
    return {"digest": found, "mtime_ns": mtime_ns}


def is_archive(request: dict[str, Any]) -> dict[str, Any]:
    """Whether the file `place` is an archive."""
    with open(request["place"], "rb") as file:
        return {"archive": copying.is_archive(file.fileno())}


def squash(request: dict[str, Any]) -> dict[str, Any]:
    """Replay layers (directories, lowest first) into the overlay `root`, whose upper becomes all of them in one."""
    with _mounted(request["root"], request["scratch"], "root") as root_fd, layering.Replay(root_fd) as replay:
        for directory in request["layers"]:
            replay.replay(directory)
    return {}


def pack(request: dict[str, Any]) -> dict[str, Any]:
    """Pack an upper directory as a layer, and drop overlayfs's work directory beside it."""
    found = layering.pack_upper(
        request["upper"],
        request["blob"],
        stubs=request["stubs"],
        lower=request["lower"],
        epoch_ns=request["epoch_ns"],
    )
    parent = os.open(os.path.dirname(request["upper"]), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree.remove_tree("work", parent)
    finally:
        os.close(parent)
    return found


_OPERATIONS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "context": context,
    "prune_context": prune_context,
    "update": update,
    "export": export,
    "packages": packages,
    "index": index,
    "digest": digest,
    "resolve": resolve,
    "copy": copy,
    "workdir": workdir,
    "download": download,
    "is_archive": is_archive,
    "squash": squash,
    "pack": pack,
}


def main() -> int:
    """Serve requests until standard input ends."""
    rootmount.leave_host()
    os.umask(0)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        try:
            answer: dict[str, Any] = {"result": _OPERATIONS[request["op"]](request)}
        except errors.CorralError as error:
            answer = {"error": {"kind": kind_of(error), "message": getattr(error, "reason", str(error))}}
        except OSError as error:
            text = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
            answer = {"error": {"kind": "System", "message": f"cannot {request['op']}: {text}"}}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
