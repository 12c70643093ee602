"""The daemon's configuration: dockerd's flags and daemon.json keys, merged into one frozen Config.

One table names every option once.  A key that the table does not have stops the start, as does an option given
both as a flag and in the file; both with Docker's messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
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
    image_gc: Mapping[str, Any] | None = None  # see corral.image.policy
    registry_mirrors: tuple[str, ...] = ()  # of Docker Hub
    registries: Mapping[str, Any] | None = None  # ours: mirrors and accounts of any registry
    allow_nondistributable_artifacts: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    max_layer_size: str = "128g"
    max_layer_files: int = 4_000_000
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    bridge: str = ""
    bip: str = ""
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    default_gateway: str = ""
    ip: str = ""  # where ports are published that name no address
    ipv6: bool = False
    iptables: bool = True
    ip_masq: bool = True
    icc: bool = True
    mtu: int = 1500
    default_address_pools: tuple[Mapping[str, Any], ...] = ()
    ip_forward: bool = True
    userland_proxy: bool = True
    bridge_names: bool = False  # ours: names on the default bridge
    publish_policy: str = "open"  # ours: who decides about published ports
    dns: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    host_gateway_ips: tuple[str, ...] = ()
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] | None = None
    log_level: str = "info"
    log_format: str = "text"
    metrics_addr: str = ""
    live_restore: bool = True
    shutdown_timeout: int = 15  # seconds that all containers together have to end, without live restore
    default_cgroupns_mode: str = "private"
    default_ipc_mode: str = "private"
    init_path: str = ""
    vault_key_file: str = ""
    default_runtime: str = "corral"
    runtimes: Mapping[str, Any] | None = None
    default_shm_size: str = "64M"
    default_ulimits: Mapping[str, Any] | None = None
    cgroup_parent: str = ""
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    init: bool = False
    userns_remap: str = ""  # see corral.engine.remap
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    builder: Mapping[str, Any] | None = None
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""

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
    "cdi-spec-dir": "cdi_spec_dirs",
    "add-runtime": "runtimes",
}
_SHORT = {"-H": "host", "-D": "debug", "-p": "pidfile", "-G": "group", "-l": "log-level", "-b": "bridge"}
_FIELDS = {field.name: field for field in fields(Config)}
_FLAG_ONLY = {"config-file", "validate", "version", "help"}

# dockerd's options that people commonly set and that can only have one meaning here.
_ALWAYS: Mapping[str, tuple[Any, ...]] = {
    "storage-driver": ("overlay2", "overlayfs"),
    "experimental": (False,),
    "selinux-enabled": (False,),
    "exec-opts": (["native.cgroupdriver=cgroupfs"],),
}

# dockerd's options that Corral does not have, and what there is instead.
_ABSENT: Mapping[str, str] = {
    "allow-direct-routing": "packets reach containers through published ports only",
    "authorization-plugins": "there are no authorization plugins",
    "bip6": "use fixed-cidr-v6",
    "bridge-accept-fwmark": "packets reach containers through published ports only",
    "containerd": "no containerd is used",
    "containerd-namespace": "no containerd is used",
    "containerd-plugins-namespace": "no containerd is used",
    "default-gateway-v6": "it is always the bridge",
    "default-network-opts": "give options to networks when they are made",
    "features": "there is nothing to switch",
    "firewall-backend": "it is always nftables",
    "ip-forward-no-drop": "the policy of the host's FORWARD chain is never changed",
    "ip6tables": "it follows iptables",
    "network-control-plane-mtu": "there is no swarm",
    "node-generic-resources": "there is no swarm",
    "oom-score-adjust": "set it in the unit of the service",
    "raw-logs": "logs have no colours",
    "storage-opts": "limit containers one by one, with --storage-opt size=",
    "swarm-default-advertise-addr": "there is no swarm",
    "userland-proxy-path": "the proxy is part of the daemon",
}


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
        if name in _ALWAYS:
            switch = isinstance(_ALWAYS[name][0], bool)
            given = _boolean(name, value or "true") if switch else value if value is not None else _next(word, rest)
            _check_always(name, given)
            continue
        _check_absent(name)
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
    _check_choices(values)
    return Config(**values)


def _read_file(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"unable to configure the daemon: invalid JSON in the configuration file: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError("unable to configure the daemon: the configuration file must hold an object")
    data |= _proxies(data.pop("proxies", {}))
    for key in _ALWAYS.keys() & data.keys():
        _check_always(key, data.pop(key))
    for key in data:
        _check_absent(key)
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


def _proxies(value: Any) -> dict[str, Any]:
    """Docker's nested object of proxies, as the keys that it stands for."""
    names = ("http-proxy", "https-proxy", "no-proxy")
    if not isinstance(value, dict) or not set(value) <= set(names):
        raise ConfigError(f"cannot use {json.dumps(value)} as the value of proxies")
    return value


def _check_type(key: str, field: str, value: Any) -> None:
    kind = str(_FIELDS[field].type)
    expected: type | tuple[type, ...] = str
    if kind.startswith("tuple"):
        expected = list
    elif kind.startswith("Mapping"):
        expected = dict
    elif kind in ("bool", "int"):
        expected = bool if kind == "bool" else int
    fits = isinstance(value, expected) and not (kind == "int" and isinstance(value, bool))
    if fits and field in _INSIDE:
        fits = all(_INSIDE[field](item) for item in (value.values() if isinstance(value, dict) else value))
    elif fits and expected in (list, dict):
        fits = all(isinstance(item, str) for item in (value.values() if isinstance(value, dict) else value))
    if not fits:
        raise ConfigError(f"cannot use {json.dumps(value)} as the value of {key}")


def _has(item: Any, **kinds: type) -> bool:
    """Whether `item` is an object whose named members all are there, of the kinds given."""
    return isinstance(item, dict) and all(type(item.get(name)) is kind for name, kind in kinds.items())


_INSIDE: Mapping[str, Callable[[Any], bool]] = {
    "registries": lambda item: isinstance(item, dict),
    "runtimes": lambda item: _has(item, path=str) and isinstance(item.get("runtimeArgs", []), list),
    "image_gc": lambda item: isinstance(item, (str, list)),
    "default_ulimits": lambda item: _has(item, Name=str, Soft=int, Hard=int),
    "default_address_pools": lambda item: _has(item, base=str, size=int),
    "builder": lambda item: isinstance(item, dict) and isinstance(item.get("defaultKeepStorage", ""), str),
}


def _check_always(name: str, value: Any) -> None:
    if value not in _ALWAYS[name]:
        raise ConfigError(f"cannot use {json.dumps(value)} as the value of {name}: Corral has no other way to work")


def _check_absent(name: str) -> None:
    singular = {"authorization-plugin": "authorization-plugins", "storage-opt": "storage-opts", "feature": "features"}
    instead = _ABSENT.get(singular.get(name, name))
    if instead is not None:
        raise ConfigError(f"Corral does not have {name}: {instead}")


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "log_format": ("text", "json"),
    "log_level": ("debug", "info", "warn", "error", "fatal"),
    "default_cgroupns_mode": ("private", "host"),
    "publish_policy": ("open", "host-firewall"),
    "default_ipc_mode": ("private", "shareable"),
}


def _check_choices(values: Mapping[str, Any]) -> None:
    for field, choices in _CHOICES.items():
        if values.get(field, choices[0]) not in choices:
            raise ConfigError(f"invalid {_key(field)}: {values[field]}: must be one of {', '.join(choices)}")
    if values.get("shutdown_timeout", 0) < -1:
        raise ConfigError("invalid shutdown-timeout: must not be less than -1")


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
        entry = {"Name": key, "Soft": _number(name, soft), "Hard": _number(name, hard or soft)}
        options.setdefault(field, {})[key] = entry
    elif field == "default_address_pools":
        pairs = dict(part.partition("=")[::2] for part in value.split(","))
        if "base" not in pairs:
            raise ConfigError(f'invalid argument "{value}" for "--{name}" flag: a pool needs base and size')
        pool = {"base": pairs["base"], "size": _number(name, pairs.get("size", ""))}
        options.setdefault(field, []).append(pool)
    elif kind.startswith("Mapping"):
        key, _, text = value.partition("=")
        options.setdefault(field, {})[key] = text
    elif kind.startswith("tuple"):
        options.setdefault(field, []).append(value)
    elif kind == "int":
        options[field] = _number(name, value)
    else:
        options[field] = value


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f'invalid argument "{text}" for "--{name}" flag: parse error') from None


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "[" + " ".join(map(str, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)
