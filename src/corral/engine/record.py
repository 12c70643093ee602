"""The durable record of a container, and its place in the database."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from corral.engine.lifecycle import Status
from corral.net.model import Endpoint, PortBinding
from corral.wire.containers import ContainerConfig, EndpointSettings, HostConfig

ZERO_TIME = "0001-01-01T00:00:00Z"


Statement = tuple[str, tuple[Any, ...]]  # for `store.db`


def timestamp(ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 with nanoseconds, as Docker writes it."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


class State(msgspec.Struct):
    """Where a container is in its life.  `exit_code` and `finished_at` are of the last run that ended."""

    status: Status = "created"
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    restarts: int = 0
    stopped_by_user: bool = False
    held: bool = False  # paused by the engine for a moment, not by a user


class MountPoint(msgspec.Struct):
    """One mount of a container: source on the host, where it appears, and how."""

    type: str
    source: str
    destination: str
    mode: str = ""
    rw: bool = True
    propagation: str = ""
    name: str = ""
    driver: str = ""
    options: tuple[str, ...] = ()
    from_spec: bool = False  # from HostConfig.Mounts, whose missing source is an error
    anonymous: bool = False  # the container's own volume, made because no name was given
    subpath: str = ""  # below the volume or image
    uids: tuple[tuple[int, int, int], ...] = ()  # (id on disk, id in the container, count) of an id-mapped bind
    gids: tuple[tuple[int, int, int], ...] = ()


class Snapshot(msgspec.Struct, frozen=True):
    """A named moment of a container's file system: `key` is of `store.snapshots`, the configuration that of then."""

    name: str
    key: str
    created_ns: int
    config: ContainerConfig


class Container(msgspec.Struct):
    """Everything about a container that outlives the daemon."""

    id: str
    name: str
    created_ns: int
    image_id: str
    image_ref: str
    layers: str  # chain id of the image's file system; "" for an empty one
    config: ContainerConfig
    host: HostConfig
    networks: dict[str, EndpointSettings]
    mounts: list[MountPoint]
    architecture: str = ""
    state: State = msgspec.field(default_factory=State)
    endpoints: list[Endpoint] = msgspec.field(default_factory=list)
    ports: list[PortBinding] = msgspec.field(default_factory=list)
    snapshots: list[Snapshot] = msgspec.field(default_factory=list)

    @property
    def created(self) -> str:
        """When it was created, as RFC 3339."""
        return timestamp(self.created_ns)

    @property
    def argv(self) -> list[str]:
        """The command line of the process."""
        return [*(self.config.entrypoint or ()), *(self.config.cmd or ())]

    @property
    def log_path(self) -> str:
        """Name of the log file below the container's folder."""
        return f"{self.id}-json.log"


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Container)


def insert(record: Container) -> Statement:
    """Add a new container."""
    return "INSERT INTO container (id, name, record) VALUES (?, ?, ?)", (
        record.id,
        record.name,
        _encoder.encode(record),
    )


def save(record: Container) -> Statement:
    """Replace what is kept of a container."""
    return "UPDATE container SET name = ?, record = ? WHERE id = ?", (record.name, _encoder.encode(record), record.id)


def delete(record: Container) -> Statement:
    """Forget a container."""
    return "DELETE FROM container WHERE id = ?", (record.id,)


def load(row: tuple[Any, ...]) -> Container:
    """A row's `record` column."""
    return _decoder.decode(row[0])
