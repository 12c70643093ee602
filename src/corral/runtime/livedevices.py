"""Device nodes of a container that runs already.

For a child that ends afterwards: it leaves its mount namespace for the container's.
"""

from __future__ import annotations

import errno
import os

from corral.linux import mount
from corral.runtime import idmaps, livemounts, nodes, ops, plan
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_UMOUNT_NOFOLLOW = 8


def add(pid: int, device: dict[str, Any], mappings: idmaps.Mappings | None) -> None:
    """Make the node of an OCI device in the container of process `pid`; Failure(EEXIST) if something is there.

    `mappings` are those of the container's user namespace, in which nodes are binds.
    """
    (node,) = plan.nodes([device])
    if not mappings:
        _add(pid, node, {})
        return
    with idmaps.owner(mappings):
        _add(pid, node, {id(node): tree for tree in nodes.detached([node], mappings)})


def _add(pid: int, node: plan.Node, trees: dict[int, int]) -> None:
    root_fd = livemounts.enter(pid)
    try:
        if _status(root_fd, node.path) is not None:
            raise Failure("device", errno.EEXIST, node.path)
        ops.make_node(node, ops.Root(root_fd, trees))
    except OSError as error:
        raise Failure.from_os_error("device", error, node.path) from error
    finally:
        os.close(root_fd)


def remove(pid: int, device: dict[str, Any]) -> None:
    """Take the node away; what the container has put in its place stays, and so do files that are open."""
    (node,) = plan.nodes([device])
    root_fd = livemounts.enter(pid)
    try:
        status = _status(root_fd, node.path)
        if status is None or status.st_rdev != os.makedev(node.major, node.minor):
            return
        try:
            os.chdir("/")
            mount.umount(node.path, mount.MNT_DETACH | _UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.EINVAL:  # no bind, but a node of its own
                raise
        parent, name = os.path.split(node.path)
        fd = ops.open_in_root(root_fd, parent, os.O_PATH | os.O_DIRECTORY)
        try:
            os.unlink(name, dir_fd=fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise Failure.from_os_error("device", error, node.path) from error
    finally:
        os.close(root_fd)


def _status(root_fd: int, path: str) -> os.stat_result | None:
    """What is at `path` without following it, below the container's root."""
    parent, name = os.path.split(path)
    try:
        fd = ops.open_in_root(root_fd, parent, os.O_PATH | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    finally:
        os.close(fd)
