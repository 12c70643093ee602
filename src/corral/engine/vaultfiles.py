"""Secrets and configs as files of a container: on a tmpfs at /run/secrets and /run/configs, replaced when they change.

The runtime mounts the tmpfs; the files are written through /proc/PID/root before the process starts, and again when
an item is updated.  Paths are resolved below the container's root, and only a file system of its own is written to.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corral.engine import signals
from corral.errors import InvalidParameter, System
from corral.linux import credentials, files
from corral.oci.idmap import IdMap
from corral.store.vault import Vault
from corral.wire.containers import HostConfig, VaultFile

FOLDERS = {"secret": "run/secrets", "config": "run/configs"}


class InvalidVaultFile(InvalidParameter):
    """A secret or config of a container that cannot be."""


class CannotPlace(System):
    """A file cannot be written into the container."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A file to write: `folder` below the root."""

    folder: str
    name: str
    data: bytes
    uid: int
    gid: int
    mode: int


def wanted(host: HostConfig) -> list[tuple[str, VaultFile]]:
    """Every file that a container has of the vault, with its kind."""
    return [("secret", one) for one in host.secrets or ()] + [("config", one) for one in host.configs or ()]


def check(host: HostConfig, vault: Vault) -> None:
    """Raise InvalidVaultFile or NoSuchItem unless all files can be made."""
    taken: set[tuple[str, str]] = set()
    for kind, file in wanted(host):
        vault.get(file.source, kind)
        name = file.target or file.source
        if "/" in name or name in (".", ".."):
            raise InvalidVaultFile(f"invalid target {name!r} of {kind} {file.source}: it is a name in /{FOLDERS[kind]}")
        if (kind, name) in taken:
            raise InvalidVaultFile(f"duplicate target /{FOLDERS[kind]}/{name}")
        taken.add((kind, name))
        if not (file.uid or "0").isdecimal() or not (file.gid or "0").isdecimal():
            raise InvalidVaultFile(f"invalid owner of {kind} {file.source}: numbers are needed")
        action(file)


def action(file: VaultFile) -> int | None:
    """What happens when the item changes: 0 nothing, a signal's number, or None for a restart."""
    kind, _, value = file.on_update.partition(":")
    if kind == "restart" and not value:
        return None
    if kind == "signal" and value:
        return signals.parse(value)
    if file.on_update:
        raise InvalidVaultFile(f"invalid action {file.on_update!r}: restart, or signal:NAME")
    return 0


def placed(vault: Vault, host: HostConfig) -> list[Placed]:
    """The files of a container; opens the vault.  Raises NoSuchItem or BadKey."""
    found = []
    for kind, file in wanted(host):
        mode = 0o444 if file.mode is None else file.mode & 0o777
        data = vault.open(file.source, kind)
        name = file.target or file.source
        found.append(Placed(FOLDERS[kind], name, data, int(file.uid or 0), int(file.gid or 0), mode))
    return found


def mounts(host: HostConfig) -> Iterable[str]:
    """Where the container needs a tmpfs."""
    return sorted({f"/{FOLDERS[kind]}" for kind, _ in wanted(host)})


def place(pid: int, found: Sequence[Placed], ids: IdMap | None) -> None:
    """Write files into a container by the id of its first process; raises CannotPlace."""
    if ids:
        found = [_of_host(file, ids) for file in found]
        with credentials.FileOwner(*ids.root):
            _place(pid, found)
    else:
        _place(pid, found)


def _of_host(file: Placed, ids: IdMap) -> Placed:
    uid, gid = ids.to_host(file.uid, file.gid)
    return dataclasses.replace(file, uid=uid, gid=gid)


def _place(pid: int, found: Sequence[Placed]) -> None:
    if not found:
        return
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for file in found:
                _write(root, file)
        finally:
            os.close(root)
    except OSError as error:
        raise CannotPlace(f"cannot write a secret or config into the container: {error.strerror}") from error


def _write(root: int, file: Placed) -> None:
    resolve = files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS
    folder = files.openat2(root, file.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, resolve)
    try:
        if os.fstat(folder).st_dev == os.stat(root).st_dev:
            raise OSError(errno.EXDEV, "its tmpfs is gone")
        temporary = f".{secrets.token_hex(8)}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0, dir_fd=folder)
        try:
            os.write(fd, file.data)
            os.fchown(fd, file.uid, file.gid)
            os.fchmod(fd, stat.S_IMODE(file.mode))
            os.rename(temporary, file.name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(temporary, dir_fd=folder)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(folder)
