"""What a create request names on this machine: devices, throttles, ports, the init program."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from typing import Any

from corral.config import Config
from corral.engine.record import Container
from corral.errors import InvalidParameter, Unavailable
from corral.net.model import PortBinding
from corral.wire.containers import HostConfig, ThrottleDevice
from corral.wire.containers import PortBinding as HostSide


class BadDevice(InvalidParameter):
    """A device that does not exist or is not one."""


class BadPort(InvalidParameter):
    """A port specification that cannot be read."""


class NoInit(Unavailable):
    """--init is asked for and this machine has no init program."""


def init_path(config: Config, host: HostConfig) -> str:
    """The program for --init where it is not our own runtime's: `init-path`, else what the host has."""
    if not host.init:
        return ""
    if config.init_path:
        if not os.access(config.init_path, os.X_OK):
            raise NoInit(f"cannot use --init: {config.init_path} cannot be executed")
        return config.init_path
    if config.runtime(host.runtime) is None:
        return ""
    for name in ("docker-init", "tini-static", "tini", "catatonit"):
        path = shutil.which(name) or shutil.which(name, path="/usr/libexec/docker:/usr/libexec/podman:/usr/sbin")
        if path:
            return path
    raise NoInit("cannot use --init with another runtime: none of docker-init, tini and catatonit is installed")


def chosen(host: HostConfig) -> list[dict[str, Any]]:
    """--device entries as OCI devices, each with its `access`; a folder stands for every device in it."""
    found = []
    for device in host.devices or []:
        target = device.path_in_container or device.path_on_host
        access = device.cgroup_permissions or "rwm"
        if set(access) - set("rwm"):
            raise BadDevice(f"invalid device mode: {access}")
        if os.path.isdir(device.path_on_host):
            for folder, _, names in os.walk(device.path_on_host):
                for name in sorted(names):
                    path = os.path.join(folder, name)
                    inside = os.path.join(target, os.path.relpath(path, device.path_on_host))
                    if _is_device(path):
                        found.append(_device(path, inside, access))
        else:
            found.append(_device(device.path_on_host, target, access))
    return found


def _is_device(path: str) -> bool:
    try:
        mode = os.lstat(path).st_mode
    except OSError:  # it has just gone
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _device(path: str, target: str, access: str) -> dict[str, Any]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise BadDevice(
            f'error gathering device information while adding custom device "{path}": {(error.strerror or "").lower()}'
        ) from error
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise BadDevice(f'error gathering device information while adding custom device "{path}": not a device node')
    return {
        "path": target,
        "type": "c" if stat.S_ISCHR(found.st_mode) else "b",
        "major": os.major(found.st_rdev),
        "minor": os.minor(found.st_rdev),
        "fileMode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "access": access,
    }


def throttles(host: HostConfig) -> dict[str, Any]:
    """`linux.resources.blockIO` entries for named block devices."""

    def numbers(path: str) -> dict[str, int]:
        try:
            found = os.stat(path)
        except OSError as error:
            raise BadDevice(f"cannot throttle {path}: {error.strerror}") from error
        if not stat.S_ISBLK(found.st_mode):
            raise BadDevice(f"cannot throttle {path}: not a block device")
        return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}

    def rates(devices: list[ThrottleDevice] | None) -> list[dict[str, int]]:
        return [{**numbers(device.path), "rate": device.rate} for device in devices or []]

    entries: dict[str, Any] = {
        "throttleReadBpsDevice": rates(host.blkio_device_read_bps),
        "throttleWriteBpsDevice": rates(host.blkio_device_write_bps),
        "throttleReadIOPSDevice": rates(host.blkio_device_read_iops),
        "throttleWriteIOPSDevice": rates(host.blkio_device_write_iops),
        "weightDevice": [{**numbers(item.path), "weight": item.weight} for item in host.blkio_weight_device or []],
    }
    return {name: value for name, value in entries.items() if value}


def wanted_ports(record: Container) -> list[PortBinding]:
    """What `-p` and `-P` ask for; raises BadPort."""
    found = []
    bindings = dict(record.host.port_bindings or {})
    if record.host.publish_all_ports:
        for port in record.config.exposed_ports or {}:
            if not bindings.get(port):
                bindings[port] = []
    for port, hosts in bindings.items():
        if not hosts and record.host.publish_all_ports:
            number, proto = parse_port(port)
            found.append(PortBinding(proto, number))
        found += ports_of(port, hosts or [])
    return found


def ports_of(port: str, hosts: Iterable[HostSide]) -> list[PortBinding]:
    """A container's port (`80/tcp`) with its host sides, in the network side's terms; raises BadPort."""
    number, proto = parse_port(port)
    return [PortBinding(proto, number, host.host_ip, *_host_port(host.host_port)) for host in hosts]


def parse_port(text: str) -> tuple[int, str]:
    """`80/tcp` as a number and a protocol; raises BadPort."""
    number, _, proto = text.partition("/")
    proto = (proto or "tcp").lower()
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise BadPort(f"invalid port specification: '{text}'")
    if proto not in ("tcp", "udp", "sctp"):
        raise BadPort(f"invalid proto: {proto}")
    return int(number), proto


def _host_port(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    first, dash, last = text.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise BadPort(f"invalid port specification: '{text}'")
    low, high = int(first), int(last) if dash else 0
    if low > 65535 or high > 65535 or (dash and high < low):
        raise BadPort(f"invalid port specification: '{text}'")
    return low, high


_ARCHES = {"x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64")}


def seccomp_for_machine(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A user's profile (Docker's form: `archMap`, includes and excludes) as OCI `linux.seccomp` for this machine."""
    machine = os.uname().machine
    native, name = _ARCHES.get(machine, ("", machine))
    found: dict[str, Any] = {
        key: profile[key] for key in ("defaultAction", "defaultErrnoRet", "flags") if key in profile
    }
    architectures = list(profile.get("architectures") or [])
    for entry in profile.get("archMap") or []:
        if entry.get("architecture") == native:
            architectures = [native, *(entry.get("subArchitectures") or [])]
    if architectures:
        found["architectures"] = architectures
    rules = []
    for rule in profile.get("syscalls") or []:
        included, excluded = rule.get("includes") or {}, rule.get("excludes") or {}
        if (included.get("arches") and name not in included["arches"]) or name in (excluded.get("arches") or []):
            continue
        names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
        kept = {key: rule[key] for key in ("action", "errnoRet", "args") if rule.get(key) is not None}
        rules.append({"names": names, **kept})
    found["syscalls"] = rules
    return found
