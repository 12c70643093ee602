"""A file from a URL.  For worker processes: the daemon does without an HTTP client."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import urllib.error
import urllib.request

from corral.errors import Unavailable

DOWNLOAD_MAX_BYTES = 64 << 30
_PIECE = 1 << 20
_TIMEOUT_S = 60


class DownloadFailed(Unavailable):
    """A URL that did not give its file."""


def download(url: str, place: str, limit: int = DOWNLOAD_MAX_BYTES) -> tuple[str, int]:
    """Write what `url` gives to the file `place`; its digest, and when the server says it was changed (or 0)."""
    hashed, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response, open(place, "wb") as file:
            while data := response.read(_PIECE):
                size += len(data)
                if size > limit:
                    raise DownloadFailed(f"{url} is larger than {limit} bytes")
                hashed.update(data)
                file.write(data)
            changed = response.headers.get("Last-Modified")
    except urllib.error.HTTPError as error:
        raise DownloadFailed(f"failed to GET {url} with status {error.code} {error.reason}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DownloadFailed(f"cannot download {url}: {getattr(error, 'reason', error)}") from error
    return f"sha256:{hashed.hexdigest()}", _when(changed)


def _when(changed: str | None) -> int:
    if not changed:
        return 0
    try:
        return int(email.utils.parsedate_to_datetime(changed).timestamp()) * 10**9
    except (TypeError, ValueError):
        return 0
