"""The local volume driver: a folder per volume below the data root.

volumes/NAME/_data      what containers see; the place people look into
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import time

import msgspec

from corral.errors import Conflict, InvalidParameter, NotFound
from corral.store.db import Database

ANONYMOUS = "com.docker.volume.anonymous"  # the label that says so
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class NoSuchVolume(NotFound):
    """No volume has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"get {name}: no such volume")


class InvalidVolume(InvalidParameter):
    """A volume request that cannot be fulfilled."""


class UnknownVolumeDriver(NotFound):
    """Only the local driver exists."""

    def __init__(self, driver: str) -> None:
        super().__init__(f'error looking up volume plugin {driver}: plugin "{driver}" not found')


class VolumeInUse(Conflict):
    """A container has the volume."""

    def __init__(self, name: str, users: list[str]) -> None:
        super().__init__(f"remove {name}: volume is in use - [{', '.join(users)}]")


class Volume(msgspec.Struct):
    """One volume."""

    name: str
    created: str
    labels: dict[str, str]
    options: dict[str, str]

    @property
    def anonymous(self) -> bool:
        """Whether nobody named it, so that it goes with its container or with a prune."""
        return ANONYMOUS in self.labels


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Volume)


class Volumes:
    """Every volume of this daemon."""

    def __init__(self, db: Database, root: str) -> None:
        self._db = db
        self._root = os.path.join(root, "volumes")
        os.makedirs(self._root, mode=0o701, exist_ok=True)
        self._volumes = {
            volume.name: volume for (row,) in db.read("SELECT record FROM volume") for volume in [_decoder.decode(row)]
        }

    def all(self) -> list[Volume]:
        """Every volume, oldest first."""
        return sorted(self._volumes.values(), key=lambda volume: volume.created)

    def get(self, name: str) -> Volume:
        """The volume called `name`; raises NoSuchVolume."""
        if name not in self._volumes:
            raise NoSuchVolume(name)
        return self._volumes[name]

    def folder(self, name: str) -> str:
        """Where the volume's files are."""
        return os.path.join(self._root, name, "_data")

    async def create(
        self, name: str, driver: str, options: dict[str, str], labels: dict[str, str]
    ) -> tuple[Volume, bool]:
        """The volume called `name` ("" for a new name), and whether it is new."""
        if driver not in ("", "local"):
            raise UnknownVolumeDriver(driver)
        if not name:
            labels = {**labels, ANONYMOUS: ""}
        name = name or secrets.token_hex(32)
        if not _NAME.fullmatch(name):
            raise InvalidVolume(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
            )
        if options:
            unknown = ", ".join(sorted(options))
            raise InvalidVolume(f"create {name}: volume options are not supported yet: {unknown}")
        if name in self._volumes:
            return self._volumes[name], False
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        volume = Volume(name, created, labels, options)
        os.makedirs(self.folder(name), mode=0o755, exist_ok=True)
        self._volumes[name] = volume
        statement = ("INSERT INTO volume (name, record) VALUES (?, ?)", (name, _encoder.encode(volume)))
        try:
            await asyncio.wrap_future(self._db.submit(statement))
        except BaseException:
            del self._volumes[name]
            raise
        return volume, True

    async def remove(self, name: str, users: list[str]) -> None:
        """Delete a volume and its files; raises VolumeInUse while containers have it."""
        self.get(name)
        if users:
            raise VolumeInUse(name, users)
        await asyncio.wrap_future(self._db.submit(("DELETE FROM volume WHERE name = ?", (name,))))
        del self._volumes[name]
        await asyncio.to_thread(shutil.rmtree, os.path.join(self._root, name), True)
