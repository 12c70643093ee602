"""Mounts of a container that runs already: made detached on the host's side, then moved in (move_mount(2)).

For a child that ends afterwards: it leaves its mount namespace for the container's.
"""

from __future__ import annotations

import os

from corral.linux import mount, namespaces
from corral.runtime import idmaps, ops, plan, rootmount
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UMOUNT_NOFOLLOW = 8


def add(pid: int, described: dict[str, Any], mappings: idmaps.Mappings | None) -> None:
    """Do a bind or tmpfs mount of a spec in the container of process `pid`; its place is made if missing.

    `mappings` are those of the container's user namespace.
    """
    if mappings:
        with idmaps.owner(mappings):
            _add(pid, described)
    else:
        _add(pid, described)


def _add(pid: int, described: dict[str, Any]) -> None:
    (op,) = plan.build({"mounts": [described]}, plan.Facts(1, [], False, False)).early[:1]
    tree_fd = -1
    try:
        tree_fd = _tree(op, described)
        root_fd = enter(pid)
        ops.attach(tree_fd, op.target, ops.Root(root_fd, {}))
        os.close(root_fd)
    except OSError as error:
        raise Failure.from_os_error("mount", error, op.target) from error
    finally:
        if tree_fd >= 0:
            os.close(tree_fd)


def remove(pid: int, target: str) -> None:
    """Take away what is mounted at `target`; a process that has files of it open keeps them until it closes them."""
    try:
        os.close(enter(pid))
        mount.umount(target, mount.MNT_DETACH | _UMOUNT_NOFOLLOW)
    except OSError as error:
        raise Failure.from_os_error("mount", error, target) from error


def _tree(op: Any, described: dict[str, Any]) -> int:
    if isinstance(op, plan.Filesystem):
        pairs = [word.partition("=") for word in op.options.data.split(",") if word]
        options = [(key, value if equals else None) for key, equals, value in pairs]
        tree_fd = mount.new_filesystem(op.fstype, [("source", op.source), *options])
    else:
        tree_fd = ops.bind_source(op)
        if described.get("uidMappings"):
            rootmount.map_ids(tree_fd, described)
    ops.apply_options(tree_fd, op.options, bind=isinstance(op, plan.Bind))
    return tree_fd


def enter(pid: int) -> int:
    """Into the mount namespace of `pid`; its root."""
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(fd, namespaces.CLONE_NEWNS)
    finally:
        os.close(fd)
    return os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
