"""`linux.resources` of the spec as writes into cgroup files, for both versions of cgroups.

Pure. A write is (controller, file, text); in version 2 the controller only says which one must be enabled.
Values: bytes, microseconds and weights exactly as the specification has them; -1 means unlimited.
"""

from __future__ import annotations

from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Write = tuple[str, str, str]

_EINVAL = 22


class Wildcard:
    """A device rule: `major` or `minor` -1 means any; `kind` a (all), b or c; `access` a set of rwm."""

    __slots__ = ("access", "kind", "major", "minor")

    def __init__(self, kind: str, major: int, minor: int, access: str) -> None:
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access

    def text(self) -> str:
        major = "*" if self.major < 0 else str(self.major)
        minor = "*" if self.minor < 0 else str(self.minor)
        return f"{self.kind} {major}:{minor} {self.access}"


# What every container may use besides its own rules: making (not opening) nodes, and the nodes it is given.
DEFAULT_ALLOWED = (
    Wildcard("c", -1, -1, "m"),
    Wildcard("b", -1, -1, "m"),
    Wildcard("c", 1, 3, "rwm"),
    Wildcard("c", 1, 5, "rwm"),
    Wildcard("c", 1, 7, "rwm"),
    Wildcard("c", 1, 8, "rwm"),
    Wildcard("c", 1, 9, "rwm"),
    Wildcard("c", 5, 0, "rwm"),
    Wildcard("c", 5, 2, "rwm"),
    Wildcard("c", 136, -1, "rwm"),
)


class DeviceRules:
    """The net effect of a list of rules: a default, and the exceptions to it."""

    __slots__ = ("allow_all", "exceptions")

    def __init__(self) -> None:
        self.allow_all = True
        self.exceptions: dict[tuple[str, int, int], set[str]] = {}

    def apply(self, allow: bool, rule: Wildcard) -> None:
        """Later rules win. Failure if a part of an earlier wildcard would have to be taken back."""
        if rule.kind == "a":
            if rule.major >= 0 or rule.minor >= 0:
                raise Failure("spec", _EINVAL, rule.text(), "a rule for all devices cannot name one")
            self.allow_all = allow
            self.exceptions = {}
            return
        key = (rule.kind, rule.major, rule.minor)
        if allow != self.allow_all:
            self.exceptions.setdefault(key, set()).update(rule.access)
            return
        for other, access in self.exceptions.items():
            wider = other != key and _covers(other, key)
            if wider and access & set(rule.access):
                raise Failure("spec", _EINVAL, rule.text(), "cannot take a part of an earlier wildcard rule back")
        for other in [other for other in self.exceptions if _covers(key, other)]:
            self.exceptions[other] -= set(rule.access)
            if not self.exceptions[other]:
                del self.exceptions[other]

    def rules(self) -> list[Wildcard]:
        """The exceptions, in the order in which they were made."""
        return [
            Wildcard(kind, major, minor, "".join(letter for letter in "rwm" if letter in access))
            for (kind, major, minor), access in self.exceptions.items()
        ]


def _covers(wide: tuple[str, int, int], narrow: tuple[str, int, int]) -> bool:
    return wide[0] == narrow[0] and (wide[1] < 0 or wide[1] == narrow[1]) and (wide[2] < 0 or wide[2] == narrow[2])


def device_rules(rules: list[dict[str, Any]], defaults: bool = True) -> DeviceRules | None:
    """The effect of the spec's rules with the default devices allowed after them; None if there are no rules."""
    if not rules:
        return None
    result = DeviceRules()
    for rule in rules:
        result.apply(bool(rule.get("allow")), _wildcard(rule))
    if defaults:
        for wildcard in DEFAULT_ALLOWED:
            result.apply(True, wildcard)
    return result


def _wildcard(rule: dict[str, Any]) -> Wildcard:
    kind = rule.get("type") or "a"
    access = rule.get("access") or "rwm"
    if kind not in ("a", "b", "c") or set(access) - set("rwm"):
        raise Failure("spec", _EINVAL, f"{kind} {access}", "not a device rule")
    major, minor = rule.get("major"), rule.get("minor")
    return Wildcard(kind, -1 if major is None else major, -1 if minor is None else minor, access)


def device_writes(rules: DeviceRules) -> list[Write]:
    """Version 1: reset to the default, then each exception."""
    head, tail = ("devices.allow", "devices.deny") if rules.allow_all else ("devices.deny", "devices.allow")
    return [("devices", head, "a"), *[("devices", tail, rule.text()) for rule in rules.rules()]]


def device_changes(old: DeviceRules, new: DeviceRules) -> list[Write]:
    """Version 1: what leads from one set of exceptions to another with the same default."""
    if old.allow_all != new.allow_all:
        return device_writes(new)
    add, drop = ("devices.deny", "devices.allow") if new.allow_all else ("devices.allow", "devices.deny")
    found: list[Write] = []
    for key in {**old.exceptions, **new.exceptions}:
        before, after = old.exceptions.get(key, set()), new.exceptions.get(key, set())
        for file, access in ((add, after - before), (drop, before - after)):
            if access:
                text = Wildcard(*key, "".join(letter for letter in "rwm" if letter in access)).text()
                found.append(("devices", file, text))
    return found


def _pick(source: dict[str, Any], table: tuple[tuple[str, str], ...], controller: str) -> list[Write]:
    return [(controller, file, str(source[key])) for key, file in table if source.get(key) is not None]


def _nonzero(source: dict[str, Any], table: tuple[tuple[str, str], ...], controller: str) -> list[Write]:
    """As `_pick`, for settings whose zero means "leave it"."""
    return [(controller, file, str(source[key])) for key, file in table if source.get(key)]


def version1(resources: dict[str, Any]) -> list[Write]:
    """The writes for version 1, devices excepted, in an order that the kernel accepts for a new cgroup."""
    if resources.get("unified"):
        raise Failure("spec", _EINVAL, "linux.resources.unified", "needs cgroup v2")
    memory = resources.get("memory") or {}
    cpu = resources.get("cpu") or {}
    writes = _memory1(memory)
    writes += _nonzero(cpu, (("shares", "cpu.shares"),), "cpu")
    # A period must fit its quota at all times: the period first, for a new cgroup has no quota.
    writes += _nonzero(cpu, (("period", "cpu.cfs_period_us"), ("quota", "cpu.cfs_quota_us")), "cpu")
    writes += _pick(cpu, (("burst", "cpu.cfs_burst_us"), ("idle", "cpu.idle")), "cpu")
    writes += _nonzero(cpu, (("realtimePeriod", "cpu.rt_period_us"), ("realtimeRuntime", "cpu.rt_runtime_us")), "cpu")
    writes += _nonzero(cpu, (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")), "cpuset")
    writes += _pids(resources)
    writes += _blkio1(resources.get("blockIO") or {})
    for limit in resources.get("hugepageLimits") or []:
        writes.append(("hugetlb", f"hugetlb.{limit['pageSize']}.limit_in_bytes", str(limit["limit"])))
    network = resources.get("network") or {}
    writes += _nonzero(network, (("classID", "net_cls.classid"),), "net_cls")
    for priority in network.get("priorities") or []:
        writes.append(("net_prio", "net_prio.ifpriomap", f"{priority['name']} {priority['priority']}"))
    return writes + _rdma(resources)


def _memory1(memory: dict[str, Any]) -> list[Write]:
    writes = _nonzero(
        memory,
        (
            ("limit", "memory.limit_in_bytes"),
            ("swap", "memory.memsw.limit_in_bytes"),
            ("reservation", "memory.soft_limit_in_bytes"),
            ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
        ),
        "memory",
    )
    if memory.get("swap") == -1 and not memory.get("limit"):
        writes = [write for write in writes if "memsw" not in write[1]]
    swappiness = memory.get("swappiness")
    if swappiness is not None and swappiness >= 0:
        if swappiness > 100:
            raise Failure("spec", _EINVAL, "linux.resources.memory.swappiness", "must be between 0 and 100")
        writes.append(("memory", "memory.swappiness", str(swappiness)))
    if memory.get("disableOOMKiller"):
        writes.append(("memory", "memory.oom_control", "1"))
    if memory.get("useHierarchy"):
        writes.append(("memory", "memory.use_hierarchy", "1"))
    return writes


def _pids(resources: dict[str, Any]) -> list[Write]:
    limit = (resources.get("pids") or {}).get("limit")
    if not limit:
        return []
    return [("pids", "pids.max", "max" if limit < 0 else str(limit))]


def _rdma(resources: dict[str, Any]) -> list[Write]:
    writes = []
    for device, limits in (resources.get("rdma") or {}).items():
        parts = [device]
        if limits.get("hcaHandles") is not None:
            parts.append(f"hca_handle={limits['hcaHandles']}")
        if limits.get("hcaObjects") is not None:
            parts.append(f"hca_object={limits['hcaObjects']}")
        writes.append(("rdma", "rdma.max", " ".join(parts)))
    return writes


_THROTTLE = (
    ("throttleReadBpsDevice", "read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "write_iops_device", "wiops"),
)


def _blkio1(block: dict[str, Any]) -> list[Write]:
    writes = _nonzero(block, (("weight", "blkio.weight"), ("leafWeight", "blkio.leaf_weight")), "blkio")
    for device in block.get("weightDevice") or []:
        name = f"{device['major']}:{device['minor']}"
        if device.get("weight"):
            writes.append(("blkio", "blkio.weight_device", f"{name} {device['weight']}"))
        if device.get("leafWeight"):
            writes.append(("blkio", "blkio.leaf_weight_device", f"{name} {device['leafWeight']}"))
    for key, file, _ in _THROTTLE:
        for device in block.get(key) or []:
            writes.append(("blkio", f"blkio.throttle.{file}", f"{device['major']}:{device['minor']} {device['rate']}"))
    return writes


def shares_to_weight(shares: int) -> int:
    """cpu.shares (2..262144, default 1024) as cpu.weight (1..10000), by the formula all runtimes share."""
    shares = min(max(shares, 2), 262144)
    return 1 + (shares - 2) * 9999 // 262142


def version2(resources: dict[str, Any]) -> list[Write]:
    """The writes for version 2, devices excepted. `unified` comes last and wins."""
    memory = resources.get("memory") or {}
    cpu = resources.get("cpu") or {}
    writes = _memory2(memory)
    if cpu.get("idle") is not None:
        writes.append(("cpu", "cpu.idle", str(cpu["idle"])))
    if cpu.get("shares") and not cpu.get("idle"):
        writes.append(("cpu", "cpu.weight", str(shares_to_weight(cpu["shares"]))))
    if cpu.get("burst") is not None and not cpu.get("quota"):
        writes.append(("cpu", "cpu.max.burst", str(cpu["burst"])))
    if cpu.get("quota") or cpu.get("period"):
        quota = cpu.get("quota") or -1
        writes.append(("cpu", "cpu.max", f"{quota if quota > 0 else 'max'} {cpu.get('period') or 100000}"))
        if cpu.get("burst") is not None:
            writes.append(("cpu", "cpu.max.burst", str(cpu["burst"])))
    if cpu.get("realtimePeriod") or cpu.get("realtimeRuntime"):
        raise Failure("spec", _EINVAL, "linux.resources.cpu", "realtime limits need cgroup v1")
    writes += _nonzero(cpu, (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")), "cpuset")
    writes += _pids(resources)
    writes += _io2(resources.get("blockIO") or {})
    for limit in resources.get("hugepageLimits") or []:
        writes.append(("hugetlb", f"hugetlb.{limit['pageSize']}.max", str(limit["limit"])))
    network = resources.get("network") or {}
    if network.get("classID") or network.get("priorities"):
        raise Failure("spec", _EINVAL, "linux.resources.network", "needs cgroup v1")
    writes += _rdma(resources)
    for file, text in (resources.get("unified") or {}).items():
        if "/" in file or "." not in file:
            raise Failure("spec", _EINVAL, file, "not a cgroup file")
        writes += [(file.partition(".")[0], file, line) for line in str(text).split("\n")]
    return writes


def _memory2(memory: dict[str, Any]) -> list[Write]:
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    writes: list[Write] = []
    if swap > 0 and (limit <= 0 or swap < limit):
        raise Failure("spec", _EINVAL, "linux.resources.memory.swap", "must be at least a limit that is set")
    # The specification's swap is memory plus swap (as version 1 counts); the file here is swap alone.
    if swap:
        writes.append(("memory", "memory.swap.max", "max" if swap < 0 else str(swap - limit)))
    if limit:
        writes.append(("memory", "memory.max", "max" if limit < 0 else str(limit)))
    reservation = memory.get("reservation")
    if reservation:
        writes.append(("memory", "memory.low", "max" if reservation < 0 else str(reservation)))
    if memory.get("disableOOMKiller"):
        raise Failure("spec", _EINVAL, "linux.resources.memory.disableOOMKiller", "needs cgroup v1")
    return writes


def _io2(block: dict[str, Any]) -> list[Write]:
    writes: list[Write] = []
    weight = block.get("weight")
    if weight:
        # blkio.weight 10..1000 against io.weight 1..10000
        writes.append(("io", "io.weight", f"default {1 + (weight - 10) * 9999 // 990}"))
    for device in block.get("weightDevice") or []:
        if device.get("weight"):
            scaled = 1 + (device["weight"] - 10) * 9999 // 990
            writes.append(("io", "io.weight", f"{device['major']}:{device['minor']} {scaled}"))
    for key, _, name in _THROTTLE:
        for device in block.get(key) or []:
            rate = device["rate"] or "max"
            writes.append(("io", "io.max", f"{device['major']}:{device['minor']} {name}={rate}"))
    return writes
