"""A container that exists, as the shim holds on to it: its process and its cgroup, and nothing heavy."""

from __future__ import annotations

import errno
import os
import signal

from corral.runtime import cgroup, cgroup_stats
from corral.runtime import container as library
from corral.runtime.failure import Failure
from corral.shim import foreign

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Control:
    """What can be done to a container without its spec; `whole` is for the rest."""

    __slots__ = ("_command", "_device_rules", "_group", "_id", "_pid")

    def __init__(self, message: dict[str, Any], created: dict[str, Any]) -> None:
        """`message` asked for the container, `created` is what its creation answered."""
        self._id = message["id"]
        self._command: list[str] | None = message["runtime"]
        self._pid = created["pid"]
        self._device_rules: list[dict[str, Any]] | None = None  # the spec's, until they are changed
        self._group = cgroup.Cgroup(created["version"], created["paths"])

    def whole(self) -> library.Container | foreign.Container:
        """The container as its runtime knows it, read from its state."""
        if self._command is None:
            return library.load(os.path.abspath("state"))
        container = foreign.Container(self._id, self._command, self._group)
        container.pid = self._pid
        return container

    def kill(self, signum: int) -> None:
        """Send a signal to the container's process; the caller has not reaped it yet."""
        try:
            os.kill(self._pid, signum)
        except OSError as error:
            raise Failure.from_os_error("signal", error, self._id) from error

    def kill_all(self) -> None:
        """End every process of the cgroup."""
        cgroup.kill(self._group, signal.SIGKILL)

    def pause(self) -> None:
        """Freeze every process."""
        cgroup.freeze(self._group, True)

    def resume(self) -> None:
        """Thaw every process."""
        cgroup.freeze(self._group, False)

    def update(self, resources: dict[str, Any]) -> None:
        """Apply a `linux.resources` object on top of the present limits."""
        cgroup.apply(self._group, resources, update=True)

    def allow_device(self, rule: dict[str, Any]) -> None:
        """One more `linux.resources.devices` rule; there is no moment in which another does not hold."""
        self._set_device_rules([*self._present_device_rules(), rule])

    def disallow_device(self, rule: dict[str, Any]) -> None:
        """Take one such rule back; what others allow stays allowed."""
        rules = self._present_device_rules()
        if rule in rules:
            place = rules.index(rule)
            self._set_device_rules(rules[:place] + rules[place + 1 :])

    def _present_device_rules(self) -> list[dict[str, Any]]:
        if self._device_rules is None:
            made = self.whole()
            if not isinstance(made, library.Container):
                raise Failure("device", errno.EOPNOTSUPP, "", "another OCI runtime has made the container")
            self._device_rules = list(made.spec["linux"]["resources"]["devices"])
        return self._device_rules

    def _set_device_rules(self, after: list[dict[str, Any]]) -> None:
        cgroup.change_devices(self._group, self._present_device_rules(), after)
        self._device_rules = after

    def stats(self) -> dict[str, Any]:
        """Raw numbers of the cgroup."""
        return cgroup_stats.read(self._group)

    def pids(self) -> list[int]:
        """Every process."""
        return cgroup.pids(self._group)

    def oom_killed(self) -> bool:
        """Whether the kernel killed something here for want of memory."""
        return self.oom_kills() > 0

    def oom_kills(self) -> int:
        """How many processes the kernel killed here for want of memory."""
        return cgroup_stats.oom_kills(self._group)

    def delete(self) -> None:
        """End what is left of it, and remove its cgroup and state."""
        self.whole().delete(force=True)
