"""Host ports: choose them and hold them with real sockets, so that a conflict is found before a container starts.

A held port is also what `proxy` listens on.  Sockets for every address are dual-stack: one descriptor holds the
IPv4 and the IPv6 port.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corral import errors
from corral.net import ports
from corral.net.model import PortBinding
from corral.net.ports import Target

_KINDS = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, 132)}


class PortTaken(errors.System):
    """A host port cannot be had; the text is the reason part of Docker's message."""


@dataclass(frozen=True, slots=True)
class HeldPort:
    """A binding with its final host port, and the socket that holds it (None: somebody else has the port by now)."""

    binding: PortBinding
    target: Target
    socket: socket.socket | None
    routed: bool = False  # reached at the container's own address: no port of the host is taken


def host_has_ipv6() -> bool:
    """Whether sockets for `::` can be opened here."""
    return os.path.exists("/proc/thread-self/net/if_inet6")


def ephemeral_range() -> tuple[int, int]:
    """The kernel's range for automatic ports."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        low, high = file.read().split()
    return int(low), int(high)


class Publisher:
    """All host ports that this daemon holds.  Used by one thread."""

    def __init__(self, *, proxied: bool) -> None:
        """`proxied`: someone accepts on the sockets; otherwise they hold the port and nothing more."""
        self._proxied = proxied
        self._ipv6 = host_has_ipv6()
        self._ephemeral = ephemeral_range()
        self._cursor = self._ephemeral[0]
        self._held: dict[tuple[str, str, int], str] = {}

    @property
    def ipv6(self) -> bool:
        """Whether a binding of every address includes `::`."""
        return self._ipv6

    def hold(self, bindings: Sequence[PortBinding], target: Target) -> list[HeldPort]:
        """Hold a host port for each binding, all or none; PortTaken, InvalidPort."""
        held: list[HeldPort] = []
        try:
            for binding in bindings:
                held.append(self._hold_one(ports.check(binding), target))
        except BaseException:
            self.release(held)
            raise
        return held

    def release(self, held: Sequence[HeldPort]) -> None:
        """Forget ports and close their sockets."""
        for port in held:
            self.forget(port)
            if port.socket is not None:
                port.socket.close()

    def forget(self, port: HeldPort) -> None:
        """Forget a port whose socket somebody else closes."""
        if not port.routed:
            self._held.pop((port.binding.proto, port.binding.host_ip, port.binding.host_port), None)

    def _hold_one(self, binding: PortBinding, target: Target) -> HeldPort:
        failure: PortTaken | None = None
        for number in ports.candidates(binding, self._ephemeral, self._cursor):
            attempt = replace(binding, host_port=number, host_port_end=0)
            try:
                found = self._bind(attempt)
            except OSError as error:
                failure = self._failure(attempt, target, error)
                if error.errno != errno.EADDRINUSE:
                    break
                continue
            if not binding.host_port:
                self._cursor = number + 1
            self._held[(attempt.proto, attempt.host_ip, number)] = target.ipv4 or target.ipv6
            return HeldPort(attempt, target, found)
        raise failure or PortTaken("all ports are allocated")

    def _failure(self, binding: PortBinding, target: Target, error: OSError) -> PortTaken:
        same = [key for key in self._held if key[0] == binding.proto and key[2] == binding.host_port]
        if error.errno == errno.EADDRINUSE and same:
            return PortTaken(f"Bind for {ports.listener(binding)} failed: port is already allocated")
        reason = os.strerror(error.errno or 0)
        return PortTaken(
            f"failed to bind host port for {ports.describe(binding, target)}: {reason[:1].lower()}{reason[1:]}"
        )

    def _bind(self, binding: PortBinding) -> socket.socket:
        kind, protocol = _KINDS[binding.proto]
        every = not binding.host_ip
        six = ":" in binding.host_ip or (every and self._ipv6)
        family = socket.AF_INET6 if six else socket.AF_INET
        found = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            if six:
                found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if every else 1)
            if binding.proto != "udp":
                # Connections of an earlier owner in TIME_WAIT do not block the port.
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            host = binding.host_ip or ("::" if six else "0.0.0.0")
            found.bind((host, binding.host_port))
            if binding.proto == "udp":
                found.setsockopt(*_PKTINFO6 if six else _PKTINFO4, 1)
            elif self._proxied:
                found.listen(512)
            else:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # nobody may bind beside us from now on
        except BaseException:
            found.close()
            raise
        return found


_PKTINFO4 = (socket.IPPROTO_IP, 8)  # IP_PKTINFO: the proxy answers from the address that was asked
_PKTINFO6 = (socket.IPPROTO_IPV6, 49)  # IPV6_RECVPKTINFO
