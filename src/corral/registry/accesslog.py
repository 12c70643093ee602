"""The access log: one line of JSON for each request, to standard error or a file."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import msgspec

from corral.errors import System
from corral.registry.http.messages import Request


class LogUnusable(System):
    """A log file that cannot be opened."""


class AccessLog:
    """Writes whole lines with one system call each, so that processes can share the file."""

    def __init__(self, target: str) -> None:
        """`target`: "-" for standard error, "off", or a file's path; raises LogUnusable."""
        self._path = target if target not in ("-", "off") else ""
        self._fd = 2 if target == "-" else -1
        self.reopen()

    def reopen(self) -> None:
        """Open the file anew: it has been rotated."""
        if self._path:
            old = self._fd
            try:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            except OSError as error:
                raise LogUnusable(f"cannot open {self._path}: {error.strerror}") from error
            if old > 2:
                os.close(old)

    def write(self, request: Request, status: int, received: int, sent: int, seconds: float) -> None:
        """One request."""
        if self._fd < 0:
            return
        head = request.head
        line = {
            "time": datetime.fromtimestamp(time.time() - seconds, UTC).isoformat(timespec="milliseconds"),
            "remote": request.peer,
            "user": request.user,
            "method": head.method,
            "target": head.target[:2000],
            "status": status,
            "received": received,
            "sent": sent,
            "ms": round(seconds * 1000, 2),
            "agent": head.headers.get("user-agent", "")[:300],
        }
        try:
            os.write(self._fd, msgspec.json.encode(line) + b"\n")
        except OSError:
            pass  # a full disk or a closed pipe must not end the service
