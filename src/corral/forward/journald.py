"""The `journald` driver: the journal's native protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""

from __future__ import annotations

import array
import errno
import os
import socket
from collections.abc import Mapping

from corral.forward.details import Described
from corral.forward.lines import Line

SOCKET = "/run/systemd/journal/socket"
_PRIORITIES = {"stdout": b"6", "stderr": b"3"}


class Journald:
    """An open journal."""

    def __init__(self, container: Described, tag: str, extras: Mapping[str, str], path: str = SOCKET) -> None:
        """Raises OSError when there is no journal."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise OSError("journald is not enabled on this host") from error
        fields = {
            "CONTAINER_ID": container.id[:12],
            "CONTAINER_ID_FULL": container.id,
            "CONTAINER_NAME": container.name,
            "CONTAINER_TAG": tag,
            "IMAGE_NAME": container.image,
            "SYSLOG_IDENTIFIER": tag,
            **{_field_name(name): value for name, value in extras.items()},
        }
        self._fields = b"".join(_field(name, value.encode()) for name, value in fields.items() if name)

    def write(self, line: Line) -> None:
        """Send a line; one that the journal does not take is lost."""
        data = self._fields + _field("PRIORITY", _PRIORITIES[line.stream]) + _field("MESSAGE", line.text)
        data += _field("SYSLOG_TIMESTAMP", _micro_time(line.time_ns))
        if line.partial:
            data += _field("CONTAINER_PARTIAL_MESSAGE", b"true")
        try:
            self._socket.send(data)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                self._send_by_file(data)

    def _send_by_file(self, data: bytes) -> None:
        """What is too large for a datagram goes as a sealed file."""
        fd = os.memfd_create("journal-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            self._socket.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        except OSError:
            return
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _field(name: str, value: bytes) -> bytes:
    if b"\n" in value:
        return name.encode() + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name.encode() + b"=" + value + b"\n"


def _field_name(name: str) -> str:
    """A journal field: capitals, digits and underscores, not beginning with one of the latter two."""
    text = "".join(char if char.isascii() and char.isalnum() else "_" for char in name.upper())
    return text.lstrip("_0123456789")


def _micro_time(time_ns: int) -> bytes:
    return str(time_ns // 1000).encode()
