"""`docker version`, `info` and `system df`."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import time
from typing import Any

from corral.engine import cdi
from corral.engine.context import Engine
from corral.engine.logdrivers import DRIVERS
from corral.engine.record import timestamp
from corral.image.registries import Registries

VERSION = "0.1.0"


def version(engine: Engine, newest: str, oldest: str) -> dict[str, Any]:
    """`GET /version`."""
    facts = engine.facts
    details = {
        "ApiVersion": newest,
        "Arch": facts.architecture,
        "BuildTime": "",
        "Experimental": "false",
        "GitCommit": "",
        "GoVersion": f"Python {platform.python_version()}",
        "KernelVersion": facts.kernel,
        "MinAPIVersion": oldest,
        "Os": "linux",
    }
    return {
        "Platform": {"Name": "Corral"},
        "Components": [{"Name": "Engine", "Version": VERSION, "Details": details}],
        "Version": VERSION,
        "ApiVersion": newest,
        "MinAPIVersion": oldest,
        "GitCommit": "",
        "GoVersion": f"Python {platform.python_version()}",
        "Os": "linux",
        "Arch": facts.architecture,
        "KernelVersion": facts.kernel,
        "BuildTime": "",
    }


def info(engine: Engine) -> dict[str, Any]:
    """`GET /info`."""
    facts, config = engine.facts, engine.config
    states = [live.record.state.status for live in engine.index]
    paused, running = states.count("paused"), states.count("running") + states.count("restarting")
    has = facts.controllers.__contains__
    security = ["name=seccomp,profile=builtin"]
    if engine.ids:
        security.append("name=userns")
    security.append("name=cgroupns")
    runtimes: dict[str, Any] = {name: {"path": name} for name in ("corral", "crun", "runc")}
    runtimes |= {name: dict(value) for name, value in (config.runtimes or {}).items()}
    return {
        "ID": identity(engine),
        "Containers": len(states),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": len(states) - running - paused,
        "Images": len(engine.images.list()),
        "Driver": "overlayfs",
        "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "ipvlan", "macvlan", "null"],
            "Authorization": None,
            "Log": sorted(DRIVERS),
        },
        "MemoryLimit": has("memory"),
        "SwapLimit": facts.swap_accounting,
        "CpuCfsPeriod": has("cpu"),
        "CpuCfsQuota": has("cpu"),
        "CPUShares": has("cpu"),
        "CPUSet": has("cpuset"),
        "PidsLimit": has("pids"),
        "IPv4Forwarding": _reads_one("/proc/sys/net/ipv4/ip_forward"),
        "Debug": config.debug,
        "NFd": len(os.listdir("/proc/self/fd")),
        "OomKillDisable": facts.cgroup_version == 1,
        "NGoroutines": len(asyncio.all_tasks()),
        "SystemTime": timestamp(time.time_ns()),
        "LoggingDriver": config.log_driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": str(facts.cgroup_version),
        "NEventsListener": engine.events.listeners,
        "KernelVersion": facts.kernel,
        "OperatingSystem": facts.operating_system,
        "OSVersion": facts.os_version,
        "OSType": "linux",
        "Architecture": facts.machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": _registry_config(engine.images.registries),
        "NCPU": facts.cpus,
        "MemTotal": facts.memory_bytes,
        "GenericResources": None,
        "DockerRootDir": engine.paths.data_root,
        "HttpProxy": _without_password(config.http_proxy or os.environ.get("HTTP_PROXY", "")),
        "HttpsProxy": _without_password(config.https_proxy or os.environ.get("HTTPS_PROXY", "")),
        "NoProxy": config.no_proxy or os.environ.get("NO_PROXY", ""),
        "Name": facts.hostname,
        "Labels": list(config.labels),
        "ExperimentalBuild": False,
        "ServerVersion": VERSION,
        "Runtimes": runtimes,
        "DefaultRuntime": config.default_runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": config.live_restore,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": security,
        "CDISpecDirs": list(config.cdi_spec_dirs),
        "DiscoveredDevices": cdi.discovered(config.cdi_spec_dirs),
        "Warnings": _warnings(engine),
    }


def _registry_config(settings: Registries) -> dict[str, Any]:
    hub_mirrors = [url if url.endswith("/") else url + "/" for url in settings.mirrors]
    hosts = {
        name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in sorted(settings.insecure)
    }
    for key, entry in settings.entries.items():
        if "/" not in key and key != "docker.io":
            secure = not entry.insecure and key not in hosts
            hosts[key] = {"Name": key, "Mirrors": list(entry.mirrors), "Secure": secure, "Official": False}
    hub = {"Name": "docker.io", "Mirrors": hub_mirrors, "Secure": True, "Official": True}
    return {
        "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8", *settings.networks],
        "IndexConfigs": {"docker.io": hub, **hosts},
        "Mirrors": hub_mirrors,
    }


def _without_password(url: str) -> str:
    """A proxy's address as it may be shown."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}xxxxx:xxxxx@{rest.rpartition('@')[2]}" if separator and "@" in rest else url


def _warnings(engine: Engine) -> list[str]:
    facts = engine.facts
    found = []
    if not facts.swap_accounting:
        found.append("WARNING: No swap limit support")
    for controller in ("memory", "cpu", "cpuset", "pids"):
        if controller not in facts.controllers:
            found.append(f"WARNING: No {controller} limit support")
    if not _reads_one("/proc/sys/net/ipv4/ip_forward"):
        found.append("WARNING: IPv4 forwarding is disabled")
    return found


def _reads_one(path: str) -> bool:
    try:
        with open(path) as file:
            return file.read().strip() == "1"
    except OSError:
        return False


def identity(engine: Engine) -> str:
    """The id of this daemon."""
    return _machine_id(engine.paths.data_root)


def _machine_id(data_root: str) -> str:
    """An id of this daemon that stays: made once, kept in the data root."""
    path = os.path.join(data_root, "engine-id")
    try:
        with open(path) as file:
            return file.read().strip()
    except FileNotFoundError:
        digest = hashlib.sha256(os.urandom(32)).hexdigest()
        made = "-".join((digest[:8], digest[8:12], digest[12:16], digest[16:20], digest[20:32]))
        with open(path, "w") as file:
            file.write(made)
        return made
