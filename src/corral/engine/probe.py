"""Looks at this machine, once, when the daemon starts."""

from __future__ import annotations

import os
import platform

from corral.engine.hostfacts import HostFacts
from corral.engine.profiles import ALL_CAPABILITIES

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def architecture(machine: str) -> str:
    """The image specification's name of a machine (uname -m)."""
    return _ARCHITECTURES.get(machine, machine)


def look() -> HostFacts:
    """Look at the machine."""
    release = _os_release()
    uname = os.uname()
    version, controllers = _cgroups()
    return HostFacts(
        machine=uname.machine,
        architecture=architecture(uname.machine),
        kernel=uname.release,
        hostname=uname.nodename,
        operating_system=release.get("PRETTY_NAME", platform.system()),
        os_version=release.get("VERSION_ID", ""),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        cgroup_version=version,
        capabilities=_bounding_set(),
        controllers=controllers,
        swap_accounting=version == 2 or os.path.exists("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"),
        confining=_confining(),
        devices=_devices(),
        block_weights=_weighs(version, "weight"),
        block_device_weights=_weighs(version, "weight_device"),
        realtime=os.path.exists("/sys/fs/cgroup/cpu/cpu.rt_period_us"),
    )


def _weighs(version: int, file: str) -> bool:
    """Whether groups have weights for block devices: of an elevator (bfq) that not every kernel has."""
    if version == 2:
        return True
    return os.path.exists(f"/sys/fs/cgroup/blkio/blkio.{file}")


def _os_release() -> dict[str, str]:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path) as file:
                pairs = (line.rstrip("\n").partition("=") for line in file if "=" in line)
                return {name: value.strip('"') for name, _, value in pairs}
        except OSError:
            continue
    return {}


def _cgroups() -> tuple[int, frozenset[str]]:
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        with open("/sys/fs/cgroup/cgroup.controllers") as file:
            return 2, frozenset(file.read().split())
    mounted = set()
    with open("/proc/self/mountinfo") as file:
        for line in file:
            _, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            if kind == "cgroup":
                mounted.update(options.split(","))
    return 1, frozenset(
        mounted & {"cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"}
    )


def _confining() -> frozenset[str]:
    try:
        with open("/sys/kernel/security/lsm") as file:
            active = file.read().strip().split(",")
    except OSError:  # securityfs is not mounted, so no profile can be loaded either
        return frozenset()
    return frozenset(active) & {"apparmor", "selinux"}


def _bounding_set() -> tuple[str, ...]:
    with open("/proc/self/status") as file:
        bits = next(int(line.split()[1], 16) for line in file if line.startswith("CapBnd"))
    return tuple(name for number, name in enumerate(ALL_CAPABILITIES) if bits >> number & 1)


def _devices() -> tuple[tuple[str, str, int, int, int, int, int], ...]:
    """Every device node of the host's /dev, for privileged containers."""
    found = []
    for folder, folders, names in os.walk("/dev"):
        folders[:] = [
            name for name in folders if name not in ("pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev")
        ]
        for name in names:
            path = os.path.join(folder, name)
            try:
                stat = os.lstat(path)
            except OSError:
                continue
            kind = {0o020000: "c", 0o060000: "b"}.get(stat.st_mode & 0o170000)
            if kind and name != "console":
                device = (os.major(stat.st_rdev), os.minor(stat.st_rdev))
                found.append((path, kind, *device, stat.st_mode & 0o7777, stat.st_uid, stat.st_gid))
    return tuple(sorted(found))
