"""One request to a plugin.  Loaded when a plugin is first asked, because of what it imports."""

from __future__ import annotations

import http.client
import socket
import ssl
from urllib.parse import urlsplit

from corral.volume.model import Tls

_TYPE = "application/vnd.docker.plugins.v1.2+json"
_TIMEOUT_S = 120.0  # as long as Docker waits for a mount


class Unreachable(OSError):
    """Nothing answered at the address."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("plugin", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def post(address: str, tls: Tls | None, path: str, body: bytes, *, limit_bytes: int) -> tuple[int, bytes]:
    """The status and body (its first `limit_bytes`) of an answer; raises Unreachable.

    `address` is unix:///PATH, tcp://HOST:PORT, http://HOST:PORT or https://HOST:PORT.
    """
    try:
        connection = _connection(address, tls)
        try:
            connection.request("POST", path, body, {"Accept": _TYPE, "Content-Type": _TYPE})
            response = connection.getresponse()
            return response.status, response.read(limit_bytes)
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unreachable(str(error) or type(error).__name__) from error


def _connection(address: str, tls: Tls | None) -> http.client.HTTPConnection:
    parts = urlsplit(address)
    if parts.scheme == "unix":
        return _UnixConnection(parts.path)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https" or (parts.scheme == "tcp" and tls is not None):
        return http.client.HTTPSConnection(host, port, timeout=_TIMEOUT_S, context=_context(tls or Tls()))
    if parts.scheme in ("tcp", "http"):
        return http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    raise ValueError("addresses begin with unix://, tcp://, http:// or https://")


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca or None)
    if tls.insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.cert:
        context.load_cert_chain(tls.cert, tls.key or None)
    return context
