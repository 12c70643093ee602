"""Volumes: one of them (`Volume`), and all of them (`client.volumes`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from corral.client.errors import NotFound
from corral.client.flavours import Awaiting, Blocking, Source, flow, verb
from corral.client.http import Body
from corral.client.session import Pieces, Session, segment
from corral.client.streams import Whole, read
from corral.wire.shown.containers import SnapshotInfo
from corral.wire.shown.resources import Pruned, VolumeInfo, VolumeList

V = TypeVar("V")


class VolumeVerbs(Generic[V]):
    """What can be done with a volume; renaming, copies and snapshots are beyond Docker."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _volume(self, name: str) -> V:
        """In this one's flavour."""
        raise NotImplementedError

    @property
    def _path(self) -> str:
        return f"/volumes/{segment(self.name)}"

    @verb
    async def inspect(self) -> VolumeInfo:
        """Everything about it."""
        return await self._session.get(self._path, VolumeInfo)

    @verb
    async def remove(self, *, force: bool = False) -> None:
        """Remove it; no container may have it."""
        await self._session.do("DELETE", self._path, {"force": force}, patient=True)

    @verb
    async def rename(self, name: str) -> None:
        """Give it another name; no container may have it."""
        await self._session.do("POST", f"{self._path}/rename", {"name": name})
        self.name = name

    @verb
    async def clone(self, name: str) -> V:
        """A copy under another name."""
        await self._session.do("POST", f"{self._path}/clone", {"name": name}, patient=True)
        return self._volume(name)

    @flow
    async def export(self) -> Source[bytes]:
        """Its files as a tar archive."""
        return Pieces(await self._session.open("GET", f"{self._path}/export", patient=True), Whole())

    @verb
    async def snapshot(self, name: str) -> SnapshotInfo:
        """Keep its files as they are now, under a name."""
        return await self._session.post(f"{self._path}/snapshots", SnapshotInfo, body={"Name": name}, patient=True)

    @verb
    async def snapshots(self) -> list[SnapshotInfo]:
        """Its snapshots, oldest first."""
        return await self._session.get(f"{self._path}/snapshots", list[SnapshotInfo])

    @verb
    async def restore(self, snapshot: str) -> None:
        """Its files as they were; no container may run with it."""
        await self._session.do("POST", f"{self._path}/restore", {"snapshot": snapshot}, patient=True)

    @verb
    async def forget_snapshot(self, snapshot: str) -> None:
        """Remove a snapshot."""
        await self._session.do("DELETE", f"{self._path}/snapshots/{segment(snapshot)}", patient=True)

    async def _finish(self) -> None:
        try:
            await self._session.do("DELETE", self._path, patient=True)
        except NotFound:
            pass


class Volume(VolumeVerbs["Volume"], Blocking):
    """A volume.  Its `with` block removes it."""

    def _volume(self, name: str) -> Volume:
        return Volume(self._session, name)


class AsyncVolume(VolumeVerbs["AsyncVolume"], Awaiting):
    """A volume.  Its `async with` block removes it."""

    def _volume(self, name: str) -> AsyncVolume:
        return AsyncVolume(self._session, name)


class VolumesVerbs(Generic[V]):
    """`client.volumes`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _volume(self, name: str) -> V:
        """In this one's flavour."""
        raise NotImplementedError

    @verb
    async def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> V:
        """Make a volume; one that exists with that name is taken."""
        body = {"Name": name, "Driver": driver, "DriverOpts": dict(options or {}), "Labels": dict(labels or {})}
        return self._volume((await self._session.post("/volumes/create", VolumeInfo, body=body, patient=True)).name)

    @verb
    async def restore(self, name: str, archive: Body) -> V:
        """Make a volume of what `export` gave.  Beyond Docker."""
        answer = await self._session.open(
            "POST", "/volumes/import", {"name": name}, archive, {"Content-Type": "application/x-tar"}, patient=True
        )
        return self._volume(read(await answer.whole(), VolumeInfo).name)

    @verb
    async def get(self, name: str) -> V:
        """The volume with this name; raises NotFound."""
        return self._volume((await self._session.get(f"/volumes/{segment(name)}", VolumeInfo)).name)

    @verb
    async def list(self, *, filters: Mapping[str, Sequence[str]] | None = None) -> tuple[VolumeInfo, ...]:
        """What there is."""
        return (await self._session.get("/volumes", VolumeList, {"filters": filters}, patient=True)).volumes

    @verb
    async def prune(self, *, all: bool = False) -> Pruned:
        """Remove every anonymous volume that no container has; with `all` the named ones too."""
        filters = {"all": ["true"]} if all else None
        return await self._session.post("/volumes/prune", Pruned, {"filters": filters}, patient=True)


class Volumes(VolumesVerbs[Volume], Blocking):
    """`Client.volumes`."""

    def _volume(self, name: str) -> Volume:
        return Volume(self._session, name)


class AsyncVolumes(VolumesVerbs[AsyncVolume], Awaiting):
    """`AsyncClient.volumes`."""

    def _volume(self, name: str) -> AsyncVolume:
        return AsyncVolume(self._session, name)
