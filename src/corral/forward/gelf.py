"""The `gelf` driver: Graylog's extended log format 1.1 over UDP (compressed, in chunks) or TCP."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import secrets
import socket
import time
import zlib
from collections.abc import Mapping

from corral.errors import InvalidParameter
from corral.forward.addresses import Address, parse_address
from corral.forward.details import Described
from corral.forward.lines import Line

SCHEMES = ("udp", "tcp")
_PORT = 12201
_CONNECT_S = 10.0
_CHUNK_BYTES = 1420
_CHUNKS_MAX = 128
_CHUNK_MAGIC = b"\x1e\x0f"
_LEVELS = {"stdout": 6, "stderr": 3}


class BadGelfOption(InvalidParameter):
    """An option of the driver with a value that it does not have."""


def check(options: Mapping[str, str]) -> Address:
    """The address; raises BadGelfOption or BadAddress unless the driver can be opened with these."""
    if not options.get("gelf-address"):
        raise BadGelfOption("gelf-address is a required parameter")
    address = parse_address("gelf-address", options["gelf-address"], SCHEMES, _PORT)
    tcp_only = ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay")
    udp_only = ("gelf-compression-type", "gelf-compression-level")
    for name in tcp_only if address.scheme == "udp" else udp_only:
        if name in options:
            other = "TCP" if address.scheme == "udp" else "UDP"
            raise BadGelfOption(f"{name} option is only supported when using the {other} protocol")
    if options.get("gelf-compression-type", "gzip") not in ("gzip", "zlib", "none"):
        raise BadGelfOption(f"unknown compression type: {options['gelf-compression-type']}")
    for name in (*tcp_only, "gelf-compression-level"):
        if name in options and not options[name].lstrip("-").isdecimal():
            raise BadGelfOption(f"{name}: {options[name]!r} is not a number")
    if not -1 <= int(options.get("gelf-compression-level", "1")) <= 9:
        raise BadGelfOption("gelf-compression-level must be between -1 and 9")
    return address


class Gelf:
    """An open connection."""

    def __init__(self, options: Mapping[str, str], container: Described, tag: str, extras: Mapping[str, str]) -> None:
        """Raises OSError."""
        self._address = check(options)
        self._compression = options.get("gelf-compression-type", "gzip")
        self._level = int(options.get("gelf-compression-level", "1"))
        self._reconnects = int(options.get("gelf-tcp-max-reconnect", "3"))
        self._delay_s = float(options.get("gelf-tcp-reconnect-delay", "1"))
        self._fields = {
            "version": "1.1",
            "host": os.uname().nodename,
            "_container_id": container.id,
            "_container_name": container.name,
            "_image_id": container.image_id,
            "_image_name": container.image,
            "_command": container.command,
            "_tag": tag,
            "_created": container.created,
            **{f"_{name}": value for name, value in extras.items()},
        }
        self._socket = self._open()

    def _open(self) -> socket.socket:
        if self._address.scheme == "tcp":
            return socket.create_connection((self._address.host, self._address.port), _CONNECT_S)
        found = socket.getaddrinfo(self._address.host, self._address.port, type=socket.SOCK_DGRAM)[0]
        opened = socket.socket(found[0], found[1], found[2])
        opened.connect(found[4])
        return opened

    def write(self, line: Line) -> None:
        """Send a line; empty ones are not allowed in the format."""
        if not line.text.strip():
            return
        message = {
            **self._fields,
            "short_message": line.text.decode("utf-8", "replace"),
            "timestamp": line.time_ns // 10**6 / 1000,
            "level": _LEVELS[line.stream],
        }
        data = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
        if self._address.scheme == "tcp":
            self._send_tcp(data + b"\0")
        else:
            self._send_udp(data)

    def _send_tcp(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(data)
            return
        for _ in range(self._reconnects):
            self._socket.close()
            time.sleep(self._delay_s)  # what the option asks for
            with contextlib.suppress(OSError):
                self._socket = self._open()
                self._socket.sendall(data)
                return

    def _send_udp(self, data: bytes) -> None:
        if self._compression == "gzip":
            data = gzip.compress(data, max(self._level, 0))
        elif self._compression == "zlib":
            data = zlib.compress(data, self._level)
        parts = [data[start : start + _CHUNK_BYTES] for start in range(0, len(data), _CHUNK_BYTES)]
        if len(parts) > _CHUNKS_MAX:
            return  # the format allows no more
        if len(parts) > 1:
            head = _CHUNK_MAGIC + secrets.token_bytes(8)
            parts = [head + bytes((number, len(parts))) + part for number, part in enumerate(parts)]
        with contextlib.suppress(OSError):  # nobody listens now; a later line may arrive
            for part in parts:
                self._socket.send(part)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
