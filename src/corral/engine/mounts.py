"""Binds, volumes and tmpfs of a create request become mount points, with Docker's rules and refusals."""

from __future__ import annotations

import os
import posixpath
import secrets
from collections.abc import Callable

from corral.engine.record import MountPoint
from corral.errors import InvalidParameter
from corral.wire.containers import ContainerConfig, HostConfig, Mount

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_MODES = frozenset(("ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", *_PROPAGATIONS))

# (name or "" for an anonymous one, driver, driver options, labels) -> name and folder of a volume
VolumeOf = Callable[[str, str, dict[str, str], dict[str, str]], tuple[str, str]]


class InvalidMount(InvalidParameter):
    """A bind, volume or tmpfs that cannot be used."""


def points(config: ContainerConfig, host: HostConfig, volume_of: VolumeOf) -> list[MountPoint]:
    """Every mount point of a new container; raises InvalidMount.  Volumes are made through `volume_of`."""
    found: dict[str, MountPoint] = {}
    for text in host.binds or []:
        _add(found, _from_bind(text, volume_of, host.volume_driver))
    for mount in host.mounts or []:
        _add(found, _from_mount(mount, volume_of))
    for path, options in (host.tmpfs or {}).items():
        _add(found, _tmpfs(_target(path), options))
    for path in config.volumes or {}:
        target = _target(path)
        if target not in found:
            name, folder = volume_of("", host.volume_driver, {}, {})
            found[target] = MountPoint("volume", folder, target, name=name, driver="local")
    return list(found.values())


def prepare_sources(mount_points: list[MountPoint]) -> None:
    """Before a start: every bind source exists; `-v` makes a missing one, `--mount` refuses."""
    for point in mount_points:
        if point.type == "bind" and not os.path.lexists(point.source):
            if point.from_spec and "create" not in point.options:
                raise missing_source(point.source)
            os.makedirs(point.source, exist_ok=True)


def missing_source(path: str) -> InvalidMount:
    """The error for a `--mount` bind whose source does not exist."""
    return InvalidMount(f'invalid mount config for type "bind": bind source path does not exist: {path}')


def _add(found: dict[str, MountPoint], point: MountPoint) -> None:
    if point.destination in found:
        raise InvalidMount(f"Duplicate mount point: {point.destination}")
    found[point.destination] = point


def _target(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidMount(f"invalid volume specification: invalid mount path: '{path}' mount path must be absolute")
    clean = posixpath.normpath(path)
    if clean.startswith("//"):
        clean = clean[1:]
    if clean == "/":
        raise InvalidMount("invalid volume specification: destination can't be '/'")
    return clean


def _from_bind(text: str, volume_of: VolumeOf, driver: str) -> MountPoint:
    parts = text.split(":")
    if len(parts) == 1:
        target = _target(text)
        name, folder = volume_of("", driver, {}, {})
        return MountPoint("volume", folder, target, name=name, driver="local")
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise InvalidMount(f"invalid volume specification: '{text}'")
    source, target = parts[0], _target(parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    words = [word for word in mode.split(",") if word]
    if any(word not in _MODES for word in words) or {"ro", "rw"} <= set(words):
        raise InvalidMount(f"invalid mode: {mode}")
    propagation = next((word for word in words if word in _PROPAGATIONS), "")
    if source.startswith("/"):
        if "nocopy" in words:
            raise InvalidMount(f"invalid mode: {mode}")
        return MountPoint(
            "bind", posixpath.normpath(source), target, mode, "ro" not in words, propagation or "rprivate"
        )
    if propagation:
        raise InvalidMount(f"invalid mode: {mode}")
    name, folder = volume_of(source, driver, {}, {})
    options = ("nocopy",) if "nocopy" in words else ()
    return MountPoint(
        "volume", folder, target, mode or "z", "ro" not in words, name=name, driver="local", options=options
    )


def _from_mount(mount: Mount, volume_of: VolumeOf) -> MountPoint:
    def refuse(reason: str) -> InvalidMount:
        return InvalidMount(f'invalid mount config for type "{mount.type}": {reason}')

    if not mount.target:
        raise refuse("field Target must not be empty")
    if not mount.target.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.target}' mount path must be absolute")
    target = _target(mount.target)
    if mount.type == "bind":
        return _bind_mount(mount, target, refuse)
    if mount.type == "volume":
        options = mount.volume_options
        driver = options.driver_config if options and options.driver_config else None
        if mount.source.startswith("/"):
            raise refuse("volume names must not be absolute paths")
        if options and options.subpath:
            raise refuse("volume subpaths are not supported yet")
        name, folder = volume_of(
            mount.source,
            driver.name if driver else "",
            dict(driver.options or {}) if driver else {},
            dict(options.labels or {}) if options else {},
        )
        copy = ("nocopy",) if options and options.no_copy else ()
        return MountPoint(
            "volume", folder, target, "z", not mount.read_only, name=name, driver="local", options=copy, from_spec=True
        )
    if mount.type == "tmpfs":
        return _tmpfs_mount(mount, target, refuse)
    raise InvalidMount(f'invalid mount config for type "{mount.type}": mount type unknown')


def _bind_mount(mount: Mount, target: str, refuse: Callable[[str], InvalidMount]) -> MountPoint:
    options = mount.bind_options
    if not mount.source:
        raise refuse("field Source must not be empty")
    if not mount.source.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.source}' mount path must be absolute")
    propagation = options.propagation if options else ""
    if propagation and propagation not in _PROPAGATIONS:
        raise refuse(f"invalid propagation mode: {propagation}")
    words = []
    if options and options.create_mountpoint:
        words.append("create")
    if options and options.non_recursive:
        words.append("norecurse")
    if options and options.read_only_non_recursive:
        words.append("ro-shallow")
    if "create" not in words and not os.path.lexists(mount.source):
        raise missing_source(mount.source)
    return MountPoint(
        "bind",
        posixpath.normpath(mount.source),
        target,
        "",
        not mount.read_only,
        propagation or "rprivate",
        options=tuple(words),
        from_spec=True,
    )


def _tmpfs_mount(mount: Mount, target: str, refuse: Callable[[str], InvalidMount]) -> MountPoint:
    if mount.source:
        raise refuse("field Source must not be specified")
    options = mount.tmpfs_options
    words = ["noexec", "nosuid", "nodev"]
    if options and options.size_bytes:
        words.append(f"size={options.size_bytes}")
    if options and options.mode:
        words.append(f"mode={options.mode:o}")
    for pair in (options.options if options else None) or []:
        words.append("=".join(pair))
    if mount.read_only:
        words.append("ro")
    return MountPoint("tmpfs", "", target, rw=not mount.read_only, options=tuple(words), from_spec=True)


def _tmpfs(target: str, options: str) -> MountPoint:
    chosen = [word for word in options.split(",") if word]
    words = ["noexec", "nosuid", "nodev"]
    for word in chosen:
        opposite = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}.get(word)
        if opposite in words:
            words.remove(opposite)
        if word not in words:
            words.append(word)
    return MountPoint("tmpfs", "", target, rw="ro" not in chosen, options=tuple(words))


def anonymous_name() -> str:
    """A name for a volume that nobody named."""
    return secrets.token_hex(32)
