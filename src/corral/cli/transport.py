"""A blocking HTTP/1.1 client for the Engine API over a unix socket, TCP, TLS or ssh.

Written on the bare socket because `http.client` costs an interpreter 30 ms of imports (it reads headers with the mail
parser).  One connection is kept and used again while answers are read to their end.
"""

from __future__ import annotations

import _socket
import os

from corral import jsontext
from corral.cli.problems import CliError, DaemonError, NotConnected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from corral.cli.endpoint import Endpoint, Tls

NEWEST_API = (1, 51)  # what the requests of this client are written for
_READ_BYTES = 1 << 16
_HEAD_LIMIT_BYTES = 1 << 20
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str, safe: str = "") -> str:
    """Percent-encode; `safe` are further characters that stay."""
    keep = _SAFE | frozenset(safe.encode()) if safe else _SAFE
    return "".join([chr(byte) if byte in keep else f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape")])


def query_string(query: Mapping[str, Any]) -> str:
    """`?a=b&c=d`; None is left out, booleans are 1 and 0, a list repeats its name."""
    parts = []
    for name, value in sorted(query.items()):
        for item in value if isinstance(value, list) else [value]:
            if item is None:
                continue
            text = ("1" if item else "0") if isinstance(item, bool) else str(item)
            parts.append(f"{quote(name)}={quote(text)}")
    return "?" + "&".join(parts) if parts else ""


class HungUp(CliError):
    """The connection ended where an answer had to come."""


class Stream:
    """Bytes of a connection, with what was read too far."""

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.buffer = b""

    def fill(self) -> bool:
        """Read more; whether there was any."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        """A line without its end; raises CliError if the daemon hung up."""
        while (end := self.buffer.find(b"\r\n")) < 0:
            if len(self.buffer) > _HEAD_LIMIT_BYTES or not self.fill():
                raise HungUp("the daemon closed the connection in the middle of an answer")
        line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        return line

    def some(self, limit: int) -> bytes:
        """Between one and `limit` bytes; empty at the end."""
        if not self.buffer and not self.fill():
            return b""
        data, self.buffer = self.buffer[:limit], self.buffer[limit:]
        return data


class Response:
    """An answer: `status`, `headers` (lower-case names), and a body to be read once."""

    def __init__(self, stream: Stream, status: int, headers: dict[str, str], no_body: bool) -> None:
        self._stream = stream
        self.status = status
        self.headers = headers
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        length = headers.get("content-length")
        self._left: int | None = int(length) if length is not None and not self._chunked else None
        self.finished = no_body or (self._left == 0 and not self._chunked)
        self.reusable = headers.get("connection", "").lower() != "close" and (
            self._chunked or self._left is not None or no_body
        )

    def chunks(self) -> Iterator[bytes]:
        """The body, as it arrives."""
        while not self.finished:
            data = self._next_chunk() if self._chunked else self._plain()
            if data:
                yield data

    def _plain(self) -> bytes:
        data = self._stream.some(_READ_BYTES if self._left is None else min(self._left, _READ_BYTES))
        if self._left is not None:
            if not data:
                raise CliError("unexpected EOF")
            self._left -= len(data)
        self.finished = not data or self._left == 0
        return data

    def _next_chunk(self) -> bytes:
        """A part of a chunk; the sizes between them are taken off.  `_left` counts down the present chunk."""
        if not self._left:
            try:
                self._left = int(self._stream.line().split(b";")[0], 16)
            except ValueError:
                raise CliError("the daemon sent a malformed chunk") from None
            if self._left == 0:
                while self._stream.line():
                    pass
                self.finished = True
                return b""
        data = self._stream.some(self._left)
        if not data:
            raise CliError("unexpected EOF")
        self._left -= len(data)
        if self._left == 0:
            self._stream.line()
        return data

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.chunks())

    def json(self) -> Any:
        """The body as JSON; raises CliError."""
        try:
            return jsontext.loads(self.read())
        except ValueError as error:
            raise CliError(f"the daemon's answer cannot be read: {error}") from None

    def records(self) -> Iterator[Any]:
        """A body of JSON values, one a line, as they arrive."""
        rest = b""
        for data in self.chunks():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.strip():
                    yield jsontext.loads(line)
        if rest.strip():
            yield jsontext.loads(rest)


class Hijacked:
    """A connection that left HTTP: `sock`, bytes that came early, and whether the stream is multiplexed."""

    __slots__ = ("early", "multiplexed", "sock")

    def __init__(self, sock: Any, early: bytes, multiplexed: bool | None) -> None:
        self.sock = sock
        self.early = early
        self.multiplexed = multiplexed


class Client:
    """One daemon.  Every method raises NotConnected or DaemonError."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._version: str | None = None
        self._last: tuple[Response, Stream] | None = None
        self.server_headers: dict[str, str] = {}

    def close(self) -> None:
        """Give up the kept connection."""
        if self._last is not None:
            self._last[1].sock.close()
            self._last = None

    @property
    def version(self) -> str:
        """The API version that both sides know, asked for once."""
        if self._version is None:
            forced = os.environ.get("DOCKER_API_VERSION", "")
            if forced:
                self._version = forced.removeprefix("v")
            else:
                self._version = self._negotiate()
        return self._version

    def _negotiate(self) -> str:
        response = self.raw("HEAD", "/_ping")
        self.server_headers = response.headers
        try:
            major, minor = response.headers.get("api-version", "1.24").split(".")
            return "{}.{}".format(*min((int(major), int(minor)), NEWEST_API))
        except ValueError:
            return "1.24"

    def at_least(self, major: int, minor: int) -> bool:
        """Whether the negotiated version is this or newer."""
        mine = self.version.split(".")
        return (int(mine[0]), int(mine[1])) >= (major, minor)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        stream: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """An answer with a status below 400; `body` is sent as JSON, `stream` in chunks as a tar."""
        target = f"/v{self.version}{path}{query_string(query or {})}"
        response = self.raw(method, target, body, stream, headers)
        if response.status >= 400:
            raise _refusal(response)
        return response

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """The JSON that GET answers."""
        return self.request("GET", path, query).json()

    def post(self, path: str, query: Mapping[str, Any] | None = None, body: Any = None) -> Any:
        """The JSON that POST answers, or None for an empty answer."""
        data = self.request("POST", path, query, body).read()
        return jsontext.loads(data) if data.strip() else None

    def delete(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        """The JSON that DELETE answers, or None for an empty answer."""
        data = self.request("DELETE", path, query).read()
        return jsontext.loads(data) if data.strip() else None

    def raw(
        self,
        method: str,
        target: str,
        body: Any = None,
        stream: Iterable[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One exchange, whatever the status."""
        connection, fresh = self._connection()
        content = jsontext.dumps(body).encode("utf-8", "surrogateescape") if body is not None else b""
        head = self._head(method, target, body is not None, len(content), stream is not None, headers)
        try:
            connection.sock.sendall(head + content)
            if stream is not None:
                self._send_chunks(connection, stream)
            response = self._answer(connection, method)
        except (BrokenPipeError, ConnectionResetError, HungUp):
            connection.sock.close()
            if fresh and self.endpoint.host.startswith("ssh://"):
                raise _no_tunnel(self.endpoint, connection.sock) from None
            if fresh or method not in ("GET", "HEAD"):
                raise
            return self.raw(method, target, body, stream, headers)  # it was closed as we wrote: nothing was done
        except CliError:
            connection.sock.close()
            raise
        self._last = (response, connection)
        return response

    def _send_chunks(self, connection: Stream, stream: Iterable[bytes]) -> None:
        try:
            for part in stream:
                if part:
                    connection.sock.sendall(b"%x\r\n" % len(part) + part + b"\r\n")
            connection.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before the end: the answer says why

    def hijack(
        self,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Hijacked:
        """POST and take the connection over as a raw stream."""
        version = self.version
        connection = Stream(connect(self.endpoint))
        content = jsontext.dumps(body).encode("utf-8", "surrogateescape") if body is not None else b""
        upgrade = {"Connection": "Upgrade", "Upgrade": "tcp", **(headers or {})}
        target = f"/v{version}{path}{query_string(query or {})}"
        connection.sock.sendall(self._head("POST", target, True, len(content), False, upgrade) + content)
        response = self._answer(connection, "POST")
        if response.status >= 400:
            raise _refusal(response)
        kind = response.headers.get("content-type", "")
        multiplexed = None
        if kind.startswith("application/vnd.docker."):
            multiplexed = kind == "application/vnd.docker.multiplexed-stream"
        return Hijacked(connection.sock, connection.buffer, multiplexed)

    def _connection(self) -> tuple[Stream, bool]:
        if self._last is not None:
            response, stream = self._last
            self._last = None
            if response.finished and response.reusable and _is_quiet(stream.sock):
                return stream, False
            if response.finished:
                stream.sock.close()
        return Stream(connect(self.endpoint)), True

    def _head(
        self, method: str, target: str, has_body: bool, length: int, chunked: bool, headers: Mapping[str, str] | None
    ) -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "Host: api.corral.localhost", "User-Agent: Corral-Client/0.1.0"]
        if chunked:
            lines += ["Transfer-Encoding: chunked"]
            if not headers or "Content-Type" not in headers:
                lines += ["Content-Type: application/x-tar"]
        elif has_body:
            lines += ["Content-Type: application/json", f"Content-Length: {length}"]
        elif method == "POST":
            lines += ["Content-Length: 0"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")

    def _answer(self, connection: Stream, method: str) -> Response:
        while True:
            first = connection.line().split(b" ", 2)
            if len(first) < 2 or not first[0].startswith(b"HTTP/1.") or not first[1].isdigit():
                raise CliError("the other side does not speak HTTP: is it a daemon?")
            status = int(first[1])
            headers: dict[str, str] = {}
            while line := connection.line():
                name, _, value = line.partition(b":")
                headers[name.strip().lower().decode("latin-1")] = value.strip().decode("latin-1")
            if status >= 200 or status == 101:
                return Response(connection, status, headers, method == "HEAD" or status in (101, 204, 304))


def _is_quiet(sock: Any) -> bool:
    """Whether a kept connection is still open: one that has something to read has been closed (or is not in step)."""
    import select

    waiter = select.poll()
    waiter.register(sock.fileno(), select.POLLIN)
    return not waiter.poll(0)


def _refusal(response: Response) -> DaemonError:
    data = response.read()
    try:
        found = jsontext.loads(data)
        message = found["message"]
    except (ValueError, KeyError, TypeError):
        message = data.decode("utf-8", "replace").strip() or f"status {response.status}"
    return DaemonError(str(message), response.status)


def connect(endpoint: Endpoint) -> Any:
    """A connected socket; raises NotConnected or CliError."""
    scheme, separator, rest = endpoint.host.partition("://")
    if not separator:
        scheme, rest = ("unix", endpoint.host) if endpoint.host.startswith("/") else ("tcp", endpoint.host)
    if scheme == "unix":
        return _connect_unix(endpoint, rest)
    if scheme in ("tcp", "http", "https"):
        return _connect_tcp(endpoint, rest, endpoint.tls)
    if scheme == "ssh":
        from corral.cli import ssh

        return ssh.connect(endpoint.host)
    raise CliError(
        f"Failed to initialize: unable to resolve docker endpoint: invalid bind address format: {endpoint.host}"
    )


def _no_tunnel(endpoint: Endpoint, tunnel: Any) -> NotConnected:
    """ssh ended before an answer came; it has said why itself."""
    return NotConnected(
        f"Cannot connect to the Docker daemon at {endpoint.host}: ssh ended with {tunnel.ended()}. "
        "Does ssh get there without a password, and is corral or docker on the PATH there?"
    )


def _connect_unix(endpoint: Endpoint, path: str) -> Any:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(path)
    except PermissionError:
        sock.close()
        raise NotConnected(
            f"permission denied while trying to connect to the Docker daemon socket at {endpoint.host}: "
            f"dial unix {path}: connect: permission denied"
        ) from None
    except OSError:
        sock.close()
        raise NotConnected(
            f"Cannot connect to the Docker daemon at {endpoint.host}. Is the docker daemon running?"
        ) from None
    return sock


def _connect_tcp(endpoint: Endpoint, rest: str, tls: Tls | None) -> Any:
    import socket

    host, _, port = rest.rstrip("/").rpartition(":")
    if not host:
        host, port = rest.rstrip("/"), "2376" if tls else "2375"
    try:
        sock = socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)))
    except (OSError, ValueError):
        raise NotConnected(
            f"Cannot connect to the Docker daemon at {endpoint.host}. Is the docker daemon running?"
        ) from None
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return sock
    import ssl

    from corral.cli.encrypted import Encrypted

    try:
        context = ssl.create_default_context(cafile=tls.ca or None)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key or None)
        return Encrypted(sock, context, host.strip("[]"))
    except (OSError, ssl.SSLError) as error:
        raise NotConnected(f"error during connect: {error}") from None
