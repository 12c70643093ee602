"""What is remembered of a container while it is on networks."""

from __future__ import annotations

import os
from dataclasses import dataclass

from corral.net import dns, names
from corral.net.gate import Gate
from corral.net.model import Endpoint, PortBinding, SandboxFailed
from corral.net.publish import HeldPort


@dataclass(slots=True)
class Attached:
    """A container that is on networks now."""

    name: str
    hostname: str
    pid: int
    endpoints: tuple[Endpoint, ...]
    held: list[HeldPort]
    bindings: tuple[PortBinding, ...]  # as given
    upstream: tuple[str, ...] = ()
    dns: dns.Server | None = None
    gate: Gate | None = None  # of one with an egress list
    namespace_fd: int = -1  # kept while links are inside that nothing on the host leads to

    def keep_namespace(self, namespace_fd: int) -> None:
        """Hold on to the namespace if some link cannot be removed without it."""
        if self.namespace_fd < 0 and any(endpoint.driver != "bridge" for endpoint in self.endpoints):
            self.namespace_fd = os.dup(namespace_fd)

    def let_go(self) -> None:
        """Let the namespace end."""
        if self.namespace_fd >= 0:
            os.close(self.namespace_fd)
            self.namespace_fd = -1


def open_namespace(path: str, who: str) -> int:
    """A descriptor of the network namespace `path` of container `who`; SandboxFailed."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxFailed(f"container {who}", error) from error


def close_names(attached: Attached) -> None:
    """Close the sockets of a DNS server that was never served."""
    if attached.dns is not None:
        attached.dns.udp.close()
        attached.dns.tcp.close()


def host_servers() -> tuple[str, ...]:
    """The host's own DNS servers; local ones are fine, since we ask them from the host's namespace."""
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return names.parse_resolv_conf(file.read()).servers
    except OSError:
        return ()
