"""Containers, as list, inspect, stats, top and changes show them."""

from __future__ import annotations

from typing import Any

from msgspec import field

from corral.wire.shown.base import Shown


class HealthState(Shown, frozen=True):
    """What the health check has found: `starting`, `healthy` or `unhealthy`."""

    status: str = ""
    failing_streak: int = 0


class ContainerState(Shown, frozen=True):
    """Whether it runs, and how it ended."""

    status: str = ""  # created, running, paused, restarting, removing, exited, dead
    running: bool = False
    paused: bool = False
    restarting: bool = False
    oom_killed: bool = field(default=False, name="OOMKilled")
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ""
    finished_at: str = ""
    health: HealthState | None = None


class MountPoint(Shown, frozen=True):
    """One mount of a container."""

    type: str = ""
    name: str = ""
    source: str = ""
    destination: str = ""
    driver: str = ""
    mode: str = ""
    writable: bool = field(default=False, name="RW")


class HostPort(Shown, frozen=True):
    """The host's side of a published port."""

    address: str = field(default="", name="HostIp")
    port: str = field(default="", name="HostPort")


class EndpointInfo(Shown, frozen=True):
    """A container's place in one network."""

    network_id: str = ""
    endpoint_id: str = ""
    gateway: str = ""
    ip_address: str = ""
    ip_prefix_len: int = 0
    global_ipv6_address: str = ""
    mac_address: str = ""
    aliases: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()


class NetworkSettings(Shown, frozen=True):
    """Addresses and ports; `ports` by `80/tcp`, while it runs."""

    ports: dict[str, tuple[HostPort, ...]] = field(default_factory=dict)
    networks: dict[str, EndpointInfo] = field(default_factory=dict)


class ConfigInfo(Shown, frozen=True):
    """What does not depend on the host."""

    hostname: str = ""
    user: str = ""
    tty: bool = False
    open_stdin: bool = False
    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    image: str = ""
    working_dir: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    stop_signal: str = ""


class ContainerInfo(Shown, frozen=True):
    """One container, in detail; `host_config` is as the API has it."""

    id: str = ""
    name: str = ""  # with a slash before it, as the API has it
    created: str = ""
    path: str = ""
    args: tuple[str, ...] = ()
    state: ContainerState = field(default_factory=ContainerState)
    image: str = ""
    restart_count: int = 0
    log_path: str = ""
    host_config: dict[str, Any] = field(default_factory=dict)
    mounts: tuple[MountPoint, ...] = ()
    config: ConfigInfo = field(default_factory=ConfigInfo)
    network_settings: NetworkSettings = field(default_factory=NetworkSettings)
    size_rw: int = 0
    size_root_fs: int = 0


class PortInfo(Shown, frozen=True):
    """One port of a container in a list; `public_port` is 0 for one that is only exposed."""

    address: str = field(default="", name="IP")
    private_port: int = 0
    public_port: int = 0
    type: str = "tcp"


class ContainerSummary(Shown, frozen=True):
    """One container in a list."""

    id: str = ""
    names: tuple[str, ...] = ()
    image: str = ""
    image_id: str = field(default="", name="ImageID")
    command: str = ""
    created: int = 0  # seconds since 1970
    ports: tuple[PortInfo, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    state: str = ""
    status: str = ""
    mounts: tuple[MountPoint, ...] = ()


class Processes(Shown, frozen=True):
    """What `top` shows: a title for each column, and a row for each process."""

    titles: tuple[str, ...] = ()
    processes: tuple[tuple[str, ...], ...] = ()


class Change(Shown, frozen=True):
    """A path that differs from the image: 0 changed, 1 added, 2 deleted."""

    path: str = ""
    kind: int = 0


class SnapshotInfo(Shown, frozen=True):
    """A snapshot of a container or a volume."""

    name: str = ""
    created: str = ""


class ExecInfo(Shown, frozen=True):
    """An exec: running, or ended with `exit_code`; the last two are told by Corral only."""

    id: str = field(default="", name="ID")
    running: bool = False
    exit_code: int = 0
    pid: int = 0
    timed_out: bool = False
    oom_killed: bool = field(default=False, name="OOMKilled")


class CpuUsage(Shown, frozen=True, rename="lower"):
    """Nanoseconds of processor time."""

    total: int = field(default=0, name="total_usage")
    system: int = field(default=0, name="usage_in_kernelmode")
    user: int = field(default=0, name="usage_in_usermode")


class CpuStats(Shown, frozen=True, rename=None):
    """Processor time of the container and of the machine."""

    cpu_usage: CpuUsage = field(default_factory=CpuUsage)
    system_cpu_usage: int = 0
    online_cpus: int = 0


class MemoryStats(Shown, frozen=True, rename=None):
    """Memory in bytes; `stats` has the kernel's own counters."""

    usage: int = 0
    limit: int = 0
    stats: dict[str, int] = field(default_factory=dict)


class PidsStats(Shown, frozen=True, rename=None):
    """How many processes there are and may be."""

    current: int = 0
    limit: int = 0


class InterfaceStats(Shown, frozen=True, rename=None):
    """What one interface has received and sent."""

    rx_bytes: int = 0
    tx_bytes: int = 0
    rx_packets: int = 0
    tx_packets: int = 0


class Stats(Shown, frozen=True, rename=None):
    """One sample of what a container uses; `precpu_stats` is of the sample before."""

    read: str = ""
    cpu_stats: CpuStats = field(default_factory=CpuStats)
    precpu_stats: CpuStats = field(default_factory=CpuStats)
    memory_stats: MemoryStats = field(default_factory=MemoryStats)
    pids_stats: PidsStats = field(default_factory=PidsStats)
    networks: dict[str, InterfaceStats] = field(default_factory=dict)

    @property
    def cpus(self) -> float:
        """How many processors it kept busy since the sample before; 0 of a first one."""
        machine = self.cpu_stats.system_cpu_usage - self.precpu_stats.system_cpu_usage
        used = self.cpu_stats.cpu_usage.total - self.precpu_stats.cpu_usage.total
        if machine <= 0 or not self.precpu_stats.system_cpu_usage:
            return 0.0
        return used / machine * (self.cpu_stats.online_cpus or 1)
