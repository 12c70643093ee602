"""Image garbage collection by policy: when the disk fills up, the images that were unused longest go.

Runs after every arrival of an image and once in a while; `corral.image.policy` says which images.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corral.engine.context import Engine
from corral.errors import CorralError
from corral.image.policy import Candidate, Choice, Disk, Policy, choose, excess, parse_policy

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Collection:
    """What was, or would be, removed: `wanted` is how many bytes the policy asks to free."""

    wanted: int
    removed: Sequence[Choice]

    @property
    def freed(self) -> int:
        return sum(choice.bytes for choice in self.removed)


class ImageKeeper:
    """Applies the policy of the configuration; without one it only keeps the times of use."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.policy: Policy | None = None
        self._wake = asyncio.Event()
        self.configure(engine.config.image_gc)

    def configure(self, settings: Mapping[str, Any] | None) -> None:
        """Use another policy; raises InvalidPolicy."""
        self.policy = parse_policy(settings) if settings else None

    def look_soon(self) -> None:
        """An image has come: look at the disk."""
        self._wake.set()

    async def run(self) -> None:
        """Collect when it is due, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await asyncio.to_thread(self._engine.images.catalog.keep_uses)
                if self.policy is not None:
                    await self.collect(self.policy)
            except (CorralError, OSError):
                _log.exception("collecting images failed; trying again later")

    async def collect(self, policy: Policy, *, dry_run: bool = False) -> Collection:
        """Remove what the policy says, or only say what it would be."""
        found = await asyncio.to_thread(self._choose, policy)
        if dry_run:
            return found
        removed = []
        for choice in found.removed:
            if self._engine.users_of_image(choice.digest):  # a container was made of it meanwhile
                continue
            _log.info("removing image %s: the disk is filling up", ", ".join(choice.names) or choice.digest)
            with contextlib.suppress(CorralError):  # somebody else removed it, or uses it since
                await self._engine.images.remove(choice.digest, force=True, in_use=self._engine.users_of_image)
                removed.append(choice)
        return Collection(found.wanted, removed)

    def _choose(self, policy: Policy) -> Collection:
        images = self._engine.images
        catalog = images.catalog
        reaches, sizes, kept = catalog.parts(), catalog.sizes(), catalog.kept_parts()
        disk = os.statvfs(self._engine.paths.data_root)
        stored = {part: size for part, size in sizes.items() if any(part in reach for reach in reaches.values())}
        used = (disk.f_blocks - disk.f_bavail) * disk.f_frsize
        wanted = excess(policy, Disk(disk.f_blocks * disk.f_frsize, used, sum(stored.values())))
        if not wanted:
            return Collection(0, ())
        candidates = [
            Candidate(
                image.id, image.repo_tags, catalog.last_used(image.id), bool(self._engine.users_of_image(image.id))
            )
            for image in images.list()
        ]
        return Collection(wanted, choose(policy, candidates, wanted, time.time_ns(), reaches, sizes, kept))
