"""Looks at this machine by trying: each thing in a process and in namespaces of its own, so that nothing stays."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable

from corral.installation.facts import Facts
from corral.linux import mount, namespaces, quota
from corral.runtime import idmaps
from corral.runtime.failure import Failure

_REMAP_USER = "dockremap"
_PROGRAMS = ("ps", "mmdebstrap")
_V1 = frozenset("cpu cpuacct cpuset memory devices freezer blkio pids hugetlb".split())
_NOBODY_HERE = [{"containerID": 0, "hostID": 100000, "size": 65536}]
_REASON_MAX_BYTES = 4000


def look(data_root: str) -> Facts:
    """Look; a data root that is not there yet is judged by the folder that it would be made in."""
    version, controllers = _cgroups()
    folder = _existing(data_root)
    disk = os.statvfs(folder)
    return Facts(
        kernel=os.uname().release,
        is_root=os.geteuid() == 0,
        failures={name: _failure(trial) for name, trial in _trials(folder).items()},
        cgroup_version=version,
        controllers=controllers,
        seccomp_filters=os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
        mapped_user=_REMAP_USER if all(map(_has_range, ("/etc/subuid", "/etc/subgid"))) else "",
        data_root=data_root,
        free_bytes=disk.f_bavail * disk.f_frsize,
        total_bytes=disk.f_blocks * disk.f_frsize,
        project_quotas=quota.is_enforced(folder),
        nftables=_failure(_nftables),
        missing_programs=tuple(name for name in _PROGRAMS if not shutil.which(name)),
        systemd=os.path.isdir("/run/systemd/system"),
    )


def _trials(folder: str) -> dict[str, Callable[[], None]]:
    found: dict[str, Callable[[], None]] = {
        name: lambda flag=flag: namespaces.unshare(flag)  # type: ignore[misc]
        for name, flag in namespaces.NS_FILES.items()
    }
    found["overlayfs"] = _overlay
    found["idmapped mounts"] = lambda: _mapped(folder)
    found["bridge"] = lambda: _link("bridge")
    found["veth"] = lambda: _link("veth")
    return found


def _failure(trial: Callable[[], None]) -> str:
    """Why a trial does not work, empty if it does; it happens in a process of its own."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            trial()
            status = 0
        except Failure as error:
            os.write(writable, (error.detail or os.strerror(error.errno)).encode()[:_REASON_MAX_BYTES])
        except OSError as error:
            os.write(writable, (error.strerror or str(error)).encode()[:_REASON_MAX_BYTES])
        finally:
            os._exit(status)
    os.close(writable)
    with open(readable, "rb") as file:
        reason = file.read().decode(errors="replace").lower()
    _, status = os.waitpid(pid, 0)
    return reason or ("" if status == 0 else f"the attempt ended with status {status}")


def _overlay() -> None:
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mount.mount("none", "/", flags=mount.MS_REC | mount.MS_PRIVATE)
    mount.mount("tmpfs", "/tmp", "tmpfs")
    folder = tempfile.mkdtemp(dir="/tmp")
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(os.path.join(folder, name))
    words = f"lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
    mount.mount("overlay", f"{folder}/merged", "overlay", data=words)


def _mapped(folder: str) -> None:
    user_ns = idmaps.user_namespace((_NOBODY_HERE, _NOBODY_HERE))
    os.close(idmaps.mapped(folder, user_ns))


_RTM_NEWLINK, _NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_CREATE = 16, 1, 4, 0x400
_IFLA_LINKINFO, _IFLA_INFO_KIND = 18, 1


def _link(kind: str) -> None:
    """Make a link of a kind in a network of its own (rtnetlink(7))."""
    namespaces.unshare(namespaces.CLONE_NEWNET)
    name = kind.encode() + b"\0"
    inner = struct.pack("=HH", 4 + len(name), _IFLA_INFO_KIND) + name + b"\0" * (-len(name) % 4)
    body = bytes(16) + struct.pack("=HH", 4 + len(inner), _IFLA_LINKINFO) + inner
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as rtnetlink:
        rtnetlink.send(struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, flags, 1, 0) + body)
        (number,) = struct.unpack_from("=i", rtnetlink.recv(4096), 16)
    if number:
        raise OSError(-number, os.strerror(-number))


def _nftables() -> None:
    """Have the library that corrald uses make a table, in a network of its own; without root only look for it."""
    library = ctypes.CDLL("libnftables.so.1")
    if os.geteuid() != 0:
        return
    namespaces.unshare(namespaces.CLONE_NEWNET)
    library.nft_ctx_new.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.nft_ctx_new(0))
    library.nft_ctx_buffer_error(context)
    if library.nft_run_cmd_from_buffer(context, b"add table inet corral_setup"):
        raise OSError("the kernel makes no table")


def _cgroups() -> tuple[int, frozenset[str]]:
    with contextlib.suppress(FileNotFoundError), open("/sys/fs/cgroup/cgroup.controllers") as file:
        return 2, frozenset(file.read().split())
    found: set[str] = set()
    for entry in mount.mountinfo():
        if entry.fstype == "cgroup":
            found.update(entry.super_options)
    return 1, _V1 & found


def _has_range(path: str) -> bool:
    with contextlib.suppress(OSError), open(path) as file:
        return any(line.partition(":")[0] == _REMAP_USER for line in file)
    return False


def _existing(path: str) -> str:
    while not os.path.isdir(path):
        path = os.path.dirname(path) or "/"
    return path
