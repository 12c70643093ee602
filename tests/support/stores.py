"""An image store of a test's own, without a daemon."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from corral.image.images import Images
from corral.image.registries import Registries
from corral.store.db import Database


class Store:
    """An image store with its events, which can be closed and opened again."""

    def __init__(self, root: Path, registries: Registries | None = None) -> None:
        self.root = str(root)
        os.makedirs(self.root, exist_ok=True)
        self._registries = registries
        self.events: list[tuple[str, str]] = []
        self.records: list[dict[str, Any]] = []
        self.open()

    def open(self) -> None:
        self.db = Database(os.path.join(self.root, "db"))
        self.images = Images(self.db, self.root, self._event, self._registries)
        self.images.recover()

    def _event(self, action: str, ident: str, _: dict[str, str]) -> None:
        self.events.append((action, ident))

    def close(self) -> None:
        self.images.close()
        self.db.close()

    def load(self, data: bytes, **options: Any) -> list[str]:
        return asyncio.run(self._load(data, **options))

    async def _load(self, data: bytes, **options: Any) -> list[str]:
        return await self.images.load(stream(data), self.records.append, **options)

    def pull(self, ref: str, tag: str = "", **options: Any) -> Any:
        async def work() -> Any:
            return await self.images.pull(ref, tag, progress=self.records.append, **options)

        return asyncio.run(work())

    def push(self, ref: str, tag: str = "", **options: Any) -> None:
        async def work() -> None:
            await self.images.push(ref, tag, progress=self.records.append, **options)

        asyncio.run(work())

    def statuses(self) -> list[str]:
        """The status of every record so far."""
        return [record["status"] for record in self.records if "status" in record]

    def remove(self, ref: str, **options: Any) -> list[Any]:
        async def work() -> list[Any]:
            return await self.images.remove(ref, **options)

        return asyncio.run(work())

    def save(self, *names: str) -> bytes:
        async def work() -> bytes:
            return b"".join([piece async for piece in self.images.save(names)])

        return asyncio.run(work())

    def leftovers(self) -> list[str]:
        """Whatever a store without images and snapshots should not have."""
        self.images.snapshots._directories._sweeper.submit(lambda: None).result()
        found = []
        for folder in ("image/blobs/sha256", "image/ingest", "image/partial", "overlay/trash"):
            found += os.listdir(os.path.join(self.root, folder))
        return found + [name for name in os.listdir(os.path.join(self.root, "overlay")) if name != "trash"]


async def stream(data: bytes, piece: int = 30_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        yield data[start : start + piece]
