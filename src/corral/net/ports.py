"""Published ports: which host addresses a binding means and which host ports it may have.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from corral import errors
from corral.net import addresses
from corral.net.model import PortBinding

PROTOCOLS = ("tcp", "udp", "sctp")


class InvalidPort(errors.InvalidParameter):
    """A binding that can never work."""


@dataclass(frozen=True, slots=True)
class Target:
    """The container's side: addresses, "" where it has none."""

    ipv4: str
    ipv6: str


def check(binding: PortBinding) -> PortBinding:
    """The binding with its host address in canonical form ("" for every address); InvalidPort."""
    if binding.proto not in PROTOCOLS:
        raise InvalidPort(f"invalid proto: {binding.proto}")
    if not 1 <= binding.container_port <= 65535:
        raise InvalidPort(f"invalid containerPort: {binding.container_port}")
    if not 0 <= binding.host_port <= 65535 or not 0 <= binding.host_port_end <= 65535:
        raise InvalidPort(f"invalid hostPort: {binding.host_port}")
    if binding.host_port_end and binding.host_port_end < binding.host_port:
        raise InvalidPort(f"invalid port range: {binding.host_port}-{binding.host_port_end}")
    if not binding.host_ip:
        return binding
    try:
        return replace(binding, host_ip=str(addresses.address(binding.host_ip)))
    except ValueError as error:
        raise InvalidPort(f"invalid host IP: {binding.host_ip}") from error


def candidates(binding: PortBinding, ephemeral: tuple[int, int], cursor: int) -> Iterator[int]:
    """Host ports to try, in order: the one asked for, its range, or the ephemeral range from `cursor` round."""
    if binding.host_port:
        yield from range(binding.host_port, max(binding.host_port, binding.host_port_end) + 1)
        return
    low, high = ephemeral
    start = cursor if low <= cursor <= high else low
    yield from range(start, high + 1)
    yield from range(low, start)


def expand(bindings: Iterable[PortBinding], *, ipv6: bool) -> tuple[PortBinding, ...]:
    """As Docker shows bindings: every address is one entry for 0.0.0.0 and, where the host has `ipv6`, one for `::`."""
    shown: list[PortBinding] = []
    for binding in bindings:
        if binding.host_ip:
            shown.append(binding)
            continue
        shown.append(replace(binding, host_ip="0.0.0.0"))
        if ipv6:
            shown.append(replace(binding, host_ip="::"))
    return tuple(shown)


def collapse(shown: Iterable[PortBinding]) -> tuple[PortBinding, ...]:
    """The reverse of `expand`: pairs for 0.0.0.0 and `::` of one port become one binding of every address."""
    entries = list(shown)
    both = {(e.proto, e.container_port, e.host_port) for e in entries if e.host_ip == "::"}
    merged: list[PortBinding] = []
    gone: set[tuple[str, int, int]] = set()
    for entry in entries:
        key = (entry.proto, entry.container_port, entry.host_port)
        if entry.host_ip == "0.0.0.0" and key in both:
            merged.append(replace(entry, host_ip=""))
            gone.add(key)
    merged.extend(
        entry
        for entry in entries
        if entry.host_ip not in ("0.0.0.0", "::") or (entry.proto, entry.container_port, entry.host_port) not in gone
    )
    return tuple(merged)


def listener(binding: PortBinding) -> str:
    """`host:port` of a binding as Docker's messages write it."""
    host = binding.host_ip or "0.0.0.0"
    return f"[{host}]:{binding.host_port}" if ":" in host else f"{host}:{binding.host_port}"


def describe(binding: PortBinding, target: Target) -> str:
    """A binding as Docker's messages write it: host:port:container:port/proto."""
    return f"{listener(binding)}:{target.ipv4 or target.ipv6}:{binding.container_port}/{binding.proto}"
