"""Egress lists of the containers that are on networks; part of what `core` does on its thread.

What names stand for is kept in EXEC_ROOT/egress/ID, a line of JSON for each address, so that a daemon that starts
while a container runs lets through what the container was told by the one before:

    [name, address, protocol, first port, last port, end (monotonic seconds)]
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

from corral import errors
from corral.net import conntrack, egress, sandbox
from corral.net.attached import Attached
from corral.net.egress import Policy, Service
from corral.net.egressfilter import EgressFilter
from corral.net.gate import Gate
from corral.net.listed import Listed, Place, Resolved
from corral.net.model import Endpoint, NetworkRecord, NetworkRefused, NetworkSettings, SandboxFailed
from corral.net.nft import Nft, NftError
from corral.net.registry import Registry

_log = logging.getLogger(__name__)

_JOURNAL_BYTES = 1 << 20


class NoPacketFilter(errors.Unavailable):
    """The daemon was told to leave the packet filter alone."""

    def __init__(self) -> None:
        super().__init__("cannot limit egress: the daemon does not use the packet filter (iptables is false)")


class Lists:
    """All lists; used by one thread."""

    def __init__(
        self,
        settings: NetworkSettings,
        nft: Nft | None,
        registry: Registry,
        host: sandbox.Host,
        attached: Mapping[str, Attached],
        ensure: Callable[[NetworkRecord], object],
    ) -> None:
        """`ensure` makes a bridge that somebody deleted: without one there would be nothing to hold a list to."""
        self._registry = registry
        self._ensure = ensure
        self._host = host
        self._attached = attached
        self._folder = os.path.join(settings.exec_root, "egress")
        self.filter = EgressFilter(settings.table, nft, self._everything)

    def __bool__(self) -> bool:
        return any(attached.gate is not None for attached in self._attached.values())

    def _everything(self) -> list[tuple[Listed, Mapping[Resolved, int]]]:
        return [
            (self._listed(container_id, attached, attached.gate.policy), attached.gate.left())
            for container_id, attached in self._attached.items()
            if attached.gate is not None
        ]

    def _listed(self, container_id: str, attached: Attached, policy: Policy) -> Listed:
        places = []
        for endpoint in attached.endpoints:
            record = self._registry.find(endpoint.network_id)
            found = self._host.netlink.find_link(record.bridge) if record is not None and record.bridge else None
            if record is not None and found is not None:  # without its bridge an endpoint leads nowhere
                places.append(Place(record.bridge, found.mac, endpoint))
        return Listed(container_id[:12], policy, tuple(places))

    def _make_bridges(self, joined: tuple[Endpoint, ...]) -> None:
        """See that there are the bridges that endpoints are about to be on; SandboxFailed."""
        for endpoint in joined:
            record = self._registry.find(endpoint.network_id)
            if record is None or not record.bridge or self._host.netlink.find_link(record.bridge) is not None:
                continue
            try:
                self._ensure(record)
            except OSError as error:
                raise SandboxFailed(f"network {record.name}", error) from error

    def begin(self, container_id: str, attached: Attached) -> None:
        """Put the list of a container that is being attached in force; NftError, NoPacketFilter."""
        gate = attached.gate
        if gate is None:
            return
        if not self.filter.possible:
            raise NoPacketFilter
        self._make_bridges(attached.endpoints)
        gate.barred = self._barred(attached.endpoints)
        self.filter.add(self._listed(container_id, attached, gate.policy), gate.left())

    def end(self, container_id: str, attached: Attached) -> None:
        """A container is not attached any more: take its list away."""
        if attached.gate is not None:
            self.filter.remove(self._listed(container_id, attached, attached.gate.policy))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._journal(container_id))

    def move(self, container_id: str, attached: Attached, wanted: tuple[Endpoint, ...]) -> None:
        """Let the list hold at other endpoints; NftError."""
        if attached.gate is None:
            return
        self._make_bridges(wanted)
        gate, after = attached.gate, replace(attached, endpoints=wanted)
        before = self._listed(container_id, attached, gate.policy)
        self.filter.replace(before, self._listed(container_id, after, gate.policy), gate.left())
        gate.barred = self._barred(wanted)

    def change(self, container_id: str, attached: Attached, policy: Policy | None) -> None:
        """Give a container another list, or none, and end the connections that it does not allow; NftError."""
        if policy is not None and not self.filter.possible:
            raise NoPacketFilter
        gate = attached.gate
        if policy is None:
            attached.gate = None
            if gate is not None:
                self.end(container_id, replace(attached, gate=gate))
            return
        for endpoint in attached.endpoints:
            self._check(endpoint)
        if gate is None:
            attached.gate = gate = Gate(policy)
            try:
                self.begin(container_id, replace(attached))
            except BaseException:
                attached.gate = None
                raise
        else:
            before = self._listed(container_id, attached, gate.policy)
            kept = {
                one: (name, end)
                for one, (name, end) in gate.resolved.items()
                if policy.asks(name) and one.service in policy.reached_as(name)
            }
            after = Gate(policy, kept)
            self.filter.replace(before, self._listed(container_id, attached, policy), after.left())
            gate.policy, gate.resolved = policy, kept
        self._cut(attached.endpoints, gate)

    def _check(self, endpoint: Endpoint) -> None:
        record = self._registry.find(endpoint.network_id)
        if record is not None and not record.limits_egress:
            raise NetworkRefused(f"cannot limit egress on network {record.name}: the host does not route for it")

    def _cut(self, joined: tuple[Endpoint, ...], gate: Gate) -> None:
        """End connections that are not allowed any more."""
        senders = [text for endpoint in joined for text in (endpoint.ipv4, endpoint.ipv6) if text]

        def keep(address: egress.Address, proto: str, port: int) -> bool:
            known = gate.names.get(address)
            return gate.policy.permits(address, proto, port, (known,) if known and gate.asks([known]) else ())

        flows = conntrack.Flows()
        try:
            flows.forget_sent(senders, keep)
        except OSError as error:
            _log.warning("cannot end connections that are not allowed any more: %s", error)
        finally:
            flows.close()

    def know(self, container_id: str, wanted: Mapping[Resolved, tuple[str, int]]) -> None:
        """Let a container reach addresses that names were found to stand for, for some seconds; NftError."""
        attached = self._attached.get(container_id)
        gate = attached.gate if attached is not None else None
        if attached is None or gate is None:
            return
        now, services = time.monotonic(), set(gate.policy.services)
        fitting = {one: told for one, told in wanted.items() if one.service in services}
        one_list = self._listed(container_id, attached, gate.policy)
        seconds = {one: ttl_s for one, (_, ttl_s) in fitting.items()}
        try:
            self.filter.know(one_list, seconds)
        except NftError:
            self.filter.install()  # somebody flushed the packet filter a moment ago
            self.filter.know(one_list, seconds)
        lines = []
        for one, (name, ttl_s) in fitting.items():
            gate.resolved[one] = (name, now + ttl_s)
            lines.append(_line(one, name, now + ttl_s))
        self._write(container_id, gate, lines)

    def leave(self, addresses: Collection[str]) -> None:
        """Neighbours are gone, or called otherwise: names do not stand for these addresses any more."""
        if not self:
            return
        gone = {ip_address(text) for text in addresses if text}
        for container_id, attached in self._attached.items():
            gate = attached.gate
            found = [one for one in gate.resolved if one.address in gone] if gate is not None else []
            if gate is not None and found:
                for one in found:
                    del gate.resolved[one]
                try:
                    self.filter.forget(self._listed(container_id, attached, gate.policy), found)
                except NftError:
                    self.filter.install()

    def _barred(self, joined: tuple[Endpoint, ...]) -> tuple[egress.Network, ...]:
        records = [self._registry.find(endpoint.network_id) for endpoint in joined]
        return tuple(ip_network(pool.subnet) for record in records if record is not None for pool in record.pools)

    # -- what outlives the daemon ------------------------------------------------------------------------------

    def _journal(self, container_id: str) -> str:
        return os.path.join(self._folder, container_id[:12])

    def _write(self, container_id: str, gate: Gate, lines: list[str]) -> None:
        path = self._journal(container_id)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write("".join(lines))
            long = file.tell() > _JOURNAL_BYTES
        if long:
            self._rewrite(path, gate)

    def _rewrite(self, path: str, gate: Gate) -> None:
        now = time.monotonic()
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            file.writelines(_line(one, name, end) for one, (name, end) in gate.resolved.items() if end > now)
        os.replace(f"{path}.new", path)

    def recall(self, container_id: str, policy: Policy) -> Gate:
        """The gate of a container that runs since before this daemon."""
        gate = Gate(policy)
        try:
            with open(self._journal(container_id), encoding="utf-8") as file:
                lines = file.readlines()
        except FileNotFoundError:
            return gate
        for line in lines:
            try:
                name, address, proto, first, last, end = json.loads(line)
                one = Resolved(Service(proto, first, last), ip_address(address))
            except ValueError:
                continue  # the daemon died while it wrote this: nobody was told of it
            if one.service in policy.reached_as(name) and policy.asks(name):
                gate.resolved[one] = (name, end)
            gate.names[one.address] = name
        self._rewrite(self._journal(container_id), gate)
        return gate

    def forget_strangers(self) -> None:
        """Remove what is kept of containers that are not attached."""
        known = {container_id[:12] for container_id, attached in self._attached.items() if attached.gate is not None}
        for name in os.listdir(self._folder) if os.path.isdir(self._folder) else ():
            if name not in known:
                os.unlink(os.path.join(self._folder, name))

    def withdraw(self) -> None:
        """Take everything away."""
        self.filter.withdraw()
        shutil.rmtree(self._folder, ignore_errors=True)


def _line(one: Resolved, name: str, end: float) -> str:
    service = one.service
    return json.dumps([name, str(one.address), service.proto, service.first, service.last, end]) + "\n"
