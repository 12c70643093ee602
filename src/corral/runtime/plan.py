"""From a spec to an ordered list of operations: what the root file system of the container is made of.

Pure: the same spec and facts give the same plan. `ops.perform` executes it; `describe()` of each operation is the
debugging tool. Operations before the switch of root name their targets inside the new root, those after it (`late`)
name paths as the container sees them.
"""

from __future__ import annotations

from corral.runtime.failure import Failure
from corral.runtime.options import MountOptions, parse_options

INIT_ANNOTATION = "corral.init"  # "true": an init of our own stays as the first process, see `reaper`
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
DEFAULT_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
    ("/dev/ptmx", "pts/ptmx"),
)


class Facts:
    """What the plan needs to know of the host and of the container's place on it."""

    __slots__ = ("cgroup_mounts", "cgroup_version", "new_cgroup_ns", "user_ns")

    def __init__(
        self,
        cgroup_version: int,
        cgroup_mounts: list[tuple[str, str]],
        new_cgroup_ns: bool,
        user_ns: bool,
    ) -> None:
        self.cgroup_version = cgroup_version
        self.cgroup_mounts = cgroup_mounts
        """(name of the mount directory such as "cpu,cpuacct", the container's own directory below it)."""
        self.new_cgroup_ns = new_cgroup_ns
        self.user_ns = user_ns


class Filesystem:
    """Mount a new file system instance."""

    __slots__ = ("fstype", "options", "source", "target")

    def __init__(self, fstype: str, source: str, target: str, options: MountOptions) -> None:
        self.fstype = fstype
        self.source = source
        self.target = target
        self.options = options

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target} ({self.options.describe()})"


class Bind:
    """Attach a copy of the mount at a host path, or of what is at `subpath` below it, never out of it."""

    __slots__ = ("options", "source", "subpath", "target")

    def __init__(self, source: str, target: str, options: MountOptions, subpath: str = "") -> None:
        self.source = source
        self.target = target
        self.options = options
        self.subpath = subpath

    def describe(self) -> str:
        below = f" below {self.subpath}" if self.subpath else ""
        return f"bind {self.source}{below} on {self.target} ({self.options.describe()})"


class Layers:
    """Attach a stack of layers (top-most first), or what is at `subpath` in it; read-only without an upper directory.

    With `idmap`, mappings of users and groups, it shows other owners than those on disk.
    """

    __slots__ = ("idmap", "layers", "subpath", "target", "upper", "work")

    def __init__(self, layers: list[str], target: str, subpath: str = "") -> None:
        self.layers = layers
        self.target = target
        self.subpath = subpath
        self.upper = self.work = ""
        self.idmap: tuple[list[dict[str, Any]], list[dict[str, Any]]] | None = None

    def describe(self) -> str:
        below = f" below {self.subpath}" if self.subpath else ""
        return f"layers {' '.join(self.layers)}{below} on {self.target}"


class Remount:
    """Change flags of what is mounted already."""

    __slots__ = ("options", "target")

    def __init__(self, target: str, options: MountOptions) -> None:
        self.target = target
        self.options = options

    def describe(self) -> str:
        return f"remount {self.target} ({self.options.describe()})"


class Node:
    """Make a device node or fifo."""

    __slots__ = ("gid", "kind", "major", "minor", "mode", "path", "uid")

    def __init__(self, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int) -> None:
        self.path = path
        self.kind = kind
        self.major = major
        self.minor = minor
        self.mode = mode
        self.uid = uid
        self.gid = gid

    def describe(self) -> str:
        return f"node {self.path} {self.kind} {self.major}:{self.minor} mode {self.mode:o} owner {self.uid}:{self.gid}"


class Link:
    """Make a symbolic link unless something is there."""

    __slots__ = ("path", "target")

    def __init__(self, path: str, target: str) -> None:
        self.path = path
        self.target = target

    def describe(self) -> str:
        return f"link {self.path} -> {self.target}"


class Directory:
    """Make a directory and its parents unless there."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"directory {self.path}"


class Mask:
    """Hide a path: an empty read-only file or directory over it."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"mask {self.path}"


class ReadOnly:
    """Make a path read-only by a bind of it on itself ("/": the root mount)."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def describe(self) -> str:
        return f"read-only {self.path}"


class Propagation:
    """Set the propagation of the root mount."""

    __slots__ = ("flags",)

    def __init__(self, flags: int) -> None:
        self.flags = flags

    def describe(self) -> str:
        return f"propagation of / {self.flags:#x}"


class Plan:
    """Operations below the new root before the switch, and `late` ones after it."""

    __slots__ = ("early", "late")

    def __init__(self, early: list[Any], late: list[Any]) -> None:
        self.early = early
        self.late = late

    def describe(self) -> list[str]:
        return [op.describe() for op in [*self.early, *self.late]]


def build(spec: dict[str, Any], facts: Facts) -> Plan:
    """The operations of `spec`, in the order in which they must run."""
    linux = spec.get("linux") or {}
    early: list[Any] = []
    read_only_later: list[Any] = []
    dev_is_ours = True
    for mount in spec.get("mounts") or []:
        for op in _mount_ops(mount, facts, read_only_later):
            if op.target == "/dev" and isinstance(op, Bind):
                dev_is_ours = False
            early.append(op)
    if dev_is_ours:
        early.extend(_devices(linux.get("devices") or []))
        early.extend(Link(path, target) for path, target in DEFAULT_LINKS)
    cwd = (spec.get("process") or {}).get("cwd")
    if cwd and cwd != "/":
        early.append(Directory(cwd))
    late: list[Any] = list(read_only_later)
    propagation = linux.get("rootfsPropagation")
    if propagation:
        late.append(Propagation(root_propagation(propagation)))
    late.extend(ReadOnly(path) for path in linux.get("readonlyPaths") or [])
    late.extend(Mask(path) for path in linux.get("maskedPaths") or [])
    if (spec.get("root") or {}).get("readonly"):
        late.append(ReadOnly("/"))
    return Plan(early, late)


def root_propagation(name: str) -> int:
    """The mount flag of a `rootfsPropagation` value."""
    options = parse_options([name])
    if not options.propagation or options.data:
        raise Failure("spec", 22, "linux.rootfsPropagation", f"unknown propagation {name}")
    return options.propagation


def _mount_ops(mount: dict[str, Any], facts: Facts, late: list[Any]) -> list[Any]:
    target = mount.get("destination") or ""
    fstype = mount.get("type") or ""
    source = mount.get("source") or ""
    options = parse_options(mount.get("options") or [])
    # Since 1.0 of the specification relative destinations are taken as below "/".
    target = "/" + target.strip("/") if target.strip("/") else "/"
    if mount.get("uidMappings") or mount.get("gidMappings"):
        options.idmap = (mount.get("uidMappings") or [], mount.get("gidMappings") or [])
    if options.bind or fstype in ("bind", "rbind"):
        options.recursive = options.recursive or fstype == "rbind"
        if options.remount:
            return [Remount(target, options)]
        return [Bind(source, target, options, mount.get("subpath") or "")]
    if options.remount:
        return [Remount(target, options)]
    if mount.get("layers"):
        layers = Layers(mount["layers"], target, mount.get("subpath") or "")
        layers.upper, layers.work = mount.get("upper") or "", mount.get("work") or ""
        layers.idmap = options.idmap
        return [layers]
    if fstype == "cgroup" or (fstype == "cgroup2" and facts.cgroup_version == 1):
        return _cgroup_ops(target, options, facts)
    if not fstype:
        raise Failure("spec", 22, target, "mount without a type")
    if options.read_only and fstype == "tmpfs":
        # Its content (nodes, mount points, copied-up files) must be made first.
        options.set_read_only(False)
        late.append(Remount(target, parse_options(["bind", "remount", "ro"])))
    return [Filesystem(fstype, source or fstype, target, options)]


def _cgroup_ops(target: str, options: MountOptions, facts: Facts) -> list[Any]:
    if facts.cgroup_version == 2:
        own = facts.cgroup_mounts[0][1]
        if facts.new_cgroup_ns:
            return [Filesystem("cgroup2", "cgroup", target, options)]
        return [Bind(own, target, options)]
    ops: list[Any] = [Filesystem("tmpfs", "tmpfs", target, parse_options(["nosuid", "noexec", "nodev", "mode=755"]))]
    links: list[Any] = []
    for name, own in facts.cgroup_mounts:
        place = f"{target}/{name}"
        if facts.new_cgroup_ns:
            controller = MountOptions.copy_of(options)
            controller.data = "none,name=systemd" if name == "systemd" else name
            ops.append(Filesystem("cgroup", "cgroup", place, controller))
        else:
            ops.append(Bind(own, place, options))
        if "," in name:
            links.extend(CgroupLink(f"{target}/{part}", name) for part in name.split(","))
    ops.extend(links)
    if options.read_only:
        ops.append(Remount(target, parse_options(["bind", "remount", "ro"])))
    return ops


class CgroupLink(Link):
    """A link among the mounted controllers ("cpu" to "cpu,cpuacct")."""

    __slots__ = ()


def _devices(extra: list[dict[str, Any]]) -> list[Any]:
    named = {device.get("path") for device in extra}
    default = [
        Node(path, "c", major, minor, 0o666, 0, 0) for path, major, minor in DEFAULT_DEVICES if path not in named
    ]
    return [*default, *nodes(extra)]


def nodes(devices: list[dict[str, Any]]) -> list[Node]:
    """The nodes of `linux.devices` entries."""
    found = []
    for device in devices:
        mode = device.get("fileMode")
        found.append(
            Node(
                device["path"],
                device.get("type") or "",
                device.get("major") or 0,
                device.get("minor") or 0,
                0o666 if mode is None else mode,
                device.get("uid") or 0,
                device.get("gid") or 0,
            )
        )
    return found
