"""Is this spec one that can be run? A list of small checks, each of one thing.

Pure: what the host can do shows later. A check raises Failure("spec", EINVAL, place, why).
"""

from __future__ import annotations

from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EINVAL = 22
NAMESPACES = ("user", "pid", "network", "ipc", "uts", "cgroup", "time", "mount")


def _wrong(place: str, why: str) -> Failure:
    return Failure("spec", _EINVAL, place, why)


def check(spec: dict[str, Any]) -> None:
    """All checks, in order."""
    for one in _CHECKS:
        one(spec)


def check_process(process: dict[str, Any]) -> None:
    """What `exec` needs of its process."""
    args = process.get("args")
    if not args or not isinstance(args, list) or not all(isinstance(item, str) for item in args):
        raise _wrong("process.args", "args must not be empty")
    cwd = process.get("cwd")
    if not cwd or not str(cwd).startswith("/"):
        raise _wrong("process.cwd", "Cwd must be an absolute path")


def _process(spec: dict[str, Any]) -> None:
    if spec.get("process") is not None:
        check_process(spec["process"])


def _namespaces(spec: dict[str, Any]) -> None:
    seen = set()
    for entry in (spec.get("linux") or {}).get("namespaces") or []:
        kind = entry.get("type")
        if kind not in NAMESPACES:
            raise _wrong("linux.namespaces", f"unknown namespace {kind!r}")
        if kind in seen:
            raise _wrong("linux.namespaces", f"malformed spec file: duplicated ns {kind!r}")
        if kind == "mount" and entry.get("path"):
            # Switching the root there would move it under every process that lives in that namespace.
            raise _wrong("linux.namespaces", "joining a mount namespace is not supported: use exec")
        seen.add(kind)
    if "mount" not in seen:
        raise _wrong("linux.namespaces", "a container needs a mount namespace")


def _version(spec: dict[str, Any]) -> None:
    version = spec.get("ociVersion")
    if not isinstance(version, str) or not version:
        raise _wrong("ociVersion", "missing")
    if version.partition(".")[0] not in ("0", "1"):
        raise _wrong("ociVersion", f"unsupported version {version}")


def _types(spec: dict[str, Any]) -> None:
    """The objects that everything else reaches into."""
    for place, kind in (("process", dict), ("root", dict), ("linux", dict), ("hooks", dict), ("mounts", list)):
        if spec.get(place) is not None and not isinstance(spec[place], kind):
            raise _wrong(place, f"must be {'an object' if kind is dict else 'an array'}")
    if not (spec.get("root") or {}).get("path"):
        raise _wrong("root.path", "missing")


def _mounts(spec: dict[str, Any]) -> None:
    for mount in spec.get("mounts") or []:
        if not isinstance(mount, dict) or not mount.get("destination"):
            raise _wrong("mounts", "a mount needs a destination")


def _identifiers(spec: dict[str, Any]) -> None:
    """Mappings without their namespace, or the namespace without its mappings, cannot be meant."""
    linux = spec.get("linux") or {}
    user = next((entry for entry in linux.get("namespaces") or [] if entry.get("type") == "user"), None)
    mapped = bool(linux.get("uidMappings") or linux.get("gidMappings"))
    if mapped and user is None:
        raise _wrong("linux.uidMappings", "user namespace mappings specified, but user namespace isn't enabled")
    if user is not None and not user.get("path") and not (linux.get("uidMappings") and linux.get("gidMappings")):
        raise _wrong("linux.uidMappings", "a new user namespace needs mappings of users and groups")
    for key in ("uidMappings", "gidMappings"):
        for entry in linux.get(key) or []:
            if any(not isinstance(entry.get(name), int) for name in ("containerID", "hostID", "size")):
                raise _wrong(f"linux.{key}", "containerID, hostID and size must be numbers")


def _names_need_namespaces(spec: dict[str, Any]) -> None:
    """Without a namespace of its own the container would rename or reconfigure the host."""
    linux = spec.get("linux") or {}
    own = {entry.get("type") for entry in linux.get("namespaces") or []}
    for key in ("hostname", "domainname"):
        if spec.get(key) and "uts" not in own:
            raise _wrong(key, f"unable to set {key} without a private UTS namespace")
    for name in linux.get("sysctl") or {}:
        _sysctl(name.replace("/", "."), own)
    if linux.get("timeOffsets") and "time" not in own:
        raise _wrong("linux.timeOffsets", "need a time namespace")


_IPC_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
    "kernel.shmmni", "kernel.shm_rmid_forced",
)  # fmt: skip


def _sysctl(name: str, own: set[Any]) -> None:
    if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
        needed = "ipc"
    elif name.startswith("net."):
        needed = "network"
    elif name in ("kernel.domainname", "kernel.hostname"):
        needed = "uts"
    else:
        raise _wrong("linux.sysctl", f"sysctl {name!r} is not in a separate kernel namespace")
    if needed not in own:
        raise _wrong("linux.sysctl", f"sysctl {name!r} is not allowed as {needed} namespace is not used")


def _devices(spec: dict[str, Any]) -> None:
    for device in (spec.get("linux") or {}).get("devices") or []:
        if device.get("type") not in ("c", "u", "b", "p") or not str(device.get("path", "")).startswith("/"):
            raise _wrong("linux.devices", f"not a device: {device}")
        if device["type"] != "p" and (device.get("major") is None or device.get("minor") is None):
            raise _wrong("linux.devices", f"{device['path']}: major and minor are needed")


def _unsupported(spec: dict[str, Any]) -> None:
    """What would need a part of the kernel or a tool that is not driven from here: said, not passed over."""
    process, linux = spec.get("process") or {}, spec.get("linux") or {}
    for key in ("apparmorProfile", "selinuxLabel"):
        if process.get(key) not in (None, "", "unconfined"):
            raise _wrong(f"process.{key}", "not supported by this runtime")
    for key in ("mountLabel", "intelRdt", "netDevices", "memoryPolicy"):
        if linux.get(key):
            raise _wrong(f"linux.{key}", "not supported by this runtime")


_CHECKS = (
    _version,
    _types,
    _process,
    _namespaces,
    _mounts,
    _identifiers,
    _names_need_namespaces,
    _devices,
    _unsupported,
)
