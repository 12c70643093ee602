"""What every use case needs: the subsystems, wired once by the daemon."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from corral.config import Config
from corral.engine import remap
from corral.engine.egresslog import EgressLog
from corral.engine.events import Events
from corral.engine.hostfacts import HostFacts
from corral.engine.live import Index, Live
from corral.engine.record import Container
from corral.engine.tasks import Launcher
from corral.image.images import Images
from corral.image.model import User
from corral.net.networks import Networks
from corral.oci.idmap import IdMap
from corral.store.db import Database, Statement
from corral.store.snapshots import Snapshots
from corral.store.vault import Vault
from corral.volume.snapshots import VolumeSnapshots
from corral.volume.volumes import Volumes


@dataclass(frozen=True)
class Paths:
    """Where a container's files are."""

    data_root: str
    exec_root: str

    @property
    def init_layer(self) -> str:
        """Shared by all containers: see `corral.engine.filesystem`."""
        return os.path.join(self.data_root, "init-layer")

    def container(self, container_id: str) -> str:
        """Durable: log, hosts, hostname, resolv.conf, exit.json."""
        return os.path.join(self.data_root, "containers", container_id)

    def bundle(self, container_id: str) -> str:
        """While it runs: config.json, shim.sock, state/, rootfs/."""
        return os.path.join(self.exec_root, "containers", container_id)

    def file(self, container_id: str, name: str) -> str:
        """One of the durable files."""
        return os.path.join(self.container(container_id), name)


@dataclass
class HealthCounts:
    """Health checks so far."""

    made: int = 0
    failed: int = 0


@dataclass
class Engine:
    """The subsystems and the containers.  `config` is replaced when the daemon reloads it, the rest never."""

    config: Config
    facts: HostFacts
    paths: Paths
    db: Database
    events: Events
    launcher: Launcher
    images: Images
    snapshots: Snapshots
    networks: Networks
    volumes: Volumes
    volume_snapshots: VolumeSnapshots
    vault: Vault
    ids: IdMap | None = None
    """Of containers that do not ask for the host's; None without remapping."""
    index: Index = field(default_factory=Index)
    egress_log: EgressLog = field(init=False)
    checks: HealthCounts = field(default_factory=HealthCounts)
    background: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.egress_log = EgressLog(os.path.dirname(self.paths.container("id")))
        self.networks.on_refusal = self.egress_log.note

    async def commit(self, *statements: Statement) -> None:
        """Make a change durable; returns once it is."""
        await asyncio.wrap_future(self.db.submit(*statements))

    def publish(self, live: Live, action: str, **attributes: str) -> None:
        """Publish an event of a container, with the attributes that each has."""
        self.events.publish("container", action, live.id, container_attributes(live.record) | attributes)

    def ids_of(self, record: Container) -> IdMap | None:
        """The ids of a container; None if it has the host's."""
        return remap.of(self.ids, record.host)

    def users_of_image(self, digest: str) -> list[User]:
        """The containers that were made of an image."""
        return [
            User(live.id, live.has_process)
            for live in self.index
            if live.record.image_id == digest
            or any(point.type == "image" and point.source == digest for point in live.record.mounts)
        ]

    def users_of_item(self, kind: str, name: str) -> list[str]:
        """Names of the containers that have a secret or config."""
        found = []
        for live in self.index:
            host = live.record.host
            files = host.secrets if kind == "secret" else host.configs
            if any(file.source == name for file in files or ()):
                found.append(live.record.name)
        return found

    def users_of_volume(self, name: str) -> list[str]:
        """Ids of the containers that have a volume."""
        return [live.id for live in self.index if _has_volume(live, name)]


def _has_volume(live: Live, name: str) -> bool:
    return any(point.name == name and point.type == "volume" for point in live.record.mounts)


def container_attributes(record: Container) -> dict[str, str]:
    """What every container event says of its container."""
    return {**(record.config.labels or {}), "image": record.image_ref, "name": record.name}
