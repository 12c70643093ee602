"""The worker process: digests, decompression, unpacking and transfers, away from the daemon's event loop.

Started by `corral.image.crew` as `python -S -m corral.image.worker` for one operation (a load, a pull), so an idle
daemon has none.  It speaks lines of JSON: a request {"op": ..., fields} on standard input, then any number of
{"progress": ...} and one {"result": ...} or {"error": {"kind", "message"}} on standard output.

A request with `follow` unpacks a file that is still being written; after it come single bytes on standard input:
`+` it has grown, `.` it is complete, `!` give up.  So the bytes themselves travel through the page cache.
"""

from __future__ import annotations

import _thread
import fcntl
import json
import os
import select
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO

from corral import errors
from corral.image import layers
from corral.image import verify as verification
from corral.oci.digest import DigestMismatch, verify

if TYPE_CHECKING:
    from corral.image.registry import Registry

_PIECE = 256 << 10
_TELL_EVERY_S = 0.1
_GROWN, _COMPLETE = b"+", b"."
_KINDS = (
    errors.NotFound, errors.InvalidParameter, errors.Conflict, errors.Unauthorized, errors.Forbidden,
    errors.Unsupported, errors.Unavailable, errors.System, errors.DataLoss, errors.Timeout, errors.Cancelled,
)  # fmt: skip


class _GivenUp(errors.Cancelled):
    def __init__(self) -> None:
        super().__init__("the daemon gave up on it")


class Control:
    """Standard input: request lines, and the bytes that say how a followed file grows."""

    def __init__(self) -> None:
        self._held = b""

    def request(self) -> dict[str, Any] | None:
        """The next request; None when the daemon is gone or done."""
        while b"\n" not in self._held:
            data = os.read(0, 65536)
            if not data:
                return None
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        fields: dict[str, Any] = json.loads(line)
        return fields

    def wait_growth(self) -> bool:
        """Wait until the followed file has grown; False when it is complete.  Raises _GivenUp."""
        held, self._held = self._held, b""
        held = held or os.read(0, 65536)
        if not held or b"!" in held:
            raise _GivenUp()
        return _COMPLETE not in held


def unpack(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """Digest the file `blob`, and unpack it into `layer` unless that is empty; bring the file to disk."""
    fd = os.open(request["blob"], os.O_RDONLY | os.O_CLOEXEC)
    growing = bool(request.get("follow"))

    def read() -> bytes:
        nonlocal growing
        while True:
            data = os.read(fd, _PIECE)
            if data or not growing:
                return data
            growing = control.wait_growth()

    try:
        result = _unpack(read, request)
        if request.get("sync", True):
            os.fsync(fd)
    except (OSError, errors.CorralError):
        while growing:  # the daemon goes on writing until it is told; its remaining bytes must not look like a request
            growing = control.wait_growth()
        raise
    finally:
        os.close(fd)
    return result.fields()


def _unpack(read: layers.Source, request: dict[str, Any]) -> layers.Unpacked:
    limits = request.get("limits") or {}
    limit = limits.get("bytes", layers.UNPACKED_MAX_BYTES)
    if not request["layer"]:
        return layers.measure(read, limit=limit)
    return layers.apply(read, request["layer"], limit=limit, files_max=limits.get("files", layers.FILES_MAX))


def fetch(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """Download the blob `digest` into the file `blob`, going on where the file ends, and unpack it on the way.

    The file stays when the network fails, for the next try; bytes that turn out wrong are removed.  Once it is whole
    and on disk it is renamed to `whole`.
    """
    from corral.image.blobs import BlobStream

    found = [_registry(fields) for fields in request["registries"]]
    size = request["size"]
    fd = _open_partial(request["blob"], request["whole"])
    try:
        held = min(os.fstat(fd).st_size, size)
        os.ftruncate(fd, held)
        network = BlobStream(found, request["digest"], size, held, request.get("urls") or (), _tell_waiting)
        read = _recorded(fd, held, size, network.read)
        try:
            result = _unpack(read, request)
        except errors.CorralError as error:
            if not isinstance(error, errors.Unavailable):
                os.unlink(request["blob"])
            raise
        if result.digest != request["digest"]:
            os.unlink(request["blob"])
            raise DigestMismatch(request["digest"], result.digest, "layer")
        os.fsync(fd)
        os.rename(request["blob"], request["whole"])
    finally:
        os.close(fd)
    return {**result.fields(), "session": found[-1].session}


def _open_partial(path: str, whole: str) -> int:
    """The file, for us alone: a worker whose daemon was killed may hold it for a moment, or finish and rename it."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.path.exists(whole):
            os.rename(whole, path)
        try:
            if os.stat(path).st_ino == os.fstat(fd).st_ino:
                return fd
        except FileNotFoundError:
            pass
        os.close(fd)


def _recorded(fd: int, held: int, size: int, network: Callable[[], bytes]) -> Callable[[], bytes]:
    """A source of what the file has (`held` bytes), then of what `network` brings, which is written to the file."""
    position = 0
    told = 0.0  # the first piece is told at once

    def read() -> bytes:
        nonlocal position, told
        if position < held:  # what an earlier try left is digested and unpacked like the rest
            data = os.pread(fd, min(_PIECE, held - position), position)
        else:
            data = network()
            if not data:
                return b""
            view = memoryview(data)
            while view:
                view = view[os.pwrite(fd, view, position + len(data) - len(view)) :]
        position += len(data)
        now = time.monotonic()
        if now - told >= _TELL_EVERY_S or position == size:
            told = now
            say({"progress": {"received": position}})
        return data

    return read


def _tell_waiting(seconds: int) -> None:
    say({"progress": {"retry": seconds}})


def document(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """A manifest (`reference`) or a small blob (`digest`) of a registry, as text."""
    registry = _registry(request["registry"])
    kind = ""
    if request.get("reference"):
        kind, data = registry.manifest(request["reference"])
    else:
        data = registry.small_blob(request["digest"])
    if request.get("digest"):
        verify(data, request["digest"], "manifest" if kind else "configuration")
    return {"type": kind, "data": data.decode("latin-1"), "session": registry.session}


def tags(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """Every tag of a repository."""
    registry = _registry(request["registry"])
    return {"tags": registry.tags(), "session": registry.session}


def login(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """Try credentials; `token` is an identity token to use in their place, or ""."""
    from corral.image import visit

    return {"token": visit.login(_registry(request["registry"]), request["registry"]["auth"])}


def search(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """Repositories that a registry finds for `term`."""
    from corral.image import visit

    return {"found": visit.search(_registry(request["registry"]), request["term"], request["limit"])}


def diff(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """The changes in `upper` as a gzip layer in the file `blob`, unpacked into `layer` in the same pass."""
    from corral.image.diff import pack_diff

    result = layers.write_layer(pack_diff(request["upper"]), request["blob"], request["layer"])
    return result.fields()


class _Sent:
    """A file that says how much of it has been read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._told = 0.0

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY_S or not data:
            self._told = now
            say({"progress": {"sent": self._file.tell()}})
        return data

    def seek(self, offset: int, /) -> int:
        return self._file.seek(offset)


def upload(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """Bring the file `blob` to a registry as `digest`; `state` is exists, mounted or pushed."""
    from corral.image.registry import Retriable

    registry = _registry(request["registry"])
    origin = request.get("origin") or ""
    if origin and origin not in registry.authorizer.sources:
        registry.authorizer.sources.append(origin)
    attempts = 0
    while True:
        try:
            return {"state": _upload(registry, request, origin, attempts > 0), "session": registry.session}
        except Retriable as error:
            attempts += 1
            if attempts >= registry.attempts:
                raise error.cause from error
            pause_s = registry.retry_s * 2 ** (attempts - 1) if error.after_s is None else error.after_s
            _pause(pause_s)


def _upload(registry: Registry, request: dict[str, Any], origin: str, again: bool) -> str:
    digest = request["digest"]
    if registry.has_blob(digest):
        return "exists"
    location = registry.mount(digest, origin)
    if not location:
        return "mounted"
    with open(request["blob"], "rb", buffering=0) as file:
        send = registry.upload_chunks if again else registry.upload
        send(location, digest, os.fstat(file.fileno()).st_size, _Sent(file))
    return "pushed"


def _pause(seconds: float) -> None:
    while seconds > 0:
        _tell_waiting(max(1, round(seconds)))
        time.sleep(min(1.0, seconds))
        seconds -= 1.0


def publish(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """PUT the manifest in the file `blob` as `reference`."""
    registry = _registry(request["registry"])
    with open(request["blob"], "rb") as file:
        registry.publish(request["reference"], request["type"], file.read())
    return {"session": registry.session}


_registries: dict[str, Any] = {}


def _registry(fields: dict[str, Any]) -> Registry:
    """The client for a repository; kept, because its connections are."""
    from corral.image.registry import Registry

    session = fields.get("session") or {}
    key = json.dumps({**fields, "session": None}, sort_keys=True)
    if key not in _registries:
        _registries[key] = Registry(fields)
    found: Registry = _registries[key]
    found.learn(session)
    return found


def forget(request: dict[str, Any], control: Control) -> dict[str, Any]:
    """Close all connections, and begin anew with the next request."""
    for registry in _registries.values():
        registry.close()
    _registries.clear()
    return {}


def say(message: dict[str, Any]) -> None:
    """One line to the daemon."""
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(1, data) :]


def kind_of(error: errors.CorralError) -> str:
    """The name of an error's kind."""
    return next((kind.__name__ for kind in _KINDS if isinstance(error, kind)), "System")


_OPERATIONS: dict[str, Callable[[dict[str, Any], Control], dict[str, Any]]] = {
    "unpack": unpack,
    "fetch": fetch,
    "document": document,
    "diff": diff,
    "upload": upload,
    "publish": publish,
    "verify": lambda request, control: verification.answer(request),
    "tags": tags,
    "login": login,
    "search": search,
    "forget": forget,
}


def _end_with_the_daemon() -> None:
    """In a thread: end this process when nobody holds the other end of its input, whatever it is busy with."""
    poll = select.poll()
    poll.register(0, 0)
    poll.poll()
    os._exit(1)


def main() -> int:
    """Serve requests until standard input ends."""
    control = Control()
    _thread.start_new_thread(_end_with_the_daemon, ())
    while (request := control.request()) is not None:
        try:
            say({"result": _OPERATIONS[request["op"]](request, control)})
        except _GivenUp:
            return 0
        except errors.CorralError as error:
            say({"error": {"kind": kind_of(error), "message": str(error)}})
        except BrokenPipeError:  # the daemon is gone: what is half done here is swept when the next one opens the store
            return 1
        except OSError as error:
            text = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error)
            say({"error": {"kind": "System", "message": f"cannot {request['op']}: {text}"}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
