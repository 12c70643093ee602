"""Binds, volumes, tmpfs and images of a create request become mount points, with Docker's rules and refusals."""

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
from collections.abc import Callable, Iterable, Sequence

from corral.engine.record import MountPoint
from corral.errors import InvalidParameter, System
from corral.oci.idmap import IdMap
from corral.volume import hostmounts
from corral.wire.containers import ContainerConfig, HostConfig, IDMap, Mount

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_MODES = frozenset(("ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", *_PROPAGATIONS))
_TMPFS_WORDS = frozenset(
    """ro rw exec noexec suid nosuid dev nodev sync async dirsync atime noatime diratime nodiratime relatime norelatime
    strictatime nostrictatime mand nomand lazytime nolazytime nosymfollow symfollow defaults remount bind rbind
    private rprivate shared rshared slave rslave unbindable runbindable tmpcopyup noswap""".split()
)
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge", "inode64"))

# (name or "" for an anonymous one, driver, driver options, labels) -> name and folder of a volume
VolumeOf = Callable[[str, str, dict[str, str], dict[str, str]], tuple[str, str]]
ImageOf = Callable[[str], str]  # reference -> id
Refuse = Callable[[str], "InvalidMount"]


class InvalidMount(InvalidParameter):
    """A bind, volume or tmpfs that cannot be used."""


class NotShared(System):
    """A propagation that the host's own mount does not allow."""


def points(
    config: ContainerConfig,
    host: HostConfig,
    volume_of: VolumeOf,
    inherited: Sequence[MountPoint] = (),
    image_of: ImageOf | None = None,
) -> list[MountPoint]:
    """Every mount point of a new container; raises InvalidMount.  Volumes are made through `volume_of`.

    `inherited` are those of --volumes-from: a bind, mount or tmpfs of the request's own replaces one of them.
    """
    found: dict[str, MountPoint] = {}
    for text in host.binds or []:
        _add(found, _from_bind(text, volume_of, host.volume_driver))
    for mount in host.mounts or []:
        _add(found, from_mount(mount, volume_of, image_of))
    for path, options in (host.tmpfs or {}).items():
        _add(found, _tmpfs(target_path(path), options))
    found = {point.destination: point for point in inherited} | found
    for path in config.volumes or {}:
        target = target_path(path)
        if target not in found:
            name, folder = volume_of("", host.volume_driver, {}, {})
            found[target] = MountPoint("volume", folder, target, name=name, driver="local", anonymous=True)
    return list(found.values())


def inherited(text: str, others: Iterable[MountPoint]) -> list[MountPoint]:
    """What `--volumes-from REF[:MODE]` takes from the mount points of REF; nothing is copied into a volume again."""
    mode = text.partition(":")[2]
    words = [word for word in mode.split(",") if word]
    if any(word not in _MODES for word in words) or {"ro", "rw"} <= set(words):
        raise InvalidMount(f"invalid mode: {mode}")
    return [
        MountPoint(
            type=point.type,
            source=point.source,
            destination=point.destination,
            mode=point.mode,
            rw=point.rw and "ro" not in words,
            propagation=point.propagation,
            name=point.name,
            driver=point.driver,
            options=tuple(dict.fromkeys((*point.options, "nocopy"))) if point.type == "volume" else point.options,
            from_spec=point.from_spec,
            anonymous=point.anonymous,
            subpath=point.subpath,
            uids=point.uids,
            gids=point.gids,
        )
        for point in others
        if point.type != "tmpfs"
    ]


def prepare_sources(mount_points: Iterable[MountPoint], ids: IdMap | None) -> None:
    """Before a start: every bind source exists; `-v` makes a missing one, `--mount` refuses.  Raises NotShared.

    What is made belongs to the container's root.
    """
    for point in mount_points:
        if point.type != "bind":
            continue
        if not os.path.lexists(point.source):
            if point.from_spec and "create" not in point.options:
                raise missing_source(point.source)
            _make_source(point.source, ids.root if ids else (0, 0))
        if point.propagation in ("shared", "rshared", "slave", "rslave"):
            _check_shared(point)


def _make_source(path: str, owner: tuple[int, int]) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_source(parent, owner)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
        os.chown(path, *owner)


def _check_shared(point: MountPoint) -> None:
    """The kernel would say nothing: a copy of a private mount propagates nowhere, whatever it is told."""
    place, shared, slave = hostmounts.propagation_of(point.source)
    if point.propagation in ("shared", "rshared") and not shared:
        raise NotShared(f"path {point.source} is mounted on {place} but it is not a shared mount")
    if not (shared or slave):
        raise NotShared(f"path {point.source} is mounted on {place} but it is not a shared or slave mount")


def missing_source(path: str) -> InvalidMount:
    """The error for a `--mount` bind whose source does not exist."""
    return InvalidMount(f'invalid mount config for type "bind": bind source path does not exist: {path}')


def _add(found: dict[str, MountPoint], point: MountPoint) -> None:
    if point.destination in found:
        raise InvalidMount(f"Duplicate mount point: {point.destination}")
    found[point.destination] = point


def target_path(path: str) -> str:
    """Where a mount is to appear, normalised; raises InvalidMount."""
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
        target = target_path(text)
        name, folder = volume_of("", driver, {}, {})
        return MountPoint("volume", folder, target, name=name, driver="local", anonymous=True)
    if len(parts) > 3 or not parts[0] or not parts[1]:
        raise InvalidMount(f"invalid volume specification: '{text}'")
    source, target = parts[0], target_path(parts[1])
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


def from_mount(mount: Mount, volume_of: VolumeOf, image_of: ImageOf | None = None) -> MountPoint:
    """One entry of `HostConfig.Mounts`; raises InvalidMount."""

    def refuse(reason: str) -> InvalidMount:
        return InvalidMount(f'invalid mount config for type "{mount.type}": {reason}')

    if not mount.target:
        raise refuse("field Target must not be empty")
    if not mount.target.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.target}' mount path must be absolute")
    target = target_path(mount.target)
    _check_sections(mount, refuse)
    if mount.type == "bind":
        return _bind_mount(mount, target, refuse)
    if mount.type == "volume":
        return _volume_mount(mount, target, refuse, volume_of)
    if mount.type == "tmpfs":
        return _tmpfs_mount(mount, target, refuse)
    if mount.type == "image" and image_of is not None:
        if not mount.source:
            raise refuse("field Source must not be empty")
        subpath = _subpath(mount.image_options.subpath, refuse) if mount.image_options else ""
        return MountPoint(
            "image", image_of(mount.source), target, rw=False, name=mount.source, from_spec=True, subpath=subpath
        )
    if mount.type == "cluster":
        raise refuse("cluster volumes need a swarm")
    raise InvalidMount(f'invalid mount config for type "{mount.type}": mount type unknown')


def _check_sections(mount: Mount, refuse: Refuse) -> None:
    """Options of one type are an error with another."""
    for kind, section in (
        ("bind", mount.bind_options),
        ("volume", mount.volume_options),
        ("image", mount.image_options),
        ("tmpfs", mount.tmpfs_options),
    ):
        if section is not None and section != type(section)() and mount.type != kind:
            raise refuse(f"field {kind.capitalize()}Options must not be specified")


def _subpath(path: str, refuse: Refuse) -> str:
    """A path below a volume or image; raises InvalidMount for one that leads out of it."""
    if not path:
        return ""
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise refuse(f"subpath must be a relative path within the volume: {path!r}")
    return posixpath.normpath(path).removeprefix(".").lstrip("/")


def _volume_mount(mount: Mount, target: str, refuse: Refuse, volume_of: VolumeOf) -> MountPoint:
    options = mount.volume_options
    driver = options.driver_config if options and options.driver_config else None
    if mount.source.startswith("/"):
        raise refuse("volume names must not be absolute paths")
    subpath = _subpath(options.subpath, refuse) if options else ""
    if subpath and not mount.source:
        raise refuse("must not set Subpath when using anonymous volumes")
    name, folder = volume_of(
        mount.source,
        driver.name if driver else "",
        dict(driver.options or {}) if driver else {},
        dict(options.labels or {}) if options else {},
    )
    copy = ("nocopy",) if options and (options.no_copy or subpath) else ()
    return MountPoint(
        "volume", folder, target, "z", not mount.read_only, name=name, driver="local", options=copy, from_spec=True,
        anonymous=not mount.source, subpath=subpath,
    )  # fmt: skip


def _bind_mount(mount: Mount, target: str, refuse: Refuse) -> MountPoint:
    options = mount.bind_options
    if not mount.source:
        raise refuse("field Source must not be empty")
    if not mount.source.startswith("/"):
        raise refuse(f"invalid mount path: '{mount.source}' mount path must be absolute")
    propagation = options.propagation if options else ""
    if propagation and propagation not in _PROPAGATIONS:
        raise refuse(f"invalid propagation mode: {propagation}")
    words = []
    uids: tuple[tuple[int, int, int], ...] = ()
    gids = uids
    if options is not None:
        _check_recursion(mount, refuse)
        for word, chosen in (
            ("create", options.create_mountpoint),
            ("norecurse", options.non_recursive),
            ("ro-shallow", options.read_only_non_recursive),
        ):
            if chosen:
                words.append(word)
        if options.id_mapping is not None:
            uids = _id_ranges(options.id_mapping.uid_mappings, refuse)
            gids = _id_ranges(options.id_mapping.gid_mappings, refuse)
            if not (uids and gids):
                raise refuse("an id mapping needs ranges for both users and groups")
    if "create" not in words and not os.path.lexists(mount.source):
        raise missing_source(mount.source)
    return MountPoint(
        "bind", posixpath.normpath(mount.source), target, "", not mount.read_only, propagation or "rprivate",
        options=tuple(words), from_spec=True, uids=uids, gids=gids,
    )  # fmt: skip


def _check_recursion(mount: Mount, refuse: Refuse) -> None:
    options = mount.bind_options
    assert options is not None
    if options.read_only_non_recursive and not mount.read_only:
        raise refuse("mount must be read-only to be non-recursively read-only")
    if not options.read_only_force_recursive:
        return
    if not mount.read_only:
        raise refuse("mount must be read-only to be recursively read-only")
    if options.read_only_non_recursive:
        raise refuse("ReadOnlyForceRecursive and ReadOnlyNonRecursive contradict each other")
    if options.non_recursive:
        raise refuse("a mount that is not recursive cannot be recursively read-only")
    if options.propagation not in ("", "rprivate"):
        raise refuse("a recursively read-only mount needs the propagation rprivate")


def _id_ranges(given: list[IDMap] | None, refuse: Refuse) -> tuple[tuple[int, int, int], ...]:
    found = tuple((one.host_id, one.container_id, one.size) for one in given or ())
    limit = 1 << 32
    for first, second, size in found:
        if min(first, second) < 0 or size < 1 or max(first, second) + size > limit:
            raise refuse(f"invalid range of ids: {second}:{first}:{size}")
    return found


def _tmpfs_mount(mount: Mount, target: str, refuse: Refuse) -> MountPoint:
    if mount.source:
        raise refuse("field Source must not be specified")
    options = mount.tmpfs_options
    words = []
    if options and options.size_bytes:
        if options.size_bytes < 0:
            raise refuse(f"invalid size: {options.size_bytes}")
        words.append(f"size={options.size_bytes}")
    if options and options.mode:
        words.append(f"mode={options.mode:o}")
    for pair in (options.options if options else None) or []:
        if len(pair) not in (1, 2):
            raise refuse("invalid option array length")
        words.append("=".join(pair))
    if mount.read_only:
        words.append("ro")
    try:
        chosen = tmpfs_words(words)
    except InvalidMount as error:
        raise refuse(str(error)) from error
    return MountPoint("tmpfs", "", target, rw=not mount.read_only, options=chosen, from_spec=True)


def _tmpfs(target: str, options: str) -> MountPoint:
    chosen = [word for word in options.split(",") if word]
    return MountPoint("tmpfs", "", target, rw="ro" not in chosen, options=tmpfs_words(chosen))


def tmpfs_words(chosen: Sequence[str]) -> tuple[str, ...]:
    """Docker's defaults, and what was chosen in place of their opposites; raises InvalidMount for an unknown option."""
    words = ["noexec", "nosuid", "nodev"]
    for word in chosen:
        name, equals, _ = word.partition("=")
        if name not in (_TMPFS_VALUES if equals else _TMPFS_WORDS):
            raise InvalidMount(f'invalid tmpfs option "{word}"')
        opposite = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}.get(word)
        if opposite in words:
            words.remove(opposite)
        if word not in words:
            words.append(word)
    return tuple(words)


def anonymous_name() -> str:
    """A name for a volume that nobody named."""
    return secrets.token_hex(32)
