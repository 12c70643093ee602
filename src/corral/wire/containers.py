"""Containers in the API's JSON: what create, update and exec take and what inspect echoes."""

from __future__ import annotations

from typing import Any

from msgspec import field

from corral.wire.common import Wire


class Healthcheck(Wire):
    """HealthConfig; durations in nanoseconds, 0 inherits."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Wire):
    """What does not depend on the host: mostly what an image may also say."""

    hostname: str = ""
    domainname: str = ""
    user: str = ""
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    exposed_ports: dict[str, dict[str, Any]] | None = None
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    image: str = ""
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    entrypoint: list[str] | str | None = None
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class LogConfig(Wire):
    """Log driver and its options."""

    type: str = ""
    config: dict[str, str] | None = None


class RestartPolicy(Wire):
    """When to start again."""

    name: str = ""
    maximum_retry_count: int = 0


class RestartOptions(Wire):
    """Beyond Docker: when and how fast to start again.  Times in nanoseconds, 0 for the usual."""

    delay: int = 0
    max_delay: int = 0
    factor: float = 0
    reset_after: int = 0
    on_unhealthy: bool = False


class VaultFile(Wire):
    """Beyond Docker: a secret or config of the vault as a file; `on_update` is `restart`, `signal:NAME` or nothing."""

    source: str
    target: str = ""
    uid: str = ""
    gid: str = ""
    mode: int | None = None
    on_update: str = ""


class PortBinding(Wire):
    """One host side of a published port; the port is text, perhaps a range."""

    host_ip: str = ""
    host_port: str = ""


class IDMap(Wire):
    """A range of ids: `host_id` on disk is `container_id` in the mount."""

    container_id: int = 0
    host_id: int = 0
    size: int = 1


class IDMapping(Wire):
    """Beyond Docker: the owners that an id-mapped bind shows."""

    uid_mappings: list[IDMap] | None = None
    gid_mappings: list[IDMap] | None = None


class BindOptions(Wire):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    id_mapping: IDMapping | None = None


class DriverConfig(Wire):
    """A volume driver and its options."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Wire):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    driver_config: DriverConfig | None = None
    subpath: str = ""


class ImageOptions(Wire):
    """Options of an image mount."""

    subpath: str = ""


class TmpfsOptions(Wire):
    """Options of a tmpfs mount; size in bytes, mode as a number."""

    size_bytes: int = 0
    mode: int = 0
    options: list[list[str]] | None = None


class Mount(Wire):
    """One entry of HostConfig.Mounts."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None


class Ulimit(Wire):
    """One resource limit."""

    name: str = ""
    soft: int = 0
    hard: int = 0


class DeviceMapping(Wire):
    """A host device given to the container."""

    path_on_host: str = ""
    path_in_container: str = ""
    cgroup_permissions: str = ""


class DeviceRequest(Wire):
    """Devices asked from a driver."""

    driver: str = ""
    count: int = 0
    device_ids: list[str] | None = None
    capabilities: list[list[str]] | None = None
    options: dict[str, str] | None = None


class ThrottleDevice(Wire):
    """A rate for one block device."""

    path: str = ""
    rate: int = 0


class WeightDevice(Wire):
    """A weight for one block device."""

    path: str = ""
    weight: int = 0


class Resources(Wire):
    """Limits: what `update` may change too.  None is "not said"."""

    cpu_shares: int = 0
    memory: int = 0
    nano_cpus: int = 0
    cgroup_parent: str = ""
    blkio_weight: int = 0
    blkio_weight_device: list[WeightDevice] | None = None
    blkio_device_read_bps: list[ThrottleDevice] | None = None
    blkio_device_write_bps: list[ThrottleDevice] | None = None
    blkio_device_read_iops: list[ThrottleDevice] | None = None
    blkio_device_write_iops: list[ThrottleDevice] | None = None
    cpu_period: int = 0
    cpu_quota: int = 0
    cpu_realtime_period: int = 0
    cpu_realtime_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    devices: list[DeviceMapping] | None = None
    device_cgroup_rules: list[str] | None = None
    device_requests: list[DeviceRequest] | None = None
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool | None = None
    pids_limit: int | None = None
    ulimits: list[Ulimit] | None = None
    cpu_count: int = 0
    cpu_percent: int = 0
    io_maximum_iops: int = 0
    io_maximum_bandwidth: int = 0


class HostConfig(Resources):
    """What ties a container to this host."""

    binds: list[str] | None = None
    container_id_file: str = ""
    log_config: LogConfig = field(default_factory=LogConfig)
    network_mode: str = ""
    port_bindings: dict[str, list[PortBinding]] | None = None
    restart_policy: RestartPolicy = field(default_factory=RestartPolicy)
    auto_remove: bool = False
    volume_driver: str = ""
    volumes_from: list[str] | None = None
    console_size: list[int] = field(default_factory=lambda: [0, 0])
    annotations: dict[str, str] | None = None
    cap_add: list[str] | None = None
    cap_drop: list[str] | None = None
    cgroupns_mode: str = ""
    dns: list[str] | None = None
    dns_options: list[str] | None = None
    dns_search: list[str] | None = None
    extra_hosts: list[str] | None = None
    group_add: list[str] | None = None
    ipc_mode: str = ""
    cgroup: str = ""
    links: list[str] | None = None
    oom_score_adj: int = 0
    pid_mode: str = ""
    privileged: bool = False
    publish_all_ports: bool = False
    readonly_rootfs: bool = False
    security_opt: list[str] | None = None
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = ""
    userns_mode: str = ""
    shm_size: int = 0
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = ""
    mounts: list[Mount] | None = None
    init: bool | None = None
    masked_paths: list[str] | None = None
    readonly_paths: list[str] | None = None
    restart_options: RestartOptions | None = None
    net_rate: str = ""  # out=10mbit,in=50mbit
    egress: list[str] | None = None  # allow=deb.debian.org:443,10.0.0.0/8, deny=..., none
    depends_on: list[str] | None = None  # beyond Docker: NAME[:started|healthy|completed]
    secrets: list[VaultFile] | None = None
    configs: list[VaultFile] | None = None
    from_snapshot: str = ""  # beyond Docker: CONTAINER@SNAPSHOT that the file system starts as


class EndpointIPAMConfig(Wire):
    """Addresses asked for."""

    ipv4_address: str = ""
    ipv6_address: str = ""
    link_local_ips: list[str] | None = None


class EndpointSettings(Wire):
    """A container's place in one network, as asked for."""

    ipam_config: EndpointIPAMConfig | None = None
    links: list[str] | None = None
    aliases: list[str] | None = None
    mac_address: str = ""
    driver_opts: dict[str, str] | None = None
    gw_priority: int = 0
    network_id: str = ""


class NetworkingConfig(Wire):
    """Networks to join at create."""

    endpoints_config: dict[str, EndpointSettings] | None = None


class CreateRequest(ContainerConfig):
    """The body of `POST /containers/create`."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class UpdateRequest(Resources):
    """The body of `POST /containers/{id}/update`."""

    restart_policy: RestartPolicy | None = None
    # beyond Docker; the environment changes with the next start
    restart_options: RestartOptions | None = None
    env_add: list[str] | None = None
    env_remove: list[str] | None = None
    label_add: dict[str, str] | None = None
    label_remove: list[str] | None = None
    # as HostConfig.PortBindings; host sides that go: [ADDRESS:]PORT[-PORT][/PROTOCOL]
    port_add: dict[str, list[PortBinding] | None] | None = None
    port_remove: list[str] | None = None
    egress: list[str] | None = None  # in place of HostConfig.Egress; [] or ["any"] lifts the list


class SnapshotRequest(Wire):
    """The body of `POST /containers/{id}/snapshots`, beyond Docker."""

    name: str = ""


class ExecRequest(Wire):
    """The body of `POST /containers/{id}/exec`."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: list[str] | str | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""
    timeout: int = 0  # beyond Docker: nanoseconds after which it is killed; 0 for never


class ExecStartRequest(Wire):
    """The body of `POST /exec/{id}/start`."""

    detach: bool = False
    tty: bool = False
    console_size: list[int] | None = None
