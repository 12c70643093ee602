"""What can go wrong with a registry, in Docker's words."""

from __future__ import annotations

import http

from corral.errors import Forbidden, InvalidParameter, NotFound, System, Unauthorized, Unavailable, Unsupported

DOCUMENT_MAX_BYTES = 4 << 20
_BROKEN_OFF = ("IncompleteRead", "RemoteDisconnected")
_NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")


class RegistryUnreachable(Unavailable):
    """No connection, or it broke and went on breaking."""

    def __init__(self, url: str, error: Exception, method: str = "GET") -> None:
        super().__init__(f'{method.capitalize()} "{url}": {_reason(error)}')


def _reason(error: Exception) -> str:
    """An error in the words of Go's network package, which clients know."""
    if isinstance(error, ConnectionRefusedError):
        return "dial tcp: connect: connection refused"
    if getattr(error, "reason", "") in _NOT_TLS:
        return "http: server gave HTTP response to HTTPS client"
    if type(error).__name__ in _BROKEN_OFF:  # http.client's, which the daemon does not load
        return "unexpected EOF"
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


class PushDenied(Forbidden):
    """The registry does not let us write there."""

    def __init__(self, code: str, detail: str) -> None:
        if code == "UNAUTHORIZED" or not code:
            text = f"unauthorized: {detail or 'authentication required'}"
        else:
            text = f"{code.lower()}: {detail or 'requested access to the resource is denied'}"
        super().__init__(text)


class BlobUnknown(NotFound):
    """The registry's manifest names a blob that it does not have."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"blob {digest} not found: blob unknown to registry")


class ConfigurationSize(InvalidParameter):
    """An image configuration beyond the limit."""

    def __init__(self, size: int) -> None:
        super().__init__(f"cannot read image configuration: {size} bytes are more than {DOCUMENT_MAX_BYTES}")


class UnsupportedDigest(Unsupported):
    """Content that is named by another digest than sha256."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"cannot pull {digest}: only sha256 digests are supported")


class TooManyTags(InvalidParameter):
    """A repository beyond what one `pull --all-tags` brings."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(f"cannot pull all tags of {name}: it has more than {limit}")


class Schema1(InvalidParameter):
    """An image of a form that Docker gave up, too."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. "
            f"Suggest the author of {name} to upgrade the image to the OCI Format or Docker Image manifest v2, "
            "schema 2. More information at https://docs.docker.com/go/deprecated-image-specs/"
        )


class NotAnImage(InvalidParameter):
    """An artifact of another kind: a chart, a signature, a plugin."""

    def __init__(self, media_type: str) -> None:
        kind = "plugin" if media_type == "application/vnd.docker.plugin.v1+json" else "unknown"
        super().__init__(f'Encountered remote "{media_type[:200]}"({kind}) when fetching')


class MissingClientKey(InvalidParameter):
    """certs.d has a client certificate without its key."""

    def __init__(self, certificate: str, key: str) -> None:
        super().__init__(
            f"missing key {key} for client certificate {certificate}. CA certificates must use the extension .crt"
        )


class UnusableProxy(InvalidParameter):
    """A proxy that is not spoken to over plain HTTP."""

    def __init__(self, shown: str) -> None:
        super().__init__(f"cannot use the proxy {shown}: it must be an http:// address")


class NoSearch(Unsupported):
    """The distribution API has no search; few registries have one beside it."""

    def __init__(self, host: str, status: int) -> None:
        super().__init__(f"cannot search {host}: this registry does not offer a search (/v1/search: {status})")


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""
