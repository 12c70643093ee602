"""Execute the operations of a plan. Decides nothing; every error becomes a Failure that names the target.

Targets are looked up by the kernel below the new root (openat2 with RESOLVE_IN_ROOT), so a symbolic link inside
an image leads nowhere but into that image. Sources of binds were opened before (`open_sources`), with the rights
and in the mount namespace of the host.
"""

from __future__ import annotations

import errno
import os
import stat

from corral.linux import files, mount, namespaces
from corral.runtime import idmaps, nodes, plan
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime.options import MountOptions

_PATH_FLAGS = os.O_PATH | os.O_CLOEXEC
_DIRECTORY_FLAGS = os.O_PATH | os.O_CLOEXEC | os.O_DIRECTORY
_MAX_LINKS = 40
_NULL_DEVICE = os.makedev(1, 3)


class Root:
    """The new root: its descriptor, the detached mounts by operation, whether nodes must be binds."""

    __slots__ = ("fd", "late", "trees")

    def __init__(self, fd: int, trees: dict[int, int], late: bool = False) -> None:
        self.fd = fd
        self.trees = trees
        self.late = late


def open_sources(operations: list[Any]) -> dict[int, int]:
    """Detached copies of all binds, by the id() of the operation."""
    return {id(op): bind_source(op) for op in operations if isinstance(op, plan.Bind)}


def open_host_made(
    operations: list[Any], mappings: tuple[list[dict[str, Any]], list[dict[str, Any]]], idmap_fds: dict[int, Any]
) -> dict[int, int]:
    """Detached mounts of what a user namespace may not make itself: stacks of layers, and device nodes."""
    trees: dict[int, int] = {}
    place = os.open(".", _DIRECTORY_FLAGS)
    try:
        for op in operations:
            if isinstance(op, plan.Layers):
                try:
                    trees[id(op)] = layers_tree(op, place, idmap_fds[id(op)][1] if op.idmap else -1)
                except OSError as error:
                    raise Failure.from_os_error("mount", error, op.target) from error
    finally:
        os.close(place)
    devices = [op for op in operations if isinstance(op, plan.Node) and op.kind != "p"]
    return trees | dict(zip(map(id, devices), nodes.detached(devices, mappings), strict=True))


def bind_source(op: plan.Bind) -> int:
    """A detached copy of what a bind is of."""
    try:
        if op.subpath:
            return _open_below(op.source, op.subpath, recursive=op.options.recursive)
        try:
            return mount.open_tree(op.source, recursive=op.options.recursive)
        except OSError as error:
            # The kernel clones only mounts of the caller's own namespace; another container's are asked for there.
            process, inside = _of_another_process(op.source)
            if error.errno != errno.EINVAL or not process:
                raise
            return _open_tree_there(process, inside, recursive=op.options.recursive)
    except OSError as error:
        raise Failure.from_os_error("mount", error, op.source) from error


def _open_below(folder: str, subpath: str, recursive: bool) -> int:
    """A detached copy of `subpath`, looked up by the kernel below `folder`: whoever fills it cannot lead us out."""
    folder_fd = os.open(folder, _DIRECTORY_FLAGS)
    try:
        return _clone_below(folder_fd, subpath, recursive)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.path.join(folder, subpath)) from error
    finally:
        os.close(folder_fd)


def _clone_below(folder_fd: int, subpath: str, recursive: bool) -> int:
    fd = files.openat2(folder_fd, subpath, _PATH_FLAGS, 0, files.RESOLVE_IN_ROOT | files.RESOLVE_NO_MAGICLINKS)
    try:
        return mount.open_tree("", recursive=recursive, dir_fd=fd)
    finally:
        os.close(fd)


def layers_tree(op: plan.Layers, place_fd: int, user_ns: int = -1) -> int:
    """A detached mount of layers; for a part of them, the whole is mounted on `place_fd` for a moment.

    `user_ns` has the mappings of layers with mapped ids.
    """
    if op.idmap:
        tree_fd = idmaps.overlay(op.layers, op.upper, op.work, [], op.idmap, user_ns)
        if op.subpath:
            tree_fd = _part_of(tree_fd, op.subpath, place_fd)
        if op.upper:
            return tree_fd
    elif len(op.layers) == 1:
        tree_fd = _open_below(op.layers[0], op.subpath or ".", recursive=False)
    else:
        options: list[tuple[str, str | None]] = [("source", "overlay")]
        options += [("lowerdir+", layer) for layer in op.layers]
        try:
            tree_fd = mount.new_filesystem("overlay", options)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            tree_fd = mount.new_filesystem("overlay", [("source", "overlay"), ("lowerdir", ":".join(op.layers))])
        if op.subpath:
            tree_fd = _part_of(tree_fd, op.subpath, place_fd)
    mount.mount_setattr(tree_fd, attr_set=mount.MOUNT_ATTR_RDONLY, propagation=mount.MS_PRIVATE)
    return tree_fd


def _part_of(tree_fd: int, subpath: str, place_fd: int) -> int:
    """A copy of what is at `subpath` of a detached mount: before 6.15 the kernel copies only of attached ones."""
    try:
        try:
            return _clone_below(tree_fd, subpath, recursive=False)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        mount.move_mount(tree_fd, place_fd)
        try:
            return _clone_below(tree_fd, subpath, recursive=False)
        finally:
            mount.umount(f"/proc/self/fd/{tree_fd}")
    finally:
        os.close(tree_fd)


def _layers(op: plan.Layers, root: Root) -> None:
    tree_fd = root.trees.pop(id(op)) if id(op) in root.trees else layers_tree(op, root.fd)
    try:
        attach(tree_fd, op.target, root)
    finally:
        os.close(tree_fd)


def _of_another_process(source: str) -> tuple[str, str]:
    """`/proc/PID` and the path inside for a source below `/proc/PID/root`, else empty strings."""
    parts = source.split("/", 4)
    if parts[:2] == ["", "proc"] and parts[3:4] == ["root"] and len(parts) == 5:
        return f"/proc/{parts[2]}", f"/{parts[4]}"
    return "", ""


def _open_tree_there(process: str, path: str, recursive: bool) -> int:
    """A detached copy of a mount of another process's namespace; this process comes back to where it was."""
    home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    cwd = os.open(".", _DIRECTORY_FLAGS)
    there = -1
    try:
        there = os.open(f"{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(there, namespaces.CLONE_NEWNS)
        try:
            return mount.open_tree(path, recursive=recursive)
        finally:
            namespaces.setns(home, namespaces.CLONE_NEWNS)
            os.fchdir(cwd)
    finally:
        for fd in (home, cwd, there):
            if fd >= 0:
                os.close(fd)


def perform(operations: list[Any], root: Root) -> None:
    """Run `operations` in order."""
    for op in operations:
        handler, stage = _HANDLERS[type(op)]
        try:
            handler(op, root)
        except OSError as error:
            raise Failure.from_os_error(stage, error, _place(op)) from error


def _place(op: Any) -> str:
    """The path by which a user knows the operation."""
    name = getattr(op, "path", "") or getattr(op, "target", "/")
    return str(name)


def open_in_root(root_fd: int, path: str, flags: int = _PATH_FLAGS, resolve: int = files.RESOLVE_IN_ROOT) -> int:
    """Open `path` as seen from the new root."""
    return files.openat2(root_fd, path.lstrip("/") or ".", flags, 0, resolve)


def make_directories(root_fd: int, path: str, mode: int = 0o755, depth: int = 0) -> int:
    """mkdir -p below the root; returns a descriptor (O_PATH) of the directory. Dangling links are followed."""
    try:
        return open_in_root(root_fd, path, _DIRECTORY_FLAGS)
    except FileNotFoundError:
        if depth > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
    parent, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        # Through something missing, `..` means nothing to the kernel; take it by the text.
        return make_directories(root_fd, os.path.normpath(path), mode, depth + 1)
    parent_fd = make_directories(root_fd, parent, mode, depth + 1)
    try:
        try:
            os.mkdir(name, mode, dir_fd=parent_fd)
        except FileExistsError:
            link = os.readlink(name, dir_fd=parent_fd)
            return make_directories(root_fd, os.path.join(parent, link), mode, depth + 1)
        return os.open(name, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=parent_fd)
    finally:
        os.close(parent_fd)


def make_file(root_fd: int, path: str) -> int:
    """An O_PATH descriptor of what is at `path`, an empty file if nothing was."""
    try:
        return open_in_root(root_fd, path)
    except FileNotFoundError:
        parent, name = os.path.split(path.rstrip("/"))
    parent_fd = make_directories(root_fd, parent)
    try:
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent_fd))
    except FileExistsError:
        # A dangling link: let it lead to a file of its own, inside the root.
        link = os.path.join(parent, os.readlink(name, dir_fd=parent_fd))
        os.close(make_directories(root_fd, os.path.dirname(link)))
        os.close(files.openat2(root_fd, link.lstrip("/"), os.O_CREAT | os.O_WRONLY, 0o644))
    finally:
        os.close(parent_fd)
    return open_in_root(root_fd, path)


def attach(tree_fd: int, target: str, root: Root) -> None:
    """Put a detached mount at `target`, which is made if nothing is there."""
    is_directory = stat.S_ISDIR(os.fstat(tree_fd).st_mode)
    target_fd = make_directories(root.fd, target) if is_directory else make_file(root.fd, target)
    try:
        mount.move_mount(tree_fd, target_fd, target)
    finally:
        os.close(target_fd)


def _bind(op: plan.Bind, root: Root) -> None:
    tree_fd = root.trees.pop(id(op))
    try:
        apply_options(tree_fd, op.options)
        attach(tree_fd, op.target, root)
    finally:
        os.close(tree_fd)


def apply_options(tree_fd: int, options: MountOptions, *, bind: bool = True) -> None:
    """Give a detached mount its propagation (a bind: not the host's) and its attributes."""
    if bind:
        _apply_propagation(tree_fd, options)
    _apply_attributes(tree_fd, options)


def _apply_propagation(tree_fd: int, options: MountOptions) -> None:
    """What is mounted inside must not reach the host unless sharing is asked for."""
    wanted = options.propagation
    if not wanted & mount.MS_SHARED:
        mount.mount_setattr(tree_fd, propagation=mount.MS_SLAVE, recursive=True)
    if wanted:
        mount.mount_setattr(tree_fd, propagation=wanted & ~mount.MS_REC, recursive=bool(wanted & mount.MS_REC))


def _apply_attributes(tree_fd: int, options: MountOptions) -> None:
    attr_set, attr_clr = options.attributes()
    if attr_set or attr_clr:
        mount.mount_setattr(tree_fd, attr_set=attr_set, attr_clr=attr_clr)
    if options.recursive_set or options.recursive_clear:
        mount.mount_setattr(tree_fd, attr_set=options.recursive_set, attr_clr=options.recursive_clear, recursive=True)


def _filesystem(op: plan.Filesystem, root: Root) -> None:
    data = op.options.data
    if op.fstype in ("proc", "sysfs"):
        target_fd = _plain_directory(root.fd, op.target)
    else:
        if op.fstype == "tmpfs":
            data = _tmpfs_data(op, root)
        target_fd = make_directories(root.fd, op.target)
    source_fd = -1
    try:
        if op.options.copy_up:
            source_fd = open_in_root(root.fd, op.target, os.O_RDONLY | os.O_DIRECTORY)
        mount.mount(op.source, f"/proc/self/fd/{target_fd}", op.fstype, op.options.flags, data)
        if source_fd >= 0 or op.options.propagation or op.options.recursive_set or op.options.recursive_clear:
            _finish_filesystem(op, root, source_fd)
    finally:
        os.close(target_fd)
        if source_fd >= 0:
            os.close(source_fd)


def _finish_filesystem(op: plan.Filesystem, root: Root, source_fd: int) -> None:
    new_fd = open_in_root(root.fd, op.target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if source_fd >= 0:
            _copy_tree(source_fd, new_fd)
        wanted = op.options.propagation
        if wanted:
            mount.mount_setattr(new_fd, propagation=wanted & ~mount.MS_REC, recursive=bool(wanted & mount.MS_REC))
        if op.options.recursive_set or op.options.recursive_clear:
            mount.mount_setattr(
                new_fd, attr_set=op.options.recursive_set, attr_clr=op.options.recursive_clear, recursive=True
            )
    finally:
        os.close(new_fd)


def _plain_directory(root_fd: int, target: str) -> int:
    """/proc and /sys must not be redirected by the image: other code trusts what it reads there (CVE-2019-19921)."""
    try:
        return open_in_root(
            root_fd, target, _DIRECTORY_FLAGS | os.O_NOFOLLOW, files.RESOLVE_IN_ROOT | files.RESOLVE_NO_SYMLINKS
        )
    except FileNotFoundError:
        return make_directories(root_fd, target)


def _tmpfs_data(op: plan.Filesystem, root: Root) -> str:
    """A tmpfs over an existing directory keeps its mode, unless the options name one."""
    try:
        fd = open_in_root(root.fd, op.target, _DIRECTORY_FLAGS)
    except OSError:
        return op.options.data
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    os.close(fd)
    return f"mode={mode:o},{op.options.data}" if op.options.data else f"mode={mode:o}"


def _copy_tree(source_fd: int, target_fd: int) -> None:
    """Copy what was in the directory into the tmpfs over it: owners, modes and links included."""
    for name in os.listdir(source_fd):
        info = os.stat(name, dir_fd=source_fd, follow_symlinks=False)
        kind = stat.S_IFMT(info.st_mode)
        if kind == stat.S_IFLNK:
            os.symlink(os.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
        elif kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=target_fd)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below, copy = os.open(name, flags, dir_fd=source_fd), os.open(name, flags, dir_fd=target_fd)
            try:
                _copy_tree(below, copy)
            finally:
                os.close(below)
                os.close(copy)
        elif kind == stat.S_IFREG:
            _copy_file(source_fd, target_fd, name)
        else:
            os.mknod(name, info.st_mode, info.st_rdev, dir_fd=target_fd)
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target_fd, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target_fd)


def _copy_file(source_fd: int, target_fd: int, name: str) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)
    try:
        target = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target_fd)
        try:
            while os.sendfile(target, source, None, 1 << 24):
                pass
        finally:
            os.close(target)
    finally:
        os.close(source)


def _remount(op: plan.Remount, root: Root) -> None:
    fd = open_in_root(root.fd, op.target)
    try:
        if op.options.bind or root.late:
            _apply_attributes(fd, op.options)
            return
        flags = op.options.flags | mount.MS_REMOUNT
        mount.mount("", f"/proc/self/fd/{fd}", "", flags, op.options.data)
    finally:
        os.close(fd)


def make_node(op: plan.Node, root: Root) -> None:
    """Make a device node, or attach the bind that stands for it; one that is there must be the same device."""
    if id(op) in root.trees:
        tree_fd = root.trees.pop(id(op))
        try:
            attach(tree_fd, op.path, root)
        finally:
            os.close(tree_fd)
        return
    parent, name = os.path.split(op.path)
    parent_fd = make_directories(root.fd, parent)
    try:
        mode = stat.S_IMODE(op.mode)
        try:
            os.mknod(name, nodes.KINDS[op.kind] | mode, os.makedev(op.major, op.minor), dir_fd=parent_fd)
        except FileExistsError:
            info = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            same_device = op.kind == "p" or info.st_rdev == os.makedev(op.major, op.minor)
            if stat.S_IFMT(info.st_mode) != nodes.KINDS[op.kind] or not same_device:
                raise
        os.chmod(name, mode, dir_fd=parent_fd)
        if op.uid or op.gid:
            os.chown(name, op.uid, op.gid, dir_fd=parent_fd, follow_symlinks=False)
    finally:
        os.close(parent_fd)


def _link(op: plan.Link, root: Root) -> None:
    if op.path == "/dev/core" and not os.path.exists("/proc/kcore"):
        return
    parent, name = os.path.split(op.path)
    parent_fd = make_directories(root.fd, parent)
    try:
        if op.path == "/dev/ptmx":
            _remove_plain(name, parent_fd)
        os.symlink(op.target, name, dir_fd=parent_fd)
    except FileExistsError:
        pass  # the image or a bind brought its own
    finally:
        os.close(parent_fd)


def _remove_plain(name: str, parent_fd: int) -> None:
    """An image's own ptmx would belong to the host's devpts; the container's is pts/ptmx."""
    try:
        os.unlink(name, dir_fd=parent_fd)
    except FileNotFoundError:
        pass


def _directory(op: plan.Directory, root: Root) -> None:
    try:
        os.close(make_directories(root.fd, op.path))
    except OSError:
        # A read-only root or a file in the way: `chdir` says so later, with the error Docker's users know.
        return


def _mask(op: plan.Mask, root: Root) -> None:
    try:
        target_fd = open_in_root(root.fd, op.path)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if stat.S_ISDIR(os.fstat(target_fd).st_mode):
            tree_fd = _empty_directory(root)
        else:
            tree_fd = mount.open_tree("/dev/null", recursive=False)
        try:
            info = os.fstat(tree_fd)
            if not stat.S_ISDIR(info.st_mode) and (not stat.S_ISCHR(info.st_mode) or info.st_rdev != _NULL_DEVICE):
                # A link in its place would put a writable file over what is to be hidden (CVE-2025-31133).
                raise OSError(errno.ENODEV, "not the null device", "/dev/null")
            mount.move_mount(tree_fd, target_fd, op.path)
        finally:
            os.close(tree_fd)
    finally:
        os.close(target_fd)


def _empty_directory(root: Root) -> int:
    """A copy of one empty read-only tmpfs, the same for all masked directories of a container."""
    key = -1
    if key not in root.trees:
        root.trees[key] = mount.new_filesystem("tmpfs", [("size", "0"), ("nr_inodes", "1")], mount.MOUNT_ATTR_RDONLY)
        return os.dup(root.trees[key])
    return mount.open_tree("", recursive=False, dir_fd=root.trees[key])


def _read_only(op: plan.ReadOnly, root: Root) -> None:
    if op.path == "/":
        fd = os.open("/", _DIRECTORY_FLAGS)
        mount.mount_setattr(fd, attr_set=mount.MOUNT_ATTR_RDONLY)
        os.close(fd)
        return
    try:
        target_fd = open_in_root(root.fd, op.path)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        tree_fd = mount.open_tree("", recursive=True, dir_fd=target_fd)
        try:
            mount.mount_setattr(tree_fd, attr_set=mount.MOUNT_ATTR_RDONLY)
            mount.move_mount(tree_fd, target_fd, op.path)
        finally:
            os.close(tree_fd)
    finally:
        os.close(target_fd)


def _propagation(op: plan.Propagation, root: Root) -> None:
    mount.mount("", "/", "", op.flags)


_HANDLERS: dict[type, tuple[Any, str]] = {
    plan.Bind: (_bind, "mount"),
    plan.Layers: (_layers, "mount"),
    plan.Filesystem: (_filesystem, "mount"),
    plan.Remount: (_remount, "mount"),
    plan.Node: (make_node, "device"),
    plan.Link: (_link, "device"),
    plan.CgroupLink: (_link, "mount"),
    plan.Directory: (_directory, "root"),
    plan.Mask: (_mask, "mask"),
    plan.ReadOnly: (_read_only, "mask"),
    plan.Propagation: (_propagation, "root"),
}
