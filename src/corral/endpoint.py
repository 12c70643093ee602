"""Which daemon to talk to: flags, environment and contexts, in Docker's order, with `CORRAL_HOST` before `DOCKER_HOST`.

For the command line and the Python API alike; imports next to nothing, as the command line starts with it.

Contexts are Docker's own files, shared with it:  CONFIG/contexts/meta/SHA256(NAME)/meta.json  and
CONFIG/contexts/tls/SHA256(NAME)/docker/{ca,cert,key}.pem , with CONFIG `$DOCKER_CONFIG` or `~/.docker`.
"""

from __future__ import annotations

import os

from corral import jsontext
from corral.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_HOST = "unix:///var/run/corral.sock"


class NoEndpoint(InvalidParameter):
    """Nothing says which daemon is meant, or it cannot be read."""


class Tls:
    """How to make a TLS connection: files in PEM, and whether the daemon's name and chain are checked."""

    __slots__ = ("ca", "cert", "key", "verify")

    def __init__(self, ca: str = "", cert: str = "", key: str = "", verify: bool = True) -> None:
        self.ca = ca
        self.cert = cert
        self.key = key
        self.verify = verify


class Endpoint:
    """A daemon's address: `host` as the user writes it, TLS or not, and the context that it came from."""

    __slots__ = ("context", "host", "tls")

    def __init__(self, host: str, tls: Tls | None = None, context: str = "default") -> None:
        self.host = host
        self.tls = tls
        self.context = context


def tls_of(config: str, ca: str, cert: str, key: str, *, verify: bool) -> Tls:
    """TLS with the files given, and for the others those of $DOCKER_CERT_PATH or the configuration, if they exist."""
    folder = os.environ.get("DOCKER_CERT_PATH") or config
    files = [ca, cert, key]
    for index, name in enumerate(("ca.pem", "cert.pem", "key.pem")):
        path = os.path.join(folder, name)
        if not files[index] and os.path.exists(path):
            files[index] = path
    return Tls(files[0], files[1], files[2], verify)


def environment_tls(config: str) -> Tls | None:
    """What DOCKER_TLS_VERIFY and DOCKER_TLS ask for."""
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    return tls_of(config, "", "", "", verify=verify) if verify or os.environ.get("DOCKER_TLS") else None


def config_folder(given: str = "") -> str:
    """Where the client's configuration is."""
    return given or os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")


def read_config(folder: str) -> dict[str, Any]:
    """The client's config.json; empty if there is none or it cannot be read as JSON (as Docker warns and goes on)."""
    try:
        with open(os.path.join(folder, "config.json"), "rb") as file:
            found = jsontext.loads(file.read())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def context_name(folder: str, context: str, hosts: list[str]) -> str:
    """The name of the context in use."""
    if context:
        return context
    environment = os.environ
    if hosts or environment.get("CORRAL_HOST") or environment.get("DOCKER_HOST"):
        return "default"
    if environment.get("DOCKER_CONTEXT"):
        return environment["DOCKER_CONTEXT"]
    return str(read_config(folder).get("currentContext") or "default")


def resolve(folder: str, context: str, hosts: list[str], tls: Tls | None) -> Endpoint:
    """The daemon that flags and environment choose; raises NoEndpoint for a context that does not exist."""
    if context and hosts:
        raise NoEndpoint("conflicting options: either specify --host or --context, not both")
    name = context_name(folder, context, hosts)
    return default(hosts, tls) if name == "default" else from_context(folder, name)


def default(hosts: list[str], tls: Tls | None) -> Endpoint:
    """The daemon of the context `default`: what the flags or the environment say."""
    host = hosts[0] if hosts else os.environ.get("CORRAL_HOST") or os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    return Endpoint(host, tls)


def context_key(name: str) -> str:
    """The name of a context's folder."""
    from _sha256 import sha256  # type: ignore[import-not-found, unused-ignore]

    return str(sha256(name.encode()).hexdigest())


def from_context(folder: str, name: str) -> Endpoint:
    """The endpoint of a stored context; raises NoEndpoint."""
    key = context_key(name)
    path = os.path.join(folder, "contexts", "meta", key, "meta.json")
    try:
        with open(path, "rb") as file:
            meta = jsontext.loads(file.read())
        docker = meta["Endpoints"]["docker"]
        host = str(docker.get("Host") or DEFAULT_HOST)
    except FileNotFoundError:
        raise NoEndpoint(
            f'Failed to initialize: unable to resolve docker endpoint: context "{name}": context not found: '
            f"open {path}: no such file or directory"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoEndpoint(f'cannot read context "{name}": {error}') from error
    files = os.path.join(folder, "contexts", "tls", key, "docker")
    ca, cert, private = (
        path if os.path.exists(path := os.path.join(files, f"{file}.pem")) else "" for file in ("ca", "cert", "key")
    )
    skip = bool(docker.get("SkipTLSVerify"))
    tls = Tls(ca, cert, private, verify=not skip) if ca or cert or skip else None
    return Endpoint(host, tls, name)
