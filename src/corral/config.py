"""The daemon's configuration: dockerd's flags and daemon.json keys, merged into one frozen Config.

One table names every option once.  A key that the table does not have stops the start, as does an option given
both as a flag and in the file; both with Docker's messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from corral.errors import InvalidParameter


class ConfigError(InvalidParameter):
    """The flags or daemon.json cannot be used."""


@dataclass(frozen=True)
class Runtime:
    """An OCI runtime that `--runtime NAME` chooses: a command and its arguments."""

    path: str
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """What the daemon was told.  Sizes in bytes, times in seconds; paths are absolute."""

    hosts: tuple[str, ...] = ("unix:///var/run/corral.sock",)
    data_root: str = "/var/lib/corral"
    exec_root: str = "/run/corral"
    pidfile: str = "/run/corral.pid"
    debug: bool = False
    group: str = "docker"
    labels: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    bridge: str = ""
    bip: str = ""
    mtu: int = 1500
    default_address_pools: tuple[Mapping[str, Any], ...] = ()
    ip_forward: bool = True
    userland_proxy: bool = True
    dns: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    host_gateway_ips: tuple[str, ...] = ()
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] | None = None
    log_level: str = "info"
    default_runtime: str = "corral"
    runtimes: Mapping[str, Any] | None = None
    default_shm_size: str = "64M"
    default_ulimits: Mapping[str, Any] | None = None
    cgroup_parent: str = ""
    init: bool = False
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    shutdown_timeout: int = 15
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5

    def runtime(self, name: str) -> Runtime | None:
        """The command of a runtime, or None for the built-in one; raises ConfigError for a name nobody configured."""
        if name in ("", "corral", "io.containerd.runc.v2") and name not in (self.runtimes or {}):
            return None
        configured = (self.runtimes or {}).get(name)
        if configured is not None:
            return Runtime(configured["path"], tuple(configured.get("runtimeArgs", ())))
        if name in ("runc", "crun"):
            return Runtime(name)
        raise ConfigError(f"unknown or invalid runtime name: {name}")


# flag or key (dockerd's spelling) -> Config field; a key absent here is the field with dashes
_SPELLING = {
    "host": "hosts",
    "label": "labels",
    "insecure-registry": "insecure_registries",
    "registry-mirror": "registry_mirrors",
    "dns-opt": "dns_opts",
    "default-address-pool": "default_address_pools",
    "host-gateway-ip": "host_gateway_ips",
    "log-opt": "log_opts",
    "default-ulimit": "default_ulimits",
    "add-runtime": "runtimes",
}
_SHORT = {"-H": "host", "-D": "debug", "-p": "pidfile", "-G": "group", "-l": "log-level", "-b": "bridge"}
_FIELDS = {field.name: field for field in fields(Config)}
_FLAG_ONLY = {"config-file", "validate", "version", "help"}


@dataclass(frozen=True)
class Arguments:
    """The command line, read: options by field name, and what only a flag can say."""

    options: Mapping[str, Any]
    config_file: str | None = None
    validate: bool = False
    version: bool = False
    help: bool = False


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Read dockerd's flags (`--flag value`, `--flag=value`, `-H value`); raises ConfigError with dockerd's text."""
    options: dict[str, Any] = {}
    only: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            raise ConfigError(f'"corrald" accepts no arguments: {word}')
        name, value = _flag(word)
        if name in _FLAG_ONLY:
            if name != "config-file":
                only[name] = True
                continue
            only["config_file"] = value if value is not None else _next(word, rest)
            continue
        field = _field_of(name)
        if field is None:
            raise ConfigError(f"unknown flag: --{name}" if word.startswith("--") else f"unknown shorthand flag: {word}")
        if _FIELDS[field].type == "bool":
            options[field] = _boolean(name, value or "true")
            continue
        _collect(options, field, name, value if value is not None else _next(word, rest))
    return Arguments(options, **only)


def merge(arguments: Arguments, file_text: str | None) -> Config:
    """Flags and the text of daemon.json make one Config; raises ConfigError."""
    from_file = _read_file(file_text) if file_text and file_text.strip() else {}
    both = sorted(set(from_file) & set(arguments.options))
    if both:
        shown = ", ".join(
            f"{_key(name)}: (from flag: {_shown(arguments.options[name])}, from file: {_shown(from_file[name])})"
            for name in both
        )
        raise ConfigError(
            f"the following directives are specified both as a flag and in the configuration file: {shown}"
        )
    merged = {**from_file, **arguments.options}
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in merged.items()
    }
    return Config(**values)


def _read_file(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"unable to configure the daemon: invalid JSON in the configuration file: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("unable to configure the daemon: the configuration file must hold an object")
    unknown = [key for key in data if _field_of(key) is None]
    if unknown:
        raise ConfigError(f"the following directives don't match any configuration option: {', '.join(unknown)}")
    found = {}
    for key, value in data.items():
        field = _field_of(key)
        assert field is not None
        _check_type(key, field, value)
        found[field] = value
    return found


def _check_type(key: str, field: str, value: Any) -> None:
    kind = str(_FIELDS[field].type)
    expected: type | tuple[type, ...] = str
    if kind.startswith("tuple"):
        expected = list
    elif kind.startswith("Mapping"):
        expected = dict
    elif kind in ("bool", "int"):
        expected = bool if kind == "bool" else int
    if not isinstance(value, expected) or (kind == "int" and isinstance(value, bool)):
        raise ConfigError(f"cannot use {json.dumps(value)} as the value of {key}")


def _field_of(name: str) -> str | None:
    field = _SPELLING.get(name, name.replace("-", "_"))
    if field in _FIELDS and (name in _SPELLING or "_" not in name):
        return field
    return None


def _key(field: str) -> str:
    return field.replace("_", "-")


def _flag(word: str) -> tuple[str, str | None]:
    if word.startswith("--"):
        name, separator, value = word[2:].partition("=")
        return name, value if separator else None
    if word[:2] in _SHORT:
        rest = word[2:]
        return _SHORT[word[:2]], rest.removeprefix("=") if rest else None
    return word.lstrip("-"), None


def _next(word: str, rest: list[str]) -> str:
    if not rest:
        raise ConfigError(f"flag needs an argument: {word}")
    return rest.pop(0)


def _boolean(name: str, text: str) -> bool:
    if text in ("true", "1", "t", "T", "TRUE", "True"):
        return True
    if text in ("false", "0", "f", "F", "FALSE", "False"):
        return False
    raise ConfigError(f'invalid argument "{text}" for "--{name}" flag: parse error')


def _collect(options: dict[str, Any], field: str, name: str, value: str) -> None:
    """Add one occurrence of a flag that may be repeated, or set one that may not."""
    kind = str(_FIELDS[field].type)
    if field == "runtimes":
        key, _, path = value.partition("=")
        options.setdefault(field, {})[key] = {"path": path}
    elif field == "default_ulimits":
        key, _, limits = value.partition("=")
        soft, _, hard = limits.partition(":")
        options.setdefault(field, {})[key] = {"Name": key, "Soft": int(soft), "Hard": int(hard or soft)}
    elif field == "default_address_pools":
        pairs = dict(part.partition("=")[::2] for part in value.split(","))
        options.setdefault(field, []).append({"base": pairs["base"], "size": int(pairs["size"])})
    elif kind.startswith("Mapping"):
        key, _, text = value.partition("=")
        options.setdefault(field, {})[key] = text
    elif kind.startswith("tuple"):
        options.setdefault(field, []).append(value)
    elif kind == "int":
        try:
            options[field] = int(value)
        except ValueError:
            raise ConfigError(f'invalid argument "{value}" for "--{name}" flag: parse error') from None
    else:
        options[field] = value


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
