"""Users and passwords: a file as `htpasswd -B` makes it, one `name:bcrypt` a line.

Read anew when it changes.  A password that was right is remembered for some minutes, keyed with a secret of the
process, because bcrypt is slow on purpose and clients send the password with every request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import threading
import time

import bcrypt

from corral.errors import InvalidParameter, Unauthorized
from corral.registry.refusals import Coded

_log = logging.getLogger(__name__)

_REMEMBERED_S = 300.0
_REMEMBERED_MAX = 10_000
_BCRYPT = (b"$2y$", b"$2a$", b"$2b$")


class BadPasswordFile(InvalidParameter):
    """A file of passwords that cannot be used."""


class MalformedLine(InvalidParameter):
    """A line that is not a user with a password."""

    def __init__(self, number: int) -> None:
        super().__init__(f"line {number} is not NAME:BCRYPT (htpasswd -B)")


class BadPassword(Coded, Unauthorized):
    """An unknown user, or another password."""

    code = "UNAUTHORIZED"

    def __init__(self) -> None:
        super().__init__("incorrect username or password")


class Passwords:
    """The users of a htpasswd file.  Safe from any thread."""

    def __init__(self, path: str) -> None:
        """Raises BadPasswordFile."""
        self._path = path
        self._secret = secrets.token_bytes(32)
        self._remembered: dict[bytes, float] = {}
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()  # guessing must not take every core
        self._stamp: tuple[int, int, int] | None = None
        self._problem = ""
        self._hashes: dict[str, bytes] = {}
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10))
        self._read_if_changed()
        if self._stamp is None:
            raise BadPasswordFile(f"cannot read {path}: {self._problem}")

    def verify(self, user: str, password: str) -> None:
        """Raise BadPassword unless that is the user's password."""
        self._read_if_changed()
        expected = self._hashes.get(user)
        key = hmac.digest(self._secret, f"{user}\0{password}".encode() + b"\0" + (expected or b""), hashlib.sha256)
        now = time.monotonic()
        with self._lock:
            if self._remembered.get(key, 0.0) > now:
                return
        with self._one_at_a_time:
            # An unknown user takes as long as a wrong password.  bcrypt reads 72 bytes and no NUL.
            secret = password.encode()
            good = b"\0" not in secret and bcrypt.checkpw(secret[:72], expected or self._nobody)
        if expected is None or not good:
            raise BadPassword()
        with self._lock:
            if len(self._remembered) >= _REMEMBERED_MAX:
                self._remembered.clear()
            self._remembered[key] = now + _REMEMBERED_S

    def _read_if_changed(self) -> None:
        """Take over a changed file; while it cannot be used, the users from before stay."""
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._hashes = _read(self._path)
                self._stamp, self._problem = stamp, ""
        except (OSError, MalformedLine) as error:
            problem = str(error.strerror if isinstance(error, OSError) else error)
            if problem != self._problem and self._stamp is not None:
                _log.error("cannot read %s: %s; going on with the users from before", self._path, problem)
            self._problem = problem


def _read(path: str) -> dict[str, bytes]:
    hashes = {}
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text or text.startswith(b"#"):
                continue
            user, colon, value = text.partition(b":")
            if not colon or not user or not value.startswith(_BCRYPT):
                raise MalformedLine(number)
            hashes[user.decode("utf-8", "replace")] = value
    return hashes
