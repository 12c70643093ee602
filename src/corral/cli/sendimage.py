"""`corral push IMAGE DAEMON`: an image from one daemon to another, without a registry.

The archive that `save` makes goes through this process.  A layer that the other daemon has already is left out of it,
if that is a corrald: it can be asked, and completes such an archive from its own store.
"""

from __future__ import annotations

import sys

from corral.cli import endpoint, progress
from corral.cli.problems import CliError
from corral.cli.transport import Client
from corral.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from corral.cli.command import Session

_BLOCK = 512
_LAYERS = "blobs/sha256/"
_LAYER_MIN_BYTES = 64 << 10  # smaller ones, and every document, are not worth a question
_EXTENSION_MAX_BYTES = 1 << 20
_EXTENSIONS = b"xgLK"  # members that say something of the next one


def send(session: Session, image: str, place: str, platform: str | None) -> int:
    """Have the other daemon load the image; raises CliError."""
    other = _daemon(session, place)
    _ = other.version  # it must be there before anything is read
    is_corral = other.server_headers.get("server", "").startswith("Corral")
    answer = session.client.request("GET", "/images/get", {"names": [image], "platform": platform})
    quiet = session.flags["quiet"]
    display = progress.Display(sys.stdout, sys.stdout.isatty())
    account = _Account(None if quiet else display)
    archive = without(answer.chunks(), (lambda digest: _has(other, digest)) if is_corral else _has_not, account)
    # the questions go over a connection of their own: the first one is busy with the archive
    loader = Client(other.endpoint)
    for record in loader.request("POST", "/images/load", {"quiet": True}, stream=archive).records():
        if not quiet or "error" in record or "errorDetail" in record:
            display.show(record)
    display.finish()
    print(image if quiet else account.summary())
    return 0


def _daemon(session: Session, place: str) -> Client:
    given = session.globals
    if "://" in place:
        return Client(endpoint.Endpoint(place, given.tls))
    if place == "default":
        return Client(endpoint.default([], given.tls))
    return Client(endpoint.from_context(given.config, place))


def _has(other: Client, digest: str) -> bool:
    return not other.get("/images/missing", {"digest": [digest]})["Missing"]


def _has_not(digest: str) -> bool:
    return False


class _Account:
    """What was sent and what was there; drawn, unless there is no display."""

    def __init__(self, display: progress.Display | None) -> None:
        self._display = display
        self._sent = self._there = 0
        self._sent_bytes = self._all_bytes = 0

    def there(self, digest: str, size: int) -> None:
        """The other daemon has this layer."""
        self._there += 1
        self._all_bytes += size
        self._show(digest, "Layer already exists")

    def sending(self, digest: str, done: int, size: int) -> None:
        """So much of a layer is on its way."""
        self._show(digest, "Sending", {"current": done, "total": size})

    def sent(self, digest: str, size: int) -> None:
        """All of it is."""
        self._sent += 1
        self._sent_bytes += size
        self._all_bytes += size
        self._show(digest, "Sent")

    def summary(self) -> str:
        """One line for the end."""
        return (
            f"sent {self._sent} of {self._sent + self._there} layers, "
            f"{human_size(self._sent_bytes, 3)} of {human_size(self._all_bytes, 3)}"
        )

    def _show(self, digest: str, status: str, detail: dict[str, int] | None = None) -> None:
        if self._display is not None:
            shown: dict[str, Any] = {"id": digest.removeprefix("sha256:")[:12], "status": status}
            self._display.show(shown | ({"progressDetail": detail} if detail else {}))


class _Reader:
    """Counted pieces of a stream."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def pieces(self, size: int) -> Iterator[bytes]:
        """The next `size` bytes, as they come; raises CliError at an early end."""
        while size:
            if not self._rest:
                self._rest = next(self._chunks, b"")
                if not self._rest:
                    raise CliError("the daemon's archive ends too early")
            piece, self._rest = self._rest[:size], self._rest[size:]
            size -= len(piece)
            yield piece

    def at_end(self) -> bool:
        """Whether nothing comes any more."""
        if not self._rest:
            self._rest = next(self._chunks, b"")
        return not self._rest


def without(chunks: Iterator[bytes], is_there: Callable[[str], bool], account: _Account) -> Iterator[bytes]:
    """A tar archive of an image without the layers that are there."""
    reader = _Reader(chunks)
    extensions, name, size = b"", "", -1
    while not reader.at_end():
        header = b"".join(reader.pieces(_BLOCK))
        if not header.strip(b"\0"):  # the end, and padding
            yield header
            continue
        kind = header[156:157]
        own_size = _number(header[124:136])
        if kind in _EXTENSIONS:
            if own_size > _EXTENSION_MAX_BYTES:
                raise CliError("the daemon's archive cannot be read")
            data = b"".join(reader.pieces(_padded(own_size)))
            extensions += header + data
            name, size = _extended(kind, data[:own_size], name, size)
            continue
        name = name or _name(header)
        size = own_size if size < 0 else size
        digest = _digest(name) if size >= _LAYER_MIN_BYTES else ""
        if digest and is_there(digest):
            account.there(digest, size)
            for _ in reader.pieces(_padded(size)):
                pass
        else:
            yield extensions + header
            yield from _told(reader.pieces(_padded(size)), digest, size, account)
        extensions, name, size = b"", "", -1


def _told(pieces: Iterator[bytes], digest: str, size: int, account: _Account) -> Iterator[bytes]:
    done = 0
    for piece in pieces:
        yield piece
        done += len(piece)
        if digest:
            account.sending(digest, min(done, size), size)
    if digest:
        account.sent(digest, size)


def _digest(name: str) -> str:
    """The digest of a member of an OCI layout's store of blobs; empty for any other."""
    name = name.removeprefix("./")
    return f"sha256:{name.removeprefix(_LAYERS)}" if name.startswith(_LAYERS) and len(name) == len(_LAYERS) + 64 else ""


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # base 256, for more than 8 GB
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise CliError("the daemon's archive cannot be read") from None


def _extended(kind: bytes, data: bytes, name: str, size: int) -> tuple[str, int]:
    """What an extension says of the next member: `17 size=1234567890\\n` and so on, or a long name."""
    if kind == b"L":
        return data.rstrip(b"\0").decode("utf-8", "surrogateescape"), size
    if kind == b"x":
        for record in data.split(b"\n"):
            key, _, value = record.partition(b" ")[2].partition(b"=")
            if key == b"path":
                name = value.decode("utf-8", "surrogateescape")
            elif key == b"size" and value.isdigit():
                size = int(value)
    return name, size
