"""The host's mounts, as volumes and binds need them."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from corral.errors import System
from corral.linux import mount
from corral.volume import local


class CannotMountVolume(System):
    """mount(2) refused a local volume's options."""


def is_mounted(path: str) -> bool:
    """Whether something is mounted at `path` itself."""
    real = os.path.realpath(path)
    return any(entry.target == real for entry in mount.mountinfo())


def mount_local(options: Mapping[str, str], folder: str) -> None:
    """Mount what the local driver's options say at `folder`; nothing stays mounted after an error."""
    done = 0
    try:
        for call in local.mount_calls(options, _resolve):
            mount.mount(call.source, folder, call.fstype, call.flags, call.data)
            done += 1
    except OSError as error:
        if done:
            mount.umount(folder)
        device, kind, data = options.get("device", ""), options.get("type", ""), options.get("o", "")
        told = f", data: {data}" if data else ""
        raise CannotMountVolume(
            f"error while mounting volume '{folder}': failed to mount local volume: "
            f"mount {device}:{folder}, type: {kind}{told}: {(error.strerror or str(error)).lower()}"
        ) from error


def unmount(folder: str) -> None:
    """Unmount what is at `folder`; who still looks into it may go on."""
    mount.umount(folder)


def propagation_of(path: str) -> tuple[str, bool, bool]:
    """The mount point that `path` is on, and whether that mount is shared, and a slave."""
    real = os.path.realpath(path)
    best = None
    for entry in mount.mountinfo():
        below = real == entry.target or real.startswith(entry.target.rstrip("/") + "/")
        if below and (best is None or len(entry.target) >= len(best.target)):
            best = entry
    if best is None:
        return "/", False, False
    return (
        best.target,
        any(word.startswith("shared:") for word in best.optional),
        any(word.startswith("master:") for word in best.optional),
    )


def _resolve(host: str) -> str:
    try:
        return str(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise CannotMountVolume(f"failed to mount local volume: cannot resolve {host}: {error}") from error
