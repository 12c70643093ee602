"""Mount a container's root somewhere in the caller's own mount namespace, outside of a container."""

from __future__ import annotations

import os

from corral.linux import files, mount, namespaces
from corral.runtime import init, ops
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    tree = init.overlay_root(rootfs)
    here = os.getcwd()
    os.chdir(target)
    try:
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


def mount_below(root: str, source: str, target: str, *, readonly: bool) -> None:
    """Bind `source` at `target` inside the mounted `root`; a target that does not exist is made, as at a start."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            target_fd = files.openat2(root_fd, target, os.O_PATH)
        except FileNotFoundError:
            make = ops.make_directories if os.path.isdir(source) else ops.make_file
            target_fd = make(root_fd, target)
        try:
            tree = mount.open_tree(source, recursive=True)
            if readonly:
                mount.mount_setattr(tree, attr_set=mount.MOUNT_ATTR_RDONLY)
            mount.move_mount(tree, target_fd, target)
            os.close(tree)
        finally:
            os.close(target_fd)
    except OSError as error:
        raise Failure.from_os_error("mount", error, target) from error
    finally:
        os.close(root_fd)
