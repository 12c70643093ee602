"""What clients are shown of containers: the objects of inspect and list."""

from __future__ import annotations

import calendar
import time
from typing import Any

import msgspec

from corral.engine import profiles
from corral.engine.context import Engine
from corral.engine.execs import Exec
from corral.engine.live import Live
from corral.engine.record import Container, MountPoint
from corral.errors import NotFound
from corral.net.model import Endpoint
from corral.wire.durations import human_duration

_OMITTED_WHEN_EMPTY = ("Healthcheck", "StopSignal", "StopTimeout", "Shell", "MacAddress", "ArgsEscaped")


def container(engine: Engine, live: Live, *, size: bool = False) -> dict[str, Any]:
    """`GET /containers/{id}/json`."""
    record = live.record
    state = record.state
    argv = record.argv
    shown = {
        "Id": record.id,
        "Created": record.created,
        "Path": argv[0] if argv else "",
        "Args": argv[1:],
        "State": _state(live),
        "Image": record.image_id,
        "ResolvConfPath": engine.paths.file(record.id, "resolv.conf"),
        "HostnamePath": engine.paths.file(record.id, "hostname"),
        "HostsPath": engine.paths.file(record.id, "hosts"),
        "LogPath": engine.paths.file(record.id, record.log_path) if record.host.log_config.type == "json-file" else "",
        "Name": f"/{record.name}",
        "RestartCount": state.restarts,
        "Driver": "overlayfs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(live.exec_ids) or None,
        "HostConfig": _host_config(record),
        "GraphDriver": {"Name": "overlayfs", "Data": None},
        "Mounts": [mount(point) for point in record.mounts if point.type != "tmpfs" or point.from_spec],
        "Config": config(record),
        "NetworkSettings": _network_settings(live),
    }
    if size:
        own, total = sizes(engine, record)
        shown |= {"SizeRw": own, "SizeRootFs": total}
    return shown


def sizes(engine: Engine, record: Container) -> tuple[int, int]:
    """Bytes of the container's own layer, and with the image below it."""
    own = engine.snapshots.usage(record.id).bytes
    try:
        below = engine.images.get(record.image_id).size
    except NotFound:  # removed by force, under the container
        below = 0
    return own, own + below


def _state(live: Live) -> dict[str, Any]:
    state = live.record.state
    health = {"Health": live.health.shown()} if live.health is not None else {}
    return {
        "Status": state.status,
        "Running": state.status in ("running", "paused", "restarting"),
        "Paused": state.status == "paused",
        "Restarting": state.status == "restarting",
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
        **health,
    }


def config(record: Container) -> dict[str, Any]:
    """The portable part, as inspect echoes it."""
    shown: dict[str, Any] = msgspec.to_builtins(record.config)
    for name in _OMITTED_WHEN_EMPTY:
        if not shown[name]:
            del shown[name]
    if record.config.stop_timeout is not None:
        shown["StopTimeout"] = record.config.stop_timeout
    shown["Labels"] = shown["Labels"] or {}
    if not shown["ExposedPorts"]:
        del shown["ExposedPorts"]
    return shown


def _host_config(record: Container) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(record.host)
    if record.host.masked_paths is None:
        shown["MaskedPaths"] = None if record.host.privileged else list(profiles.MASKED_PATHS)
    if record.host.readonly_paths is None:
        shown["ReadonlyPaths"] = None if record.host.privileged else list(profiles.READONLY_PATHS)
    for name in (
        "Mounts",
        "Tmpfs",
        "Sysctls",
        "StorageOpt",
        "Annotations",
        "Init",
        "RestartOptions",
        "NetRate",
        "Egress",
        "DependsOn",
        "Secrets",
        "Configs",
        "FromSnapshot",
    ):
        if shown[name] in (None, ""):
            del shown[name]
    shown["PortBindings"] = shown["PortBindings"] or {}
    return shown


def mount(point: MountPoint) -> dict[str, Any]:
    """One entry of `Mounts`."""
    shown: dict[str, Any] = {"Type": point.type}
    if point.name:
        shown["Name"] = point.name
    shown |= {"Source": point.source, "Destination": point.destination}
    if point.driver:
        shown["Driver"] = point.driver
    return shown | {"Mode": point.mode, "RW": point.rw, "Propagation": point.propagation}


def _network_settings(live: Live) -> dict[str, Any]:
    record = live.record
    first = next((endpoint for endpoint in record.endpoints if endpoint.network_name == "bridge"), None)
    sandbox = f"/proc/{record.state.pid}/ns/net" if live.has_process else ""
    shown: dict[str, Any] = {
        "Bridge": "",
        "SandboxID": record.id if record.endpoints else "",
        "SandboxKey": sandbox,
        "Ports": ports(live),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
    }
    shown |= _addresses(first)
    shown["Networks"] = networks(record)
    return shown


def ports(live: Live) -> dict[str, Any]:
    """`NetworkSettings.Ports`: every exposed or published port, with its host sides while it runs."""
    record = live.record
    if not live.has_process:
        return {}
    found: dict[str, Any] = dict.fromkeys(record.config.exposed_ports or {})
    for binding in record.ports:
        key = f"{binding.container_port}/{binding.proto}"
        entry = {"HostIp": binding.host_ip or "0.0.0.0", "HostPort": str(binding.host_port or "")}
        found[key] = [*(found.get(key) or []), entry]
    return found


def networks(record: Container) -> dict[str, Any]:
    """`NetworkSettings.Networks`."""
    running = {endpoint.network_name: endpoint for endpoint in record.endpoints}
    running |= {endpoint.network_id: endpoint for endpoint in record.endpoints}
    found = {}
    for name, asked in record.networks.items():
        endpoint = running.get(name)
        found[endpoint.network_name if endpoint else name] = {
            "IPAMConfig": msgspec.to_builtins(asked.ipam_config) if asked.ipam_config else None,
            "Links": asked.links,
            "Aliases": asked.aliases,
            "DriverOpts": asked.driver_opts,
            "GwPriority": asked.gw_priority,
            "NetworkID": endpoint.network_id if endpoint else asked.network_id,
            **_addresses(endpoint),
            "DNSNames": list(endpoint.dns_names) if endpoint and endpoint.dns_names else None,
        }
    return found


def _addresses(endpoint: Endpoint | None) -> dict[str, Any]:
    return {
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.ipv4 if endpoint else "",
        "IPPrefixLen": endpoint.prefix_len if endpoint else 0,
        "IPv6Gateway": endpoint.gateway6 if endpoint else "",
        "GlobalIPv6Address": endpoint.ipv6 if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.prefix6 if endpoint else 0,
        "MacAddress": endpoint.mac if endpoint else "",
    }


def summary(engine: Engine, live: Live, *, size: bool = False) -> dict[str, Any]:
    """One entry of `GET /containers/json`."""
    record = live.record
    shown: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.image_ref,
        "ImageID": record.image_id,
        "Command": _command_line(record.argv),
        "Created": record.created_ns // 1_000_000_000,
        "Ports": _port_list(live),
        "Labels": record.config.labels or {},
        "State": record.state.status,
        "Status": status_text(live),
        "HostConfig": {"NetworkMode": record.host.network_mode},
        "NetworkSettings": {"Networks": networks(record)},
        "Mounts": [mount(point) for point in record.mounts if point.type != "tmpfs"],
    }
    if record.host.annotations:
        shown["HostConfig"]["Annotations"] = record.host.annotations
    if size:
        own, total = sizes(engine, record)
        shown |= {"SizeRw": own, "SizeRootFs": total}
    return shown


def _command_line(argv: list[str]) -> str:
    return " ".join(f"'{word}'" if " " in word else word for word in argv)


def _port_list(live: Live) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for key, hosts in ports(live).items():
        number, _, proto = key.partition("/")
        if not hosts:
            found.append({"PrivatePort": int(number), "Type": proto or "tcp"})
        for host in hosts or []:
            found.append(
                {
                    "IP": host["HostIp"],
                    "PrivatePort": int(number),
                    "PublicPort": int(host["HostPort"]),
                    "Type": proto or "tcp",
                }
            )
    return found


def status_text(live: Live) -> str:
    """`Up 3 minutes`, `Exited (0) 2 hours ago`, ... as the STATUS column shows it."""
    state = live.record.state
    if state.status == "running":
        words = {"starting": "health: starting"}.get(live.health.status, live.health.status) if live.health else ""
        return f"Up {_since(state.started_at)}" + (f" ({words})" if words else "")
    if state.status == "paused":
        return f"Up {_since(state.started_at)} (Paused)"
    if state.status == "restarting":
        return f"Restarting ({state.exit_code}) {_since(state.finished_at)} ago"
    if state.status == "exited":
        return f"Exited ({state.exit_code}) {_since(state.finished_at)} ago"
    return {"created": "Created", "removing": "Removal In Progress", "dead": "Dead"}[state.status]


def seconds_of(timestamp: str) -> float:
    """An RFC 3339 time in UTC as seconds since 1970."""
    whole = time.strptime(timestamp[:19], "%Y-%m-%dT%H:%M:%S")
    fraction = timestamp[19:].rstrip("Z")
    return calendar.timegm(whole) + (float(fraction) if fraction else 0.0)


def _since(timestamp: str) -> str:
    return human_duration(max(0.0, time.time() - seconds_of(timestamp)))


def exec_instance(found: Exec) -> dict[str, Any]:
    """`GET /exec/{id}/json`."""
    request = found.request
    beyond = {"TimedOut": found.timed_out, "OOMKilled": found.oom_killed}
    return {
        **{name: True for name, said in beyond.items() if said},
        "ID": found.id,
        "Running": found.running,
        "ExitCode": found.exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": found.argv[0],
            "arguments": found.argv[1:],
            "privileged": request.privileged,
            **({"user": request.user} if request.user else {}),
        },
        "OpenStdin": request.attach_stdin,
        "OpenStderr": request.attach_stderr,
        "OpenStdout": request.attach_stdout,
        "CanRemove": False,
        "ContainerID": found.live.id,
        "DetachKeys": found.detach_keys if request.detach_keys else b"",  # as JSON has bytes: base64
        "Pid": found.pid,
    }
