"""Registry authentication (RFC 7235; distribution's token specification): challenges, and what answers them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any

CLIENT_ID = "corral"
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


def user_and_password(auth: Mapping[str, Any]) -> tuple[str, str] | None:
    """What a credentials document (AuthConfig of the Engine API) holds, in either form; None when it has neither."""
    user, password = auth.get("username") or "", auth.get("password") or ""
    if user:
        return user, password
    try:
        user, colon, password = base64.b64decode(auth.get("auth") or "", validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None


def basic(auth: Mapping[str, Any]) -> str | None:
    """The Authorization header for a user name and password; None when there are none."""
    found = user_and_password(auth)
    return "Basic " + base64.b64encode(":".join(found).encode()).decode() if found else None


def scopes(challenged: str, repository: str, actions: str, sources: Iterable[str]) -> list[str]:
    """What a token is asked for: what the challenge names, what we are here for, and what to mount from."""
    wanted = challenged.split()
    if repository:
        wanted.append(f"repository:{repository}:{actions}")
    wanted += [f"repository:{source}:pull" for source in sources]
    return list(dict.fromkeys(wanted))


def token_query(auth: Mapping[str, Any], service: str, wanted: Iterable[str], offline: bool) -> list[tuple[str, str]]:
    """The parameters of a GET for a token; `offline` asks for an identity token too."""
    found = user_and_password(auth)
    query = [("account", found[0])] if found else []
    query += [("client_id", CLIENT_ID), ("offline_token", "true")] if offline else []
    query += [("scope", scope) for scope in wanted]
    return query + ([("service", service)] if service else [])


def refresh_form(identity_token: str, service: str, wanted: Iterable[str]) -> list[tuple[str, str]]:
    """The OAuth2 form that turns an identity token into a bearer token."""
    return [
        ("grant_type", "refresh_token"),
        ("refresh_token", identity_token),
        ("client_id", CLIENT_ID),
        ("service", service),
        ("scope", " ".join(wanted)),
    ]
