"""A blob as a stream that survives what networks do: broken connections, busy servers, mirrors without it.

A source (a mirror, the registry, at last the addresses that a manifest gives for a foreign layer) is left for the next
one when it fails; the last is tried again, after pauses that double, from the byte where it broke off.
"""

from __future__ import annotations

import http.client
import time
import urllib.parse
from collections.abc import Callable, Sequence

from corral.errors import CorralError, NotFound
from corral.image.refusals import RegistryFailed, RegistryUnreachable
from corral.image.registry import Registry, Retriable, position_at
from corral.image.transport import PIECE, SlowPeer, is_final

_PROGRESS_BYTES = 256 << 10  # a connection that brought this much was no failed attempt
_SLOWEST_BYTES_PER_S = 1024
_PAUSE_MAX_S = 60.0

Waiting = Callable[[int], None]
Open = Callable[[int], http.client.HTTPResponse]


class BlobStream:
    """`read()` returns the next bytes of a blob from `offset`, b"" after `size` in all."""

    def __init__(
        self, registries: Sequence[Registry], digest: str, size: int, offset: int, urls: Sequence[str], waiting: Waiting
    ) -> None:  # fmt: skip
        """`waiting(seconds)` is called as a pause goes by, with what is left of it."""
        self._registries = registries
        self._digest = digest
        self._size = size
        self._position = offset
        self._waiting = waiting
        self._sources: list[Open] = [
            lambda at, registry=registry: registry.open_blob(digest, size, at)  # type: ignore[misc]
            for registry in registries
        ]
        self._sources += [lambda at, url=url: self._open_foreign(url, at) for url in urls]  # type: ignore[misc]
        self._source = 0
        self._attempts = 0
        self._response: http.client.HTTPResponse | None = None
        self._since_failure = 0
        self._window = (time.monotonic(), offset)

    def read(self) -> bytes:
        """The next bytes; raises what ended the last attempt at the last source."""
        while self._position < self._size:
            try:
                if self._response is None:
                    self._response = self._sources[self._source](self._position)
                    self._window = (time.monotonic(), self._position)
                data = self._response.read1(min(PIECE, self._size - self._position))
                if not data:
                    raise http.client.IncompleteRead(b"", self._size - self._position)
            except (OSError, http.client.HTTPException, Retriable, CorralError) as error:
                self._recover(error)
                continue
            self._took(len(data))
            return data
        if self._response is not None:
            self._response.read(1)  # lets the connection see the end, and be used again
            self._response = None
        return b""

    def _took(self, count: int) -> None:
        self._position += count
        self._since_failure += count
        began, start = self._window
        elapsed = time.monotonic() - began
        if elapsed >= self._registry.timeout_s:
            if self._position - start < elapsed * _SLOWEST_BYTES_PER_S and self._position < self._size:
                self._recover(SlowPeer())
            self._window = (time.monotonic(), self._position)

    @property
    def _registry(self) -> Registry:
        return self._registries[min(self._source, len(self._registries) - 1)]

    def _recover(self, error: Exception) -> None:
        """Prepare another try, or raise what the failure amounts to."""
        self._response = None
        self._registry.close()
        told = self._told(error)
        if self._since_failure >= _PROGRESS_BYTES:
            self._since_failure, self._attempts = 0, 0
            return
        worth = not isinstance(error, CorralError) and not (is_final(error) and hasattr(error, "verify_code"))
        if self._source + 1 < len(self._sources) and (not worth or self._source + 1 < len(self._registries)):
            self._source += 1
            self._attempts = 0
            return
        self._attempts += 1
        if not worth or self._attempts >= self._registry.attempts:
            raise told from error
        pause_s = self._registry.retry_s * 2 ** (self._attempts - 1)
        if isinstance(error, Retriable) and error.after_s is not None:
            pause_s = error.after_s
        self._pause(min(pause_s, _PAUSE_MAX_S))

    def _told(self, error: Exception) -> Exception:
        if isinstance(error, Retriable):
            return error.cause
        if isinstance(error, CorralError):
            return error
        return RegistryUnreachable(self._registry.url(self._registry.blob_path(self._digest)), error)

    def _pause(self, seconds: float) -> None:
        left = seconds
        while left > 0:
            self._waiting(max(1, round(left)))
            time.sleep(min(1.0, left))
            left -= 1.0

    def _open_foreign(self, url: str, offset: int) -> http.client.HTTPResponse:
        """A layer that is distributed elsewhere: from where its manifest says, without credentials, over HTTPS."""
        if urllib.parse.urlsplit(url).scheme != "https":
            raise NotFoundElsewhere(self._digest, url)
        response = self._registry.fetch_elsewhere(url, offset)
        if response.status in (200, 206):
            return position_at(response, self._digest, self._size, offset)
        raise RegistryFailed(response.status, url[:200])


class NotFoundElsewhere(NotFound):
    """A foreign layer's address cannot be used."""

    def __init__(self, digest: str, url: str) -> None:
        super().__init__(f"blob {digest} not found: its registry does not have it, and {url[:200]} is not HTTPS")
