"""What a local volume held at some moment: copies beside its files.

    volumes/NAME/_data          what containers see
    volumes/NAME/snapshots/S    a copy; one that the volume's record does not name is garbage

A copy is complete and on disk before it gets its name, and has its name before the record says so.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from contextlib import AbstractAsyncContextManager

from corral.errors import Conflict, InvalidParameter, NotFound
from corral.linux import filesystem
from corral.store.duplicate import duplicate
from corral.volume.volumes import LOCAL, Snapshot, Volume, Volumes, now

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


class BadSnapshotName(InvalidParameter):
    """A name that cannot be used, or a reference that is not HOLDER@SNAPSHOT."""


class NoSuchSnapshot(NotFound):
    """The holder, a volume or a container, has no snapshot of that name."""

    def __init__(self, holder: str, name: str) -> None:
        super().__init__(f"No such snapshot: {holder}@{name}")


class SnapshotTaken(Conflict):
    """The holder has a snapshot of that name."""

    def __init__(self, holder: str, name: str) -> None:
        super().__init__(f"snapshot {holder}@{name} already exists")


def check_name(name: str) -> None:
    """Raise BadSnapshotName unless a snapshot, and so a directory of ours, may be called that."""
    if not _NAME.fullmatch(name):
        raise BadSnapshotName(f"invalid snapshot name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")


class NotOurs(InvalidParameter):
    """The volume's files are not below the data root."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"volume {name}: only the local driver's volumes without a device have snapshots; clone it first"
        )


class VolumeSnapshots:
    """The snapshots of every volume; each verb is whole or not done."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        for volume in volumes.all():
            self._drop_unnamed(volume)

    def of(self, name: str) -> Volume:
        """A volume that can have snapshots; raises NoSuchVolume or NotOurs."""
        volume = self._volumes.get(name)
        if volume.driver != LOCAL or volume.mounted_on_use:
            raise NotOurs(name)
        return volume

    def path(self, volume: Volume, snapshot: str) -> str:
        """Where a snapshot's files are; raises NoSuchSnapshot."""
        if all(one.name != snapshot for one in volume.snapshots):
            raise NoSuchSnapshot(volume.name, snapshot)
        return self._place(volume, snapshot)

    async def take(self, name: str, snapshot: str, still: AbstractAsyncContextManager[object]) -> Snapshot:
        """Keep the files under a name; they are copied in the context `still`."""
        check_name(snapshot)
        async with self._volumes.lock(name):
            volume = self.of(name)
            if any(one.name == snapshot for one in volume.snapshots):
                raise SnapshotTaken(name, snapshot)
            async with still:
                staged = await self._copy(self._volumes.folder(name), {})
            try:
                await asyncio.to_thread(self._put, staged, self._place(volume, snapshot))
                taken = Snapshot(snapshot, now())
                await self._volumes.save(volume, [*volume.snapshots, taken])
            finally:
                await asyncio.to_thread(self._volumes.discard, staged)
        return taken

    async def restore(self, name: str, snapshot: str) -> None:
        """Give a volume that nobody uses (the caller knows) the files of then; the snapshot stays."""
        async with self._volumes.lock(name):
            volume = self.of(name)
            staged = await self._copy(self.path(volume, snapshot), volume.options)
            try:
                await asyncio.to_thread(self._swap, staged, name)
            finally:
                await asyncio.to_thread(self._volumes.discard, staged)

    async def forget(self, name: str, snapshot: str) -> None:
        """Remove a snapshot."""
        async with self._volumes.lock(name):
            volume = self.of(name)
            path = self.path(volume, snapshot)
            await self._volumes.save(volume, [one for one in volume.snapshots if one.name != snapshot])
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)

    async def _copy(self, source: str, options: dict[str, str]) -> str:
        staged = self._volumes.stage(options)
        try:
            await asyncio.to_thread(duplicate, source, self._volumes.folder(staged))
        except BaseException:
            await asyncio.to_thread(self._volumes.discard, staged)
            raise
        return staged

    def _put(self, staged: str, target: str) -> None:
        filesystem.sync(self._volumes.folder(staged))
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # of a try that a failing disk ended
        os.rename(self._volumes.folder(staged), target)
        filesystem.sync(target)

    def _swap(self, staged: str, name: str) -> None:
        filesystem.sync(self._volumes.folder(staged))
        filesystem.exchange(self._volumes.folder(staged), self._volumes.folder(name))
        filesystem.sync(self._volumes.folder(name))

    def _place(self, volume: Volume, snapshot: str) -> str:
        return os.path.join(os.path.dirname(self._volumes.folder(volume.name)), "snapshots", snapshot)

    def _drop_unnamed(self, volume: Volume) -> None:
        parent = os.path.dirname(self._place(volume, "x"))
        for entry in os.listdir(parent) if os.path.isdir(parent) else ():
            if all(one.name != entry for one in volume.snapshots):
                shutil.rmtree(os.path.join(parent, entry), ignore_errors=True)
