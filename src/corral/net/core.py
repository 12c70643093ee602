"""Networks and sandboxes, synchronously: everything that `Networks` runs on its one thread.

What is remembered of an attached container is in memory only: after a restart of the daemon the engine tells
(`open`) which containers live and what they hold, and everything else of ours on the machine is removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_interface, ip_network

from corral.net import drivers, ipam, plan, ports, rules, sandbox
from corral.net.coexist import Coexistence
from corral.net.model import (
    Attachment,
    Endpoint,
    EndpointRequest,
    InvalidNetwork,
    NetworkInUse,
    NetworkRecord,
    NetworkRefused,
    NetworkSettings,
    NetworkSpec,
    NetworkView,
    PortBinding,
    PortsFailed,
    PredefinedNetwork,
    SandboxFailed,
)
from corral.net.nft import Nft, NftError
from corral.net.ports import Target
from corral.net.publish import HeldPort, PortTaken, Publisher
from corral.net.registry import Registry, new_id, parse_address
from corral.store.db import Database

_log = logging.getLogger(__name__)

Live = Mapping[str, tuple[int, tuple[Endpoint, ...], tuple[PortBinding, ...]]]


@dataclass(slots=True)
class Attached:
    """A container that is on networks now."""

    name: str
    hostname: str
    pid: int
    endpoints: tuple[Endpoint, ...]
    held: list[HeldPort]
    bindings: tuple[PortBinding, ...]  # as given


class Core:
    """The state and every operation on it; used by one thread, in whose network namespace it works."""

    def __init__(self, db: Database, settings: NetworkSettings) -> None:
        self.settings = settings
        self.registry = Registry(db, settings)
        self.attached: dict[str, Attached] = {}
        self._host = sandbox.Host()
        self._nft = Nft() if settings.packet_filter else None
        self.publisher = Publisher(proxied=settings.userland_proxy, default_host_ip=settings.default_host_ip)
        self._coexistence = Coexistence(settings.table)
        self._mark = False
        self._dying: list[str] = []

    # -- life of the daemon ------------------------------------------------------------------------------------

    def open(self, live: Live) -> None:
        """Bring the host to what the records and the live containers need."""
        self.registry.load(self._foreign())
        if self.settings.ip_forward:
            sandbox.write_sysctl("net/ipv4/ip_forward", "1")
        for record in self.registry.all():
            if record.bridge:
                self._ensure_bridge(record)
        for container_id, (pid, endpoints, bindings) in live.items():
            self._adopt(container_id, pid, endpoints, bindings)
        self._remove_strays()
        self.install()

    def close(self, *, keep: bool) -> None:
        """Let go; unless `keep`, also take everything of ours off the host."""
        for attached in self.attached.values():
            self.publisher.release(attached.held)
        if not keep:
            self.sweep()
            if self._nft is not None:
                self._coexistence.withdraw()
                self._nft.run(rules.remove(self.settings.table))
            for record in self.registry.all():
                if record.bridge:
                    self._host.delete_link(record.bridge)
        if self._nft is not None:
            self._nft.close()
        self._host.close()

    def install(self) -> None:
        """Put the whole rule set in place, whatever is there."""
        if self._nft is None:
            return
        self._mark = self._coexistence.apply(self._nft)
        elements: list[rules.Element] = []
        for record in self.registry.all():
            if record.bridge:
                elements += rules.of_network(record)
        for attached in self.attached.values():
            elements += self._elements(attached)
        self._nft.run(
            rules.install(self.settings.table, elements, mark=self._mark, proxied=self.settings.userland_proxy)
        )

    def _adopt(
        self, container_id: str, pid: int, endpoints: tuple[Endpoint, ...], bindings: tuple[PortBinding, ...]
    ) -> None:
        """Take back what a live container holds."""
        for endpoint in endpoints:
            self.registry.retake(endpoint.network_id, endpoint.ipv4, endpoint.ipv6)
        attached = Attached("", "", pid, endpoints, [], ports.collapse(bindings))
        target = self._target(endpoints)
        for binding in attached.bindings:
            try:
                attached.held += self.publisher.hold([binding], target)
            except PortTaken as error:
                # The container runs and its map elements work; somebody else has the port for IPv6 and loopback.
                _log.warning("cannot hold a published port of container %s again: %s", container_id[:12], error)
                attached.held.append(HeldPort(binding, target, None))
        self.attached[container_id] = attached

    def _remove_strays(self) -> None:
        """Delete ports of our bridges that belong to no live container."""
        links = self._host.netlink.links()
        bridges = {record.bridge for record in self.registry.all() if record.bridge}
        indexes = {link.index for link in links if link.name in bridges}
        wanted = {plan.host_link(e.endpoint_id) for a in self.attached.values() for e in a.endpoints}
        for link in links:
            if link.master in indexes and link.kind == "veth" and link.name not in wanted:
                self._host.delete_link(link.name)

    def _foreign(self) -> list[drivers.Network]:
        """Subnets that the host itself routes or has."""
        found: list[drivers.Network] = []
        for destination, length, _ in self._host.netlink.routes4():
            if length:
                found.append(IPv4Network((destination, length), strict=False))
        return found

    # -- networks ----------------------------------------------------------------------------------------------

    def view(self, record: NetworkRecord) -> NetworkView:
        """A network and its users."""
        users = {
            container_id: endpoint
            for container_id, attached in self.attached.items()
            for endpoint in attached.endpoints
            if endpoint.network_id == record.id
        }
        return NetworkView(record, users)

    def create(self, spec: NetworkSpec) -> NetworkRecord:
        """Create a network and its bridge."""
        record = self.registry.plan(spec, self._foreign())
        if self._host.netlink.find_link(record.bridge) is not None:
            raise InvalidNetwork(f"cannot create network {record.id} ({record.bridge}): the interface exists already")
        with contextlib.ExitStack() as undo:
            undo.callback(self._host.delete_link, record.bridge)
            try:
                self._ensure_bridge(record)
            except OSError as error:
                raise SandboxFailed(f"network {record.name}", error) from error
            self._change("add", rules.of_network(record))
            undo.callback(self._change, "delete", rules.of_network(record))
            self.registry.add(record)
            undo.pop_all()
        return record

    def remove(self, ref: str) -> NetworkRecord:
        """Remove a network nobody uses."""
        record = self.registry.get(ref)
        if record.name in drivers.PREDEFINED:
            raise PredefinedNetwork(record.name, "remove")
        users = self.view(record).endpoints
        if users:
            named = tuple(f'name:"{self.attached[c].name}" id:"{e.endpoint_id[:12]}"' for c, e in users.items())
            raise NetworkInUse(record, named)
        self.registry.forget(record)
        self._change("delete", rules.of_network(record))
        self._host.delete_link(record.bridge)
        return record

    def _ensure_bridge(self, record: NetworkRecord) -> None:
        addresses = [
            ip_interface(f"{pool.gateway}/{ip_network(pool.subnet).prefixlen}") for pool in record.pools if pool.gateway
        ]
        first = next((a.ip for a in addresses if a.version == 4), None)
        mac = ipam.mac_of(first) if isinstance(first, IPv4Address) else "02:42:" + os.urandom(4).hex(":")
        mtu = int(record.options.get(plan.MTU_OPTION, self.settings.mtu))
        self._host.ensure_bridge(record.bridge, addresses, mac, mtu)

    # -- containers --------------------------------------------------------------------------------------------

    def attach(
        self,
        container_id: str,
        pid: int,
        requests: Sequence[EndpointRequest],
        bindings: Sequence[PortBinding],
        *,
        hostname: str,
        name: str,
    ) -> Attachment:
        """Connect a container's namespace to its networks and publish its ports; all or nothing."""
        if container_id in self.attached:
            raise NetworkRefused(f"container {container_id} is already attached to its networks")
        path = f"/proc/{pid}/ns/net"
        with contextlib.ExitStack() as cleanup, contextlib.ExitStack() as undo:
            namespace_fd = _open_namespace(path, name)
            cleanup.callback(os.close, namespace_fd)
            attached = Attached(name, hostname, pid, (), [], tuple(bindings))
            for request in requests:
                endpoint = self._allocate(request, container_id, attached)
                if endpoint is not None:
                    attached.endpoints += (endpoint,)
                    undo.callback(self.registry.release, endpoint.network_id, endpoint.ipv4, endpoint.ipv6)
            attached.held = self._publish(attached, bindings)
            undo.callback(self.publisher.release, attached.held)
            self._link_all(attached, namespace_fd, undo)
            if attached.endpoints:
                self._change("add", self._elements(attached))
            self.attached[container_id] = attached
            undo.pop_all()
        return Attachment(attached.endpoints, self._shown(attached), path)

    def detach(self, container_id: str) -> list[HeldPort]:
        """Forget a container; what is returned are its ports, whose sockets the caller closes."""
        attached = self.attached.pop(container_id, None)
        if attached is None:
            return []
        if attached.endpoints:
            self._change("delete", self._elements(attached))
        for endpoint in attached.endpoints:
            self.registry.release(endpoint.network_id, endpoint.ipv4, endpoint.ipv6)
            # The pair dies with the namespace within milliseconds, at no cost to us; `sweep` looks whether it did.
            self._dying.append(plan.host_link(endpoint.endpoint_id))
        for port in attached.held:
            self.publisher.forget(port)
        return attached.held

    def check_request(self, request: EndpointRequest) -> None:
        """Refuse what `connect` could never do; for containers that do not run."""
        record = self.registry.get(request.network)
        if record.driver in ("host", "null"):
            raise NetworkRefused(f"container cannot be connected to {record.name} network")
        self._check_default(record, request)
        for family, wanted in ((4, request.ipv4), (6, request.ipv6)):
            if wanted and not any(parse_address(wanted, family) in ip_network(p.subnet) for p in record.pools):
                raise ipam.AddressOutsidePool(wanted)

    def connect(
        self, container_id: str, pid: int, request: EndpointRequest, *, hostname: str, name: str
    ) -> tuple[Attachment, list[HeldPort]]:
        """Connect a running container to one more network; what it has now, and ports that are no longer held."""
        record = self.registry.get(request.network)
        attached = self.attached.get(container_id) or Attached(name, hostname, pid, (), [], ())
        if record.driver in ("host", "null"):
            raise NetworkRefused(f"container cannot be connected to {record.name} network")
        if any(endpoint.network_id == record.id for endpoint in attached.endpoints):
            raise NetworkRefused(f"endpoint with name {attached.name} already exists in network {record.name}")
        path = f"/proc/{pid}/ns/net"
        with contextlib.ExitStack() as cleanup, contextlib.ExitStack() as undo:
            namespace_fd = _open_namespace(path, name)
            cleanup.callback(os.close, namespace_fd)
            endpoint = self._allocate(request, container_id, attached)
            assert endpoint is not None
            undo.callback(self.registry.release, endpoint.network_id, endpoint.ipv4, endpoint.ipv6)
            after = (*attached.endpoints, endpoint)
            self._link(endpoint, plan.default_families(after)[endpoint.endpoint_id], namespace_fd, name)
            undo.callback(self._host.delete_link, plan.host_link(endpoint.endpoint_id))
            self.attached[container_id] = attached
            dropped = self._change_endpoints(attached, after)
            undo.pop_all()
        return Attachment(attached.endpoints, self._shown(attached), path), dropped

    def disconnect(self, container_id: str, ref: str) -> tuple[Attachment, list[HeldPort]]:
        """Take a running container off a network; what it has now, and ports that are no longer held."""
        record = self.registry.get(ref)
        attached = self.attached.get(container_id)
        gone = next((e for e in attached.endpoints if e.network_id == record.id), None) if attached else None
        if attached is None or gone is None:
            raise NetworkRefused(f"container {container_id} is not connected to network {record.name}")
        after = tuple(endpoint for endpoint in attached.endpoints if endpoint is not gone)
        dropped = self._change_endpoints(attached, after)
        self._host.delete_link(plan.host_link(gone.endpoint_id))
        self.registry.release(gone.network_id, gone.ipv4, gone.ipv6)
        self._restore_routes(attached)
        return Attachment(after, self._shown(attached), f"/proc/{attached.pid}/ns/net"), dropped

    def rename(self, container_id: str, name: str) -> tuple[Endpoint, ...]:
        """Call a container by another name; its endpoints now."""
        attached = self.attached.get(container_id)
        if attached is None:
            return ()
        old, attached.name = attached.name, name
        attached.endpoints = tuple(
            replace(e, dns_names=tuple(dict.fromkeys(name if n == old else n for n in e.dns_names)))
            for e in attached.endpoints
        )
        return attached.endpoints

    def _change_endpoints(self, attached: Attached, endpoints: tuple[Endpoint, ...]) -> list[HeldPort]:
        """Move a container's rules and published ports to another set of endpoints; ports it no longer has."""
        before = dict.fromkeys(self._elements(attached))
        old_endpoints, old_held = attached.endpoints, attached.held
        attached.endpoints = endpoints
        target = self._target(endpoints)
        if self._gateway_endpoint(endpoints) is None:
            attached.held = []
        elif old_held:
            attached.held = [replace(port, target=target) for port in old_held]
        else:
            attached.held = self._publish(attached, attached.bindings)
        after = dict.fromkeys(self._elements(attached))
        # One transaction: no moment in which a port leads nowhere.
        text = rules.change("delete", self.settings.table, [e for e in before if e not in after])
        text += rules.change("add", self.settings.table, [e for e in after if e not in before])
        try:
            self._run(text)
        except NftError:
            if not old_held:
                self.publisher.release(attached.held)
            attached.endpoints, attached.held = old_endpoints, old_held
            raise
        dropped = [] if attached.held else old_held
        for port in dropped:
            self.publisher.forget(port)
        return dropped

    def _restore_routes(self, attached: Attached) -> None:
        """Give the default routes to the endpoints that have them now; a namespace that is gone needs none."""
        families = plan.default_families(attached.endpoints)
        try:
            namespace_fd = os.open(f"/proc/{attached.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        try:
            for endpoint in attached.endpoints:
                gateways = ((4, endpoint.gateway), (6, endpoint.gateway6))
                mine = [g for family, g in gateways if g and family in families[endpoint.endpoint_id]]
                self._host.set_default_routes(namespace_fd, endpoint.interface, [ip_address(g) for g in mine])
        except OSError as error:
            raise SandboxFailed(f"container {attached.name}", error) from error
        finally:
            os.close(namespace_fd)

    def sweep(self) -> bool:
        """Delete pairs of detached containers that are still there (a namespace that others keep alive)."""
        dying, self._dying = self._dying, []
        for name in dying:
            self._host.delete_link(name)
        return bool(dying)

    def _allocate(self, request: EndpointRequest, container_id: str, attached: Attached) -> Endpoint | None:
        record = self.registry.get(request.network)
        if not record.bridge:
            return None  # none, and host, where there is nothing to set up
        self._check_default(record, request)
        ipv4, ipv6 = self.registry.allocate(record, request)
        used = {endpoint.interface for endpoint in attached.endpoints}
        interface = next(name for name in (f"eth{n}" for n in range(len(used) + 1)) if name not in used)
        endpoint = Endpoint(
            record.id,
            record.name,
            new_id(),
            ipv4,
            aliases=request.aliases,
            ipv6=ipv6,
            mac=request.mac or _mac(ipv4),
            interface=interface,
            links=request.links,
            gw_priority=request.gw_priority,
            driver_opts=request.driver_opts,
            dns_names=() if record.default else _names(attached, request, container_id),
        )
        return self._with_gateways(record, endpoint)

    def _check_default(self, record: NetworkRecord, request: EndpointRequest) -> None:
        """The default bridge has neither fixed addresses nor names."""
        if record.default and (request.ipv4 or request.ipv6):
            raise InvalidNetwork(
                "invalid endpoint settings:\nuser specified IP address is supported on user defined networks only"
            )
        if record.default and request.aliases:
            raise InvalidNetwork(
                "invalid endpoint settings:\nnetwork-scoped aliases are only supported for user-defined networks"
            )

    def _with_gateways(self, record: NetworkRecord, endpoint: Endpoint) -> Endpoint:
        changes: dict[str, str | int] = {}
        for suffix, address in (("", endpoint.ipv4), ("6", endpoint.ipv6)):
            if not address:
                continue
            pool = self.registry.pool_of(record, address)
            changes["prefix6" if suffix else "prefix_len"] = ip_network(pool.subnet).prefixlen
            changes["gateway" + suffix] = "" if record.internal else pool.gateway
        return replace(endpoint, **changes)  # type: ignore[arg-type]

    def _publish(self, attached: Attached, bindings: Sequence[PortBinding]) -> list[HeldPort]:
        gateway = self._gateway_endpoint(attached.endpoints)
        if gateway is None or not bindings:
            return []
        try:
            return self.publisher.hold(bindings, self._target(attached.endpoints))
        except PortTaken as error:
            raise PortsFailed(attached.name, gateway.endpoint_id, str(error)) from error

    def _link_all(self, attached: Attached, namespace_fd: int, undo: contextlib.ExitStack) -> None:
        if not attached.endpoints:
            self._host.loopback_up(namespace_fd)
            return
        families = plan.default_families(attached.endpoints)
        for endpoint in attached.endpoints:
            self._link(endpoint, families[endpoint.endpoint_id], namespace_fd, attached.name)
            undo.callback(self._host.delete_link, plan.host_link(endpoint.endpoint_id))

    def _link(self, endpoint: Endpoint, families: frozenset[int], namespace_fd: int, who: str) -> None:
        record = self.registry.get(endpoint.network_id)
        wanted = plan.link(
            record,
            endpoint,
            default_mtu=self.settings.mtu,
            families=families,
            hairpin=not self.settings.userland_proxy,
        )
        try:
            try:
                self._host.add_endpoint(wanted, namespace_fd)
            except OSError:
                # Somebody may have deleted the bridge by hand: make it again and try once more.
                self._host.forget_master(record.bridge)
                self._ensure_bridge(record)
                self._host.add_endpoint(wanted, namespace_fd)
        except OSError as error:
            raise SandboxFailed(f"container {who}", error) from error

    def _gateway_endpoint(self, endpoints: tuple[Endpoint, ...]) -> Endpoint | None:
        """The endpoint that ports are published through: the one with the default route."""
        families = plan.default_families(endpoints)
        chosen = [e for e in endpoints if families[e.endpoint_id]]
        return next((e for e in chosen if 4 in families[e.endpoint_id]), chosen[0] if chosen else None)

    def _target(self, endpoints: tuple[Endpoint, ...]) -> Target:
        gateway = self._gateway_endpoint(endpoints)
        return Target(gateway.ipv4, gateway.ipv6) if gateway else Target("", "")

    def _shown(self, attached: Attached) -> tuple[PortBinding, ...]:
        return ports.expand((port.binding for port in attached.held), ipv6=self.publisher.ipv6)

    def _elements(self, attached: Attached) -> list[rules.Element]:
        found: list[rules.Element] = []
        for endpoint in attached.endpoints:
            found += rules.of_endpoint(endpoint, plan.host_link(endpoint.endpoint_id))
        gateway = self._gateway_endpoint(attached.endpoints)
        if gateway is not None and attached.held:
            record = self.registry.get(gateway.network_id)
            modes = (rules.gateway_mode(record, 4), rules.gateway_mode(record, 6))
            found += rules.of_ports(
                self._shown(attached),
                Target(gateway.ipv4, gateway.ipv6),
                modes=modes,
            )
        return found

    def _change(self, verb: str, elements: Sequence[rules.Element]) -> None:
        """Add or delete elements."""
        self._run(rules.change(verb, self.settings.table, elements))

    def _run(self, commands: str) -> None:
        if self._nft is None or not commands:
            return
        try:
            self._nft.run(commands)
        except NftError:
            # Somebody flushed the packet filter a moment ago and `watch` has not told yet: put everything back, and
            # if what we wanted still does not fit, that is the caller's error.  Deleted is deleted either way.
            self.install()
            additions = "".join(line + "\n" for line in commands.splitlines() if line.startswith("add "))
            if additions:
                self._nft.run(additions)


def _open_namespace(path: str, who: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SandboxFailed(f"container {who}", error) from error


def _mac(ipv4: str) -> str:
    return ipam.mac_of(IPv4Address(ipv4)) if ipv4 else "02:42:" + os.urandom(4).hex(":")


def _names(attached: Attached, request: EndpointRequest, container_id: str) -> tuple[str, ...]:
    """What a container is called on a user-defined network, each once."""
    names = (attached.name, *request.aliases, container_id[:12], attached.hostname)
    return tuple(dict.fromkeys(name for name in names if name))
