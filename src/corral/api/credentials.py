"""Credentials as clients send them: `POST /auth`, and the headers X-Registry-Auth and X-Registry-Config."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from corral.api import http
from corral.api.http import Answer, Request
from corral.api.services import Services
from corral.errors import InvalidParameter

Auth = dict[str, str]


class BadAuth(InvalidParameter):
    """A header of credentials that cannot be read."""

    def __init__(self, header: str, detail: object) -> None:
        super().__init__(f"invalid {header} header: {detail}")


class Login(msgspec.Struct):
    """The body of `POST /auth` (AuthConfig of the Engine API)."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""


def of_request(request: Request) -> Auth | None:
    """The X-Registry-Auth header: one registry's credentials; None if there is none.  Raises BadAuth."""
    decoded = _decode(request, "X-Registry-Auth")
    return None if decoded is None else _texts(decoded)


def of_registries(request: Request) -> dict[str, Auth]:
    """The X-Registry-Config header: credentials by registry, for builds that pull from several.  Raises BadAuth."""
    decoded = _decode(request, "X-Registry-Config") or {}
    return {str(host): _texts(value) for host, value in decoded.items() if isinstance(value, dict)}


def _texts(decoded: dict[str, Any]) -> Auth:
    return {str(key): value for key, value in decoded.items() if isinstance(value, str)}


def _decode(request: Request, name: str) -> dict[str, Any] | None:
    """A header that is base64url of a JSON object, with padding or without."""
    header = request.headers.get(name.lower(), "").rstrip("=")
    if not header:
        return None
    try:
        # Some clients use the other alphabet of base64.
        raw = base64.b64decode(header.replace("+", "-").replace("/", "_") + "=" * (-len(header) % 4), b"-_", True)
        decoded = msgspec.json.decode(raw) if raw.strip() else {}
    except (binascii.Error, ValueError, RecursionError) as error:
        raise BadAuth(name, error) from error
    if not isinstance(decoded, dict):
        raise BadAuth(name, "not an object")
    return decoded


async def login(services: Services, request: Request) -> Answer:
    """POST /auth"""
    body = await request.json(Login)
    given = {name: getattr(body, name) for name in body.__struct_fields__ if getattr(body, name)}
    token = await services.engine.images.login(given.pop("serveraddress", ""), given)
    return http.json({"Status": "Login Succeeded", "IdentityToken": token})
