"""From a container's record to the OCI spec: Docker's defaults, then what was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from corral.engine import profiles, seccomp
from corral.engine.hostfacts import HostFacts
from corral.engine.record import Container, MountPoint
from corral.errors import InvalidParameter
from corral.oci.idmap import IdMap, Range, chained
from corral.runtime.plan import INIT_ANNOTATION

Spec = dict[str, Any]

_DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


VAULT_OPTIONS = "nosuid nodev noexec mode=755 size=8m"


class InvalidSecurityOption(InvalidParameter):
    """A --security-opt that cannot be used."""


@dataclass(frozen=True)
class Surroundings:
    """What a spec takes from outside the record.

    `joined` maps a namespace's name to the path of one to join, in place of a new one.  `seccomp_profile` is the
    OCI form of a profile given by the user (empty: no filter; None: the default one), `init_path` a program
    for --init, `built_in_init` whether it is the runtime's own.
    """

    facts: HostFacts
    root: str
    cgroup_parent: str
    hostname_path: str
    hosts_path: str
    resolv_path: str
    shm_size: int
    joined: Mapping[str, str]
    init_path: str
    default_ulimits: Mapping[str, tuple[int, int]]
    built_in_init: bool = False
    vault_mounts: Sequence[str] = ()  # where a tmpfs is needed for secrets and configs
    seccomp_profile: Mapping[str, Any] | None = None
    user_devices: Sequence[dict[str, Any]] = ()
    throttles: Mapping[str, Any] | None = None
    no_new_privileges: bool = False
    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)  # of mounted images, by destination
    ids: IdMap | None = None


def build(record: Container, around: Surroundings) -> Spec:
    """The whole config.json of a container."""
    host = record.host
    caps = profiles.capabilities(
        host.cap_add or [], host.cap_drop or [], privileged=host.privileged, available=around.facts.capabilities
    )
    options = security_options(host.security_opt or [])
    spec: Spec = {
        "ociVersion": "1.0.2",  # the oldest that has all we use: other runtimes refuse versions newer than they are
        "process": _process(record, around, caps, options),
        "root": {"path": around.root, "readonly": host.readonly_rootfs},
        "hostname": _hostname(record, around),
        "mounts": _mounts(record, around),
        "linux": _linux(record, around, caps, options),
    }
    if record.config.domainname:
        spec["domainname"] = record.config.domainname
    if host.annotations:
        spec["annotations"] = dict(host.annotations)
    if around.built_in_init:
        spec.setdefault("annotations", {})[INIT_ANNOTATION] = "true"
    if host.uts_mode == "host":
        del spec["hostname"]
    return spec


@dataclass(frozen=True)
class SecurityOptions:
    """--security-opt, read."""

    no_new_privileges: bool | None = None  # None: as the daemon is configured
    seccomp: str = ""  # "" default, "unconfined", or a profile's JSON
    unmask: bool = False
    writable_cgroups: bool = False


def security_options(options: Sequence[str]) -> SecurityOptions:
    """Read --security-opt values; raises InvalidSecurityOption with Docker's text."""
    found: dict[str, Any] = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if option in ("no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"):
            found["no_new_privileges"] = True
        elif key == "no-new-privileges" and value == "false":
            found["no_new_privileges"] = False
        elif key == "seccomp" and separator:
            found["seccomp"] = "" if value == "builtin" else value
        elif key == "systempaths" and value == "unconfined":
            found["unmask"] = True
        elif key == "writable-cgroups" and value in ("true", "false"):
            found["writable_cgroups"] = value == "true"
        elif key in ("label", "apparmor") and separator:
            # Neither SELinux nor AppArmor confines anything on a kernel without them, as in Docker.
            continue
        else:
            raise InvalidSecurityOption(f'invalid --security-opt {2 if separator else 1}: "{option}"')
    return SecurityOptions(**found)


def no_new_privileges(options: SecurityOptions, configured: bool) -> bool:
    """Whether the process may never gain privileges: as asked for, else as the daemon is configured."""
    return configured if options.no_new_privileges is None else options.no_new_privileges


def environment(record: Container) -> list[str]:
    """The process's environment: Docker's own entries first, then what image and user said."""
    entries = [_DEFAULT_PATH, f"HOSTNAME={record.config.hostname}"]
    if record.config.tty:
        entries.append("TERM=xterm")
    return merge_environment(entries, record.config.env or [])


def merge_environment(base: Sequence[str], more: Sequence[str]) -> list[str]:
    """`base` with each NAME=VALUE of `more` replacing or following; a bare NAME removes."""
    merged = {entry.partition("=")[0]: entry for entry in base}
    for entry in more:
        name, separator, _ = entry.partition("=")
        if separator:
            merged[name] = entry
        else:
            merged.pop(name, None)
    return list(merged.values())


def _process(record: Container, around: Surroundings, caps: list[str], options: SecurityOptions) -> dict[str, Any]:
    config, host = record.config, record.host
    argv = record.argv
    if around.init_path:
        argv = ["/sbin/docker-init", "--", *argv]
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": 0, "gid": 0},
        "args": argv,
        "env": environment(record),
        "cwd": config.working_dir or "/",
        "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
        "noNewPrivileges": no_new_privileges(options, around.no_new_privileges),
        "oomScoreAdj": host.oom_score_adj,
        "rlimits": rlimits(record, around.default_ulimits),
    }
    if config.tty and any(host.console_size):
        process["consoleSize"] = {"height": host.console_size[0], "width": host.console_size[1]}
    return process


def rlimits(record: Container, default_ulimits: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """The resource limits of every process of a container."""
    limits = dict(default_ulimits)
    limits |= {item.name: (item.soft, item.hard) for item in record.host.ulimits or []}
    return [
        {"type": f"RLIMIT_{name.upper()}", "soft": _limit(soft), "hard": _limit(hard)}
        for name, (soft, hard) in limits.items()
    ]


def ulimits(configured: Mapping[str, Any] | None) -> dict[str, tuple[int, int]]:
    """daemon.json's default-ulimits: soft and hard limit by name."""
    return {name: (int(item["Soft"]), int(item["Hard"])) for name, item in (configured or {}).items()}


def _limit(value: int) -> int:
    return value if value >= 0 else (1 << 64) - 1


def _hostname(record: Container, around: Surroundings) -> str:
    return record.config.hostname or (around.facts.hostname if record.host.network_mode == "host" else "")


def _mounts(record: Container, around: Surroundings) -> list[dict[str, Any]]:
    host = record.host
    writable_sys = host.privileged
    mounts: list[dict[str, Any]] = [
        _mount("/proc", "proc", "proc", "nosuid noexec nodev"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
        _mount("/sys", "sysfs", "sysfs", "nosuid noexec nodev" + ("" if writable_sys else " ro")),
        _cgroup_mount(record),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ]
    if host.ipc_mode == "host":
        mounts.append(_bind("/dev/shm", "/dev/shm", "rbind"))
    elif host.ipc_mode != "none":
        shm = f"nosuid noexec nodev mode=1777 size={around.shm_size}"
        if shared := around.joined.get("shm"):
            mounts.append(_bind(shared, "/dev/shm", "rbind"))
        else:
            mounts.append(_mount("/dev/shm", "tmpfs", "shm", shm))
    if host.network_mode == "host" and not host.privileged:
        mounts[3] = _mount("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro")
    taken = {point.destination for point in record.mounts}
    mounts = [mount for mount in mounts if mount["destination"] not in taken]
    for path, target in (
        (around.resolv_path, "/etc/resolv.conf"),
        (around.hostname_path, "/etc/hostname"),
        (around.hosts_path, "/etc/hosts"),
    ):
        if path and target not in taken:
            mounts.append(_bind(path, target, "rbind rprivate"))
    mounts += [_mount(path, "tmpfs", "tmpfs", VAULT_OPTIONS) for path in around.vault_mounts]
    if around.init_path:
        mounts.append(_bind(around.init_path, "/sbin/docker-init", "bind ro"))
    points = sorted(record.mounts, key=lambda point: point.destination.count("/"))
    return mounts + [from_point(point, around.layers.get(point.destination, ()), around.ids) for point in points]


def _cgroup_mount(record: Container) -> dict[str, Any]:
    writable = record.host.privileged or security_options(record.host.security_opt or []).writable_cgroups
    return _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev" + ("" if writable else " ro"))


def _mount(destination: str, kind: str, source: str, options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": source, "options": options.split()}


def _bind(source: str, destination: str, options: str) -> dict[str, Any]:
    return _mount(destination, "bind", source, options)


def from_point(point: MountPoint, layers: Sequence[str] = (), ids: IdMap | None = None) -> dict[str, Any]:
    """A mount point as the spec's mount, in a container with these ids.

    `subpath` and `layers` are read by our runtime alone: see shim/foreign.py.
    """
    if point.type == "image":
        mount = _mount(point.destination, "overlay", "overlay", "ro") | {
            "layers": list(layers),
            "subpath": point.subpath,
        }
        return mount | (_mappings(ids.uids, ids.gids) if ids else {})
    if point.type == "tmpfs":
        return {"destination": point.destination, "type": "tmpfs", "source": "tmpfs", "options": list(point.options)}
    if point.type == "overlay" and ids:
        words = dict(option.split("=", 1) for option in point.options)
        mount = _mount(point.destination, "overlay", "overlay", "rw") | {"layers": words["lowerdir"].split(":")}
        mount |= {"upper": words.get("upperdir", ""), "work": words.get("workdir", "")}
        return mount | _mappings(ids.uids, ids.gids)
    if point.type == "overlay":
        return {
            "destination": point.destination,
            "type": "overlay",
            "source": "overlay",
            "options": list(point.options),
        }
    options = ["rbind" if "norecurse" not in point.options else "bind"]
    options.append(point.propagation or "rprivate")
    if not point.rw:
        options.append("ro" if "ro-shallow" in point.options else "rro")
    found: dict[str, Any] = {
        "destination": point.destination,
        "type": "bind",
        "source": point.source,
        "options": options,
    }
    if point.subpath:
        found["subpath"] = point.subpath
    if point.uids:
        uids = chained(point.uids, ids.uids) if ids else point.uids
        gids = chained(point.gids, ids.gids) if ids else point.gids
        if not (uids and gids):
            raise InvalidParameter(f"the id mapping of {point.destination} has no id that the container can have")
        found |= _mappings(uids, gids)
    return found


def _mappings(uids: Sequence[Range], gids: Sequence[Range]) -> dict[str, Any]:
    """Of a mount: ids on disk, and what they become."""
    ranges = IdMap(tuple(uids), tuple(gids)).described()
    return {"uidMappings": ranges[0], "gidMappings": ranges[1]}


def _linux(record: Container, around: Surroundings, caps: list[str], options: SecurityOptions) -> dict[str, Any]:
    host = record.host
    linux: dict[str, Any] = {
        "namespaces": _namespaces(record, around),
        **_user_namespace(around),
        "cgroupsPath": f"{around.cgroup_parent.rstrip('/')}/{record.id}",
        "resources": resources(record, around),
        "sysctl": _sysctls(record, around),
        "devices": list(around.user_devices),
        "maskedPaths": list(host.masked_paths if host.masked_paths is not None else profiles.MASKED_PATHS),
        "readonlyPaths": list(host.readonly_paths if host.readonly_paths is not None else profiles.READONLY_PATHS),
        "rootfsPropagation": _root_propagation(record.mounts),
    }
    if host.privileged or options.unmask:
        linux["maskedPaths"] = []
        linux["readonlyPaths"] = []
    if around.seccomp_profile is not None:
        if around.seccomp_profile:
            linux["seccomp"] = dict(around.seccomp_profile)
    elif not host.privileged and options.seccomp != "unconfined":
        linux["seccomp"] = seccomp.default_filter(caps, around.facts.machine)
    if host.privileged:
        linux["devices"] = [
            {"path": path, "type": kind, "major": major, "minor": minor, "fileMode": mode, "uid": uid, "gid": gid}
            for path, kind, major, minor, mode, uid, gid in around.facts.devices
        ]
    return linux


def _root_propagation(points: Sequence[MountPoint]) -> str:
    wanted = {point.propagation for point in points}
    if wanted & {"shared", "rshared"}:
        return "shared"
    if wanted & {"slave", "rslave"}:
        return "rslave"
    return "rprivate"


def _namespaces(record: Container, around: Surroundings) -> list[dict[str, str]]:
    host = record.host
    shared = {
        "pid": host.pid_mode == "host",
        "network": host.network_mode == "host",
        "ipc": host.ipc_mode == "host",
        "uts": host.uts_mode == "host",
        "cgroup": host.cgroupns_mode == "host",
    }
    namespaces = [{"type": "mount"}]
    if path := around.joined.get("user"):
        namespaces.append({"type": "user", "path": path})
    elif around.ids:
        namespaces.append({"type": "user"})
    for kind, with_host in shared.items():
        if with_host:
            continue
        entry = {"type": kind}
        if path := around.joined.get(kind):
            entry["path"] = path
        namespaces.append(entry)
    return namespaces


def _user_namespace(around: Surroundings) -> dict[str, Any]:
    """The mappings of a user namespace of its own."""
    if around.ids is None or around.joined.get("user"):
        return {}
    uids, gids = around.ids.described()
    return {"uidMappings": uids, "gidMappings": gids}


def _sysctls(record: Container, around: Surroundings) -> dict[str, str]:
    host = record.host
    own_network = host.network_mode != "host" and not host.network_mode.startswith("container:")
    last_group = around.ids.gids[0][2] - 1 if around.ids else 2147483647
    # A container's root may bind low ports and ping without capabilities: its network is its own.
    found = (
        {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {last_group}"}
        if own_network
        else {}
    )
    return found | dict(host.sysctls or {})


def resources(record: Container, around: Surroundings) -> dict[str, Any]:
    """`linux.resources`: the limits asked for, and which devices may be used."""
    found = limits(record)
    if around.throttles:
        found["blockIO"] = {**found.get("blockIO", {}), **around.throttles}
    if record.host.privileged:
        found["devices"] = [{"allow": True, "access": "rwm"}]
        return found
    found["devices"] = profiles.default_devices()
    for device in around.user_devices:
        found["devices"].append(
            {
                "allow": True,
                "type": device["type"],
                "major": device["major"],
                "minor": device["minor"],
                "access": device["access"],
            }
        )
    for rule in record.host.device_cgroup_rules or []:
        found["devices"].append(_device_rule(rule))
    return found


def _device_rule(rule: str) -> dict[str, Any]:
    try:
        kind, numbers, access = rule.split()
        major, _, minor = numbers.partition(":")
        entry: dict[str, Any] = {"allow": True, "type": kind, "access": access}
        if major != "*":
            entry["major"] = int(major)
        if minor != "*":
            entry["minor"] = int(minor)
    except ValueError:
        raise InvalidParameter(f"invalid device cgroup rule format: '{rule}'") from None
    return entry


def limits(record: Container) -> dict[str, Any]:
    """The part of `linux.resources` that `update` may change while the container runs."""
    host = record.host
    cpu: dict[str, Any] = {}
    if host.cpu_shares:
        cpu["shares"] = host.cpu_shares
    if host.nano_cpus:
        cpu |= {"period": 100_000, "quota": host.nano_cpus * 100_000 // 1_000_000_000}
    if host.cpu_period:
        cpu["period"] = host.cpu_period
    if host.cpu_quota:
        cpu["quota"] = host.cpu_quota
    if host.cpu_realtime_period:
        cpu["realtimePeriod"] = host.cpu_realtime_period
    if host.cpu_realtime_runtime:
        cpu["realtimeRuntime"] = host.cpu_realtime_runtime
    if host.cpuset_cpus:
        cpu["cpus"] = host.cpuset_cpus
    if host.cpuset_mems:
        cpu["mems"] = host.cpuset_mems
    memory: dict[str, Any] = {}
    if host.memory:
        memory["limit"] = host.memory
        memory["swap"] = host.memory_swap or host.memory * 2
    elif host.memory_swap:
        memory["swap"] = host.memory_swap
    if host.memory_reservation:
        memory["reservation"] = host.memory_reservation
    if host.memory_swappiness is not None and host.memory_swappiness >= 0:
        memory["swappiness"] = host.memory_swappiness
    if host.oom_kill_disable:
        memory["disableOOMKiller"] = True
    found: dict[str, Any] = {}
    if cpu:
        found["cpu"] = cpu
    if memory:
        found["memory"] = memory
    if host.pids_limit is not None:  # 0 and -1 both lift the limit; None leaves it alone
        found["pids"] = {"limit": host.pids_limit if host.pids_limit > 0 else -1}
    if host.blkio_weight:
        found["blockIO"] = {"weight": host.blkio_weight}
    return found
