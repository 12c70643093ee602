"""The `syslog` driver: RFC 3164 and RFC 5424 over UDP, TCP, TLS or a socket of this machine."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

from corral.errors import InvalidParameter
from corral.forward.addresses import Address, parse_address
from corral.forward.lines import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ssl import SSLContext

SCHEMES = ("udp", "tcp", "tcp+tls", "unix", "unixgram")
_PORT = 514
_CONNECT_S = 10.0
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_FACILITIES = {
    name: number
    for number, name in enumerate(
        "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp".split() + [""] * 4
        + [f"local{n}" for n in range(8)]
    )
    if name
}  # fmt: skip
_SEVERITIES = {"stdout": 6, "stderr": 3}
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")


class BadSyslogOption(InvalidParameter):
    """An option of the driver with a value that it does not have."""


def facility(text: str) -> int:
    """A facility by name or number; raises BadSyslogOption."""
    if text in _FACILITIES:
        return _FACILITIES[text]
    if text.isdecimal() and int(text) <= 23:
        return int(text)
    raise BadSyslogOption(f"invalid syslog facility: {text}")


def check(options: Mapping[str, str]) -> None:
    """Raise BadSyslogOption or BadAddress unless the driver can be opened with these."""
    facility(options.get("syslog-facility", "daemon"))
    if options.get("syslog-format", "") not in FORMATS:
        raise BadSyslogOption("Invalid syslog format")
    _address(options)


def _address(options: Mapping[str, str]) -> Address | None:
    text = options.get("syslog-address", "")
    return parse_address("syslog-address", text, SCHEMES, _PORT) if text else None


class Syslog:
    """An open connection; opened again once when it breaks, then lines are dropped until it can be opened."""

    def __init__(self, options: Mapping[str, str], tag: str, pid: int) -> None:
        """Raises OSError."""
        self._address = _address(options)
        self._options = options
        self._facility = facility(options.get("syslog-facility", "daemon"))
        self._render = _renderer(options.get("syslog-format", ""), tag, pid)
        self._counted = self._address is not None and self._address.scheme == "tcp+tls"
        self._counted = self._counted and options.get("syslog-format", "").startswith("rfc5424")
        self._socket = self._open()

    def write(self, line: Line) -> None:
        """Send a line."""
        priority = self._facility * 8 + _SEVERITIES[line.stream]
        message = self._render(priority, line).encode() + line.text
        data = b"%d %s" % (len(message), message) if self._counted else message + b"\n"
        try:
            self._socket.sendall(data)
        except OSError:
            self._socket.close()
            try:
                self._socket = self._open()
                self._socket.sendall(data)
            except OSError:
                return  # the next line tries again

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _open(self) -> socket.socket:
        address = self._address
        if address is None:
            return _open_local()
        if address.path:
            kind = socket.SOCK_DGRAM if address.scheme == "unixgram" else socket.SOCK_STREAM
            return _open_unix(address.path, kind)
        if address.scheme == "udp":
            family, kind, proto, _, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
            found = socket.socket(family, kind, proto)
            found.connect(target)
            return found
        connection = socket.create_connection((address.host, address.port), _CONNECT_S)
        if address.scheme == "tcp":
            return connection
        return self._context().wrap_socket(connection, server_hostname=address.host)

    def _context(self) -> SSLContext:
        import ssl  # for this scheme alone; the daemon, which checks options here, never needs it

        options = self._options
        context = ssl.create_default_context(cafile=options.get("syslog-tls-ca-cert") or None)
        if options.get("syslog-tls-skip-verify", "") in ("true", "1"):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options.get("syslog-tls-cert"):
            context.load_cert_chain(options["syslog-tls-cert"], options.get("syslog-tls-key"))
        return context


def _open_local() -> socket.socket:
    for path in _LOCAL:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            try:
                return _open_unix(path, kind)
            except OSError:
                continue
    raise OSError("Unix syslog delivery error")


def _open_unix(path: str, kind: socket.SocketKind) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, kind)
    try:
        found.connect(path)
    except OSError:
        found.close()
        raise
    return found


def _renderer(form: str, tag: str, pid: int) -> Callable[[int, Line], str]:
    """What comes before the text of a line."""
    host = os.uname().nodename

    def stamp(line: Line) -> str:
        when = time.localtime(line.time_ns // 10**9)
        return f"{time.strftime('%b', when)} {when.tm_mday:2d} {time.strftime('%H:%M:%S', when)}"

    def iso(line: Line, digits: int) -> str:
        seconds, rest = divmod(line.time_ns, 10**9)
        when = time.localtime(seconds)
        zone = time.strftime("%z", when)
        fraction = f".{rest // 1000:06d}" if digits else ""
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', when)}{fraction}{zone[:3]}:{zone[3:]}"

    if form == "rfc3164":
        return lambda priority, line: f"<{priority}>{stamp(line)} {host} {tag}[{pid}]: "
    if form.startswith("rfc5424"):
        digits = 6 if form == "rfc5424micro" else 0
        return lambda priority, line: f"<{priority}>1 {iso(line, digits)} {host} {tag} {pid} {tag} - "
    return lambda priority, line: f"<{priority}>{stamp(line)} {tag}[{pid}]: "
