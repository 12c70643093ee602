"""A client of the distribution API (OCI distribution specification 1.1, Docker Registry HTTP API V2).

It runs in worker processes, and in threads of a registry that caches another one: synchronous, on the standard
library's `http.client`, and an idle daemon has loaded none of it.  Everything a registry says is bounded before it is
believed: documents in size, redirects in number, silence in time.  Credentials go to the registry's own host and to
the token server that it names, never along a redirect to another host, and never in plain text to a host that is not
this machine or declared insecure.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.parse
from typing import Any

from corral.image import auth
from corral.image.refusals import (
    DOCUMENT_MAX_BYTES,
    AccessDenied,
    BlobUnknown,
    DocumentTooLarge,
    LoginFailed,
    ManifestUnknown,
    PushDenied,
    RegistryFailed,
    RegistryUnreachable,
    TooManyRequests,
    TooManyTags,
)
from corral.image.tokens import Authorizer
from corral.image.transport import PIECE, Body, File, SlowPeer, Transport, deadline, is_final, is_in, is_loopback

ATTEMPTS = 5
_BACK_OFF_S = (0.2, 0.8, 2.0, 5.0)
RETRY_AFTER_MAX_S = 60.0
_REDIRECTS_MAX = 5
_ERROR_MAX_BYTES = 64 << 10
_TAGS_MAX = 10_000
_CHUNK = 16 << 20
_WORTH_RETRYING = (429, 500, 502, 503, 504)
_NO_WHOLE_UPLOAD = (404, 405, 411, 413, 501)
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


class Answer:
    """Status, headers, and the body of an answer that was read whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def error(self) -> tuple[str, str]:
        """The first error's code and message, "" where there is none (distribution specification, error codes)."""
        try:
            first = json.loads(self.body)["errors"][0]
            return str(first.get("code", ""))[:100], str(first.get("message", ""))[:500]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return "", ""


class Registry:
    """One repository of one registry, for one worker.  `session` carries what was learnt to other workers."""

    def __init__(self, fields: dict[str, Any]) -> None:
        """`fields` is what `corral.image.registries.Registries.fields` makes."""
        self.host: str = fields["host"]
        self.repository: str = fields["repository"]
        self.shown: str = fields["shown"]
        insecure = bool(fields.get("insecure")) or is_loopback(self.host)
        self._insecure = insecure or is_in(self.host, fields.get("networks") or ())
        self.attempts: int = fields.get("attempts") or ATTEMPTS
        self.retry_s: float = fields.get("retry_s", 2.0)
        self.timeout_s: float = fields.get("timeout_s") or 60.0
        self._actions: str = fields.get("scope") or "pull"
        self._tries = 1 if fields.get("mirror") else ATTEMPTS  # of a document: there is somebody else to ask
        self._transport = Transport(
            self.host,
            insecure=self._insecure,
            certs=[os.path.join(folder, self.host) for folder in fields.get("certs") or ()],
            proxies=fields.get("proxies") or {},
            timeout_s=self.timeout_s,
        )
        self.authorizer = Authorizer(fields.get("auth") or {}, self._actions, self._insecure)
        self._scheme: str = fields.get("scheme") or ""
        self.learn(fields.get("session") or {})

    @property
    def session(self) -> dict[str, Any]:
        """The scheme and authorization found to work."""
        return {"scheme": self._scheme, "authorization": self.authorizer.header}

    def learn(self, session: dict[str, Any]) -> None:
        """What another worker has found to work."""
        self._scheme = self._scheme or session.get("scheme") or ""
        self.authorizer.header = self.authorizer.header or session.get("authorization")

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    # --- documents -------------------------------------------------------------------------------------------

    def manifest(self, reference: str) -> tuple[str, bytes]:
        """Media type and bytes of a manifest or index by tag or digest; the caller verifies a digest."""
        answer = self.request("GET", f"/v2/{self.repository}/manifests/{reference}", {"Accept": _ACCEPT})
        if answer.status == 200:
            return (answer.headers.get("Content-Type") or "").partition(";")[0].strip(), answer.body
        code, message = answer.error()
        separator = "@" if ":" in reference else ":"
        if answer.status == 404 and code != "NAME_UNKNOWN":
            raise ManifestUnknown(f"{self.shown}{separator}{reference}")
        if answer.status in (401, 403, 404):
            raise AccessDenied(
                self.shown, f"{code.lower() or 'denied'}: {message or 'access to the resource is denied'}"
            )
        raise self.failure(answer)

    def small_blob(self, digest: str) -> bytes:
        """A blob that is a document."""
        answer = self.request("GET", self.blob_path(digest))
        if answer.status == 404:
            raise BlobUnknown(digest)
        if answer.status != 200:
            raise self.failure(answer)
        return answer.body

    def tags(self) -> list[str]:
        """Every tag of the repository."""
        found: list[str] = []
        path = f"/v2/{self.repository}/tags/list?n=1000"
        while path:
            answer = self.request("GET", path)
            if answer.status in (401, 403, 404):
                code, message = answer.error()
                raise AccessDenied(self.shown, f"{code.lower() or 'denied'}: {message or 'repository name not known'}")
            if answer.status != 200:
                raise self.failure(answer)
            try:
                tags = json.loads(answer.body)["tags"] or []
                found += [tag for tag in tags if isinstance(tag, str)]
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise RegistryFailed(200, "the list of tags cannot be read") from error
            if len(found) > _TAGS_MAX:
                raise TooManyTags(self.shown, _TAGS_MAX)
            path = self._next_page(path, answer) if tags else ""
        return found

    def _next_page(self, path: str, answer: Answer) -> str:
        link = re.match(r'\s*<([^>]+)>\s*;\s*rel="?next"?', answer.headers.get("Link") or "")
        if link is None:
            return ""
        parts = urllib.parse.urlsplit(urllib.parse.urljoin(self.url(path), link.group(1)))
        if parts.netloc != self.host:
            raise RegistryFailed(200, f"the list of tags goes on at another host: {parts.netloc[:200]}")
        return f"{parts.path}?{parts.query}"

    def blob_path(self, digest: str) -> str:
        """Where a blob is."""
        return f"/v2/{self.repository}/blobs/{digest}"

    @staticmethod
    def failure(answer: Answer) -> Exception:
        """The error that an unexpected answer amounts to."""
        code, message = answer.error()
        if answer.status == 429:
            return TooManyRequests(message)
        if answer.status in (401, 403):
            return LoginFailed(message)
        return RegistryFailed(answer.status, f"{code.lower()}: {message}" if code else "")

    # --- blobs -----------------------------------------------------------------------------------------------

    def open_blob(self, digest: str, size: int, offset: int) -> http.client.HTTPResponse:
        """A response whose next bytes are the blob's from `offset`; raises BlobUnknown, RegistryFailed, OSError, ..."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._open("GET", self.url(self.blob_path(digest)), headers)
        if response.status in (200, 206):
            return position_at(response, digest, size, offset)
        answer = self.finish(response)
        if answer.status == 404:
            raise BlobUnknown(digest)
        if answer.status == 416:
            raise RegistryFailed(416, f"{digest} is shorter than announced")
        if answer.status in _WORTH_RETRYING:
            raise Retriable(self.failure(answer), _retry_after(answer.headers))
        raise self.failure(answer)

    def fetch_elsewhere(self, url: str, offset: int) -> http.client.HTTPResponse:
        """A response from another host, without authorization and without following redirects."""
        return self._transport.send("GET", url, {"Range": f"bytes={offset}-"} if offset else {})

    # --- uploads ---------------------------------------------------------------------------------------------

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has the blob."""
        answer = self.request("HEAD", self.blob_path(digest))
        if answer.status in (401, 403):
            raise self._push_failure(answer)
        return answer.status == 200

    def mount(self, digest: str, origin: str) -> str:
        """Begin an upload, by asking for a blob of the repository `origin` if that is not "".

        The address to send the bytes to, or "" when the registry has taken the blob from there.
        """
        query = urllib.parse.urlencode({"mount": digest, "from": origin}) if origin else ""
        path = f"/v2/{self.repository}/blobs/uploads/" + (f"?{query}" if query else "")
        answer = self.request("POST", path, {"Content-Length": "0"})
        if answer.status == 201:
            return ""
        location = answer.headers.get("Location")
        if answer.status != 202 or not location:
            raise self._push_failure(answer)
        return self._redirect(self.url(path), location)

    def upload(self, location: str, digest: str, size: int, body: File) -> None:
        """Send a blob's bytes to where `mount` said, in one request; in chunks if the registry does not take that.

        Raises Retriable for what another upload may do better.
        """
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        try:
            answer = self.finish(self._open("PUT", _with_digest(location, digest), headers, body, 5))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Retriable(RegistryUnreachable(location, error, "Put")) from error
        if answer.status in _NO_WHOLE_UPLOAD:
            self.upload_chunks(self.mount(digest, ""), digest, size, body)
        elif answer.status != 201:
            raise self._upload_failure(answer)

    def upload_chunks(self, location: str, digest: str, size: int, body: File) -> None:
        """As `upload`, in several requests: what stands between us and the registry may not let long ones pass."""
        body.seek(0)
        position = 0
        try:
            while position < size:
                data = body.read(min(_CHUNK, size - position))
                headers = {
                    "Content-Length": str(len(data)),
                    "Content-Range": f"{position}-{position + len(data) - 1}",
                    "Content-Type": "application/octet-stream",
                }
                answer = self.finish(self._open("PATCH", location, headers, data, 5))
                if answer.status != 202:
                    raise self._upload_failure(answer)
                position += len(data)
                location = self._redirect(location, answer.headers.get("Location") or location)
            answer = self.finish(self._open("PUT", _with_digest(location, digest), {"Content-Length": "0"}, None, 5))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Retriable(RegistryUnreachable(location, error, "Patch")) from error
        if answer.status != 201:
            raise self._upload_failure(answer)

    def publish(self, reference: str, media_type: str, data: bytes) -> None:
        """PUT a manifest or index under a tag or digest."""
        path = f"/v2/{self.repository}/manifests/{reference}"
        answer = self.request("PUT", path, {"Content-Type": media_type}, data)
        if answer.status != 201:
            raise self._push_failure(answer)

    def _upload_failure(self, answer: Answer) -> Exception:
        failure = self._push_failure(answer)
        return Retriable(failure, _retry_after(answer.headers)) if answer.status in _WORTH_RETRYING else failure

    def _push_failure(self, answer: Answer) -> Exception:
        code, message = answer.error()
        if answer.status in (401, 403):
            return PushDenied(code, message)
        return self.failure(answer)

    # --- requests --------------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """A request whose answer is a document; retries what is worth retrying."""
        for attempt in range(self._tries):
            last = attempt == self._tries - 1
            back_off_s = _BACK_OFF_S[min(attempt, len(_BACK_OFF_S) - 1)] * min(self.retry_s, 1)
            try:
                answer = self.finish(self._open(method, self.url(path), headers or {}, body))
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if last or is_final(error) or isinstance(error, SlowPeer):
                    raise RegistryUnreachable(self.url(path), error, method) from error
                time.sleep(back_off_s)
                continue
            if last or answer.status not in _WORTH_RETRYING:
                return answer
            wait_s = _retry_after(answer.headers)
            time.sleep(back_off_s if wait_s is None else wait_s)
        raise AssertionError("unreachable")

    def exchange(self, method: str, url: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        """One request to another server than the registry's own (a token server), without our authorization."""
        try:
            return self.finish(self._transport.send(method, url, headers, body))
        except (OSError, http.client.HTTPException) as error:
            raise RegistryUnreachable(url.partition("?")[0], error, method) from error

    def finish(self, response: http.client.HTTPResponse) -> Answer:
        """Read an answer that is a document, within bounds of size and time."""
        limit = DOCUMENT_MAX_BYTES if response.status < 300 else _ERROR_MAX_BYTES
        with deadline(self.timeout_s):
            body = self._read(response, limit + 1)
        if len(body) > limit:
            self.close()
            if response.status < 300:
                raise DocumentTooLarge
            body = b""
        return Answer(response.status, response.headers, body)

    def _read(self, response: http.client.HTTPResponse, limit: int) -> bytes:
        """At most `limit` bytes of a body, piece by piece, so that time is looked at where no alarm can ring."""
        began = time.monotonic()
        body = bytearray()
        while len(body) < limit and (data := response.read1(limit - len(body))):
            body += data
            if time.monotonic() - began > self.timeout_s:
                raise SlowPeer
        if len(body) < limit:
            if response.length:
                raise http.client.IncompleteRead(b"", response.length)
            response.read(1)  # lets the connection see the end, and be used again
        return bytes(body)

    def url(self, path: str) -> str:
        """The address of a path at the registry."""
        if not self._scheme:
            self._scheme = self._find_scheme()
        return f"{self._scheme}://{self.host}{path}"

    def _find_scheme(self) -> str:
        """HTTPS, unless the host may be insecure and speaks plain HTTP; asked without credentials."""
        if not self._insecure or self._transport.has_certificates:
            return "https"
        if ":" not in self.host.rpartition("]")[2]:
            return self._find_by_port()
        try:
            answer = self.finish(self._transport.send("GET", f"http://{self.host}/v2/", {}))
        except ConnectionRefusedError as error:
            raise RegistryUnreachable(f"http://{self.host}/v2/", error) from error
        except (OSError, http.client.HTTPException):
            return "https"
        # Go's TLS servers answer plain HTTP with a 400 that says so; a registry never answers /v2/ with one.
        return "https" if answer.status == 400 else "http"

    def _find_by_port(self) -> str:
        """Both schemes have their usual ports: the encrypted one is tried first, as Docker does."""
        try:
            self.finish(self._transport.send("GET", f"https://{self.host}/v2/", {}))
        except (OSError, http.client.HTTPException):
            self.close()
            return "http"
        return "https"

    def _open(
        self, method: str, url: str, headers: dict[str, str], body: Body = None, patience: float = 1
    ) -> http.client.HTTPResponse:
        """Send with authorization, answering one challenge and following redirects."""
        challenged = False
        for _ in range(_REDIRECTS_MAX + 2):
            sent = dict(headers)
            at_home = urllib.parse.urlsplit(url)[:2] == (self._scheme, self.host)
            if at_home and self.authorizer.header:
                sent["Authorization"] = self.authorizer.header
            response = self._transport.send(method, url, sent, body, patience)
            if response.status == 401 and at_home and not challenged:
                challenged = True
                answer = self.finish(response)
                challenge = auth.parse_challenge(answer.headers.get("WWW-Authenticate") or "")
                if not self.authorizer.answer(self, challenge):
                    raise self.denied(answer)
                if body is not None and not isinstance(body, bytes):
                    body.seek(0)
                continue
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location and method in ("GET", "HEAD"):
                self.finish(response)
                url = self._redirect(url, location)
                continue
            return response
        raise RegistryFailed(response.status, "too many redirects")

    def _redirect(self, url: str, location: str) -> str:
        target = urllib.parse.urljoin(url, location)
        scheme = urllib.parse.urlsplit(target).scheme
        if scheme not in ("http", "https") or (self._scheme == "https" and scheme == "http" and not self._insecure):
            raise RegistryFailed(307, f"refused to follow a redirect to {target[:200]}")
        return target

    def denied(self, answer: Answer) -> Exception:
        """The error for credentials that were refused, or missing."""
        code, message = answer.error()
        if "push" in self._actions:
            return PushDenied(code, message)
        if self.authorizer.has_credentials:
            return LoginFailed(message)
        return AccessDenied(self.shown, f"{code.lower() or 'unauthorized'}: {message or 'authentication required'}")


class Retriable(Exception):
    """What another try may do better; `cause` is the error to tell if none does, `after_s` when the server says."""

    def __init__(self, cause: Exception, after_s: float | None = None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.after_s = after_s


def position_at(response: http.client.HTTPResponse, digest: str, size: int, offset: int) -> http.client.HTTPResponse:
    """The response to a request for bytes from `offset` on, its next byte being that one."""
    start = 0
    if response.status == 206:
        # Without Content-Range (an error, RFC 9110 14.4) it is taken for what was asked for: the digest will tell.
        found = re.match(r"bytes\s+(\d+)-", response.headers.get("Content-Range") or f"bytes {offset}-")
        start = int(found.group(1)) if found else -1
        if start != offset:
            response.close()
            raise RegistryFailed(206, f"{digest}: asked for bytes from {offset}, got them from {start}")
    announced = response.length
    if announced is not None and start + announced != size:
        response.close()
        raise RegistryFailed(response.status, f"{digest} is {start + announced} bytes long, its manifest says {size}")
    remaining = offset - start
    while remaining:
        data = response.read(min(PIECE, remaining))
        if not data:
            raise http.client.IncompleteRead(b"", remaining)
        remaining -= len(data)
    return response


def _with_digest(location: str, digest: str) -> str:
    return location + ("&" if "?" in location else "?") + urllib.parse.urlencode({"digest": digest})


def _retry_after(headers: http.client.HTTPMessage) -> float | None:
    """The seconds that a server asks for, within reason; a date is taken for no answer."""
    value = (headers.get("Retry-After") or "").strip()
    return min(float(value), RETRY_AFTER_MAX_S) if value.isascii() and value.isdigit() else None
