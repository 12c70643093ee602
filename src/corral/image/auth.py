"""Registry authentication: reading a challenge, and what to answer (RFC 7235; distribution's token specification)."""

from __future__ import annotations

import base64
import re
from typing import Any

_PARAMETER = re.compile(r'([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_CHALLENGE_MAX = 8192


class Challenge:
    """One `WWW-Authenticate` header: scheme in lower case, and its parameters."""

    __slots__ = ("parameters", "scheme")

    def __init__(self, scheme: str, parameters: dict[str, str]) -> None:
        self.scheme = scheme
        self.parameters = parameters


def parse_challenge(header: str) -> Challenge:
    """Read a header; an unreadable one has the scheme ""."""
    scheme, _, rest = header[:_CHALLENGE_MAX].strip().partition(" ")
    found = {}
    for match in _PARAMETER.finditer(rest):
        quoted, plain = match.group(2), match.group(3)
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        found[match.group(1).lower()] = value
    return Challenge(scheme.lower(), found)


def basic(auth: dict[str, Any]) -> str | None:
    """The Authorization header for a user name and password; None when there are none."""
    user, password = auth.get("username") or "", auth.get("password") or ""
    if not user and auth.get("auth"):
        try:
            return "Basic " + base64.b64encode(base64.b64decode(auth["auth"], validate=True)).decode()
        except ValueError:
            return None
    if not user:
        return None
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
