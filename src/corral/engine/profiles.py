"""What every container gets unless told otherwise: capabilities, masked and read-only paths, devices."""

from __future__ import annotations

from typing import Any

from corral.errors import InvalidParameter

DEFAULT_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

# In the kernel's order (linux/capability.h), so that a position is a number.
ALL_CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
        "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
        "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
        "PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class UnknownCapability(InvalidParameter):
    """A capability that the kernel does not have."""

    def __init__(self, name: str) -> None:
        super().__init__(f'invalid CapAdd: unknown capability: "{name}"')


def capabilities(add: list[str], drop: list[str], *, privileged: bool, available: tuple[str, ...]) -> list[str]:
    """The capability set of a container: Docker's default, changed by `add` and `drop` ("ALL" or names).

    `available` is what this machine can give at all; a privileged container gets all of it.
    """
    if privileged:
        return list(available)
    added, dropped = [_normal(name) for name in add], [_normal(name) for name in drop]
    if "ALL" in added:
        chosen = [name for name in available if name not in dropped]
    elif "ALL" in dropped:
        chosen = [name for name in added if name != "ALL"]
    else:
        chosen = [name for name in DEFAULT_CAPABILITIES if name not in dropped]
        chosen += [name for name in added if name not in chosen]
    return [name for name in ALL_CAPABILITIES if name in chosen]


def _normal(name: str) -> str:
    upper = name.upper()
    if upper == "ALL":
        return upper
    full = upper if upper.startswith("CAP_") else "CAP_" + upper
    if full not in ALL_CAPABILITIES:
        raise UnknownCapability(name)
    return full


def default_devices() -> list[dict[str, Any]]:
    """The device rules of the cgroup: nothing but what a container's /dev holds, and making nodes at all."""
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in "cb"]
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)):
        rules.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"})
    rules.append({"allow": True, "type": "c", "major": 136, "access": "rwm"})  # every pts
    return rules
