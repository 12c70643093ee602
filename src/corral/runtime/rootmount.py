"""Mount a container's root somewhere in the caller's own mount namespace, outside of a container."""

from __future__ import annotations

import os

from corral.linux import mount, namespaces
from corral.runtime import idmaps, init, ops, plan
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime.container import Rootfs


def overlay(lower: list[str], upper: str, work: str, options: list[str]) -> Rootfs:
    """A Rootfs, for callers that have no container."""
    from corral.runtime.container import Rootfs

    return Rootfs(lower, upper, work, options)


def leave_host() -> None:
    """Give the caller a mount namespace whose mounts the host never sees; the host's own still arrive."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.mount("", "/", "", mount.MS_REC | mount.MS_SLAVE)


def mount_root(rootfs: Rootfs, target: str) -> None:
    """Mount `rootfs` on the folder `target`; Failure("root") if the kernel refuses."""
    here = os.getcwd()
    os.chdir(target)
    tree = -1
    try:
        tree = _overlay(rootfs)
        if tree >= 0:
            mount.move_mount(tree, mount.AT_FDCWD, target)
        else:
            init.classic_overlay(rootfs)
    except OSError as error:
        raise Failure.from_os_error("root", error, target) from error
    finally:
        os.chdir(here)
        if tree >= 0:
            os.close(tree)


def _overlay(rootfs: Rootfs) -> int:
    if not rootfs.mappings:
        return init.overlay_root(rootfs)
    user_ns = idmaps.user_namespace(rootfs.mappings)
    try:
        return init.overlay_root(rootfs, user_ns)
    finally:
        os.close(user_ns)


def tree_of(described: dict[str, Any], place_fd: int) -> int:
    """A detached copy of what a bind or layers mount of a spec names; `place_fd` is a folder to mount on meanwhile."""
    (op,) = plan.build({"mounts": [described]}, plan.Facts(1, [], False, False)).early[:1]
    user_ns = -1
    try:
        if not isinstance(op, plan.Layers):
            tree_fd = ops.bind_source(op)
            try:
                if op.options.idmap:
                    map_ids(tree_fd, described)
            except BaseException:
                os.close(tree_fd)
                raise
            return tree_fd
        user_ns = idmaps.user_namespace(op.idmap) if op.idmap else -1
        return ops.layers_tree(op, place_fd, user_ns)
    except OSError as error:
        raise Failure.from_os_error("mount", error, op.target) from error
    finally:
        if user_ns >= 0:
            os.close(user_ns)


def mount_below(root: str, described: dict[str, Any]) -> None:
    """Do a bind or layers mount of a spec inside the mounted `root`; a target that does not exist is made."""
    target = described["destination"]
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree_fd = tree_of(described, root_fd)
        try:
            if {"ro", "rro"} & set(described["options"]):
                mount.mount_setattr(tree_fd, attr_set=mount.MOUNT_ATTR_RDONLY)
            ops.attach(tree_fd, target, ops.Root(root_fd, {}))
        finally:
            os.close(tree_fd)
    except OSError as error:
        raise Failure.from_os_error("mount", error, target) from error
    finally:
        os.close(root_fd)


def map_ids(tree_fd: int, described: dict[str, Any]) -> None:
    """Let a detached mount show other owners, as the spec's mount says."""
    user_ns = idmaps.user_namespace((described["uidMappings"], described["gidMappings"]))
    try:
        mount.mount_setattr(tree_fd, attr_set=mount.MOUNT_ATTR_IDMAP, userns_fd=user_ns)
    finally:
        os.close(user_ns)


def replace_own_mounts(spec: dict[str, Any], folder: str) -> None:
    """Put plain binds in the place of the mounts that not every runtime knows; their sources are mounted in `folder`.

    For a caller that has left the host's mounts: nobody else sees what is mounted here.
    """
    for number, described in enumerate(spec.get("mounts") or []):
        if not (described.get("layers") or described.get("subpath") or described.get("uidMappings")):
            continue
        os.makedirs(folder, 0o700, exist_ok=True)
        folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        tree_fd = -1
        try:
            tree_fd = tree_of(described, folder_fd)
            ops.attach(tree_fd, f"/{number}", ops.Root(folder_fd, {}))
        finally:
            os.close(folder_fd)
            if tree_fd >= 0:
                os.close(tree_fd)
        kept = described["options"]
        if described.get("layers"):
            kept = ["rbind", "rprivate", *([] if described.get("upper") else ["ro"])]
        replaced = {"destination": described["destination"], "type": "bind", "options": kept}
        spec["mounts"][number] = {**replaced, "source": os.path.join(folder, str(number))}
