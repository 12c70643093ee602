"""Devices given to and taken from a container that exists: at once if it runs, and kept for its next start."""

from __future__ import annotations

import errno
import os
from typing import Any

from corral.engine import devices
from corral.engine.context import Engine
from corral.engine.live import Live
from corral.engine.record import save
from corral.errors import Conflict, InvalidParameter, NotFound, System
from corral.runtime.failure import Failure
from corral.wire.containers import DeviceMapping, HostConfig


class CannotChangeDevice(System):
    """The kernel refused a device of a running container."""


class DeviceInPlace(Conflict):
    """Something has the path in the container."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(f"container {name} has something at {path} already")


class NoSuchDevice(NotFound):
    """The engine gave no device at this path."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(f"container {name} has no device at {path}")


async def add(engine: Engine, live: Live, wanted: DeviceMapping) -> None:
    """Give a device; the caller holds the container's lock."""
    record = live.record
    device = _one(wanted)
    given = record.host.devices or []
    if any(_place(other) == device["path"] for other in given):
        raise DeviceInPlace(record.name, device["path"])
    if live.has_process:
        await _request(live, "add_device", device)
    record.host.devices = [*given, wanted]
    try:
        await engine.commit(save(record))
    except BaseException:
        record.host.devices = given
        if live.has_process:
            await _request(live, "remove_device", device)
        raise
    engine.publish(live, "device_add", device=device["path"])


async def remove(engine: Engine, live: Live, path: str) -> None:
    """Take a device away; the caller holds the container's lock.  A program that has it open keeps it."""
    record = live.record
    found = next((one for one in record.host.devices or [] if _place(one) == path), None)
    if found is None:
        raise NoSuchDevice(record.name, path)
    if live.has_process:
        await _request(live, "remove_device", _one(found))
    before = record.host.devices or []
    record.host.devices = [one for one in before if one is not found] or None
    try:
        await engine.commit(save(record))
    except BaseException:
        record.host.devices = before
        raise
    engine.publish(live, "device_rm", device=path)


def _one(wanted: DeviceMapping) -> dict[str, Any]:
    """The OCI device; raises BadDevice or InvalidParameter."""
    if not wanted.path_on_host.startswith("/") or not _place(wanted).startswith("/"):
        raise InvalidParameter("the path of a device must be absolute")
    if os.path.isdir(wanted.path_on_host):
        raise InvalidParameter(f"{wanted.path_on_host} is a folder: name one device in it")
    return devices.chosen(HostConfig(devices=[wanted]))[0]


def _place(wanted: DeviceMapping) -> str:
    return os.path.normpath(wanted.path_in_container or wanted.path_on_host)


async def _request(live: Live, verb: str, device: dict[str, Any]) -> None:
    assert live.task is not None
    try:
        await live.task.request(verb, device={**device, "path": os.path.normpath(device["path"])})
    except Failure as failure:
        if failure.stage == "device" and failure.errno == errno.EEXIST:
            raise DeviceInPlace(live.record.name, failure.path) from failure
        reason = failure.detail or os.strerror(failure.errno).lower()
        raise CannotChangeDevice(f"cannot change devices of container {live.id}: {reason}") from failure
