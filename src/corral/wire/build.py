"""Builds in the API's JSON: what travels in the query of `POST /build`, and the rows of the build cache."""

from __future__ import annotations

from corral.wire.common import Wire


class CacheRow(Wire):
    """One entry of `BuildCache` in `GET /system/df`.  Sizes in bytes, times in RFC 3339."""

    id: str
    parents: list[str] | None = None
    type: str = ""
    description: str = ""
    in_use: bool = False
    shared: bool = False
    size: int = 0
    created_at: str = ""
    last_used_at: str | None = None
    usage_count: int = 0


class RegistryLogin(Wire, rename=str):
    """Credentials of one registry in the X-Registry-Config header, whose members are in lower case."""

    username: str = ""
    password: str = ""
    auth: str = ""
    email: str = ""
    serveraddress: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
