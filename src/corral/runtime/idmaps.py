"""Mounts that show other owners than those on disk, by user namespaces made only for their mappings.

Layers keep the ids of their image; a container with a user namespace sees them through such mounts
(MOUNT_ATTR_IDMAP, Linux 5.19 for layers of an overlay). Its own files go through one to the disk, too, so that they
have the container's ids there.
"""

from __future__ import annotations

import errno
import os

from corral.linux import credentials, mount, namespaces
from corral.runtime import channel as channels
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Mappings = tuple[list[dict[str, Any]], list[dict[str, Any]]]

_kept: list[tuple[Any, int]] = []
_MOUNT_DATA_MAX = 4095


def keep(mappings: Mappings) -> None:
    """Make the user namespace now that many will want, for this process and its forks."""
    _kept.append((mappings, _new(mappings)))


def user_namespace(mappings: Mappings) -> int:
    """A descriptor of a user namespace with these mappings, the caller's to close."""
    for kept, fd in _kept:
        if kept[0] == mappings[0] and kept[1] == mappings[1]:
            return os.dup(fd)
    return _new(mappings)


def _new(mappings: Mappings) -> int:
    from corral.runtime import forks

    line, theirs = channels.pair()

    def child() -> None:
        try:
            namespaces.unshare(namespaces.CLONE_NEWUSER)
            theirs.request(b"M")
        finally:
            os._exit(1)

    pid = forks.fork_into(None, child)
    try:
        theirs.close()
        if not line.receive()[0]:
            raise Failure("namespace", errno.EPERM, "user", "cannot make a user namespace for mapped ids")
        forks.write_id_maps(pid, mappings)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        line.close()
        forks.kill_and_reap(pid)


def to_host(number: int, entries: list[dict[str, Any]]) -> int:
    """The host's id of a container's; OSError(EOVERFLOW) for one without a mapping."""
    for entry in entries:
        offset: int = number - entry["containerID"]
        if 0 <= offset < entry["size"]:
            return int(entry["hostID"] + offset)
    raise OSError(errno.EOVERFLOW, f"id {number} has no mapping")


def owner(mappings: Mappings) -> credentials.FileOwner:
    """Context in which the caller makes files as the root of these mappings."""
    return credentials.FileOwner(to_host(0, mappings[0]), to_host(0, mappings[1]))


def overlay(lower: list[str], upper: str, work: str, words: list[str], mappings: Mappings, user_ns: int) -> int:
    """A detached overlay of mapped directories; a single one without an upper directory is only mounted.

    The overlay acts on its directories with the ids of whoever mounts it, which must have a meaning in the mapped
    mounts: hence `owner`.
    """
    trees: list[int] = []
    try:
        for folder in lower:
            trees.append(mapped(folder, user_ns))
        if not upper and len(trees) == 1:
            mount.mount_setattr(trees[0], attr_set=mount.MOUNT_ATTR_RDONLY, propagation=mount.MS_PRIVATE)
            return trees.pop()
        names = [f"/proc/self/fd/{fd}" for fd in trees]
        above: list[tuple[str, str]] = []
        if upper:
            # Both in one mount, as the kernel wants them.
            parent = os.path.commonpath([upper, work])
            trees.append(mapped(parent, user_ns))
            base = f"/proc/self/fd/{trees[-1]}/"
            above = [
                ("upperdir", base + os.path.relpath(upper, parent)),
                ("workdir", base + os.path.relpath(work, parent)),
            ]
        with owner(mappings):
            return _stacked(trees, names, above, words)
    except OSError as error:
        raise Failure.from_os_error("root", error, error.filename or upper or lower[0]) from error
    finally:
        for fd in trees:
            os.close(fd)


def mapped(folder: str, user_ns: int) -> int:
    """A detached mount of a folder with the ids that a user namespace maps; Failure("root")."""
    try:
        fd = mount.open_tree(folder, recursive=False)
    except OSError as error:
        raise Failure.from_os_error("root", error, folder) from error
    try:
        mount.mount_setattr(fd, attr_set=mount.MOUNT_ATTR_IDMAP, userns_fd=user_ns)
    except OSError as error:
        os.close(fd)
        detail = "the file system cannot map ids" if error.errno == errno.EINVAL else ""
        raise Failure("root", error.errno or 0, folder, detail) from error
    return fd


def _stacked(trees: list[int], lower: list[str], above: list[tuple[str, str]], words: list[str]) -> int:
    pairs = [word.partition("=") for word in words]
    flags = [(key, value if equals else None) for key, equals, value in pairs]
    options: list[tuple[str, str | None]] = [("source", "overlay"), *(("lowerdir+", name) for name in lower)]
    options += [*above, *flags]
    try:
        return mount.new_filesystem("overlay", options)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return stacked_attached(trees, lower, above, words)


def stacked_attached(trees: list[int], lower: list[str], above: list[tuple[str, str]], words: list[str]) -> int:
    """The same for kernels whose overlays take only mounts that are attached (before 6.15), or no `lowerdir+` (6.8).

    The caller ends up in a mount namespace of its own, with the mounts stacked on its working directory for a moment.
    """
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.mount("", "/", "", mount.MS_REC | mount.MS_SLAVE)
    place = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    attached = 0
    try:
        for tree in trees:
            mount.move_mount(tree, place)
            attached += 1
        data = ",".join(["lowerdir=" + ":".join(lower), *(f"{key}={value}" for key, value in above), *words])
        if len(data) > _MOUNT_DATA_MAX:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        mount.mount("overlay", f"/proc/self/fd/{place}", "overlay", 0, data)
        attached += 1
        return mount.open_tree(_top_of(place), recursive=False)
    finally:
        for _ in range(attached):
            mount.umount(_top_of(place))
        os.close(place)


def _top_of(place: int) -> str:
    """The path of what is mounted on a directory: a name is needed, for a descriptor names what is below."""
    return os.readlink(f"/proc/self/fd/{place}")
