"""The registry's configuration: a JSON file and flags, into one frozen value.  A key that nobody knows is refused."""

from __future__ import annotations

import os
import re
from typing import Any

import msgspec

from corral.errors import InvalidParameter
from corral.registry.rights import ACTIONS, Rights, Rule

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UNITS_S = (86400, 3600, 60, 1)


class BadSettings(InvalidParameter):
    """A configuration that cannot be used."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    """A part of the file."""


class Tls(_Section, frozen=True, kw_only=True):
    """Certificate and key of the server; `client_ca` is the authority that clients must have a certificate of."""

    certificate: str
    key: str
    client_ca: str = ""


class Token(_Section, frozen=True, kw_only=True):
    """Tokens of somebody else's token server."""

    realm: str
    service: str
    issuer: str
    keys: list[str]


class Auth(_Section, frozen=True, kw_only=True):
    """How users log in: with passwords in each request, with tokens for passwords, or with others' tokens."""

    htpasswd: str = ""
    scheme: str = "basic"  # or "token": our own token endpoint
    realm: str = "corral-registry"
    token: Token | None = None


class RightsRule(_Section, frozen=True, kw_only=True):
    """See rights.py."""

    users: list[str]
    repositories: tuple[str, ...] = ("**",)
    actions: list[str]


class Upstream(_Section, frozen=True, kw_only=True):
    """The registry that this one is a cache of."""

    url: str
    username: str = ""
    password_file: str = ""
    insecure: bool = False
    tag_ttl: str = "5m"


class Collection(_Section, frozen=True, kw_only=True):
    """Garbage collection while serving; `interval` "0s" for none."""

    interval: str = "1h"
    grace: str = "6h"
    uploads: str = "7d"


class Retention(_Section, frozen=True, kw_only=True):
    """What may be removed; see retention.py."""

    repositories: tuple[str, ...] = ("**",)
    tags: tuple[str, ...] = ("**",)
    keep_last: int | None = None
    keep_younger: str = ""
    remove_untagged: str = ""


class Settings(_Section, frozen=True, kw_only=True):
    """The file as a whole."""

    root: str = ""
    listen: str = "127.0.0.1:5000"
    workers: int = 0
    connections_max: int = 2048
    tls: Tls | None = None
    auth: Auth | None = None
    rights: list[RightsRule] = []
    read_only: bool = False
    upstream: Upstream | None = None
    collection: Collection = Collection()
    retention: list[Retention] = []
    access_log: str = "-"
    metrics_anonymous: bool = False

    @property
    def processes(self) -> int:
        """How many processes serve."""
        return self.workers or len(os.sched_getaffinity(0))

    def rules(self) -> Rights:
        """The rights."""
        return Rights(tuple(Rule(tuple(r.users), tuple(r.repositories), tuple(r.actions)) for r in self.rights))


def read(path: str | None, flags: dict[str, Any]) -> Settings:
    """The file at `path`, if any, and flags, as keys of the file; a key may be in one of both.  Raises BadSettings."""
    fields: dict[str, Any] = {}
    if path:
        try:
            with open(path, "rb") as file:
                fields = msgspec.json.decode(file.read())
        except OSError as error:
            raise BadSettings(f"cannot read {path}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise BadSettings(f"cannot read {path}: {error}") from error
        if not isinstance(fields, dict):
            raise BadSettings(f"cannot read {path}: not an object")
    for key, value in flags.items():
        if key in fields:
            raise BadSettings(f"{key} is set by a flag and in {path}")
        fields[key] = value
    try:
        settings = msgspec.convert(fields, Settings)
    except msgspec.ValidationError as error:
        raise BadSettings(f"cannot use the configuration: {error}") from error
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    if not settings.root:
        raise BadSettings("no root: say where the registry keeps its files (--root DIR)")
    address(settings.listen)
    if not 0 <= settings.workers <= 256 or not 1 <= settings.connections_max <= 100_000:
        raise BadSettings("workers must be 0 to 256, connections-max 1 to 100000")
    auth = settings.auth
    if auth is not None:
        if bool(auth.htpasswd) == (auth.token is not None):
            raise BadSettings("auth needs either htpasswd or token")
        if auth.scheme not in ("basic", "token"):
            raise BadSettings('auth.scheme must be "basic" or "token"')
        if auth.token is not None and settings.rights:
            raise BadSettings("rights are the token server's matter: they cannot be set with auth.token")
    elif settings.rights:
        raise BadSettings("rights need auth")
    for rule in settings.rights:
        unknown = set(rule.actions) - set(ACTIONS)
        if unknown:
            raise BadSettings(f"unknown action {min(unknown)!r}: there are {', '.join(ACTIONS)}")
    if settings.upstream is not None:
        if not re.fullmatch(r"https?://[^/@?#]+/?", settings.upstream.url):
            raise BadSettings("upstream.url must be http://HOST[:PORT] or https://HOST[:PORT]")
        duration_s(settings.upstream.tag_ttl)
    for text in (settings.collection.interval, settings.collection.grace, settings.collection.uploads):
        duration_s(text)
    for retention in settings.retention:
        _check_retention(retention)


def _check_retention(rule: Retention) -> None:
    if rule.keep_last is not None and rule.keep_last < 0:
        raise BadSettings("keep-last must not be negative")
    for text in (rule.keep_younger, rule.remove_untagged):
        if text:
            duration_s(text)


def duration_s(text: str) -> float:
    """Seconds of `30d`, `1h30m`, `90s`; raises BadSettings."""
    found = _DURATION.fullmatch(text)
    if not text or not found:
        raise BadSettings(f"{text!r} is not a duration (30d, 1h30m, 90s)")
    return float(sum(int(number) * unit for number, unit in zip(found.groups(), _UNITS_S, strict=True) if number))


def address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` or `[ADDRESS]:PORT`; raises BadSettings."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise BadSettings(f"cannot listen at {text!r}: not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BadSettings(f"cannot listen at {text!r}: write an IPv6 address in brackets")
    return host, int(port)
