"""Where the API listens: unix and TCP sockets, those that systemd hands over, and TLS."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import ssl

from corral.config import Config, ConfigError

_LISTEN_FDS_START = 3


def listener(host: str, group: str) -> socket.socket:
    """A socket bound to one `--host`; raises ConfigError or OSError."""
    scheme, _, address = host.partition("://")
    if scheme == "unix":
        return _unix_listener(address, group)
    if scheme == "tcp":
        return tcp_listener(address)
    if scheme == "fd":
        if os.environ.get("LISTEN_PID") != str(os.getpid()):
            raise ConfigError("no sockets found via socket activation: make sure the service was started by systemd")
        return socket.socket(fileno=_LISTEN_FDS_START)
    raise ConfigError(f"invalid bind address ({host}): unsupported proto: {scheme}")


def tcp_listener(address: str) -> socket.socket:
    """A socket bound to `HOST:PORT`; raises ConfigError or OSError."""
    name, _, port = address.rpartition(":")
    if not port.isdecimal():
        raise ConfigError(f"invalid bind address ({address}): no port")
    found = socket.socket(socket.AF_INET6 if ":" in name else socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((name.strip("[]") or "0.0.0.0", int(port)))
    except (OSError, OverflowError):
        found.close()
        raise
    return found


def _unix_listener(path: str, group: str) -> socket.socket:
    """Bind a unix socket that only root and `group` may use; it never exists with wider rights."""
    os.makedirs(os.path.dirname(path) or "/", exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777)
    try:
        found.bind(path)
    finally:
        os.umask(mask)
    try:
        os.chown(path, 0, grp.getgrnam(group).gr_gid)
        os.chmod(path, 0o660)
    except KeyError:
        os.chmod(path, 0o600)
    return found


def tls(host: str, config: Config) -> ssl.SSLContext | None:
    """TLS for a TCP socket; plain TCP has to be asked for by name, and then only on loopback."""
    if not host.startswith("tcp://"):
        return None
    if not (config.tls or config.tlsverify):
        name = host.removeprefix("tcp://").rpartition(":")[0].strip("[]")
        if name in ("127.0.0.1", "::1", "localhost"):
            return None
        raise ConfigError(
            f"cannot listen on {host} without TLS: whoever reaches it is root here; give --tlsverify, --tlscacert, "
            "--tlscert and --tlskey, or listen on 127.0.0.1"
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(config.tlscert, config.tlskey)
    if config.tlsverify:
        context.load_verify_locations(config.tlscacert)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def notify_ready() -> None:
    """Tell systemd, if it asked (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", address.replace("@", "\0", 1) if address.startswith("@") else address)
