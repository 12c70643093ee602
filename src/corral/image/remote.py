"""Content from a URL: what `docker import URL` reads."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from corral.errors import InvalidParameter, Unavailable
from corral.image.bridge import own_thread

_PIECE = 1 << 20
_SILENCE_S = 60.0


class NotAnAddress(InvalidParameter):
    """The source is no http or https URL."""

    def __init__(self, text: str) -> None:
        super().__init__(f"invalid source: {text}: only http and https URLs can be fetched")


class FetchFailed(Unavailable):
    """The server refused, or could not be reached, or stopped in the middle."""

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(f"failed to fetch {url}: {reason}")


def address(text: str) -> str:
    """The URL that a source means: as Docker, one without a scheme is http.  Raises NotAnAddress."""
    url = text if "://" in text else f"http://{text}"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise NotAnAddress(text)
    return url


async def fetch(url: str) -> AsyncIterator[bytes]:
    """The body of `url`, through the proxies of the environment; raises FetchFailed."""
    import http.client  # for this alone: the daemon does without
    import urllib.error
    import urllib.request

    try:
        response = await own_thread(functools.partial(urllib.request.urlopen, url, timeout=_SILENCE_S))
        with response:
            while data := await own_thread(response.read, _PIECE):
                yield data
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchFailed(url, f"{error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise FetchFailed(url, getattr(error, "reason", None) or error) from error
