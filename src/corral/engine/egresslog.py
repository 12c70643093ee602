"""What egress lists refused: a short log beside each container's files.

    DATA_ROOT/containers/ID/egress.log       a JSON object a line, the newest last
    DATA_ROOT/containers/ID/egress.log.1     the lines before, when the first file grew too long

The packet filter limits how many packets are told, this module how many questions to the DNS server.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import msgspec

from corral.net.refusals import Refusal

_FILE_BYTES = 1 << 18
_BURST = 50
_PER_SECOND = 5.0


class EgressLog:
    """The logs of all containers."""

    def __init__(self, folder: str) -> None:
        """`folder` has a folder for each container."""
        self._folder = folder
        self._budgets: dict[str, tuple[float, float]] = {}
        self._grew: dict[str, asyncio.Event] = {}

    def _path(self, container_id: str) -> str:
        return os.path.join(self._folder, container_id, "egress.log")

    def note(self, container_id: str, refusal: Refusal) -> None:
        """Add a line, unless there were too many lately."""
        if refusal.proto == "dns" and not self._affordable(container_id):
            return
        entry = {"Time": refusal.time_ns, "Protocol": refusal.proto}
        if refusal.address:
            entry |= {"Address": refusal.address, "Port": refusal.port}
        entry["Name"] = refusal.name
        path = self._path(container_id)
        try:
            with open(path, "ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")
                full = file.tell() >= _FILE_BYTES
        except FileNotFoundError:
            return  # the container is being removed
        if full:
            os.replace(path, f"{path}.1")
        event = self._grew.pop(container_id, None)
        if event is not None:
            event.set()

    def _affordable(self, container_id: str) -> bool:
        now = time.monotonic()
        left, since = self._budgets.get(container_id, (float(_BURST), now))
        left = min(float(_BURST), left + (now - since) * _PER_SECOND)
        self._budgets[container_id] = (left - 1 if left >= 1 else left, now)
        return left >= 1

    def forget(self, container_id: str) -> None:
        """A container is gone."""
        self._budgets.pop(container_id, None)
        event = self._grew.pop(container_id, None)
        if event is not None:
            event.set()

    async def read(self, container_id: str, *, follow: bool) -> AsyncIterator[bytes]:
        """The lines there are, and with `follow` those to come, until the container is removed."""
        path, offset = self._path(container_id), 0
        for name in (f"{path}.1", path):
            data = _read(name, 0)
            offset = len(data)
            if data:
                yield data
        while follow and os.path.isdir(os.path.dirname(path)):
            event = self._grew.setdefault(container_id, asyncio.Event())
            if not _grown(path, offset):
                await event.wait()
            data = _read(path, offset)
            if not data and os.path.exists(f"{path}.1"):
                data, offset = _read(f"{path}.1", offset), 0  # it was moved away with its last line
            else:
                offset += len(data)
            if data:
                yield data


def _read(path: str, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


def _grown(path: str, offset: int) -> bool:
    try:
        return os.stat(path).st_size > offset
    except FileNotFoundError:
        return False
