"""The daemon, as version and info show it, and events."""

from __future__ import annotations

from msgspec import field

from corral.wire.shown.base import Shown


class VersionInfo(Shown, frozen=True):
    """What the daemon is."""

    version: str = ""
    api_version: str = ""
    min_api_version: str = field(default="", name="MinAPIVersion")
    os: str = ""
    arch: str = ""
    kernel_version: str = ""


class SystemInfo(Shown, frozen=True):
    """What the daemon has, and the machine below it."""

    id: str = field(default="", name="ID")
    name: str = ""
    containers: int = 0
    containers_running: int = 0
    containers_paused: int = 0
    containers_stopped: int = 0
    images: int = 0
    driver: str = ""
    kernel_version: str = ""
    operating_system: str = ""
    architecture: str = ""
    cpus: int = field(default=0, name="NCPU")
    memory_bytes: int = field(default=0, name="MemTotal")
    docker_root_dir: str = ""
    server_version: str = ""
    cgroup_version: str = ""
    runtimes: dict[str, dict[str, object]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Actor(Shown, frozen=True):
    """The object that an event is about."""

    id: str = field(default="", name="ID")
    attributes: dict[str, str] = field(default_factory=dict)


class Event(Shown, frozen=True):
    """Something that has happened to an object."""

    type: str = ""
    action: str = ""
    actor: Actor = field(default_factory=Actor)
    scope: str = field(default="", name="scope")
    time_ns: int = field(default=0, name="timeNano")
