"""Transport: HTTP to a registry and to where it sends us; TLS, proxies, deadlines.  Only worker processes load it.

Patience is bounded in two ways: a silence of `timeout_s` ends a connection, and so does a head or a document that
takes longer in all, however steadily it drips (`deadline`).  Bodies of blobs may take as long as they bring something.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import signal
import socket
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from corral.image.refusals import MissingClientKey, UnusableProxy

if TYPE_CHECKING:
    import ssl

PIECE = 256 << 10
_CONNECT_S = 30.0


class File(Protocol):
    """A request's body that is read as it is sent."""

    def read(self, size: int = -1, /) -> bytes: ...

    def seek(self, offset: int, /) -> int: ...


Body = bytes | File | None


class SlowPeer(TimeoutError):
    """The other side is alive and too slow."""

    def __init__(self) -> None:
        super().__init__("i/o timeout")


@contextmanager
def deadline(seconds: float, connection: http.client.HTTPConnection | None = None) -> Iterator[None]:
    """Raise SlowPeer in the block, whatever it waits for, after `seconds`.

    In a thread, where no signal can interrupt, by shutting down what `connection` reads from.
    """

    def expire(*_: object) -> None:
        raise SlowPeer

    try:
        before = signal.signal(signal.SIGALRM, expire)
    except ValueError:  # not the main thread: a worker's only one is, a registry's that fetches from upstream is not
        with _shut_down_after(seconds, connection):
            yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _shut_down_after(seconds: float, connection: http.client.HTTPConnection | None) -> Iterator[None]:
    import threading

    expired = threading.Event()
    sock = connection.sock if connection is not None else None

    def expire() -> None:
        expired.set()
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        raise (SlowPeer() if expired.is_set() else error) from error
    finally:
        timer.cancel()
    if expired.is_set():  # what was cut short may look like an answer
        raise SlowPeer


class Transport:
    """Connections, kept open and used again; one request at a time.

    `insecure` hosts' certificates are not checked; `certs` are the registry's own folders of certs.d.
    """

    def __init__(
        self, host: str, *, insecure: bool, certs: Sequence[str], proxies: Mapping[str, str], timeout_s: float
    ) -> None:
        self._host = host
        self._insecure = insecure
        self._certs = [folder for folder in certs if os.path.isdir(folder)]
        self._environment = {**os.environ, **proxies}
        self._timeout_s = timeout_s
        self._connections: dict[tuple[str, str], http.client.HTTPConnection] = {}
        self._contexts: dict[bool, ssl.SSLContext] = {}

    @property
    def has_certificates(self) -> bool:
        """Whether certs.d knows the registry: it is then spoken to over TLS only."""
        return bool(self._certs)

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: Body = None, patience: float = 1
    ) -> http.client.HTTPResponse:
        """A request, and the head of its answer; the body is the caller's to read.  Raises OSError or HTTPException.

        `patience` multiplies the time that the answer may take.
        """
        parts = urllib.parse.urlsplit(url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {"User-Agent": "corral", "Accept-Encoding": "identity", **headers}
        proxy = self._proxy(parts.scheme, parts.netloc)
        if parts.scheme == "http" and proxy:
            path = f"http://{parts.netloc}{path}"
            sent |= _proxy_authorization(proxy)
        key = (parts.scheme, parts.netloc)
        known = self._connections.get(key)
        connection = known or self._connect(parts.scheme, parts.netloc, proxy)
        self._connections[key] = connection
        try:
            _request(connection, method, path, body, sent)
            if connection.sock is not None:
                connection.sock.settimeout(self._timeout_s * patience)
            with deadline(self._timeout_s * patience, connection):
                return connection.getresponse()
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            del self._connections[key]
            if known is None or method not in ("GET", "HEAD") or isinstance(error, TimeoutError):
                raise
        return self.send(method, url, headers, body, patience)  # a kept connection that the server had closed

    def _connect(self, scheme: str, netloc: str, proxy: urllib.parse.SplitResult | None) -> http.client.HTTPConnection:
        target = proxy.netloc.rpartition("@")[2] if proxy else netloc
        connection: http.client.HTTPConnection
        if scheme == "http":
            connection = http.client.HTTPConnection(target, timeout=self._timeout_s, blocksize=PIECE)
        else:
            context = self._context(netloc == self._host)
            connection = http.client.HTTPSConnection(target, timeout=self._timeout_s, context=context, blocksize=PIECE)
            if proxy:
                host, port = _split_port(netloc)
                connection.set_tunnel(host, port, _proxy_authorization(proxy))
        with deadline(min(_CONNECT_S, self._timeout_s)):
            connection.connect()
        if connection.sock is not None:
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _proxy(self, scheme: str, netloc: str) -> urllib.parse.SplitResult | None:
        text = proxy_for(scheme, netloc, self._environment)
        if not text:
            return None
        proxy = urllib.parse.urlsplit(text if "//" in text else f"http://{text}")
        if proxy.scheme != "http":
            raise UnusableProxy(f"{proxy.scheme}://{proxy.netloc.rpartition('@')[2]}")
        return proxy

    def _context(self, at_home: bool) -> ssl.SSLContext:
        """The system's authorities, and at the registry certs.d's: `*.crt`, and `NAME.cert` with `NAME.key`."""
        import ssl

        if at_home in self._contexts:
            return self._contexts[at_home]
        context = ssl.create_default_context()
        names = [os.path.join(folder, name) for folder in self._certs for name in sorted(os.listdir(folder))]
        authorities = [name for name in names if at_home and name.endswith(".crt")]
        for name in authorities:
            context.load_verify_locations(name)
        for name in names if at_home else []:
            if name.endswith(".cert"):
                key = name.removesuffix(".cert") + ".key"
                if not os.path.exists(key):
                    raise MissingClientKey(os.path.basename(name), os.path.basename(key))
                context.load_cert_chain(name, key)
        if self._insecure and not authorities:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._contexts[at_home] = context
        return context

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


def _request(
    connection: http.client.HTTPConnection, method: str, path: str, body: Body, headers: Mapping[str, str]
) -> None:
    """Send; a server that has answered and closed before it took the whole body may still be heard."""
    try:
        connection.request(method, path, body, headers)
    except (BrokenPipeError, ConnectionResetError):
        if not body:
            raise


def is_loopback(host: str) -> bool:
    """Whether a registry's `host[:port]` is this machine: such a registry may speak plain HTTP."""
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_in(host: str, networks: Sequence[str]) -> bool:
    """Whether a host's name resolves into one of these networks (CIDRs), as Docker decides what is insecure."""
    if not networks:
        return False
    try:
        found = socket.getaddrinfo(_split_port(host)[0], None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    return any(address in ipaddress.ip_network(network) for network in networks for address in addresses)


def proxy_for(scheme: str, netloc: str, environment: Mapping[str, str]) -> str:
    """The proxy that the environment names for a host, "" for none; never for this machine itself.

    `no_proxy` is read as Go reads it: names and their subdomains, addresses, CIDRs, each with a port or without; `*`.
    """
    if is_loopback(netloc):
        return ""
    host = urllib.parse.urlsplit(f"//{netloc}").hostname or ""
    for word in (environment.get("no_proxy") or environment.get("NO_PROXY") or "").split(","):
        name = word.strip().lower()
        if name == "*" or (name and _is_excepted(name, host, netloc)):
            return ""
    return environment.get(f"{scheme}_proxy") or environment.get(f"{scheme.upper()}_PROXY") or ""


def _is_excepted(name: str, host: str, netloc: str) -> bool:
    if "/" in name:
        try:
            return ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False)
        except ValueError:
            return False
    bare = name.removeprefix("*").lstrip(".")
    return netloc == bare or host == bare or host.endswith("." + bare)


def _proxy_authorization(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _split_port(netloc: str) -> tuple[str, int]:
    parts = urllib.parse.urlsplit(f"//{netloc}")
    return parts.hostname or "", parts.port or 443


def is_final(error: BaseException) -> bool:
    """Whether another try would meet the same: nobody listens, no such host, a certificate that does not verify."""
    return isinstance(error, ConnectionRefusedError | socket.gaierror) or hasattr(error, "verify_code")
