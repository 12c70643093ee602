"""Creating a container: check everything, then make its record, folder and snapshot durable in one step."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass

from corral.config import ConfigError
from corral.engine import (
    copyup,
    defaults,
    devices,
    egress,
    extensions,
    logdrivers,
    mounts,
    mountuse,
    names,
    profiles,
    remap,
    removal,
    snapshots,
    unsupported,
    vaultfiles,
)
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import Container, MountPoint, insert
from corral.errors import CorralError, InvalidParameter, NotFound
from corral.oci.idmap import IdMap
from corral.volume.volumes import ANONYMOUS, LOCAL
from corral.wire.containers import ContainerConfig, CreateRequest, EndpointSettings, HostConfig, LogConfig


class PlatformMismatch(NotFound):
    """The image is for another platform than the one asked for."""


class NobodyToJoin(InvalidParameter):
    """The container whose namespace is asked for is not there.  Not a 404: the docker command would pull the image."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such container: {ref}")


class UnknownRuntime(InvalidParameter):
    """No such OCI runtime is configured."""


class MissingPart(InvalidParameter):
    """Another container, a volume driver or an image to mount that the request names does not exist."""


@dataclass(frozen=True)
class Created:
    """The answer to a create."""

    id: str
    warnings: list[str]


async def create(engine: Engine, request: CreateRequest, name: str, platform: str) -> Created:
    """Make a container; raises before anything is changed, or changes everything."""
    host = request.host_config or HostConfig()
    name = defaults.check_name(name) if name else ""
    base = snapshots.base(engine, request, host, platform)
    defaults.apply_image(request, base.run)
    defaults.check_config(request)
    warnings = unsupported.discard(host, engine.facts)
    unsupported.check_realtime(host, engine.facts)
    defaults.fill_host(
        host,
        network="none" if engine.config.bridge == "none" else "bridge",
        shm_size=defaults.size_bytes(engine.config.default_shm_size),
        log=LogConfig(type=engine.config.log_driver, config=dict(engine.config.log_opts or {})),
        runtime=engine.config.default_runtime,
        init=engine.config.init,
        ipc=engine.config.default_ipc_mode,
        cgroupns=engine.config.default_cgroupns_mode,
    )
    defaults.check_host(host, cpus=engine.facts.cpus, hostname=request.hostname)
    remap.check(engine.ids, host)
    logdrivers.check(host.log_config)
    extensions.apply_labels(host, request.labels or {})
    egress.check(host)
    vaultfiles.check(host, engine.vault)
    endpoints = _networks(request, host)
    unsupported.check(host, confining=engine.facts.confining, quotas=engine.snapshots.has_quotas)
    with _as_part_of_the_request():
        _check_against_host(engine, host)
    container_id = secrets.token_hex(32)
    shares_name = host.network_mode == "host" or host.network_mode.startswith("container:") or host.uts_mode == "host"
    if not request.hostname and not shares_name:
        request.hostname = container_id[:12]
    name = name or names.unused(lambda candidate: engine.index.owner_of(candidate) is not None)
    if (owner := engine.index.owner_of(name)) is not None:
        raise defaults.NameTaken(name, owner)
    engine.index.reserve(name, container_id)
    try:
        with _as_part_of_the_request():
            points, new_volumes = await _mount_points(engine, request, host)
        record = Container(
            id=container_id,
            name=name,
            created_ns=time.time_ns(),
            image_id=base.image_id,
            image_ref=base.image_ref,
            layers=base.layers,
            config=_config_of(request),
            host=host,
            networks=endpoints,
            mounts=points,
            architecture=base.architecture,
        )
        try:
            devices.wanted_ports(record)
            await egress.check_networks(engine, record)
            await make_durable(engine, record, base.parent)
        except BaseException:
            await _remove_volumes(engine, new_volumes)
            raise
    except BaseException:
        engine.index.release(name)
        raise
    live = Live(record)
    engine.index.add(live)
    try:
        await copyup.fill_volumes(engine, live)
    except BaseException:
        await removal.remove_now(engine, live, volumes=True)
        raise
    for volume in new_volumes:
        engine.events.publish("volume", "create", volume, mountuse.attributes(engine.volumes.get(volume)))
    engine.images.catalog.used(base.image_id)
    engine.publish(live, "create")
    return Created(container_id, warnings)


@contextlib.contextmanager
def _as_part_of_the_request() -> Iterator[None]:
    """What a request names and does not exist makes the request wrong.

    "Not found" in the answer to a create means the image: clients pull it then, and try again.
    """
    try:
        yield
    except NotFound as error:
        raise MissingPart(str(error)) from error


def _check_against_host(engine: Engine, host: HostConfig) -> None:
    try:
        engine.config.runtime(host.runtime)
    except ConfigError as error:
        raise UnknownRuntime(str(error)) from error
    profiles.capabilities(
        host.cap_add or [], host.cap_drop or [], privileged=False, available=engine.facts.capabilities
    )
    devices.throttles(host)
    devices.init_path(engine.config, host)
    for mode in (host.network_mode, host.ipc_mode, host.pid_mode):
        if mode.startswith("container:") and engine.index.find(mode.partition(":")[2]) is None:
            raise NobodyToJoin(mode.partition(":")[2])
    if host.volumes_from:
        for text in host.volumes_from:
            engine.index.get(text.partition(":")[0])


def _config_of(request: CreateRequest) -> ContainerConfig:
    """The portable part of the request."""
    return ContainerConfig(**{name: getattr(request, name) for name in ContainerConfig.__struct_fields__})


def _networks(request: CreateRequest, host: HostConfig) -> dict[str, EndpointSettings]:
    asked = (request.networking_config.endpoints_config if request.networking_config else None) or {}
    # Clients that were not told a network say "default".
    asked = {"bridge" if name == "default" else name: settings for name, settings in asked.items()}
    mode = host.network_mode
    if mode.startswith("container:"):
        return {}
    if mode in asked or not asked:
        return {**asked, mode: asked.get(mode) or EndpointSettings()}
    return {mode: EndpointSettings(), **asked} if mode != "bridge" else dict(asked)


async def _mount_points(engine: Engine, request: CreateRequest, host: HostConfig) -> tuple[list[MountPoint], list[str]]:
    """Resolve mounts, and make the volumes that they name; returns the names of the new ones."""
    pending: list[tuple[str, str, dict[str, str], dict[str, str]]] = []

    def volume_of(name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> tuple[str, str]:
        chosen = name or mounts.anonymous_name()
        if not name:
            labels = {**labels, ANONYMOUS: ""}
        pending.append((chosen, driver, options, labels))
        return chosen, engine.volumes.folder(chosen)

    def image_of(reference: str) -> str:
        return engine.images.get(reference).id

    points = mounts.points(request, host, volume_of, _inherited(engine, host), image_of)
    made: list[str] = []
    try:
        for name, driver, options, labels in pending:
            volume, new = await engine.volumes.create(name, driver, options, labels)
            if new:
                made.append(volume.name)
            for point in points:
                if point.name == name and point.type == "volume":
                    point.driver = volume.driver
                    if volume.driver != LOCAL:
                        point.source = ""  # its plugin says, when it is mounted
    except BaseException:
        await _remove_volumes(engine, made)
        raise
    return points, made


def _inherited(engine: Engine, host: HostConfig) -> list[MountPoint]:
    """What --volumes-from brings; of two containers with a mount in the same place, the later wins."""
    found: dict[str, MountPoint] = {}
    for text in host.volumes_from or []:
        others = engine.index.get(text.partition(":")[0]).record.mounts
        found |= {point.destination: point for point in mounts.inherited(text, others)}
    return list(found.values())


async def _remove_volumes(engine: Engine, names_: list[str]) -> None:
    """Take back what a create that failed has made."""
    for name in names_:
        with contextlib.suppress(CorralError):
            await engine.volumes.remove(name, engine.users_of_volume(name), force=True)


def make_folder(folder: str, ids: IdMap | None) -> None:
    """A container's folder, with the files that it sees: empty, and its root's own."""
    os.makedirs(folder, mode=0o710)
    for name in ("hosts", "hostname", "resolv.conf"):
        fd = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        if ids:
            os.fchown(fd, *ids.root)
        os.close(fd)


async def make_durable(engine: Engine, record: Container, parent: str) -> None:
    """Folder, snapshot (on `parent`) and row of a new container: all or nothing.  Raises NameTaken."""
    with contextlib.ExitStack() as undo:
        folder = engine.paths.container(record.id)
        make_folder(folder, engine.ids_of(record))
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        _, staged = engine.snapshots.stage(record.id, parent, defaults.storage_limit(record.host))
        undo.callback(engine.snapshots.removed, record.id)
        statements = [staged]
        for point in record.mounts:
            if point.type == "image":
                key = mountuse.image_key(record.id, point.destination)
                chain = engine.images.get(point.source).chain_id
                statements.append(engine.snapshots.stage(key, chain)[1])
                undo.callback(engine.snapshots.removed, key)
        try:
            await engine.commit(*statements, insert(record))
        except sqlite3.IntegrityError as error:
            raise defaults.NameTaken(record.name, engine.index.owner_of(record.name) or "") from error
        undo.pop_all()
