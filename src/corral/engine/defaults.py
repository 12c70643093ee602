"""From a create request and an image to a container's record: checks first, then Docker's defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from corral.engine import lifecycle, signals, spec
from corral.errors import Conflict, InvalidParameter
from corral.oci.image import RunConfig
from corral.quantities import parse_size
from corral.wire.containers import ContainerConfig, Healthcheck, HostConfig, LogConfig, Resources, RestartPolicy

__all__ = [
    "InvalidConfig",
    "NameTaken",
    "apply_image",
    "check_config",
    "check_host",
    "check_name",
    "fill_host",
    "run_config",
]

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_MINIMUM_MEMORY_BYTES = 6 << 20
_DEFAULT_STOP_TIMEOUT_S = 10
_CPU_MAX = 8191  # the kernel's NR_CPUS is at most 8192


class InvalidConfig(InvalidParameter):
    """A create or update request that contradicts itself or the machine."""


class NameTaken(Conflict):
    """Another container has the name."""

    def __init__(self, name: str, owner: str) -> None:
        super().__init__(
            f'Conflict. The container name "/{name}" is already in use by container "{owner}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


def check_name(name: str) -> str:
    """A container's name without its slash; raises InvalidConfig."""
    if not _NAME.fullmatch(name):
        raise InvalidConfig(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name.removeprefix("/")


def apply_image(config: ContainerConfig, image: RunConfig) -> None:
    """Fill what the request leaves open from the image's own configuration."""
    config.cmd = _words(config.cmd)
    config.entrypoint = _words(config.entrypoint)
    if config.entrypoint is None:
        if config.cmd is None or not config.cmd:
            config.cmd = image.cmd
        config.entrypoint = image.entrypoint
    elif config.entrypoint == [""]:  # how a client says: no entrypoint, not even the image's
        config.entrypoint = None
    config.user = config.user or image.user
    config.working_dir = config.working_dir or image.working_dir
    config.stop_signal = config.stop_signal or image.stop_signal
    if config.stop_timeout is None:
        config.stop_timeout = image.stop_timeout
    config.shell = config.shell or image.shell
    if image.exposed_ports:
        config.exposed_ports = {port: {} for port in image.exposed_ports} | (config.exposed_ports or {})
    if image.volumes:
        config.volumes = {path: {} for path in image.volumes} | (config.volumes or {})
    config.labels = dict(image.labels or {}) | (config.labels or {})
    named = {entry.partition("=")[0] for entry in config.env or []}
    inherited = [entry for entry in image.env or [] if entry.partition("=")[0] not in named]
    config.env = [*(config.env or []), *inherited]
    config.on_build = None
    _apply_healthcheck(config, image)
    if not [*(config.entrypoint or ()), *(config.cmd or ())]:
        raise InvalidConfig("no command specified")


def run_config(config: ContainerConfig) -> RunConfig:
    """The part of a container's configuration that an image keeps."""
    raw = {name: value for name, value in msgspec.to_builtins(config).items() if value is not None}
    for name in ("Cmd", "Entrypoint"):
        if isinstance(raw.get(name), str):
            raw[name] = [raw[name]]
    return msgspec.convert(raw, RunConfig)


def _words(value: list[str] | str | None) -> list[str] | None:
    return [value] if isinstance(value, str) else value


def _apply_healthcheck(config: ContainerConfig, image: RunConfig) -> None:
    offered = image.healthcheck
    if offered is None:
        return
    check = config.healthcheck or Healthcheck()
    check.test = check.test or offered.test
    check.interval = check.interval or offered.interval
    check.timeout = check.timeout or offered.timeout
    check.start_period = check.start_period or offered.start_period
    check.start_interval = check.start_interval or offered.start_interval
    check.retries = check.retries or offered.retries
    config.healthcheck = check


def check_config(config: ContainerConfig) -> None:
    """Raise InvalidConfig unless the portable part can be used."""
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidConfig(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    for entry in config.env or []:
        if not entry or entry.startswith("="):
            raise InvalidConfig(f"invalid environment variable: {entry}")
        if "\0" in entry:
            raise InvalidConfig("invalid environment variable: it contains a null byte")
    if config.stop_signal:
        signals.parse(config.stop_signal)
    check = config.healthcheck
    if check is not None:
        for name, value in (
            ("Interval", check.interval),
            ("Timeout", check.timeout),
            ("StartPeriod", check.start_period),
            ("StartInterval", check.start_interval),
        ):
            if value != 0 and value < 1_000_000:
                raise InvalidConfig(f"{name} in Healthcheck cannot be less than 1ms")
        if check.retries < 0:
            raise InvalidConfig("Retries in Healthcheck cannot be negative")


def storage_limit(host: HostConfig) -> int:
    """How many bytes a container may write into its own layer, 0 for any; raises InvalidConfig."""
    size = 0
    for key, value in (host.storage_opt or {}).items():
        if key.lower() != "size":
            raise InvalidConfig(f"Unknown option {key}")
        size = size_bytes(value)
        if size <= 0:
            raise InvalidConfig(f"invalid size: '{value}'")
    return size


def check_host(host: HostConfig, *, cpus: int, hostname: str = "") -> None:
    """Raise InvalidConfig unless the part that concerns this host can be used."""
    storage_limit(host)
    check_resources(host, cpus=cpus)
    policy = host.restart_policy
    check_restart_policy(policy)
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidConfig("can't create 'AutoRemove' container with restart policy")
    if host.shm_size < 0:
        raise InvalidConfig("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidConfig(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    for name in host.sysctls or {}:
        if not name:
            raise InvalidConfig("sysctl names cannot be empty")
    spec.security_options(host.security_opt or [])
    _check_modes(host, hostname)
    for field, what in (("isolation", "Isolation"),):
        value = getattr(host, field)
        if value not in ("", "default"):
            raise InvalidConfig(f'invalid {what}: "{value}"')


def _check_modes(host: HostConfig, hostname: str) -> None:
    if host.uts_mode == "host" and hostname:
        raise InvalidConfig("conflicting options: hostname and the UTS mode")
    own_network = not (host.network_mode == "host" or host.network_mode.startswith("container:"))
    if host.network_mode == "host" and host.links:
        raise InvalidConfig("conflicting options: host type networking can't be used with links")
    if host.network_mode.startswith("container:"):
        _check_joining(host)
    for name in host.sysctls or {}:
        if name.startswith("net.") and not own_network:
            raise InvalidConfig(f"sysctl '{name}' not allowed in host network namespace")
    if host.ipc_mode not in ("", "none", "private", "shareable", "host") and not host.ipc_mode.startswith("container:"):
        raise InvalidConfig(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", "private", "host") and not host.pid_mode.startswith("container:"):
        raise InvalidConfig(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidConfig(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidConfig(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if host.userns_mode not in ("", "host"):
        raise InvalidConfig(f"invalid user namespace mode: {host.userns_mode}")


def _check_joining(host: HostConfig) -> None:
    """Refuse what belongs to the container whose network is joined."""
    if host.links:
        raise InvalidConfig("conflicting options: container type network can't be used with links")
    if host.dns:
        raise InvalidConfig("conflicting options: dns and the network mode")
    if host.extra_hosts:
        raise InvalidConfig("conflicting options: custom host-to-IP mapping and the network mode")
    if host.port_bindings or host.publish_all_ports:
        raise InvalidConfig("conflicting options: port publishing and the container type network mode")


def check_restart_policy(policy: RestartPolicy) -> None:
    """Raise InvalidConfig unless the policy exists."""
    if policy.name not in ("", "no", "always", "on-failure", "unless-stopped"):
        raise InvalidConfig(
            f"invalid restart policy: unknown policy '{policy.name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidConfig("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidConfig("invalid restart policy: maximum retry count cannot be negative")


def size_bytes(text: str) -> int:
    """`20m`, `64M`, `1gb` and `-1` in bytes; raises InvalidConfig."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise InvalidConfig(str(error)) from error


def check_resources(wanted: Resources, *, cpus: int) -> None:
    """Raise InvalidConfig unless the limits make sense on a machine with `cpus` processors."""
    if 0 < wanted.memory < _MINIMUM_MEMORY_BYTES:
        raise InvalidConfig("Minimum memory limit allowed is 6MB")
    if wanted.memory > 0 and 0 < wanted.memory_swap < wanted.memory:
        raise InvalidConfig("Minimum memoryswap limit should be larger than memory limit, see usage")
    if wanted.memory == 0 and wanted.memory_swap > 0:
        raise InvalidConfig("You should always set the Memory limit when using Memoryswap limit, see usage")
    if wanted.memory_swappiness is not None and not -1 <= wanted.memory_swappiness <= 100:
        raise InvalidConfig(f"Invalid value: {wanted.memory_swappiness}, valid memory swappiness range is 0-100")
    if 0 < wanted.memory_reservation < _MINIMUM_MEMORY_BYTES:
        raise InvalidConfig("Minimum memory reservation allowed is 6MB")
    if 0 < wanted.memory < wanted.memory_reservation:
        raise InvalidConfig("Minimum memory limit can not be less than memory reservation limit, see usage")
    _check_cpu(wanted, cpus)
    if wanted.blkio_weight and not 10 <= wanted.blkio_weight <= 1000:
        raise InvalidConfig("Range of blkio weight is from 10 to 1000")
    for limit in wanted.ulimits or []:
        if limit.soft > limit.hard and limit.hard != -1:
            raise InvalidConfig(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
            )


def _check_cpu(wanted: Resources, cpus: int) -> None:
    if wanted.nano_cpus and wanted.cpu_period:
        raise InvalidConfig("Conflicting options: Nano CPUs and CPU Period cannot both be set.")
    if wanted.nano_cpus and wanted.cpu_quota:
        raise InvalidConfig("Conflicting options: Nano CPUs and CPU Quota cannot both be set.")
    if wanted.nano_cpus < 0 or wanted.nano_cpus > cpus * 1_000_000_000:
        raise InvalidConfig(f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if wanted.cpu_shares < 0:
        raise InvalidConfig(f"invalid CPU shares ({wanted.cpu_shares}): value must be a positive integer")
    if wanted.cpu_period and not 1000 <= wanted.cpu_period <= 1_000_000:
        raise InvalidConfig("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < wanted.cpu_quota < 1000:
        raise InvalidConfig("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    for name, text, count in (("CPUs", wanted.cpuset_cpus, cpus), ("memory nodes", wanted.cpuset_mems, 1)):
        if text:
            chosen = cpu_list(text)
            if max(chosen) >= count:
                available = f"0-{count - 1}" if count > 1 else "0"
                raise InvalidConfig(f"Requested {name} are not available - requested {text}, available: {available}")


def cpu_list(text: str) -> set[int]:
    """`0-2,4` as numbers; raises InvalidConfig."""
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = first.isdecimal() and (last.isdecimal() or not dash)
        if not numbers or not int(first) <= int(last if dash else first) <= _CPU_MAX:
            raise InvalidConfig(f"Invalid value {text} for cpuset cpus")
        chosen.update(range(int(first), int(last if dash else first) + 1))
    return chosen


def fill_host(
    host: HostConfig, *, shm_size: int, log: LogConfig, runtime: str, init: bool, network: str = "bridge",
    ipc: str = "private", cgroupns: str = "private",
) -> None:  # fmt: skip
    """Docker's defaults for what the request leaves open."""
    if host.network_mode in ("", "default"):
        host.network_mode = network
    host.ipc_mode = host.ipc_mode or ipc
    host.cgroupns_mode = host.cgroupns_mode or cgroupns
    host.shm_size = host.shm_size or shm_size
    host.runtime = host.runtime or runtime
    if host.memory > 0 and host.memory_swap == 0:
        host.memory_swap = 2 * host.memory
    if not host.log_config.type:
        merged: Mapping[str, str] = {**(log.config or {}), **(host.log_config.config or {})}
        host.log_config = LogConfig(type=log.type, config=dict(merged))
    if host.log_config.config is None:
        host.log_config.config = {}
    if host.init is None and init:
        host.init = True
    host.restart_policy.name = host.restart_policy.name or "no"
    host.privileged = bool(host.privileged)


def stop_timeout_s(config: ContainerConfig, requested: int | None) -> int:
    """Seconds between the stop signal and the kill; negative waits for ever."""
    if requested is not None:
        return requested
    return config.stop_timeout if config.stop_timeout is not None else _DEFAULT_STOP_TIMEOUT_S


def is_alive(status: lifecycle.Status) -> bool:
    """Whether there is a process."""
    return status in ("running", "paused")
