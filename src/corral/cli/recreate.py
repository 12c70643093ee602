"""`inspect --as run|compose`: the command, or the Compose fragment, that would make a container again.  Pure.

Only what differs from what the image and the engine would do by themselves is said.
"""

from __future__ import annotations

import shlex

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_MOUNT_KINDS = ("bind", "volume")


def as_run(container: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """A `corral run` command, a flag a line."""
    words = [f"--name {shlex.quote(container['Name'].lstrip('/'))}"]
    for flag, value in _flags(container, image):
        words.append(f"--{flag}" if value is True else f"--{flag} {shlex.quote(value)}")
    base = [] if container["HostConfig"].get("FromSnapshot") else [container["Config"]["Image"]]
    tail = " ".join(map(shlex.quote, [*base, *_command(container, image)]))
    return " \\\n  ".join(["corral run -d", *words, tail]) + "\n"


def as_compose(container: Mapping[str, Any], image: Mapping[str, Any]) -> str:
    """A service of a Compose file, in YAML (whose scalars are JSON's)."""
    service: dict[str, Any] = {"image": container["Config"]["Image"], "container_name": container["Name"].lstrip("/")}
    if command := _command(container, image):
        service["command"] = command
    lists: dict[str, list[str]] = {}
    for flag, value in _flags(container, image):
        key = _COMPOSE.get(flag)
        if key is None:
            continue
        if key in _SINGLE:
            service[key] = value
        else:
            lists.setdefault(key, []).append(str(value))
    service |= lists
    name = container["Config"].get("Labels", {}).get("com.docker.compose.service") or container["Name"].lstrip("/")
    lines = ["services:", f"  {name}:"]
    for key, value in service.items():
        if isinstance(value, list):
            lines += [f"    {key}:", *(f"      - {_scalar(item)}" for item in value)]
        else:
            lines.append(f"    {key}: {_scalar(value)}")
    return "\n".join(lines) + "\n"


_COMPOSE = {
    "env": "environment", "label": "labels", "publish": "ports", "mount-short": "volumes", "volume": "volumes",
    "restart": "restart", "user": "user", "workdir": "working_dir", "hostname": "hostname", "network": "network_mode",
    "cap-add": "cap_add", "cap-drop": "cap_drop", "privileged": "privileged", "read-only": "read_only",
    "memory": "mem_limit", "cpus": "cpus", "pids-limit": "pids_limit", "entrypoint": "entrypoint", "tty": "tty",
    "interactive": "stdin_open", "init": "init", "device": "devices", "security-opt": "security_opt",
    "add-host": "extra_hosts", "dns": "dns", "tmpfs": "tmpfs", "group-add": "group_add", "pid": "pid", "ipc": "ipc",
    "stop-signal": "stop_signal",
}  # fmt: skip
_SINGLE = frozenset(
    """restart user working_dir hostname network_mode privileged read_only mem_limit cpus pids_limit entrypoint tty
    stdin_open init pid ipc stop_signal""".split()
)


def _scalar(value: Any) -> str:
    from corral import jsontext

    return jsontext.dumps(value)


def _command(container: Mapping[str, Any], image: Mapping[str, Any]) -> list[str]:
    config, base = container["Config"], image.get("Config") or {}
    own_entry = (config.get("Entrypoint") or []) != (base.get("Entrypoint") or [])
    command = list(config.get("Cmd") or [])
    rest = list(config["Entrypoint"] or [])[1:] if own_entry and config.get("Entrypoint") else []
    return [*rest, *command] if own_entry or command != (base.get("Cmd") or []) else []


def _flags(container: Mapping[str, Any], image: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    config, host, base = container["Config"], container["HostConfig"], image.get("Config") or {}
    yield from _of_config(container, config, base)
    yield from _of_host(host)
    yield from _of_limits(host)
    for key, bindings in (host.get("PortBindings") or {}).items():
        for one in bindings or []:
            address = f"{one['HostIp']}:" if one.get("HostIp") else ""
            port = key.removesuffix("/tcp")
            yield "publish", f"{address}{one['HostPort']}:{port}" if one.get("HostPort") else f"{address}{port}"
    yield from _of_mounts(container, host)


def _of_config(
    container: Mapping[str, Any], config: Mapping[str, Any], base: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    for entry in config.get("Env") or []:
        if entry not in (base.get("Env") or []):
            yield "env", entry
    for name, value in (config.get("Labels") or {}).items():
        if (base.get("Labels") or {}).get(name) != value and not name.startswith("com.docker.compose."):
            yield "label", f"{name}={value}"
    for flag, key in (("user", "User"), ("workdir", "WorkingDir"), ("stop-signal", "StopSignal")):
        if config.get(key) and config[key] != base.get(key):
            yield flag, config[key]
    if config.get("Hostname") and config["Hostname"] != container["Id"][:12]:
        yield "hostname", config["Hostname"]
    if (config.get("Entrypoint") or []) != (base.get("Entrypoint") or []):
        yield "entrypoint", (config.get("Entrypoint") or [""])[0]
    for flag, key in (("tty", "Tty"), ("interactive", "OpenStdin")):
        if config.get(key):
            yield flag, True


def _of_host(host: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    policy = host.get("RestartPolicy") or {}
    if policy.get("Name") not in ("", "no", None):
        count = policy.get("MaximumRetryCount")
        yield "restart", f"{policy['Name']}:{count}" if count else policy["Name"]
    if host.get("NetworkMode") not in ("", "default", "bridge", None):
        yield "network", host["NetworkMode"]
    for flag, key in (("pid", "PidMode"), ("ipc", "IpcMode")):
        if host.get(key) not in ("", "private", None):
            yield flag, host[key]
    if host.get("FromSnapshot"):
        yield "from-snapshot", host["FromSnapshot"]
    if host.get("NetRate"):
        yield "net-rate", host["NetRate"]
    for rule in host.get("Egress") or []:
        yield "egress", rule
    for flag, key in (
        ("cap-add", "CapAdd"), ("cap-drop", "CapDrop"), ("security-opt", "SecurityOpt"), ("add-host", "ExtraHosts"),
        ("dns", "Dns"), ("group-add", "GroupAdd"), ("depends-on", "DependsOn"),
    ):  # fmt: skip
        for value in host.get(key) or []:
            yield flag, value
    for flag, key in (("privileged", "Privileged"), ("read-only", "ReadonlyRootfs"), ("init", "Init")):
        if host.get(key):
            yield flag, True
    for one in host.get("Devices") or []:
        yield "device", f"{one['PathOnHost']}:{one['PathInContainer']}:{one['CgroupPermissions']}"
    for path, options in (host.get("Tmpfs") or {}).items():
        yield "tmpfs", f"{path}:{options}" if options else path


def _of_limits(host: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if host.get("Memory"):
        yield "memory", str(host["Memory"])
    if host.get("NanoCpus"):
        yield "cpus", f"{host['NanoCpus'] / 1e9:g}"
    if host.get("PidsLimit"):
        yield "pids-limit", str(host["PidsLimit"])


def _of_mounts(container: Mapping[str, Any], host: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for bind in host.get("Binds") or []:
        yield "volume", bind
    told = {bind.split(":")[1] for bind in host.get("Binds") or [] if ":" in bind}
    for one in container.get("Mounts") or []:
        if one["Destination"] in told or one["Type"] not in _MOUNT_KINDS:
            continue
        source = one.get("Name") or one["Source"]
        if one["Type"] == "volume" and len(source) == 64:
            continue  # anonymous: it is made anew
        yield "volume", f"{source}:{one['Destination']}" + ("" if one.get("RW", True) else ":ro")
