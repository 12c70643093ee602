"""A client of the distribution API (OCI distribution specification 1.1, Docker Registry HTTP API V2).

It runs in worker processes only, so it is synchronous, on the standard library's `http.client`, and an idle daemon
has loaded none of it.  Everything a registry says is bounded before it is believed: documents in size, redirects in
number, silence in time.  Credentials go to the registry's own host and to the token server that it names, never along
a redirect to another host, and never in plain text to a host that is not this machine or declared insecure.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import socket
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from corral.image import auth
from corral.image.refusals import (
    DOCUMENT_MAX_BYTES,
    AccessDenied,
    BlobUnknown,
    DocumentTooLarge,
    LoginFailed,
    ManifestUnknown,
    RegistryFailed,
    RegistryUnreachable,
    TooManyRequests,
)

if TYPE_CHECKING:
    import ssl

TIMEOUT_S = 60.0
ATTEMPTS = 5
_BACK_OFF_S = (0.2, 0.8, 2.0, 5.0)
_RETRY_AFTER_MAX_S = 30.0
_REDIRECTS_MAX = 5
_ERROR_MAX_BYTES = 64 << 10
_PIECE = 256 << 10
_ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_DOCKER_HUB = ("docker.io", "registry-1.docker.io")


class _File(Protocol):
    """A request's body that is read as it is sent."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...


Body = bytes | _File | None


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
            return str(first.get("code", "")), str(first.get("message", ""))[:500]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return "", ""


class Registry:
    """One repository of one registry, for one worker.  `session` carries what was learnt to other workers."""

    def __init__(self, fields: dict[str, Any]) -> None:
        """`fields`: host, repository, shown (the familiar name), auth, insecure, certs (a folder), scope, session."""
        self._host = fields["host"]
        if self._host in _DOCKER_HUB[:1]:
            self._host = _DOCKER_HUB[1]
        self.repository = fields["repository"]
        self._shown = fields["shown"]
        self._auth: dict[str, Any] = fields.get("auth") or {}
        self._insecure = bool(fields.get("insecure")) or is_loopback(self._host)
        self._certs = os.path.join(fields.get("certs") or "/etc/docker/certs.d", self._host)
        self._scope = fields.get("scope") or "pull"
        session = fields.get("session") or {}
        self._scheme = session.get("scheme") or ""
        self._authorization: str | None = session.get("authorization")
        self._connections: dict[tuple[str, str], http.client.HTTPConnection] = {}

    @property
    def session(self) -> dict[str, Any]:
        """The scheme and authorization found to work."""
        return {"scheme": self._scheme, "authorization": self._authorization}

    # --- documents -------------------------------------------------------------------------------------------

    def manifest(self, reference: str) -> tuple[str, bytes]:
        """Media type and bytes of a manifest or index by tag or digest; the caller verifies a digest."""
        answer = self.request("GET", f"/v2/{self.repository}/manifests/{reference}", {"Accept": _ACCEPT})
        if answer.status == 200:
            return (answer.headers.get("Content-Type") or "").partition(";")[0].strip(), answer.body
        code, message = answer.error()
        separator = "@" if ":" in reference else ":"
        if answer.status == 404 and code != "NAME_UNKNOWN":
            raise ManifestUnknown(f"{self._shown}{separator}{reference}")
        if answer.status in (401, 403, 404):
            raise AccessDenied(
                self._shown, f"{code.lower() or 'denied'}: {message or 'access to the resource is denied'}"
            )
        raise self.failure(answer)

    def small_blob(self, digest: str) -> bytes:
        """A blob that is a document."""
        answer = self.request("GET", self._blob(digest))
        if answer.status == 404:
            raise BlobUnknown(digest)
        if answer.status != 200:
            raise self.failure(answer)
        return answer.body

    def _blob(self, digest: str) -> str:
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

    def stream(self, digest: str, size: int, offset: int) -> Callable[[], bytes]:
        """A source of a blob's bytes from `offset`; reconnects where a connection breaks, and ends at `size`."""
        position = offset
        attempts = 0
        response: http.client.HTTPResponse | None = None

        def read() -> bytes:
            nonlocal position, attempts, response
            while position < size:
                try:
                    if response is None:
                        response = self._open_blob(digest, position)
                    data = response.read1(min(_PIECE, size - position))
                    if data:
                        position += len(data)
                        attempts = 0
                        return data
                    raise http.client.IncompleteRead(b"", size - position)
                except (OSError, http.client.HTTPException) as error:
                    response = None
                    self.close()
                    attempts += 1
                    if attempts >= ATTEMPTS or _is_final(error):
                        raise RegistryUnreachable(self._url(self._blob(digest)), error) from error
                    time.sleep(_BACK_OFF_S[min(attempts, len(_BACK_OFF_S)) - 1])
            if response is not None:
                response.read(1)  # lets the connection see the end, and be used again
                response = None
            return b""

        return read

    def _open_blob(self, digest: str, offset: int) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        response = self._open("GET", self._url(self._blob(digest)), headers)
        if response.status == 206 and offset:
            return response
        if response.status == 200:
            _discard(response, offset)
            return response
        answer = _finish(response)
        if answer.status == 404:
            raise BlobUnknown(digest)
        if answer.status == 416:
            raise RegistryFailed(416, f"{digest} is shorter than announced")
        raise self.failure(answer)

    # --- uploads ---------------------------------------------------------------------------------------------

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has the blob."""
        answer = self.request("HEAD", self._blob(digest))
        if answer.status in (401, 403):
            raise self.failure(answer)
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
            raise self.failure(answer)
        return self._redirect(self._url(path), location)

    def upload(self, location: str, digest: str, size: int, body: _File) -> None:
        """Send a blob's bytes to where `mount` said."""
        separator = "&" if "?" in location else "?"
        url = f"{location}{separator}{urllib.parse.urlencode({'digest': digest})}"
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        try:
            answer = _finish(self._open("PUT", url, headers, body))
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise RegistryUnreachable(url, error) from error
        if answer.status != 201:
            raise self.failure(answer)

    def publish(self, reference: str, media_type: str, data: bytes) -> None:
        """PUT a manifest or index under a tag or digest."""
        path = f"/v2/{self.repository}/manifests/{reference}"
        answer = self.request("PUT", path, {"Content-Type": media_type}, data)
        if answer.status != 201:
            raise self.failure(answer)

    # --- requests --------------------------------------------------------------------------------------------

    def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """A request whose answer is a document; retries what is worth retrying."""
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                answer = _finish(self._open(method, self._url(path), headers or {}, body))
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if last or _is_final(error):
                    raise RegistryUnreachable(self._url(path), error) from error
                time.sleep(_BACK_OFF_S[attempt])
                continue
            if last or answer.status not in (429, 500, 502, 503, 504):
                return answer
            time.sleep(_retry_after(answer.headers, _BACK_OFF_S[attempt]))
        raise AssertionError("unreachable")

    def _url(self, path: str) -> str:
        if not self._scheme:
            self._scheme = self._find_scheme()
        return f"{self._scheme}://{self._host}{path}"

    def _find_scheme(self) -> str:
        """HTTPS, unless the host may be insecure and speaks plain HTTP; asked without credentials."""
        if not self._insecure or os.path.isdir(self._certs):
            return "https"
        try:
            answer = _finish(self._send("GET", f"http://{self._host}/v2/", {}))
        except ConnectionRefusedError as error:
            raise RegistryUnreachable(f"http://{self._host}/v2/", error) from error
        except (OSError, http.client.HTTPException):
            return "https"
        # Go's TLS servers answer plain HTTP with a 400 that says so; a registry never answers /v2/ with one.
        return "https" if answer.status == 400 else "http"

    def _open(self, method: str, url: str, headers: dict[str, str], body: Body = None) -> http.client.HTTPResponse:
        """Send with authorization, answering one challenge and following redirects."""
        challenged = False
        for _ in range(_REDIRECTS_MAX + 2):
            sent = dict(headers)
            at_home = urllib.parse.urlsplit(url)[:2] == (self._scheme, self._host)
            if at_home and self._authorization:
                sent["Authorization"] = self._authorization
            response = self._send(method, url, sent, body)
            if response.status == 401 and at_home and not challenged:
                challenged = True
                answer = _finish(response)
                if self._answer_challenge(answer):
                    if body is not None and not isinstance(body, bytes):
                        body.seek(0)
                    continue
                raise self._denied(answer)
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location and method in ("GET", "HEAD"):
                _finish(response)
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

    def _send(self, method: str, url: str, headers: dict[str, str], body: Body = None) -> http.client.HTTPResponse:
        parts = urllib.parse.urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        if parts.scheme == "http" and proxy_for("http", parts.netloc, os.environ):
            path = f"http://{parts.netloc}{path}"
        key = (parts.scheme, parts.netloc)
        known = self._connections.get(key)
        connection = known or self._connect(parts.scheme, parts.netloc)
        self._connections[key] = connection
        headers = {"User-Agent": "corral", "Accept-Encoding": "identity", **headers}
        try:
            connection.request(method, path, body, headers)
            return connection.getresponse()
        except (http.client.HTTPException, OSError):
            connection.close()
            del self._connections[key]
            if known is None or method not in ("GET", "HEAD"):
                raise
        return self._send(method, url, headers, body)  # a kept connection that the server had closed meanwhile

    def _connect(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        proxy = proxy_for(scheme, netloc, os.environ)
        if scheme == "http":
            return http.client.HTTPConnection(proxy or netloc, timeout=TIMEOUT_S, blocksize=_PIECE)
        context = self._tls(netloc)
        connection = http.client.HTTPSConnection(proxy or netloc, timeout=TIMEOUT_S, context=context, blocksize=_PIECE)
        if proxy:
            connection.set_tunnel(netloc)
        return connection

    def _tls(self, netloc: str) -> ssl.SSLContext:
        """The system's authorities plus certs.d's; client certificates from there (`NAME.cert` with `NAME.key`)."""
        import ssl

        context = ssl.create_default_context()
        names: list[str] = []
        if netloc == self._host and os.path.isdir(self._certs):
            names = sorted(os.listdir(self._certs))
        authorities = [name for name in names if name.endswith(".crt")]
        for name in authorities:
            context.load_verify_locations(os.path.join(self._certs, name))
        for name in names:
            if name.endswith(".cert"):
                path = os.path.join(self._certs, name)
                context.load_cert_chain(path, path.removesuffix(".cert") + ".key")
        if self._insecure and not authorities:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    # --- authorization ---------------------------------------------------------------------------------------

    def _answer_challenge(self, answer: Answer) -> bool:
        challenge = auth.parse_challenge(answer.headers.get("WWW-Authenticate") or "")
        if challenge.scheme == "basic":
            mine = auth.basic(self._auth)
            if mine is None or mine == self._authorization:
                return False
            self._authorization = mine
            return True
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            self._authorization = "Bearer " + self._token(challenge.parameters)
            return True
        return False

    def _denied(self, answer: Answer) -> Exception:
        code, message = answer.error()
        if self._auth:
            return LoginFailed(message)
        return AccessDenied(self._shown, f"{code.lower() or 'unauthorized'}: {message or 'authentication required'}")

    def _token(self, parameters: dict[str, str]) -> str:
        """Ask the token server; with an identity token through its OAuth2 form, else with basic credentials."""
        if self._auth.get("registrytoken"):
            return str(self._auth["registrytoken"])
        realm = parameters["realm"]
        if urllib.parse.urlsplit(realm).scheme != "https" and not self._insecure:
            raise LoginFailed(f"refused to send credentials to {realm[:200]}")
        scope = parameters.get("scope") or f"repository:{self.repository}:{self._scope}"
        query = {"service": parameters.get("service", ""), "scope": scope}
        if self._auth.get("identitytoken"):
            form = {**query, "grant_type": "refresh_token", "client_id": "corral"}
            form["refresh_token"] = self._auth["identitytoken"]
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            response = self._send("POST", realm, headers, urllib.parse.urlencode(form).encode())
        else:
            mine = auth.basic(self._auth)
            separator = "&" if "?" in realm else "?"
            url = realm + separator + urllib.parse.urlencode({key: value for key, value in query.items() if value})
            response = self._send("GET", url, {"Authorization": mine} if mine else {})
        answer = _finish(response)
        if answer.status != 200:
            raise self._denied(answer) if answer.status in (401, 403) else self.failure(answer)
        try:
            fields = json.loads(answer.body)
            token = fields.get("token") or fields.get("access_token")
        except (ValueError, AttributeError, RecursionError) as error:
            raise RegistryFailed(200, "the token server's answer is not JSON") from error
        if not isinstance(token, str) or not token.isprintable():
            raise RegistryFailed(200, "the token server gave no token")
        return token

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def is_loopback(host: str) -> bool:
    """Whether a registry's `host[:port]` is this machine: such a registry may speak plain HTTP."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def proxy_for(scheme: str, netloc: str, environment: Mapping[str, str]) -> str:
    """`host:port` of the proxy that the environment names for a host, "" for none; never for this machine itself."""
    if is_loopback(netloc):
        return ""
    host = urllib.parse.urlsplit(f"//{netloc}").hostname or ""
    for word in (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(","):
        name = word.strip().lower().lstrip(".")
        if name == "*" or (name and (host == name or netloc == name or host.endswith("." + name))):
            return ""
    text = environment.get(f"{scheme}_proxy") or environment.get(f"{scheme.upper()}_PROXY") or ""
    return urllib.parse.urlsplit(text if "//" in text else f"//{text}").netloc.rpartition("@")[2]


def _is_final(error: Exception) -> bool:
    """Whether another try would meet the same: nobody listens, no such host, a certificate that does not verify."""
    return isinstance(error, ConnectionRefusedError | socket.gaierror) or hasattr(error, "verify_code")


def _finish(response: http.client.HTTPResponse) -> Answer:
    limit = DOCUMENT_MAX_BYTES if response.status < 300 else _ERROR_MAX_BYTES
    body = response.read(limit + 1)
    if len(body) > limit:
        if response.status < 300:
            raise DocumentTooLarge()
        body = b""
        response.close()
    return Answer(response.status, response.headers, body)


def _discard(response: http.client.HTTPResponse, count: int) -> None:
    """Skip what is here already when a server does not know ranges."""
    while count:
        data = response.read(min(_PIECE, count))
        if not data:
            raise http.client.IncompleteRead(b"", count)
        count -= len(data)


def _retry_after(headers: http.client.HTTPMessage, default_s: float) -> float:
    value = (headers.get("Retry-After") or "").strip()
    return min(float(value), _RETRY_AFTER_MAX_S) if value.isdigit() else default_s
