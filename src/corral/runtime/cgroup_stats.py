"""Raw numbers of a container's cgroup.

cpu      usage_ns user_ns system_ns percpu_ns[] periods throttled_periods throttled_ns
memory   usage max_usage limit failcnt stat{}      bytes; limit is what the kernel says, 2^63-4096 for none
pids     current limit                             limit 0: none
blkio    service_bytes serviced                    [major, minor, operation, value]
version  1 or 2
"""

from __future__ import annotations

import os

from corral.linux import cgroupfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime.cgroup import Cgroup

_UNLIMITED = 2**63 - 4096
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")


def read(group: Cgroup) -> dict[str, Any]:
    """Everything; what the host cannot say is 0 or empty."""
    return _read2(group.paths[""]) if group.version == 2 else _read1(group.paths)


def _number(directory: str | None, name: str) -> int:
    text = _text(directory, name)
    return 0 if text in ("", "max") else int(text)


def _text(directory: str | None, name: str) -> str:
    if directory is None:
        return ""
    try:
        return cgroupfs.read(directory, name)
    except OSError:
        return ""  # the controller does not have this file on this kernel, or the cgroup has just gone


def _table(directory: str | None, name: str) -> dict[str, int]:
    result = {}
    for line in _text(directory, name).split("\n"):
        key, _, value = line.partition(" ")
        if value.isdigit():
            result[key] = int(value)
    return result


def _read1(paths: dict[str, str]) -> dict[str, Any]:
    accounting, memory = paths.get("cpuacct"), paths.get("memory")
    ticks = _table(accounting, "cpuacct.stat")
    throttling = _table(paths.get("cpu"), "cpu.stat")
    return {
        "version": 1,
        "cpu": {
            "usage_ns": _number(accounting, "cpuacct.usage"),
            "user_ns": ticks.get("user", 0) * _TICK_NS,
            "system_ns": ticks.get("system", 0) * _TICK_NS,
            "percpu_ns": [int(part) for part in _text(accounting, "cpuacct.usage_percpu").split()],
            "periods": throttling.get("nr_periods", 0),
            "throttled_periods": throttling.get("nr_throttled", 0),
            "throttled_ns": throttling.get("throttled_time", 0),
        },
        "memory": {
            "usage": _number(memory, "memory.usage_in_bytes"),
            "max_usage": _number(memory, "memory.max_usage_in_bytes"),
            "limit": _number(memory, "memory.limit_in_bytes") or _UNLIMITED,
            "failcnt": _number(memory, "memory.failcnt"),
            "stat": _table(memory, "memory.stat"),
        },
        "pids": {
            "current": _number(paths.get("pids"), "pids.current"),
            "limit": _number(paths.get("pids"), "pids.max"),
        },
        "blkio": {
            "service_bytes": _blkio1(paths.get("blkio"), "io_service_bytes"),
            "serviced": _blkio1(paths.get("blkio"), "io_serviced"),
        },
    }


def _blkio1(directory: str | None, name: str) -> list[list[Any]]:
    """The recursive counters of the weight policy if the kernel has one that counts, else those of throttling."""
    for file in (f"blkio.bfq.{name}_recursive", f"blkio.throttle.{name}_recursive", f"blkio.throttle.{name}"):
        rows: list[list[Any]] = []
        for line in _text(directory, file).split("\n"):
            parts = line.split()
            if len(parts) == 3:
                major, _, minor = parts[0].partition(":")
                rows.append([int(major), int(minor), parts[1], int(parts[2])])
        if rows:
            return rows
    return []


def _read2(directory: str) -> dict[str, Any]:
    cpu = _table(directory, "cpu.stat")
    limit = _text(directory, "memory.max")
    return {
        "version": 2,
        "cpu": {
            "usage_ns": cpu.get("usage_usec", 0) * 1000,
            "user_ns": cpu.get("user_usec", 0) * 1000,
            "system_ns": cpu.get("system_usec", 0) * 1000,
            "percpu_ns": [],
            "periods": cpu.get("nr_periods", 0),
            "throttled_periods": cpu.get("nr_throttled", 0),
            "throttled_ns": cpu.get("throttled_usec", 0) * 1000,
        },
        "memory": {
            "usage": _number(directory, "memory.current"),
            "max_usage": _number(directory, "memory.peak"),
            "limit": int(limit) if limit.isdigit() else _UNLIMITED,
            "failcnt": _table(directory, "memory.events").get("max", 0),
            "stat": _table(directory, "memory.stat"),
        },
        "pids": {"current": _number(directory, "pids.current"), "limit": _number(directory, "pids.max")},
        "blkio": _io2(directory),
    }


def _io2(directory: str) -> dict[str, list[list[Any]]]:
    service_bytes: list[list[Any]] = []
    serviced: list[list[Any]] = []
    for line in _text(directory, "io.stat").split("\n"):
        device, _, rest = line.partition(" ")
        major, _, minor = device.partition(":")
        if not (major.isdigit() and minor.isdigit()):
            continue
        for item in rest.split():
            key, _, value = item.partition("=")
            for names, rows in ((("rbytes", "wbytes"), service_bytes), (("rios", "wios"), serviced)):
                if key in names and value.isdigit():
                    rows.append([int(major), int(minor), "Read" if key[0] == "r" else "Write", int(value)])
    return {"service_bytes": service_bytes, "serviced": serviced}


def oom_kills(group: Cgroup) -> int:
    """How many processes of the cgroup the kernel has killed for want of memory."""
    if group.version == 2:
        return _table(group.paths[""], "memory.events").get("oom_kill", 0)
    return _table(group.paths.get("memory"), "memory.oom_control").get("oom_kill", 0)
