"""Volumes: the local driver's, a folder per volume below the data root, and those of plugins.

volumes/NAME/_data      what containers see; the place people look into
volumes/NAME/snapshots  see `volume.snapshots`
volumes/.new-*/_data    a volume that is being filled; nobody knows it yet

A local volume with `type` and `device` is mounted at its `_data` while a container has it, as in Docker: containers
that run at the same time share one tmpfs.  Who has it (`mount`, `unmount`) lives in memory; a new daemon is told by
`adopt` and then unmounts what nobody has (`settle`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shutil
import time
from collections import defaultdict
from typing import Any

import msgspec

from corral.errors import Conflict, CorralError, InvalidParameter, NotFound
from corral.linux import quota
from corral.store.db import Database, Statement
from corral.volume import hostmounts, local
from corral.volume.plugins import Plugin, PluginError, Plugins, UnknownVolumeDriver

_log = logging.getLogger(__name__)

ANONYMOUS = "com.docker.volume.anonymous"  # the label that says so
LOCAL = "local"
_STAGED = ".new-"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class NoSuchVolume(NotFound):
    """No volume has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")


class InvalidVolume(InvalidParameter):
    """A volume request that cannot be fulfilled."""


class OtherDriver(Conflict):
    """The name belongs to a volume of another driver."""

    def __init__(self, name: str, driver: str) -> None:
        super().__init__(f"create {name}: driver '{driver}' already has volume '{name}': volume name must be unique")


class VolumeExists(Conflict):
    """The name is taken."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a volume named {name} exists already")


class NotLocal(InvalidParameter):
    """What only volumes of the local driver can do."""

    def __init__(self, name: str, driver: str) -> None:
        super().__init__(f"volume {name} belongs to the driver {driver}, which cannot do this")


class VolumeInUse(Conflict):
    """A container has the volume."""

    def __init__(self, name: str, users: list[str], verb: str = "remove") -> None:
        super().__init__(f"{verb} {name}: volume is in use - [{', '.join(users)}]")


class Snapshot(msgspec.Struct, frozen=True):
    """A named moment of a volume; `volume.snapshots` has the files."""

    name: str
    created: str


class Volume(msgspec.Struct):
    """One volume."""

    name: str
    created: str
    labels: dict[str, str]
    options: dict[str, str]
    driver: str = LOCAL
    moved_from: str = ""  # the folder that is about to become this volume's
    snapshots: list[Snapshot] = msgspec.field(default_factory=list)

    @property
    def anonymous(self) -> bool:
        """Whether nobody named it, so that it goes with its container or with a prune."""
        return ANONYMOUS in self.labels

    @property
    def named_labels(self) -> dict[str, str]:
        """Its labels but the one that says that nobody named it."""
        return {name: value for name, value in self.labels.items() if name != ANONYMOUS}

    @property
    def mounted_on_use(self) -> bool:
        """Whether its files are reached only while it is mounted."""
        return self.driver != LOCAL or local.needs_mount(self.options)


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Volume)


def _deletion(name: str) -> Statement:
    return "DELETE FROM volume WHERE name = ?", (name,)


def now() -> str:
    """The time of creation, as Docker writes a volume's."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Volumes:
    """Every volume of this daemon."""

    def __init__(
        self, db: Database, root: str, plugins: Plugins | None = None, owner: tuple[int, int] | None = None
    ) -> None:
        """`owner` is the container's root, if it is not the host's: new volumes are its own."""
        self._db = db
        self._owner = owner
        self._root = os.path.join(root, "volumes")
        os.makedirs(self._root, mode=0o701, exist_ok=True)
        self._has_quotas = quota.is_enforced(self._root)
        self.plugins = plugins or Plugins()
        self._volumes = {
            volume.name: volume for (row,) in db.read("SELECT record FROM volume") for volume in [_decoder.decode(row)]
        }
        self._finish_moves()
        self._holders: dict[str, set[str]] = defaultdict(set)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def _finish_moves(self) -> None:
        """After a crash: what was moved in the records is moved on the disk; what was being filled is dropped."""
        for volume in self._volumes.values():
            if volume.moved_from:
                self._move(volume)
                self._db.submit(self._update(volume))
        for entry in os.listdir(self._root):
            if entry.startswith(_STAGED):
                self.discard(entry)

    def all(self) -> list[Volume]:
        """Every volume that was made or used here, oldest first."""
        return sorted(self._volumes.values(), key=lambda volume: volume.created)

    async def listed(self) -> tuple[list[Volume], list[str]]:
        """Every volume, those that only a plugin knows too, and warnings about plugins that did not answer."""
        found, warnings = self.all(), []
        for plugin in await asyncio.to_thread(self.plugins.drivers):
            try:
                told = (await asyncio.to_thread(plugin.call, "List")).get("Volumes") or []
            except PluginError as error:
                warnings.append(f"cannot list the volumes of {plugin.name}: {error}")
                continue
            names = [str(one.get("Name") or "") for one in told if isinstance(one, dict)]
            found += [Volume(name, "", {}, {}, plugin.name) for name in names if name and name not in self._volumes]
        return found, warnings

    def get(self, name: str) -> Volume:
        """The volume called `name`, if it was made or used here; raises NoSuchVolume."""
        if name not in self._volumes:
            raise NoSuchVolume(name)
        return self._volumes[name]

    async def look_up(self, name: str) -> Volume:
        """As `get`, but plugins are asked too."""
        if name in self._volumes:
            return self._volumes[name]
        for plugin in await asyncio.to_thread(self.plugins.drivers):
            try:
                found = (await asyncio.to_thread(plugin.call, "Get", Name=name)).get("Volume") or {}
            except CorralError:
                continue
            if found.get("Name") == name:
                return Volume(name, "", {}, {}, plugin.name)
        raise NoSuchVolume(name)

    def folder(self, name: str) -> str:
        """Where a local volume's files are."""
        return os.path.join(self._root, name, "_data")

    def _make_folder(self, name: str, options: dict[str, str]) -> None:
        folder = self.folder(name)
        if not os.path.isdir(folder):
            os.makedirs(folder, mode=0o755)
            if self._owner:
                os.chown(folder, *self._owner)
            if size := local.check_options(options):
                quota.limit(folder, size)

    async def described(self, volume: Volume) -> dict[str, Any]:
        """What the driver says of it: `Mountpoint`, `Scope`, perhaps `Status` and `CreatedAt`."""
        if volume.driver == LOCAL:
            return {"Mountpoint": self.folder(volume.name), "Scope": "local"}
        try:
            plugin = await self._plugin(volume.driver)
            told = (await asyncio.to_thread(plugin.call, "Get", Name=volume.name)).get("Volume") or {}
            scope = await asyncio.to_thread(plugin.scope)
        except CorralError as error:
            _log.warning("cannot ask the driver of volume %s: %s", volume.name, error)
            return {"Mountpoint": "", "Scope": "local"}
        found: dict[str, Any] = {"Mountpoint": str(told.get("Mountpoint") or ""), "Scope": scope}
        if told.get("Status"):
            found["Status"] = told["Status"]
        if told.get("CreatedAt"):
            found["CreatedAt"] = told["CreatedAt"]
        return found

    async def create(
        self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]
    ) -> tuple[Volume, bool]:
        """The volume called `name` ("" for a new name), and whether it is new."""
        if not name:
            labels = {**labels, ANONYMOUS: ""}
        name = name or secrets.token_hex(32)
        if driver in ("", LOCAL) and not (not driver and name in self._volumes):
            self._check_local(name, options)
        async with self._locks[name]:
            return await self._create(name, driver, options, labels)

    async def _create(
        self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]
    ) -> tuple[Volume, bool]:
        if name in self._volumes:
            existing = self._volumes[name]
            if driver and existing.driver != driver:
                raise OtherDriver(name, existing.driver)
            return existing, False
        if not driver and ANONYMOUS not in labels:
            with contextlib.suppress(NoSuchVolume):
                known = await self.look_up(name)
                await self._keep(known)
                return known, False
        volume = Volume(name, now(), labels, options, driver or LOCAL)
        if volume.driver == LOCAL:
            self._make_folder(name, options)
        else:
            plugin = await self._plugin(volume.driver)
            try:
                await asyncio.to_thread(plugin.call, "Create", Name=name, Opts=options or {})
            except PluginError as error:
                raise PluginError(f"create {name}: {error}") from error
        await self._keep(volume)
        return volume, True

    def _check_local(self, name: str, options: dict[str, str]) -> None:
        if not _NAME.fullmatch(name):
            raise InvalidVolume(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        try:
            size = local.check_options(options)
        except local.InvalidOption as error:
            raise InvalidVolume(f"create {name}: {error}") from error
        if size and not self._has_quotas:
            raise InvalidVolume(f"create {name}: quota size requested but no quota support")

    async def _keep(self, volume: Volume) -> None:
        self._volumes[volume.name] = volume
        try:
            await asyncio.wrap_future(self._db.submit(self._insertion(volume)))
        except BaseException:
            del self._volumes[volume.name]
            raise

    async def remove(self, name: str, users: list[str], *, force: bool = False) -> None:
        """Delete a volume and its files; raises VolumeInUse while containers have it.

        With `force` a plugin that fails or is gone does not keep it.
        """
        volume = await self.look_up(name)
        async with self._locks[name]:
            if users:
                raise VolumeInUse(name, users)
            if volume.driver != LOCAL:
                try:
                    plugin = await self._plugin(volume.driver)
                    await asyncio.to_thread(plugin.call, "Remove", Name=name)
                except CorralError as error:
                    if not force:
                        raise PluginError(f"remove {name}: {error}") from error
            await asyncio.wrap_future(self._db.submit(_deletion(name)))
            self._volumes.pop(name, None)
            if volume.driver == LOCAL:
                await asyncio.to_thread(self._delete_files, name)
        self._locks.pop(name, None)

    def _delete_files(self, name: str) -> None:
        if hostmounts.is_mounted(self.folder(name)):
            hostmounts.unmount(self.folder(name))  # what is mounted is not ours to delete
        self._lift_quota(name)
        shutil.rmtree(os.path.join(self._root, name), ignore_errors=True)

    def _lift_quota(self, name: str) -> None:
        if self._has_quotas and os.path.isdir(self.folder(name)):
            quota.lift(self.folder(name))

    # --- whole volumes ---------------------------------------------------------------------------------------

    def stage(self, options: dict[str, str] | None = None) -> str:
        """A place for the files of a volume to come, as large as `options` say; `folder` says where it is."""
        staged = f"{_STAGED}{secrets.token_hex(8)}"
        self._make_folder(staged, options or {})
        return staged

    def discard(self, staged: str) -> None:
        """Drop what was staged."""
        self._lift_quota(staged)
        shutil.rmtree(os.path.join(self._root, staged), ignore_errors=True)

    def lock(self, name: str) -> asyncio.Lock:
        """Held by whoever changes a volume."""
        return self._locks[name]

    async def save(self, volume: Volume, snapshots: list[Snapshot]) -> None:
        """Keep a volume with these snapshots."""
        changed = msgspec.structs.replace(volume, snapshots=snapshots)
        await asyncio.wrap_future(self._db.submit(self._update(changed)))
        self._volumes[volume.name] = changed

    def check_new(self, name: str) -> None:
        """Raise unless a local volume may have this name and none has."""
        self._check_local(name, {})
        if name in self._volumes:
            raise VolumeExists(name)

    async def take_over(self, staged: str, name: str, labels: dict[str, str]) -> Volume:
        """Make a local volume of what was staged; raises VolumeExists."""
        async with self._locks[name]:
            self.check_new(name)
            volume = Volume(name, now(), labels, {}, moved_from=staged)
            await self._keep(volume)
            await self._finish_move(volume)
        return volume

    async def rename(self, name: str, new_name: str, users: list[str]) -> Volume:
        """Give a local volume that no container has another name; raises VolumeInUse or VolumeExists."""
        old = self.get(name)
        if old.driver != LOCAL:
            raise NotLocal(name, old.driver)
        self.check_new(new_name)
        async with self._locks[name], self._locks[new_name]:
            if users or self._holders[name]:
                raise VolumeInUse(name, users or sorted(self._holders[name]), "rename")
            self.check_new(new_name)
            volume = msgspec.structs.replace(old, name=new_name, labels=old.named_labels, moved_from=name)
            self._volumes[new_name] = volume
            try:
                await asyncio.wrap_future(self._db.submit(_deletion(name), self._insertion(volume)))
            except BaseException:
                del self._volumes[new_name]
                raise
            self._volumes.pop(name, None)
            await self._finish_move(volume)
        return volume

    async def _finish_move(self, volume: Volume) -> None:
        await asyncio.to_thread(self._move, volume)
        await asyncio.wrap_future(self._db.submit(self._update(volume)))

    def _move(self, volume: Volume) -> None:
        source, target = os.path.join(self._root, volume.moved_from), os.path.join(self._root, volume.name)
        if os.path.isdir(source):
            shutil.rmtree(target, ignore_errors=True)  # of a create that did not come to its end
            os.rename(source, target)
        volume.moved_from = ""

    def _insertion(self, volume: Volume) -> Statement:
        return "INSERT INTO volume (name, record) VALUES (?, ?)", (volume.name, _encoder.encode(volume))

    def _update(self, volume: Volume) -> Statement:
        return "UPDATE volume SET record = ? WHERE name = ?", (_encoder.encode(volume), volume.name)

    # --- use -------------------------------------------------------------------------------------------------

    def holder(self, purpose: str) -> str:
        """A token for a use of volumes that no container makes."""
        return f"{purpose}-{secrets.token_hex(8)}"

    async def mount(self, name: str, holder: str) -> str:
        """Make the files reachable for `holder` (a container's id, or any other token); where they are."""
        volume = self.get(name)
        if not volume.mounted_on_use:
            return self.folder(name)
        async with self._locks[name]:
            if volume.driver != LOCAL:
                path = await self._mount_by_plugin(volume, holder)
            else:
                path = self.folder(name)
                if not self._holders[name]:
                    await asyncio.to_thread(hostmounts.mount_local, volume.options, path)
            self._holders[name].add(holder)
            return path

    async def _mount_by_plugin(self, volume: Volume, holder: str) -> str:
        plugin = await self._plugin(volume.driver)
        told = await asyncio.to_thread(plugin.call, "Mount", Name=volume.name, ID=holder)
        path = str(told.get("Mountpoint") or "")
        if not path.startswith("/"):
            raise PluginError(f"VolumeDriver.Mount: volume {volume.name} was mounted nowhere")
        return path

    async def unmount(self, name: str, holder: str) -> None:
        """`holder` needs the files no more; unknown holders are fine.  What fails is logged: nobody can act on it."""
        volume = self._volumes.get(name)
        if volume is None or not volume.mounted_on_use:
            return
        async with self._locks[name]:
            if holder not in self._holders[name]:
                return
            self._holders[name].discard(holder)
            try:
                if volume.driver != LOCAL:
                    plugin = await self._plugin(volume.driver)
                    await asyncio.to_thread(plugin.call, "Unmount", Name=name, ID=holder)
                elif not self._holders[name]:
                    await asyncio.to_thread(hostmounts.unmount, self.folder(name))
            except (CorralError, OSError) as error:
                _log.error("cannot unmount volume %s: %s", name, error)

    def adopt(self, name: str, holder: str) -> None:
        """After a restart: `holder` has the volume already."""
        if name in self._volumes and self._volumes[name].mounted_on_use:
            self._holders[name].add(holder)

    async def settle(self) -> None:
        """After a restart, once everybody who has a volume was adopted: unmount what nobody has."""
        for volume in self.all():
            if volume.driver == LOCAL and local.needs_mount(volume.options):
                mounted = await asyncio.to_thread(hostmounts.is_mounted, self.folder(volume.name))
                if mounted and not self._holders[volume.name]:
                    await asyncio.to_thread(hostmounts.unmount, self.folder(volume.name))
                elif not mounted:  # the machine was restarted meanwhile
                    self._holders[volume.name].clear()

    async def _plugin(self, driver: str) -> Plugin:
        return await asyncio.to_thread(self.plugins.get, driver)


__all__ = [
    "ANONYMOUS", "LOCAL", "InvalidVolume", "NoSuchVolume", "OtherDriver", "UnknownVolumeDriver", "Volume",
    "VolumeInUse", "Volumes",
]  # fmt: skip
