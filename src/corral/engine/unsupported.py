"""What a create request may say in Docker's API and this engine or this kernel cannot do.

What the engine cannot do is refused, so that nobody relies on it; what the kernel cannot limit is dropped with
Docker's warning, as in Docker.

`docs/compatibility.md` tells users the same; a field that is neither refused here nor used anywhere belongs in it.
"""

from __future__ import annotations

from collections.abc import Iterable

from corral.engine.hostfacts import HostFacts
from corral.errors import InvalidParameter, Unsupported
from corral.wire.containers import HostConfig, Resources


class NotSupported(Unsupported):
    """A part of a request that this engine cannot fulfil."""


class NoRealtime(InvalidParameter):
    """Real-time limits on a kernel without them for groups."""


def check(host: HostConfig, *, confining: frozenset[str], quotas: bool) -> None:
    """Raise NotSupported for what would otherwise be ignored.

    `confining` are security modules this kernel enforces, `quotas` is whether snapshots can be limited.
    """
    if host.storage_opt and not quotas:
        raise NotSupported(
            "--storage-opt is supported only for overlay over xfs or ext4 with project quotas "
            "('pquota' or 'prjquota' mount option)"
        )
    if host.cgroup:
        raise NotSupported("joining the cgroup of another container is not supported")
    _check_labels(host.security_opt or (), confining)


def _check_labels(options: Iterable[str], confining: frozenset[str]) -> None:
    """A profile or label asked for by name is an error where the kernel would enforce it and we do not set it."""
    for option in options:
        key, _, value = option.replace(":", "=", 1).partition("=")
        module = {"apparmor": "apparmor", "label": "selinux"}.get(key)
        if module in confining and value not in ("unconfined", "disable"):
            raise NotSupported(
                f"security option {option} is not supported: containers are not confined by {module} yet"
            )


_CANNOT = "Your kernel does not support {what} or the cgroup is not mounted. {told}"


def discard(host: HostConfig, facts: HostFacts) -> list[str]:
    """Drop the limits that this kernel does not have; Docker's warnings about them."""
    warnings: list[str] = []

    def drop(what: str, told: str, **values: object) -> None:
        for name, value in values.items():
            setattr(host, name, value)
        warnings.append(_CANNOT.format(what=what, told=told))

    if host.memory and "memory" not in facts.controllers:
        drop("memory limit capabilities", "Limitation discarded.", memory=0, memory_swap=0, memory_reservation=0)
    if host.memory and not facts.swap_accounting:
        drop("swap limit capabilities", "Memory limited without swap.", memory_swap=-1)
    if host.memory_swappiness is not None and facts.cgroup_version == 2:
        drop("memory swappiness capabilities", "Memory swappiness discarded.", memory_swappiness=None)
    if host.oom_kill_disable and facts.cgroup_version == 2:
        drop("OomKillDisable", "OomKillDisable discarded.", oom_kill_disable=None)
    if host.pids_limit is not None and host.pids_limit <= 0:
        host.pids_limit = None
    if host.pids_limit and "pids" not in facts.controllers:
        drop("PIDs limit capabilities", "PIDs limit discarded.", pids_limit=None)
    if host.cpuset_cpus and "cpuset" not in facts.controllers:
        drop("cpuset", "Cpuset discarded.", cpuset_cpus="", cpuset_mems="")
    if host.network_mode == "host" and host.port_bindings:
        warnings.append("Published ports are discarded when using host network mode")
    warnings += discard_weight(host, facts)
    if host.blkio_weight_device and not facts.block_device_weights:
        drop("Block I/O weight_device", "Weight-device discarded.", blkio_weight_device=None)
    return warnings


def discard_weight(wanted: Resources, facts: HostFacts) -> list[str]:
    """Drop the weight for block devices on a kernel without; Docker's warning, which an update has, too."""
    if not wanted.blkio_weight or facts.block_weights:
        return []
    wanted.blkio_weight = 0
    return [_CANNOT.format(what="Block I/O weight", told="Weight discarded.")]


def check_realtime(wanted: Resources, facts: HostFacts) -> None:
    """Raise NoRealtime for real-time limits where groups cannot have them: there is no use in half of them."""
    if (wanted.cpu_realtime_period or wanted.cpu_realtime_runtime) and not facts.realtime:
        raise NoRealtime("Your kernel does not support CPU real-time scheduler")
