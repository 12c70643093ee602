"""What `inspect` shows on a terminal: an object as a person wants to read it.  Pure: no clock, no output.

Everything else is in the JSON, which is what a pipe or `--format json` gets.
"""

from __future__ import annotations

from corral.cli import colours
from corral.cli.units import binary_size, human_size
from corral.wire.durations import human_duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    Fields = list[tuple[str, list[str]]]
    Writer = Callable[[Mapping[str, Any], float], tuple[str, str, Fields]]

_SHORT_ID = 12
_NEVER = "0001-01-01T00:00:00Z"
_STATES = {
    "running": colours.GREEN, "healthy": colours.GREEN, "paused": colours.YELLOW, "restarting": colours.YELLOW,
    "starting": colours.YELLOW, "exited": colours.RED, "dead": colours.RED, "unhealthy": colours.RED,
}  # fmt: skip


def text(one: Mapping[str, Any], now: float, coloured: bool) -> str:
    """The summary of a container, image, network or volume; empty for anything else."""
    for mark, kind, write in _KINDS:
        if mark in one:
            name, state, fields = write(one, now)
            return _drawn(kind, name, state, fields, coloured)
    return ""


def _drawn(kind: str, name: str, state: str, fields: Fields, coloured: bool) -> str:
    def paint(shown: str, *codes: str) -> str:
        return colours.paint(_printable(shown), *codes) if coloured else _printable(shown)

    first = f"{paint(kind, colours.FAINT)} {paint(name, colours.BOLD)}"
    if state:
        first += f"  {paint(state, _STATES.get(state.partition(' ')[0], ''))}"
    width = max((len(title) for title, values in fields if values), default=0) + 2
    lines = [first]
    for title, values in fields:
        for index, value in enumerate(value for value in values if value):
            head = title if index == 0 else ""
            lines.append(f"  {paint(head.ljust(width), colours.CYAN)}{paint(value)}")
    return "\n".join(lines) + "\n"


def _printable(shown: str) -> str:
    """Without what a terminal would obey: names and variables come from anybody's images."""
    return "".join([char if char.isprintable() else repr(char)[1:-1] for char in shown])


def _when(stamp: str, now: float) -> str:
    seconds = _seconds(stamp)
    return f"{human_duration(now - seconds)} ago ({stamp[:19].replace('T', ' ')})" if seconds else ""


def _seconds(stamp: str) -> float:
    """RFC 3339 in UTC as seconds; 0 for none."""
    if not stamp or stamp == _NEVER:
        return 0
    import calendar
    import time

    try:
        return calendar.timegm(time.strptime(stamp[:19], "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return 0


def _pairs(found: Mapping[str, str] | None) -> list[str]:
    return [f"{key}={value}" for key, value in sorted((found or {}).items())]


def _words(found: Iterable[str] | None) -> str:
    """A command as it would be typed."""
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=@%+,-"
    shown = []
    for word in found or ():
        simple = word and all(char in plain for char in word)
        shown.append(word if simple else "'" + word.replace("'", "'\\''") + "'")
    return " ".join(shown)


# --- containers --------------------------------------------------------------------------------------------------


def _container(one: Mapping[str, Any], now: float) -> tuple[str, str, Fields]:
    state, config, host = one["State"], one["Config"], one["HostConfig"]
    running = state["Status"] in ("running", "paused", "restarting")
    status = state["Status"] if running or state["Status"] == "created" else f"{state['Status']} ({state['ExitCode']})"
    restart = host.get("RestartPolicy") or {}
    fields: Fields = [
        ("Id", [one["Id"][:_SHORT_ID]]),
        ("Image", [f"{config['Image']} ({one['Image'].removeprefix('sha256:')[:_SHORT_ID]})"]),
        ("Command", [_words([one["Path"], *one["Args"]])]),
        ("Created", [_when(one["Created"], now)]),
        ("Started", [_when(state["StartedAt"], now) + (f", pid {state['Pid']}" if state.get("Pid") else "")]),
        ("Finished", [] if running else [_when(state.get("FinishedAt") or "", now)]),
        ("Error", [state.get("Error") or "", "killed: out of memory" if state.get("OOMKilled") else ""]),
        ("Health", [(state.get("Health") or {}).get("Status") or ""]),
        ("Restart", [_restart(restart, one.get("RestartCount") or 0)]),
        ("User", [config.get("User") or ""]),
        ("Directory", [config.get("WorkingDir") or ""]),
        ("Ports", list(_ports(one["NetworkSettings"].get("Ports") or {}))),
        ("Networks", list(_attached(one["NetworkSettings"].get("Networks") or {}))),
        ("Mounts", [_mount(mount) for mount in one.get("Mounts") or ()]),
        ("Limits", list(_limits(host))),
        ("Security", list(_security(host))),
        ("Logs", [(host.get("LogConfig") or {}).get("Type") or ""]),
        ("Environment", list(config.get("Env") or ())),
        ("Labels", _pairs(config.get("Labels"))),
        ("Size", [human_size(float(one["SizeRw"]), 3)] if one.get("SizeRw") else []),
    ]
    return one["Name"].removeprefix("/"), status, fields


def _restart(policy: Mapping[str, Any], count: int) -> str:
    name = policy.get("Name") or "no"
    if name == "no":
        return ""
    most = f", at most {policy['MaximumRetryCount']} times" if policy.get("MaximumRetryCount") else ""
    return f"{name}{most}" + (f" (has been restarted {count} times)" if count else "")


def _ports(found: Mapping[str, Any]) -> Iterable[str]:
    for port, bindings in found.items():
        if not bindings:
            yield f"{port} (not published)"
        for binding in bindings or ():
            address = binding.get("HostIp") or ""
            shown = f"[{address}]" if ":" in address else address
            yield f"{shown}:{binding['HostPort']} -> {port}"


def _attached(found: Mapping[str, Any]) -> Iterable[str]:
    for name, end in found.items():
        addresses = [address for address in (end.get("IPAddress"), end.get("GlobalIPv6Address")) if address]
        aliases = f" as {', '.join(end['Aliases'])}" if end.get("Aliases") else ""
        yield f"{name}{' ' if addresses else ''}{', '.join(addresses)}{aliases}"


def _mount(mount: Mapping[str, Any]) -> str:
    source = mount.get("Name") if mount["Type"] == "volume" else mount.get("Source")
    return f"{mount['Type']} {source or ''} -> {mount['Destination']}" + ("" if mount.get("RW") else " (read-only)")


def _limits(host: Mapping[str, Any]) -> Iterable[str]:
    if host.get("Memory"):
        yield f"memory {binary_size(float(host['Memory']))}"
    if host.get("NanoCpus"):
        yield f"CPUs {host['NanoCpus'] / 1e9:g}"
    if host.get("CpuQuota"):
        yield f"CPU time {host['CpuQuota']} of {host.get('CpuPeriod') or 100000} us"
    if host.get("CpusetCpus"):
        yield f"CPU numbers {host['CpusetCpus']}"
    if (host.get("PidsLimit") or 0) > 0:
        yield f"processes {host['PidsLimit']}"


def _security(host: Mapping[str, Any]) -> Iterable[str]:
    if host.get("Privileged"):
        yield "privileged"
    if host.get("ReadonlyRootfs"):
        yield "read-only root"
    yield from (f"+{name}" for name in host.get("CapAdd") or ())
    yield from (f"-{name}" for name in host.get("CapDrop") or ())
    yield from host.get("SecurityOpt") or ()
    for kind in ("Pid", "Ipc", "Uts", "Userns"):
        if host.get(f"{kind}Mode") == "host":
            yield f"{kind.lower()} of the host"


# --- images, networks, volumes -----------------------------------------------------------------------------------


def _image(one: Mapping[str, Any], now: float) -> tuple[str, str, Fields]:
    config = one.get("Config") or {}
    names = one.get("RepoTags") or []
    platform = "/".join(filter(None, (one.get("Os"), one.get("Architecture"), one.get("Variant"))))
    fields: Fields = [
        ("Id", [one["Id"]]),
        ("Names", names[1:]),
        ("Digests", list(one.get("RepoDigests") or ())),
        ("Created", [_when(one.get("Created") or "", now)]),
        ("Platform", [platform]),
        ("Size", [f"{human_size(float(one['Size']), 3)} in {len(one['RootFS'].get('Layers') or ())} layers"]),
        ("Author", [one.get("Author") or ""]),
        ("Entrypoint", [_words(config.get("Entrypoint"))]),
        ("Command", [_words(config.get("Cmd"))]),
        ("User", [config.get("User") or ""]),
        ("Directory", [config.get("WorkingDir") or ""]),
        ("Ports", sorted(config.get("ExposedPorts") or ())),
        ("Volumes", sorted(config.get("Volumes") or ())),
        ("Environment", list(config.get("Env") or ())),
        ("Labels", _pairs(config.get("Labels"))),
    ]
    return names[0] if names else one["Id"].removeprefix("sha256:")[:_SHORT_ID], "", fields


def _network(one: Mapping[str, Any], now: float) -> tuple[str, str, Fields]:
    pools = [
        f"{pool.get('Subnet', '')}" + (f", gateway {pool['Gateway']}" if pool.get("Gateway") else "")
        for pool in (one.get("IPAM") or {}).get("Config") or ()
    ]
    ends = [
        " ".join(
            filter(None, (end.get("Name") or identity[:_SHORT_ID], end.get("IPv4Address"), end.get("IPv6Address")))
        )
        for identity, end in (one.get("Containers") or {}).items()
    ]
    marks = [word for key, word in (("Internal", "internal"), ("EnableIPv6", "IPv6")) if one.get(key)]
    fields: Fields = [
        ("Id", [one["Id"][:_SHORT_ID]]),
        ("Driver", [", ".join([one["Driver"], *marks])]),
        ("Created", [_when(one.get("Created") or "", now)]),
        ("Subnets", pools),
        ("Containers", sorted(ends)),
        ("Options", _pairs(one.get("Options"))),
        ("Labels", _pairs(one.get("Labels"))),
    ]
    return one["Name"], "", fields


def _volume(one: Mapping[str, Any], now: float) -> tuple[str, str, Fields]:
    fields: Fields = [
        ("Driver", [one["Driver"]]),
        ("Created", [_when(one.get("CreatedAt") or "", now)]),
        ("Place", [one["Mountpoint"]]),
        ("Options", _pairs(one.get("Options"))),
        ("Labels", _pairs(one.get("Labels"))),
    ]
    return one["Name"], "", fields


# A field that only this kind has; its name; how it is written.
_KINDS: tuple[tuple[str, str, Writer], ...] = (
    ("HostConfig", "container", _container),
    ("RootFS", "image", _image),
    ("IPAM", "network", _network),
    ("Mountpoint", "volume", _volume),
)
