"""What is there and what is missing on a machine, and what to do about it.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from corral.installation.facts import Facts

OK, NOTE, GAP = "ok", "note", "gap"
_OLDEST = (5, 9)
_LAYERS_MAPPED = (5, 19)
_LEAST_FREE_BYTES = 1 << 30
_NEEDED = {1: ("cpu", "cpuacct", "devices", "freezer", "memory", "pids"), 2: ("cpu", "memory", "pids")}
_WANTED = {1: ("blkio", "cpuset"), 2: ("cpuset", "io")}
_NAMESPACES = ("mount", "pid", "network", "ipc", "uts", "cgroup")
_PROGRAMS = {
    "ps": ("`top` of a container shows its processes with it", "apt-get install procps"),
    "mmdebstrap": ("`corral quickstart` makes its image with it", "apt-get install mmdebstrap"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.  A note limits something, a gap keeps containers from running."""

    name: str
    state: str
    found: str
    remedy: str = ""


def judge(facts: Facts) -> list[Finding]:
    """Everything that was looked at, in the order in which it is shown."""
    return [
        _kernel(facts), *_namespaces(facts), *_cgroups(facts), *_files(facts), *_network(facts), _seccomp(facts),
        *_users(facts), _disk(facts), *_programs(facts), _systemd(facts),
    ]  # fmt: skip


def has_gap(findings: list[Finding]) -> bool:
    """Whether containers cannot run."""
    return any(one.state == GAP for one in findings)


def _kernel(facts: Facts) -> Finding:
    if facts.kernel_version < _OLDEST:
        return Finding("kernel", GAP, facts.kernel, "install Linux 5.9 or newer")
    return Finding("kernel", OK, facts.kernel)


def _tried(facts: Facts, what: str, name: str, remedy: str, worse: str = GAP) -> Finding:
    reason = facts.failures[what]
    return Finding(name, worse, reason, remedy) if reason else Finding(name, OK, "works")


def _namespaces(facts: Facts) -> Iterator[Finding]:
    if not facts.is_root:
        yield Finding("root", GAP, "this is not root, who alone can try most things", "sudo corral setup --check")
        return
    failed = [f"{name}: {facts.failures[name]}" for name in _NAMESPACES if facts.failures[name]]
    if failed:
        yield Finding("namespaces", GAP, "; ".join(failed), "a kernel with CONFIG_NAMESPACES; not within a container")
    else:
        yield Finding("namespaces", OK, " ".join(_NAMESPACES))


def _cgroups(facts: Facts) -> Iterator[Finding]:
    name = f"cgroup v{facts.cgroup_version}"
    missing = [one for one in _NEEDED[facts.cgroup_version] if one not in facts.controllers]
    limits = [one for one in _WANTED[facts.cgroup_version] if one not in facts.controllers]
    shown = " ".join(sorted(facts.controllers)) or "no controllers"
    if missing:
        remedy = "start the machine with systemd.unified_cgroup_hierarchy=1 and without cgroup_disable="
        yield Finding(name, GAP, f"{shown}; not {' '.join(missing)}", remedy)
    elif limits:
        yield Finding(name, NOTE, f"{shown}; not {' '.join(limits)}", "their limits are refused: use another kernel")
    else:
        yield Finding(name, OK, shown)


def _files(facts: Facts) -> Iterator[Finding]:
    if not facts.is_root:
        return
    yield _tried(facts, "overlayfs", "overlayfs", "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS")
    if facts.kernel_version < _LAYERS_MAPPED:
        reason = f"Linux {facts.kernel}: layers can be mapped from 5.19 on"
        yield Finding("idmapped mounts", NOTE, reason, "needed for --userns-remap alone: use a newer kernel")
    else:
        remedy = f"needed for --userns-remap alone: put {facts.data_root} on ext4, xfs or btrfs"
        yield _tried(facts, "idmapped mounts", "idmapped mounts", remedy, NOTE)
    if facts.project_quotas:
        yield Finding("project quotas", OK, "enforced")
    else:
        remedy = (
            f"mount the file system of {facts.data_root} with prjquota: sizes of volumes and containers are refused"
        )
        yield Finding("project quotas", NOTE, "not enforced", remedy)


def _network(facts: Facts) -> Iterator[Finding]:
    if facts.nftables:
        yield Finding(
            "nftables", GAP, facts.nftables, "apt-get install libnftables1, and a kernel with CONFIG_NF_TABLES"
        )
    elif facts.is_root:
        yield Finding("nftables", OK, "works")
    if facts.is_root:
        yield _tried(facts, "bridge", "bridge", "modprobe bridge, or a kernel with CONFIG_BRIDGE")
        yield _tried(facts, "veth", "veth", "modprobe veth, or a kernel with CONFIG_VETH")


def _seccomp(facts: Facts) -> Finding:
    if facts.seccomp_filters:
        return Finding("seccomp", OK, "filters")
    return Finding("seccomp", GAP, "no filters", "a kernel with CONFIG_SECCOMP_FILTER")


def _users(facts: Facts) -> Iterator[Finding]:
    yield _tried(
        facts, "user", "user namespaces",
        "needed for --userns-remap alone: sysctl -w user.max_user_namespaces=15000", NOTE,
    )  # fmt: skip
    if facts.mapped_user:
        yield Finding("id maps", OK, f"{facts.mapped_user} in /etc/subuid and /etc/subgid")
    else:
        remedy = "needed for --userns-remap alone: corrald --userns-remap default makes them"
        yield Finding("id maps", NOTE, "no range for dockremap in /etc/subuid and /etc/subgid", remedy)


def _disk(facts: Facts) -> Finding:
    found = f"{facts.free_bytes / 1e9:.1f} of {facts.total_bytes / 1e9:.1f} GB free for {facts.data_root}"
    if facts.free_bytes < _LEAST_FREE_BYTES:
        return Finding("disk", GAP, found, "make room, or give corrald a --data-root elsewhere")
    return Finding("disk", OK, found)


def _programs(facts: Facts) -> Iterator[Finding]:
    for name in facts.missing_programs:
        reason, remedy = _PROGRAMS[name]
        yield Finding(name, NOTE, f"not there: {reason}", remedy)


def _systemd(facts: Facts) -> Finding:
    if facts.systemd:
        return Finding("systemd", OK, "running")
    return Finding("systemd", NOTE, "not running", "start corrald by other means: the units do nothing here")
