"""Device nodes for a user namespace, where mknod(2) is refused: made on a tmpfs of the host's, one bind for each."""

from __future__ import annotations

import errno
import os
import stat

from corral.linux import mount
from corral.runtime import idmaps
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime import plan

KINDS = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def detached(nodes: list[plan.Node], mappings: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> list[int]:
    """A detached mount of each node, owned as the container says; without mappings, the host's nodes of that name.

    So it is where we may not mount or make nodes, and where no part of a detached mount can be had (before 6.15), too.
    """
    if not nodes:
        return []
    if not (mappings[0] and mappings[1]):
        return [_of_host(node) for node in nodes]
    try:
        folder = mount.new_filesystem("tmpfs", [("size", "0"), ("mode", "0755")])
    except PermissionError:
        return [_of_host(node) for node in nodes]
    found = []
    try:
        for number, node in enumerate(nodes):
            try:
                _make(node, str(number), folder, mappings)
                found.append(mount.open_tree(str(number), recursive=False, dir_fd=folder))
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise Failure.from_os_error("device", error, node.path) from error
                found.append(_of_host(node))
    finally:
        os.close(folder)
    return found


def _make(node: plan.Node, name: str, folder: int, mappings: tuple[list[dict[str, Any]], list[dict[str, Any]]]) -> None:
    mode = stat.S_IMODE(node.mode)
    os.mknod(name, KINDS[node.kind] | mode, os.makedev(node.major, node.minor), dir_fd=folder)
    os.chmod(name, mode, dir_fd=folder)
    owner = idmaps.to_host(node.uid, mappings[0]), idmaps.to_host(node.gid, mappings[1])
    os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)


def _of_host(node: plan.Node) -> int:
    try:
        return mount.open_tree(node.path, recursive=False)
    except OSError as error:
        raise Failure.from_os_error("device", error, node.path) from error
