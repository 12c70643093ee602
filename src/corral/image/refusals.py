"""What can go wrong with a registry, in Docker's words."""

from __future__ import annotations

import http

from corral.errors import InvalidParameter, NotFound, System, Unauthorized, Unavailable

DOCUMENT_MAX_BYTES = 4 << 20


class RegistryUnreachable(Unavailable):
    """No connection, or it broke and went on breaking."""

    def __init__(self, url: str, error: Exception) -> None:
        super().__init__(f'Get "{url}": {_reason(error)}')


def _reason(error: Exception) -> str:
    """An error in the words of Go's network package, which clients know."""
    if isinstance(error, ConnectionRefusedError):
        return "dial tcp: connect: connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error)


class RegistryFailed(System):
    """An answer that cannot be used."""

    def __init__(self, status: int, detail: str) -> None:
        text = f"received unexpected HTTP status: {status} {_phrase(status)}".rstrip()
        super().__init__(f"{text}: {detail}" if detail else text)
        self.status = status


class TooManyRequests(Unavailable):
    """The registry's rate limit."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"toomanyrequests: {detail or 'retry later'}")


class DocumentTooLarge(InvalidParameter):
    """A manifest beyond the limit."""

    def __init__(self) -> None:
        super().__init__(f"cannot read manifest: it is larger than {DOCUMENT_MAX_BYTES} bytes")


class ManifestUnknown(NotFound):
    """The repository has no such tag or digest."""

    def __init__(self, reference: str) -> None:
        super().__init__(f"manifest for {reference} not found: manifest unknown: manifest unknown")


class AccessDenied(NotFound):
    """Docker tells a missing repository and a forbidden one alike."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(
            f"pull access denied for {name}, repository does not exist or may require 'docker login': {detail}"
        )


class LoginFailed(Unauthorized):
    """The credentials were refused."""

    def __init__(self, detail: str) -> None:
        super().__init__(f"unauthorized: {detail or 'authentication required'}")


class BlobUnknown(NotFound):
    """The registry's manifest names a blob that it does not have."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"blob {digest} not found: blob unknown to registry")


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
