"""What this machine is and can do, as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HostFacts:
    """Facts that specs and `docker info` depend on.  Sizes in bytes."""

    machine: str
    architecture: str
    kernel: str
    hostname: str
    operating_system: str
    os_version: str
    cpus: int
    memory_bytes: int
    cgroup_version: int
    capabilities: tuple[str, ...]
    controllers: frozenset[str]
    swap_accounting: bool
    confining: frozenset[str]  # security modules that the kernel enforces: apparmor, selinux
    devices: tuple[tuple[str, str, int, int, int, int, int], ...]  # path, type, major, minor, mode, uid, gid
    block_weights: bool = True  # a weight for each group's share of the disks
    block_device_weights: bool = True  # the same for one disk
    realtime: bool = True  # real-time processor time for groups
