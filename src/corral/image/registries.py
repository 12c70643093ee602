"""What the configuration says about registries: where a repository is asked for, as whom, and how.

    "registry-mirrors": ["https://mirror.example"]                    Docker Hub's, as in Docker
    "registries": {"registry.example":         {"mirrors": ["https://near.example/proxy"], "insecure": true},
                   "registry.example/team-b":  {"username": "b", "password-file": "/etc/corral/team-b"}}

A key of `registries` is a host, or a host and the beginning of a path; where several fit, the longest wins, for
mirrors and account each on its own.  An account with a path wins over the client's, which is the whole host's.

Pure: an `Endpoint` is a value that a worker turns into a `corral.image.registry.Registry`.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from corral.errors import InvalidParameter
from corral.oci.reference import DEFAULT_DOMAIN, Reference

HUB_HOST = "registry-1.docker.io"
HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
CERTS = ("/etc/corral/certs.d", "/etc/docker/certs.d")
_ACCOUNT = ("username", "password", "password-file", "identity-token")
_SCHEMES = ("http", "https")

Auth = dict[str, str]


class InvalidRegistrySetting(InvalidParameter):
    """A setting about registries that cannot be used."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one layer may unpack to: bytes of its uncompressed tar, and members."""

    layer_bytes: int = 128 << 30
    layer_files: int = 4_000_000

    def fields(self) -> dict[str, int]:
        """As workers take it."""
        return {"bytes": self.layer_bytes, "files": self.layer_files}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One place where a repository is.  `scheme` is "" where it is to be found out."""

    host: str
    repository: str
    shown: str
    scheme: str = ""
    auth: Auth = field(default_factory=dict, repr=False)
    is_mirror: bool = False
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of `registries`."""

    mirrors: tuple[str, ...] = ()
    insecure: bool = False
    account: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Registries:
    """All of it.  Times in seconds; `insecure` holds hosts with port, `networks` CIDRs of insecure hosts."""

    mirrors: tuple[str, ...] = ()
    insecure: frozenset[str] = frozenset()
    networks: tuple[str, ...] = ()
    foreign: frozenset[str] = frozenset()
    entries: Mapping[str, Entry] = field(default_factory=dict)
    certs: tuple[str, ...] = CERTS
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    downloads: int = 3
    uploads: int = 5
    attempts: int = 5
    retry_s: float = 2.0
    timeout_s: float = 60.0
    limits: Limits = Limits()

    def endpoints(self, name: Reference, auth: Mapping[str, str] | None) -> list[Endpoint]:
        """Where to pull `name` from, in order: its mirrors, then its registry."""
        return [*self._mirrors_of(name), self.origin(name, auth)]

    def origin(self, name: Reference, auth: Mapping[str, str] | None) -> Endpoint:
        """The registry that `name` names; `auth` is what the client sent."""
        host = HUB_HOST if name.domain == DEFAULT_DOMAIN else name.domain
        mine = self._account(name.domain, name.path, auth)
        return Endpoint(host, name.path, name.familiar_name, "", mine, False, self._is_insecure(name.domain, name.path))

    def host(self, name: str, auth: Mapping[str, str] | None) -> Endpoint:
        """A registry as a whole, for logging in and searching; `name` may be Docker Hub's old address."""
        bare = name.removeprefix("https://").removeprefix("http://").partition("/")[0] or DEFAULT_DOMAIN
        if bare in HUB_NAMES:
            return Endpoint(HUB_HOST, "", DEFAULT_DOMAIN, "", self._account(DEFAULT_DOMAIN, "", auth))
        return Endpoint(bare, "", bare, "", self._account(bare, "", auth), False, self._is_insecure(bare, ""))

    def fields(self, endpoint: Endpoint, actions: str = "pull") -> dict[str, Any]:
        """What `corral.image.registry.Registry` takes."""
        return {
            "host": endpoint.host,
            "repository": endpoint.repository,
            "shown": endpoint.shown,
            "scheme": endpoint.scheme,
            "mirror": endpoint.is_mirror,
            "auth": dict(endpoint.auth),
            "insecure": endpoint.insecure,
            "networks": list(self.networks),
            "certs": list(self.certs),
            "proxies": dict(self.proxies),
            "scope": actions,
            "attempts": self.attempts,
            "retry_s": self.retry_s,
            "timeout_s": self.timeout_s,
        }

    def takes_foreign_layers(self, domain: str) -> bool:
        """Whether layers that must not be distributed may be pushed there (`allow-nondistributable-artifacts`)."""
        return domain in self.foreign or _in_networks(domain, self.foreign)

    def _fitting(self, domain: str, path: str) -> Iterator[tuple[str, Entry]]:
        """The entries for a repository, the longest key first."""
        name = f"{domain}/{path}/"
        for key in sorted(self.entries, key=len, reverse=True):
            if name.startswith(key + "/"):
                yield key, self.entries[key]

    def _mirrors_of(self, name: Reference) -> Iterator[Endpoint]:
        urls = self.mirrors if name.domain == DEFAULT_DOMAIN else ()
        urls += next((entry.mirrors for _, entry in self._fitting(name.domain, name.path) if entry.mirrors), ())
        for url in urls:
            scheme, host, prefix = split_mirror(url)
            path = f"{prefix}/{name.path}" if prefix else name.path
            # The client's credentials are for the registry that the name says, not for its mirrors.
            mine = self._account(host, path, None)
            insecure = scheme == "http" or self._is_insecure(host, path)
            yield Endpoint(host, path, name.familiar_name, scheme, mine, True, insecure)

    def _account(self, domain: str, path: str, given: Mapping[str, str] | None) -> Auth:
        has_given = any((given or {}).get(key) for key in ("username", "auth", "identitytoken", "registrytoken"))
        for key, entry in self._fitting(domain, path):
            if entry.account and ("/" in key or not has_given):
                return dict(entry.account)
        return dict(given or {})

    def _is_insecure(self, domain: str, path: str) -> bool:
        if domain in self.insecure or _in_networks(domain, self.networks):
            return True
        return any(entry.insecure for _, entry in self._fitting(domain, path))


def split_mirror(url: str) -> tuple[str, str, str]:
    """Scheme ("" if none is given), host and path of a mirror; raises InvalidRegistrySetting."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    host, _, path = rest.partition("/")
    path = path.strip("/")
    if not host or (separator and scheme not in _SCHEMES) or any(mark in rest for mark in "?#@ \r\n"):
        raise InvalidRegistrySetting(f'invalid mirror: "{url}" is not a valid URI')
    return scheme, host, path


def check_hub_mirror(url: str) -> str:
    """A value of `registry-mirrors`, with Docker's rules and words; raises InvalidRegistrySetting."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise InvalidRegistrySetting(
            f"invalid mirror: no scheme specified for \"{url}\": must use either 'https://' or 'http://'"
        )
    if "@" in rest:
        raise InvalidRegistrySetting("invalid mirror: username/password not allowed in URI")
    if rest.rstrip("/").find("/") >= 0 or "?" in rest or "#" in rest:
        raise InvalidRegistrySetting(
            f'invalid mirror: path, query, or fragment at end of the URI "{url}": use the key "registries" for a path'
        )
    split_mirror(url)
    return url


def split_insecure(values: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    """`insecure-registries` as hosts and networks; raises InvalidRegistrySetting."""
    hosts, networks = set(), []
    for value in values:
        if value.startswith(("http://", "https://")):
            value = value.partition("://")[2].rstrip("/")
        if "/" in value:
            try:
                networks.append(str(ipaddress.ip_network(value, strict=False)))
                continue
            except ValueError:
                pass
        if not value or "/" in value or "://" in value or value.startswith("-"):
            raise InvalidRegistrySetting(f"insecure registry {value} is not valid: it must be HOST[:PORT] or a CIDR")
        hosts.add(value)
    return frozenset(hosts), tuple(networks)


def parse_entries(settings: Mapping[str, Any] | None) -> dict[str, Entry]:
    """The key `registries`; raises InvalidRegistrySetting.  `password-file` stays a path: see `read_passwords`."""
    found = {}
    for key, value in (settings or {}).items():
        bad = set(value) - {"mirrors", "insecure", *_ACCOUNT}
        if bad:
            raise InvalidRegistrySetting(f"registries: {key}: unknown key {', '.join(sorted(bad))}")
        if not key or "://" in key or key != key.strip("/"):
            raise InvalidRegistrySetting(f'registries: "{key}" is not HOST[:PORT][/PATH]')
        mirrors = value.get("mirrors", [])
        texts = [value.get(name, "") for name in _ACCOUNT]
        fits = isinstance(mirrors, list) and all(isinstance(text, str) for text in [*mirrors, *texts])
        if not fits or not isinstance(value.get("insecure", False), bool):
            raise InvalidRegistrySetting(f"registries: {key}: a value is of the wrong kind")
        for url in mirrors:
            split_mirror(url)
        found[key] = Entry(tuple(mirrors), value.get("insecure", False), _account_of(key, value))
    return found


def _account_of(key: str, value: Mapping[str, str]) -> dict[str, str]:
    secrets = [name for name in ("password", "password-file", "identity-token") if value.get(name)]
    if not secrets and not value.get("username"):
        return {}
    if len(secrets) != 1 or (secrets != ["identity-token"] and not value.get("username")):
        raise InvalidRegistrySetting(
            f"registries: {key}: an account is a username with a password or password-file, or an identity-token"
        )
    if secrets == ["identity-token"]:
        return {"identitytoken": value["identity-token"]}
    secret = secrets[0]
    return {"username": value["username"], ("password" if secret == "password" else "password-file"): value[secret]}


def with_passwords(entries: Mapping[str, Entry], read: Any) -> dict[str, Entry]:
    """The entries with `read(path)` in place of each `password-file`."""
    found = {}
    for key, entry in entries.items():
        account = dict(entry.account)
        if "password-file" in account:
            account["password"] = read(account.pop("password-file")).rstrip("\r\n")
        found[key] = replace(entry, account=account)
    return found


def decode_auth(text: str) -> tuple[str, str] | None:
    """User and password of the `auth` member of a credentials document; None if it is none."""
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except ValueError:
        return None
    return (user, password) if colon else None


def _in_networks(domain: str, networks: frozenset[str] | tuple[str, ...]) -> bool:
    """Whether a host that is given as an address lies in one of these networks."""
    name = domain[1:].partition("]")[0] if domain.startswith("[") else domain.partition(":")[0]
    try:
        address = ipaddress.ip_address(name)
        return any(address in ipaddress.ip_network(network) for network in networks if "/" in network)
    except ValueError:
        return False
