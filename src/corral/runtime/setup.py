"""Everything that init needs to know, collected by the parent before the fork: values and descriptors."""

from __future__ import annotations

import errno
import os

from corral.linux import namespaces
from corral.runtime import idmaps
from corral.runtime import plan as planning
from corral.runtime.cgroup import Cgroup
from corral.runtime.failure import Failure
from corral.runtime.process import Launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corral.runtime.container import Rootfs


class Setup:
    """The order for one container's init."""

    __slots__ = (
        "ack_name", "argument_area", "bundle", "cgroup", "container_id", "fifo_name", "id_mappings", "idmap_fds",
        "launch", "listener_path", "namespace_fds", "namespace_paths", "new_flags", "new_keyring", "no_pivot",
        "oom_score_adj", "pid", "plan", "preserve_fds", "root_idmap_fd", "root_path", "rootfs", "second_fork", "spec",
        "state_dir", "stdio_fds", "time_offsets", "user_ns",
    )  # fmt: skip

    def __init__(self, container_id: str, bundle: str, spec: dict[str, Any], state_dir: str) -> None:
        linux = spec.get("linux") or {}
        self.container_id = container_id
        self.bundle = bundle
        self.spec = spec
        self.state_dir = state_dir
        self.root_path = ""
        self.rootfs: Rootfs | None = None
        self.root_idmap_fd = -1
        """A user namespace that has the mappings of `rootfs`."""
        self.cgroup = Cgroup(1, {})
        self.plan = planning.Plan([], [])
        self.stdio_fds: list[int] = []
        self.preserve_fds = 0
        self.no_pivot = False
        self.new_keyring = True
        self.pid = 0
        self.launch: Launch | None = None
        self.argument_area = (0, 0)
        self.fifo_name = "exec.fifo"
        self.ack_name = ""
        self.listener_path = ""
        self.time_offsets = ""
        self.oom_score_adj: int | None = (spec.get("process") or {}).get("oomScoreAdj")
        self.id_mappings = (linux.get("uidMappings") or [], linux.get("gidMappings") or [])
        self.idmap_fds: dict[int, tuple[planning.Bind | planning.Layers, int]] = {}
        """By id() of a mount with mapped ids: the operation, and a user namespace that has the mappings."""
        self.namespace_fds: dict[str, int] = {}
        self.namespace_paths: dict[str, str] = {}
        self.new_flags = 0
        for entry in linux.get("namespaces") or []:
            if entry.get("path"):
                self.namespace_paths[entry["type"]] = entry["path"]
            else:
                self.new_flags |= namespaces.NS_FILES[entry["type"]]
        self.user_ns = bool(self.new_flags & namespaces.CLONE_NEWUSER) or "user" in self.namespace_paths
        needs_child = namespaces.CLONE_NEWTIME | (namespaces.CLONE_NEWPID if self.user_ns else 0)
        self.second_fork = bool(self.new_flags & needs_child)

    def set_process(self, spec: dict[str, Any], user: str | None, groups: tuple[str, ...]) -> None:
        """Prepare the process of the spec, its filter included; a spec without one only gets its namespaces."""
        process = spec.get("process")
        if not process:
            return
        self.launch = Launch(process, user, groups)
        self.launch.preserve_fds = self.preserve_fds
        self.launch.reaped = (spec.get("annotations") or {}).get(planning.INIT_ANNOTATION) == "true"
        seccomp = (spec.get("linux") or {}).get("seccomp")
        if seccomp:
            from corral.runtime import bpf

            self.launch.program, self.launch.filter_flags = bpf.compile_cached(seccomp, os.uname().machine)
            if self.launch.filter_flags & bpf.FLAG_NEW_LISTENER:
                self.ack_name = "ack.fifo"
                self.listener_path = seccomp.get("listenerPath") or ""

    def open_namespaces(self) -> None:
        """Open the namespaces joined by path; Failure("namespace", EINVAL) for one of the wrong type."""
        for name, path in self.namespace_paths.items():
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                self.namespace_fds[name] = fd
                if namespaces.namespace_type(fd) != namespaces.NS_FILES[name]:
                    raise Failure("namespace", errno.EINVAL, path, f"not a {name} namespace")
            except OSError as error:
                raise Failure("namespace", error.errno or 0, path, f"cannot join {name} namespace") from error

    def open_idmaps(self) -> None:
        """Have a user namespace for the root and for each mount with mapped ids."""
        if self.rootfs is not None and self.rootfs.mappings:
            self.root_idmap_fd = idmaps.user_namespace(self.rootfs.mappings)
        for op in self.plan.early:
            if isinstance(op, planning.Bind) and (op.options.idmap or op.options.idmap_container):
                self.idmap_fds[id(op)] = (op, idmaps.user_namespace(op.options.idmap or self.id_mappings))
            elif isinstance(op, planning.Layers) and op.idmap:
                self.idmap_fds[id(op)] = (op, idmaps.user_namespace(op.idmap))

    def close_namespaces(self) -> None:
        """Close what `open_namespaces` and `open_idmaps` opened."""
        for _, fd in self.idmap_fds.values():
            os.close(fd)
        self.idmap_fds = {}
        if self.root_idmap_fd >= 0:
            os.close(self.root_idmap_fd)
            self.root_idmap_fd = -1
        for fd in self.namespace_fds.values():
            os.close(fd)
        self.namespace_fds = {}

    def state_text(self, status: str) -> str:
        """The state for hooks, as JSON."""
        from corral.runtime import forks

        return forks.state_text(forks.oci_state(self.container_id, status, self.pid, self.bundle, self.spec))
