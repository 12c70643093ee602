"""What a container is created with: keyword arguments as people write them, to the body of the API.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

from corral.client.errors import BadArgument
from corral.quantities import duration_ns, parse_size

Size = int | str  # bytes, or "512m"
Duration = float | str  # seconds, or "1m30s"
Ports = Mapping[str | int, int | str | Iterable[int | str] | None]


class Options(TypedDict, total=False):
    """Keyword arguments of `create`, `run`, `fork` and `output`."""

    name: str
    env: Mapping[str, str]
    workdir: str
    user: str
    entrypoint: str | Iterable[str]
    labels: Mapping[str, str]
    hostname: str
    tty: bool
    stdin: bool  # keep standard input open
    memory: Size
    memory_swap: Size  # memory and swap together; -1 for no limit
    cpus: float
    pids: int
    shm_size: Size
    network: str
    aliases: Iterable[str]  # further names in `network`
    ports: Ports  # {"80/tcp": 8080, 53: None}; container's to host's, "127.0.0.1:8080" or None for any
    egress: Iterable[str]  # beyond Docker: what it may send to
    dns: Iterable[str]
    extra_hosts: Mapping[str, str]
    volumes: Mapping[str, str]  # place in the container to volume or folder: {"/data": "name", "/x": "/srv/x:ro"}
    mounts: Iterable[Mapping[str, Any]]  # entries of the API's Mounts
    tmpfs: Mapping[str, str]
    devices: Iterable[str]  # /dev/x, or HOST:CONTAINER:RIGHTS
    read_only: bool
    init: bool
    privileged: bool
    cap_add: Iterable[str]
    cap_drop: Iterable[str]
    security_opt: Iterable[str]
    restart: str  # always, unless-stopped, on-failure:3
    stop_signal: str
    stop_timeout: int
    auto_remove: bool
    depends_on: Iterable[str]  # beyond Docker: NAME[:started|healthy|completed]
    secrets: Iterable[str | Mapping[str, Any]]  # beyond Docker
    net_rate: str  # beyond Docker
    runtime: str
    platform: str
    api: Mapping[str, Any]  # anything else, as the API has it; merged into the body


def size(value: Size, name: str) -> int:
    """Bytes; raises BadArgument."""
    try:
        return parse_size(value) if isinstance(value, str) else int(value)
    except ValueError as error:
        raise BadArgument(f"{name}: {error}") from None


def seconds(value: Duration, name: str) -> float:
    """Raises BadArgument."""
    try:
        return duration_ns(value) / 1e9 if isinstance(value, str) else float(value)
    except ValueError as error:
        raise BadArgument(f"{name}: {error}") from None


_HOST_TEXTS = {"network": "NetworkMode", "net_rate": "NetRate", "runtime": "Runtime"}
_HOST_FLAGS = {"read_only": "ReadonlyRootfs", "init": "Init", "privileged": "Privileged", "auto_remove": "AutoRemove"}
_HOST_LISTS = {
    "cap_add": "CapAdd", "cap_drop": "CapDrop", "security_opt": "SecurityOpt", "dns": "Dns", "egress": "Egress",
    "depends_on": "DependsOn",
}  # fmt: skip
_HOST_SIZES = {"memory": "Memory", "memory_swap": "MemorySwap", "shm_size": "ShmSize"}
_CONFIG = {
    "workdir": "WorkingDir", "user": "User", "hostname": "Hostname", "tty": "Tty", "stop_signal": "StopSignal",
    "stop_timeout": "StopTimeout",
}  # fmt: skip
_OTHERS = (
    "name env entrypoint labels stdin cpus pids aliases ports extra_hosts volumes mounts tmpfs devices restart secrets "
    "platform api"
).split()
_KNOWN = {*_HOST_TEXTS, *_HOST_FLAGS, *_HOST_LISTS, *_HOST_SIZES, *_CONFIG, *_OTHERS}


def body(image: str, command: Iterable[str], options: Mapping[str, Any], *, snapshot: str = "") -> dict[str, Any]:
    """The body of `POST /containers/create`; raises TypeError for an unknown name and BadArgument for a bad value."""
    unknown = options.keys() - _KNOWN
    if unknown:
        raise TypeError(f"there is no option {min(unknown)!r}")
    found: dict[str, Any] = {"Image": image, **_named(options, _CONFIG)}
    words = _words(command, "the command")
    if words:
        found["Cmd"] = words
    if "env" in options:
        found["Env"] = [f"{key}={value}" for key, value in options["env"].items()]
    if "entrypoint" in options:
        given = options["entrypoint"]
        found["Entrypoint"] = [given] if isinstance(given, str) else list(given)
    if "labels" in options:
        found["Labels"] = dict(options["labels"])
    if options.get("stdin"):
        found |= {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
    host = _host(options)
    if snapshot:
        host["FromSnapshot"] = snapshot
    exposed, bindings = published(options.get("ports") or {})
    if exposed:
        found["ExposedPorts"], host["PortBindings"] = exposed, bindings
    found["HostConfig"] = host
    if options.get("aliases"):
        if not options.get("network"):
            raise BadArgument("aliases: need a network")
        found["NetworkingConfig"] = {"EndpointsConfig": {options["network"]: {"Aliases": list(options["aliases"])}}}
    return _merged(found, options.get("api") or {})


def _words(command: Iterable[str], name: str) -> list[str]:
    words = list(command)
    for word in words:
        if not isinstance(word, str):
            raise BadArgument(f"{name}: {word!r} is not text; give each word as an argument of its own")
    return words


def _named(options: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[name]: value for name, value in options.items() if name in names}


def _host(options: Mapping[str, Any]) -> dict[str, Any]:
    host = {**_named(options, _HOST_TEXTS), **_named(options, _HOST_FLAGS)}
    for name, value in _named(options, _HOST_LISTS).items():
        if isinstance(value, str):
            raise BadArgument(f"{name}: a list is needed, not a text")
        host[name] = list(value)
    host |= {_HOST_SIZES[name]: size(value, name) for name, value in options.items() if name in _HOST_SIZES}
    if "cpus" in options:
        host["NanoCpus"] = round(options["cpus"] * 1e9)
    if "pids" in options:
        host["PidsLimit"] = options["pids"]
    if "extra_hosts" in options:
        host["ExtraHosts"] = [f"{name}:{address}" for name, address in options["extra_hosts"].items()]
    if "volumes" in options:
        host["Binds"] = [_bind(target, source) for target, source in options["volumes"].items()]
    if "mounts" in options:
        host["Mounts"] = [dict(mount) for mount in options["mounts"]]
    if "tmpfs" in options:
        host["Tmpfs"] = dict(options["tmpfs"])
    if "devices" in options:
        host["Devices"] = [device(text) for text in options["devices"]]
    if "restart" in options:
        host["RestartPolicy"] = restart_policy(options["restart"])
    if "secrets" in options:
        given = options["secrets"]
        host["Secrets"] = [{"Source": one} if isinstance(one, str) else dict(one) for one in given]
    return host


def _bind(target: str, source: str) -> str:
    source, colon, mode = source.partition(":")
    if not target.startswith("/") or ":" in target:
        raise BadArgument(f"volumes: {target!r} is not an absolute path of the container")
    return f"{source}:{target}{colon}{mode}"


def device(text: str) -> dict[str, str]:
    """`HOST[:CONTAINER[:RIGHTS]]` as the API has it."""
    host, _, rest = text.partition(":")
    inside, _, rights = rest.partition(":")
    return {"PathOnHost": host, "PathInContainer": inside or host, "CgroupPermissions": rights or "rwm"}


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:3` as the API has it; raises BadArgument."""
    name, _, count = text.partition(":")
    if count and not count.isdecimal():
        raise BadArgument(f"restart: {count!r} is not a number")
    return {"Name": name, "MaximumRetryCount": int(count or 0)}


def published(ports: Ports) -> tuple[dict[str, dict[str, str]], dict[str, list[dict[str, str]]]]:
    """Exposed ports and their host sides; raises BadArgument."""
    exposed: dict[str, dict[str, str]] = {}
    bindings: dict[str, list[dict[str, str]]] = {}
    for inside, outside in ports.items():
        number, _, protocol = str(inside).partition("/")
        if not number.isdecimal():
            raise BadArgument(f"ports: {inside!r} is not a port of the container")
        key = f"{number}/{protocol or 'tcp'}"
        several = [outside] if outside is None or isinstance(outside, int | str) else list(outside)
        exposed[key] = {}
        bindings.setdefault(key, []).extend(_host_side(one) for one in several)
    return exposed, bindings


def _host_side(outside: int | str | None) -> dict[str, str]:
    address, _, port = ("" if outside is None else str(outside)).rpartition(":")
    if port and not port.replace("-", "", 1).isdecimal():
        raise BadArgument(f"ports: {outside!r} is not a port of the host")
    return {"HostIp": address.strip("[]"), "HostPort": port}


def _merged(ours: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(ours)
    for name, value in given.items():
        before = found.get(name)
        both = isinstance(before, dict) and isinstance(value, Mapping)
        found[name] = _merged(before, value) if both and isinstance(before, dict) else value
    return found
