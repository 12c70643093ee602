"""Verbs that inform and adjust: ps, update, events, spec, features."""

from __future__ import annotations

import errno
import json
import os
import select

from corral.runtime import cgroup_stats
from corral.runtime.arguments import Flags, UsageError
from corral.runtime.commands import Context, _read_json, print_table
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime.container import Container


def processes(context: Context, flags: Flags) -> int:
    """ps [--format table|json] ID [ps options]"""
    form = flags.get("format", "table")
    if form not in ("table", "json"):
        raise UsageError(f"invalid format option: {form}")
    pids = context.load(flags).pids()
    if form == "json":
        print(json.dumps(pids))
        return 0
    if len(flags.positional) > 1:
        raise UsageError("options of ps are not taken: use --format json and ps itself")
    rows = [["PID", "PPID", "UID", "COMMAND"]]
    for pid in pids:
        rows.extend(_process_row(pid))
    print_table(rows)
    return 0


def _process_row(pid: int) -> list[list[str]]:
    """One row, or none if the process has just gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            name, _, rest = file.read().partition("(")[2].rpartition(")")
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            command = file.read().replace("\0", " ").strip()
        uid = os.stat(f"/proc/{pid}").st_uid
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [[str(pid), rest.split()[1], str(uid), command or f"[{name}]"]]


_UPDATE_FLAGS = {
    "memory": ("memory", "limit"),
    "memory-swap": ("memory", "swap"),
    "memory-reservation": ("memory", "reservation"),
    "cpu-share": ("cpu", "shares"),
    "cpu-shares": ("cpu", "shares"),
    "cpu-quota": ("cpu", "quota"),
    "cpu-period": ("cpu", "period"),
    "cpu-burst": ("cpu", "burst"),
    "cpu-idle": ("cpu", "idle"),
    "cpu-rt-period": ("cpu", "realtimePeriod"),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime"),
    "pids-limit": ("pids", "limit"),
    "blkio-weight": ("blockIO", "weight"),
}
UPDATE_NAMES = ("resources", "cpuset-cpus", "cpuset-mems", *_UPDATE_FLAGS)


def update(context: Context, flags: Flags) -> int:
    """update [--resources FILE|-] [--memory BYTES] ... ID"""
    loaded = context.load(flags)
    if loaded.status() == "stopped":
        raise Failure("state", errno.ESRCH, loaded.id, "cannot update a stopped container")
    changes: dict[str, Any] = _read_json(flags.get("resources")) if flags.has("resources") else {}
    for flag, (group, key) in _UPDATE_FLAGS.items():
        if flags.has(flag):
            text = flags.get(flag)
            changes.setdefault(group, {})[key] = parse_bytes(text) if group == "memory" else flags.number(flag)
    for flag in ("cpuset-cpus", "cpuset-mems"):
        if flags.has(flag):
            changes.setdefault("cpu", {})[flag.removeprefix("cpuset-")] = flags.get(flag)
    loaded.update(changes)
    return 0


def parse_bytes(text: str) -> int:
    """A number of bytes with an optional b, k, m, g or t; -1 is unlimited."""
    units = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
    number, unit = (text[:-1], text[-1:].lower()) if text[-1:].isalpha() else (text, "b")
    if text == "-1":
        return -1
    if not number.isdigit() or unit not in units:
        raise UsageError(f"not a number of bytes: {text!r}")
    return int(number) * units[unit]


def events(context: Context, flags: Flags) -> int:
    """events [--stats] [--interval 5s] ID"""
    loaded = context.load(flags)
    if loaded.status() == "stopped":
        raise Failure("state", errno.ESRCH, loaded.id, "container not running")
    if flags.on("stats"):
        _print_stats(loaded)
        return 0
    interval = flags.get("interval", "5s").removesuffix("s")
    if not interval.replace(".", "", 1).isdigit() or float(interval) <= 0:
        raise UsageError("--interval takes seconds, such as 5s")
    seen = cgroup_stats.oom_kills(loaded.cgroup)
    pidfd = os.pidfd_open(loaded.pid)
    while not select.select([pidfd], [], [], float(interval))[0]:
        kills = cgroup_stats.oom_kills(loaded.cgroup)
        if kills > seen:
            print(json.dumps({"type": "oom", "id": loaded.id}), flush=True)
            seen = kills
        _print_stats(loaded)
    return 0


def _print_stats(loaded: Container) -> None:
    raw = loaded.stats()
    cpu, memory = raw["cpu"], raw["memory"]

    def rows(table: list[list[Any]]) -> list[dict[str, Any]]:
        return [{"major": row[0], "minor": row[1], "op": row[2], "value": row[3]} for row in table]

    usage = {key: memory[name] for key, name in (("usage", "usage"), ("max", "max_usage"), ("limit", "limit"))}
    data = {
        "cpu": {
            "usage": {
                "total": cpu["usage_ns"],
                "percpu": cpu["percpu_ns"],
                "kernel": cpu["system_ns"],
                "user": cpu["user_ns"],
            },
            "throttling": {
                "periods": cpu["periods"],
                "throttledPeriods": cpu["throttled_periods"],
                "throttledTime": cpu["throttled_ns"],
            },
        },
        "memory": {
            "cache": memory["stat"].get("cache", 0),
            "usage": dict(usage, failcnt=memory["failcnt"]),
            "raw": memory["stat"],
        },
        "pids": raw["pids"],
        "blkio": {
            "ioServiceBytesRecursive": rows(raw["blkio"]["service_bytes"]),
            "ioServicedRecursive": rows(raw["blkio"]["serviced"]),
        },
    }
    print(json.dumps({"type": "stats", "id": loaded.id, "data": data}), flush=True)


def spec(context: Context, flags: Flags) -> int:
    """spec [--bundle DIR] [--rootless]"""
    from corral.runtime import template

    path = os.path.join(flags.get("bundle", "."), "config.json")
    content = template.rootless_spec(os.getuid(), os.getgid()) if flags.on("rootless") else template.default_spec()
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(json.dumps(content, indent="\t") + "\n")
    except FileExistsError:
        raise Failure("spec", errno.EEXIST, path, "file exists. Remove it first") from None
    except OSError as error:
        raise Failure.from_os_error("spec", error, path) from error
    return 0


def features(context: Context, flags: Flags) -> int:
    """features"""
    from corral.runtime import features as known

    print(json.dumps(known.report(), indent=2))
    return 0
