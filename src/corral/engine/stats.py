"""`docker stats`: the numbers of a container's cgroup and network, in the API's form."""

from __future__ import annotations

import os
import time
from typing import Any

from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import ZERO_TIME, timestamp
from corral.engine.tasks import ShimGone
from corral.runtime.failure import Failure

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


async def sample(engine: Engine, live: Live) -> dict[str, Any]:
    """One sample, without `precpu_stats`; of a container that does not run, one without numbers."""
    shown: dict[str, Any] = {
        "name": f"/{live.record.name}",
        "id": live.id,
        "read": ZERO_TIME,
        "preread": ZERO_TIME,
        "num_procs": 0,
        "storage_stats": {},
        "pids_stats": {},
        "blkio_stats": _NO_BLOCK_IO,
        "cpu_stats": _NO_CPU,
        "precpu_stats": _NO_CPU,
        "memory_stats": {},
    }
    if not live.has_process or live.task is None:
        return shown
    try:
        raw = await live.task.request("stats")
    except (ShimGone, Failure):
        return shown
    shown |= {
        "read": timestamp(time.time_ns()),
        "pids_stats": _pids(raw["pids"]),
        "blkio_stats": _block_io(raw["blkio"]),
        "cpu_stats": _cpu(raw["cpu"], raw["version"], engine.facts.cpus),
        "memory_stats": _memory(raw["memory"], raw["version"], engine.facts.memory_bytes),
    }
    networks = interfaces(live.record.state.pid)
    if networks and live.record.host.network_mode != "host":
        shown["networks"] = networks
    return shown


_NO_CPU = {
    "cpu_usage": {"total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0},
    "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
}
_NO_BLOCK_IO = {
    "io_service_bytes_recursive": None,
    "io_serviced_recursive": None,
    "io_queue_recursive": None,
    "io_service_time_recursive": None,
    "io_wait_time_recursive": None,
    "io_merged_recursive": None,
    "io_time_recursive": None,
    "sectors_recursive": None,
}


def _pids(raw: dict[str, Any]) -> dict[str, Any]:
    shown = {"current": raw.get("current", 0)}
    limit = raw.get("limit")
    shown["limit"] = limit if isinstance(limit, int) and limit > 0 else (1 << 64) - 1
    return shown


def _block_io(raw: dict[str, Any]) -> dict[str, Any]:
    def rows(values: list[list[Any]]) -> list[dict[str, Any]]:
        return [{"major": major, "minor": minor, "op": op, "value": value} for major, minor, op, value in values]

    return {
        **_NO_BLOCK_IO,
        "io_service_bytes_recursive": rows(raw.get("service_bytes") or []),
        "io_serviced_recursive": rows(raw.get("serviced") or []),
    }


def _cpu(raw: dict[str, Any], version: int, cpus: int) -> dict[str, Any]:
    usage = {
        "total_usage": raw.get("usage_ns", 0),
        "usage_in_kernelmode": raw.get("system_ns", 0),
        "usage_in_usermode": raw.get("user_ns", 0),
    }
    if version == 1 and raw.get("percpu_ns"):
        usage["percpu_usage"] = raw["percpu_ns"]
    return {
        "cpu_usage": usage,
        "system_cpu_usage": _system_cpu_ns(),
        "online_cpus": cpus,
        "throttling_data": {
            "periods": raw.get("periods", 0),
            "throttled_periods": raw.get("throttled_periods", 0),
            "throttled_time": raw.get("throttled_ns", 0),
        },
    }


def _system_cpu_ns() -> int:
    """Time that all processors have spent, busy or idle."""
    with open("/proc/stat") as file:
        fields = file.readline().split()[1:8]
    return sum(map(int, fields)) * (1_000_000_000 // _CLOCK_TICKS)


def _memory(raw: dict[str, Any], version: int, machine_bytes: int) -> dict[str, Any]:
    limit = raw.get("limit")
    shown = {
        "usage": raw.get("usage", 0),
        "stats": raw.get("stat") or {},
        "limit": limit if isinstance(limit, int) and 0 < limit < machine_bytes else machine_bytes,
    }
    if version == 1:
        shown |= {"max_usage": raw.get("max_usage", 0), "failcnt": raw.get("failcnt", 0)}
    return shown


def interfaces(pid: int) -> dict[str, dict[str, int]]:
    """Counters of every interface but loopback, as the container's own /proc shows them."""
    try:
        with open(f"/proc/{pid}/net/dev") as file:
            lines = file.readlines()[2:]
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = list(map(int, rest.split()))
        if name.strip() != "lo":
            found[name.strip()] = {
                "rx_bytes": numbers[0],
                "rx_packets": numbers[1],
                "rx_errors": numbers[2],
                "rx_dropped": numbers[3],
                "tx_bytes": numbers[8],
                "tx_packets": numbers[9],
                "tx_errors": numbers[10],
                "tx_dropped": numbers[11],
            }
    return found
