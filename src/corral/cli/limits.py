"""Flags that limit or grant resources, as the API's Resources.  Pure; raises ValueError."""

from __future__ import annotations

from corral.cli import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.cli.flags import Flags

_PLAIN = {
    "CpuShares": "cpu-shares",
    "Memory": "memory",
    "NanoCpus": "cpus",
    "CgroupParent": "cgroup-parent",
    "BlkioWeight": "blkio-weight",
    "CpuPeriod": "cpu-period",
    "CpuQuota": "cpu-quota",
    "CpuRealtimePeriod": "cpu-rt-period",
    "CpuRealtimeRuntime": "cpu-rt-runtime",
    "CpusetCpus": "cpuset-cpus",
    "CpusetMems": "cpuset-mems",
    "MemoryReservation": "memory-reservation",
    "MemorySwap": "memory-swap",
}


def resources(flags: Flags) -> dict[str, Any]:
    """Everything of HostConfig that is a limit or a device."""
    swappiness = flags["memory-swappiness"]
    if swappiness != -1 and not 0 <= swappiness <= 100:
        raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    found: dict[str, Any] = {key: flags[name] for key, name in _PLAIN.items()}
    found |= {
        "BlkioWeightDevice": flags.each("blkio-weight-device", _weighted),
        "BlkioDeviceReadBps": flags.each("device-read-bps", _bytes_rate),
        "BlkioDeviceWriteBps": flags.each("device-write-bps", _bytes_rate),
        "BlkioDeviceReadIOps": flags.each("device-read-iops", _count_rate),
        "BlkioDeviceWriteIOps": flags.each("device-write-iops", _count_rate),
        "Devices": [device(item) for item in flags["device"] if not _is_cdi(item)],
        "DeviceCgroupRules": flags["device-cgroup-rule"] or None,
        "DeviceRequests": _device_requests(flags),
        "MemorySwappiness": swappiness,
        "OomKillDisable": flags["oom-kill-disable"],
        "PidsLimit": flags["pids-limit"],
        "Ulimits": sorted(flags.each("ulimit", ulimit), key=lambda one: str(one["Name"])),
    }
    return found


def ulimit(text: str) -> dict[str, Any]:
    """`nofile=1024:2048`; -1 is unlimited."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise ValueError(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise ValueError(f"invalid ulimit type: {name}")
    soft_text, colon, hard_text = limits.partition(":")
    try:
        soft = int(soft_text)
        hard = int(hard_text) if colon else soft
    except ValueError:
        raise ValueError(f"too many limit value arguments - {limits}, can only have up to two, `soft[:hard]`") from None
    if hard != -1 and (soft > hard or soft == -1):
        shown = f"{soft} > {hard}"
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {shown}")
    return {"Name": name, "Hard": hard, "Soft": soft}


_ULIMITS = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
]


def device(text: str) -> dict[str, str]:
    """`/dev/a[:/dev/b][:rwm]` as the API's DeviceMapping."""
    parts = text.split(":")
    source, target, permissions = parts[0], "", "rwm"
    if len(parts) == 3:
        target, permissions = parts[1], parts[2]
    elif len(parts) == 2:
        if _is_permissions(parts[1]):
            permissions = parts[1]
        else:
            target = parts[1]
    elif len(parts) > 3:
        raise ValueError(f"invalid device specification: {text}")
    if not _is_permissions(permissions):
        raise ValueError(f"bad mode specified: {permissions}")
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": permissions}


def _is_permissions(text: str) -> bool:
    return bool(text) and all(char in "rwm" for char in text) and len(set(text)) == len(text)


def _is_cdi(text: str) -> bool:
    """Whether it is a name of the Container Device Interface (vendor.com/class=device)."""
    vendor, slash, rest = text.partition("/")
    return bool(vendor and slash and "=" in rest) and not text.startswith("/")


def _device_requests(flags: Flags) -> list[dict[str, Any]] | None:
    cdi = [item for item in flags["device"] if _is_cdi(item)]
    found: list[dict[str, Any]] = [{"Driver": "cdi", "DeviceIDs": cdi}] if cdi else []
    if flags["gpus"]:
        found.append(_gpus(flags["gpus"]))
    return found or None


def _gpus(text: str) -> dict[str, Any]:
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
    for field in values.csv_fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", key
        match key:
            case "count":
                request["Count"] = -1 if value == "all" else values.whole(value)
            case "device":
                request["DeviceIDs"] = value.split(",")
            case "driver":
                request["Driver"] = value
            case "capabilities":
                request["Capabilities"] = [[*value.split(","), "gpu"]]
            case "options":
                request["Options"] = values.key_values(value.split(","))
            case _:
                raise ValueError(f"unexpected key '{key}' in '{field}'")
    if not request["Count"] and not request["DeviceIDs"]:
        request["Count"] = 1
    return request


def _weighted(text: str) -> dict[str, Any]:
    path, colon, weight = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    if not weight.isdigit() or (int(weight) > 0 and not 10 <= int(weight) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(weight)}


def _bytes_rate(text: str) -> dict[str, Any]:
    return _throttled(text, True)


def _count_rate(text: str) -> dict[str, Any]:
    return _throttled(text, False)


def _throttled(text: str, is_size: bool) -> dict[str, Any]:
    path, colon, rate = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    try:
        return {"Path": path, "Rate": values.size_bytes(rate) if is_size else values.whole(rate, 0)}
    except ValueError:
        unit = ". The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer"
        raise ValueError(f"invalid rate for device: {text}{unit}") from None
