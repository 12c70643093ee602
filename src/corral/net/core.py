"""Networks and sandboxes, synchronously: everything that `Networks` runs on its one thread.

What is remembered of an attached container is in memory only: after a restart of the daemon the engine tells
(`open`) which containers live and what they hold, and everything else of ours on the machine is removed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Network, ip_network

from corral.net import (
    conntrack,
    dns,
    drivers,
    egress,
    endpoints,
    holding,
    plan,
    ports,
    rules,
    sandbox,
    templates,
    traffic,
)
from corral.net.attached import Attached, close_names, host_servers, open_namespace
from corral.net.directory import Directory
from corral.net.filter import Filter
from corral.net.gate import Gate
from corral.net.holding import Holding
from corral.net.linking import Linker
from corral.net.lists import Lists
from corral.net.model import (
    Attachment,
    Element,
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
    PredefinedNetwork,
    SandboxFailed,
    Traffic,
)
from corral.net.nft import Nft, NftError
from corral.net.publish import HeldPort, PortTaken, Publisher
from corral.net.registry import Registry
from corral.store.db import Database

_log = logging.getLogger(__name__)

Live = Mapping[str, tuple[int, tuple[Endpoint, ...], tuple[PortBinding, ...]]]


class Core:
    """The state and every operation on it; used by one thread, in whose network namespace it works."""

    def __init__(self, db: Database, settings: NetworkSettings, nft: Nft | None) -> None:
        self.settings = settings
        self.registry = Registry(db, settings)
        self.attached: dict[str, Attached] = {}
        self.directory = Directory()
        self._host = sandbox.Host()
        self.filter = Filter(settings, nft, self._all_elements)
        self.publisher = Publisher(proxied=settings.userland_proxy)
        self._holding = Holding(self.registry, self.publisher)
        self._linker = Linker(settings, self._host, self.sweep)
        self.lists = Lists(settings, nft, self.registry, self._host, self.attached, self._linker.ensure)
        self._dying: list[str] = []

    # -- life of the daemon ------------------------------------------------------------------------------------

    def open(self, live: Live, egress_lists: Mapping[str, Sequence[str]]) -> None:
        """Bring the host to what the records and the live containers need; SandboxFailed, NftError."""
        try:
            self._prepare_host(live, egress_lists)
        except OSError as error:
            raise SandboxFailed("the host", error) from error
        self.install()

    def _prepare_host(self, live: Live, egress_lists: Mapping[str, Sequence[str]]) -> None:
        self.registry.load(self._foreign(), self._host.bridge_address(self.settings.bridge))
        if self.settings.ip_forward:
            sandbox.write_sysctl("net/ipv4/ip_forward", "1")
        for record in self.registry.all():
            if record.connects:
                try:
                    self._linker.ensure(record)
                except (OSError, InvalidNetwork) as error:
                    if record.bridge:
                        raise
                    _log.warning("cannot prepare network %s: %s", record.name, error)  # its parent may come later
                self._know(record)
        for container_id, (pid, joined, bindings) in live.items():
            policy = egress.parse(egress_lists.get(container_id, ()))
            gate = self.lists.recall(container_id, policy) if policy is not None else None
            self._adopt(container_id, pid, joined, bindings, gate)
        self.lists.forget_strangers()
        self._remove_strays()

    def _know(self, record: NetworkRecord) -> None:
        if not record.default or self.settings.bridge_names:
            subnets = tuple(ip_network(pool.subnet) for pool in record.pools)
            self.directory.add_network(record.id, record.name, subnets)

    def close(self, *, keep: bool) -> None:
        """Let go; unless `keep`, also take everything of ours off the host."""
        for attached in self.attached.values():
            self.publisher.release(attached.held)
            attached.let_go()
        if not keep:
            for attached in self.attached.values():
                self._dying += [plan.host_link(endpoint.endpoint_id) for endpoint in attached.endpoints]
            self.sweep()
            self.filter.withdraw()
            self.lists.withdraw()
            for record in self.registry.all():
                self._linker.remove(record)
        self._host.close()

    def install(self) -> None:
        """Put the whole rule set in place, whatever is there."""
        self.lists.filter.install()  # first: what it guards is open meanwhile
        self.filter.install()

    def look_around(self) -> None:
        """Adapt to a change of somebody else's firewall."""
        self.filter.look_around()

    def _all_elements(self) -> list[Element]:
        elements: list[Element] = []
        for record in self.registry.all():
            if record.bridge:
                elements += rules.of_network(record)
        for attached in self.attached.values():
            elements += self._holding.elements(attached)
        return elements

    def _adopt(
        self,
        container_id: str,
        pid: int,
        joined: tuple[Endpoint, ...],
        bindings: tuple[PortBinding, ...],
        gate: Gate | None,
    ) -> None:
        """Take back what a live container holds."""
        for endpoint in joined:
            self.registry.retake(endpoint.network_id, endpoint.ipv4, endpoint.ipv6)
        name = next((endpoint.dns_names[0] for endpoint in joined if endpoint.dns_names), "")
        attached = Attached(name, "", pid, joined, [], ports.collapse(bindings), gate=gate)
        target = holding.target_of(joined)
        for binding in attached.bindings:
            try:
                attached.held += self._holding.hold(joined, [binding])
            except PortTaken as error:
                # The container runs and its map elements work; somebody else has the port for IPv6 and loopback.
                _log.warning("cannot hold a published port of container %s again: %s", container_id[:12], error)
                attached.held.append(HeldPort(binding, target, None))
        self.attached[container_id] = attached
        for endpoint in joined:
            self.directory.add(endpoint)
        attached.upstream = next((endpoint.upstream for endpoint in joined if endpoint.upstream), ()) or host_servers()
        try:
            namespace_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # it ended this moment; the engine will see that and detach it
        try:
            self._serve_names(attached, namespace_fd)
            attached.keep_namespace(namespace_fd)
        finally:
            os.close(namespace_fd)

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
        return NetworkView(record, users, self.registry.usage(record))

    def create(self, spec: NetworkSpec) -> NetworkRecord:
        """Create a network and its bridge."""
        record = self.registry.plan(spec, self._foreign())
        with contextlib.ExitStack() as undo:
            try:
                record = self._linker.create(record) if record.connects else record
            except OSError as error:
                raise SandboxFailed(f"network {record.name}", error) from error
            undo.callback(self._linker.remove, record)
            elements = rules.of_network(record) if record.bridge else []
            self.filter.add(elements)
            undo.callback(self.filter.delete, elements)
            self.registry.add(record)
            if record.connects:
                self._know(record)
            undo.pop_all()
        return record

    def remove(self, ref: str) -> NetworkRecord:
        """Remove a network nobody uses."""
        record = self.registry.get(ref)
        if record.name in drivers.PREDEFINED:
            raise PredefinedNetwork(record.name, "remove")
        if record.config_only and any(other.config_from == record.name for other in self.registry.all()):
            raise templates.TemplateInUse(record.name)
        users = self.view(record).endpoints
        if users:
            named = tuple(f'name:"{self.attached[c].name}" id:"{e.endpoint_id[:12]}"' for c, e in users.items())
            raise NetworkInUse(record, named)
        self.registry.forget(record)
        self.directory.remove_network(record.id, record.name)
        self.filter.delete(rules.of_network(record) if record.bridge else [])
        self._linker.remove(record)
        return record

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
        upstream: tuple[str, ...] = (),
        egress_list: Sequence[str] = (),
    ) -> Attachment:
        """Connect a container's namespace to its networks and publish its ports; all or nothing."""
        if container_id in self.attached:
            raise NetworkRefused(f"container {container_id} is already attached to its networks")
        with contextlib.ExitStack() as cleanup, contextlib.ExitStack() as undo:
            namespace_fd = open_namespace(f"/proc/{pid}/ns/net", name)
            cleanup.callback(os.close, namespace_fd)
            attached = Attached(name, hostname, pid, (), [], tuple(bindings), upstream or host_servers())
            policy = egress.parse(egress_list)
            attached.gate = Gate(policy) if policy is not None else None
            for request in requests:
                endpoint = self._allocate(request, container_id, attached)
                if endpoint is not None:
                    attached.endpoints += (endpoint,)
                    undo.callback(self.registry.release, endpoint.network_id, endpoint.ipv4, endpoint.ipv6)
            attached.held = self._holding.publish(attached, bindings)
            undo.callback(self.publisher.release, attached.held)
            self.lists.begin(container_id, attached)
            undo.callback(self.lists.end, container_id, attached)
            self._linker.link_all(self.registry.get, attached, namespace_fd, undo)
            self._serve_names(attached, namespace_fd)
            undo.callback(close_names, attached)
            self.filter.add(self._holding.elements(attached))
            conntrack.forget(holding.udp_ports(attached.held))
            self.attached[container_id] = attached
            attached.keep_namespace(namespace_fd)
            for endpoint in attached.endpoints:
                self.directory.add(endpoint)
            undo.pop_all()
        return self._attachment(attached)

    def _attachment(self, attached: Attached) -> Attachment:
        sandbox_path = f"/proc/{attached.pid}/ns/net"
        return Attachment(attached.endpoints, self._holding.shown(attached), sandbox_path, attached.dns is not None)

    def detach(self, container_id: str) -> Attached | None:
        """Forget a container; the caller closes the sockets of what is returned."""
        attached = self.attached.pop(container_id, None)
        if attached is None:
            return None
        self.filter.delete(self._holding.elements(attached))
        self.lists.end(container_id, attached)
        self.lists.leave([text for endpoint in attached.endpoints for text in (endpoint.ipv4, endpoint.ipv6)])
        conntrack.forget(
            holding.udp_ports(attached.held), [a for e in attached.endpoints for a in (e.ipv4, e.ipv6) if a]
        )
        for endpoint in attached.endpoints:
            self.directory.remove(endpoint)
            self.registry.release(endpoint.network_id, endpoint.ipv4, endpoint.ipv6)
            # The pair dies with the namespace within milliseconds, at no cost to us; `sweep` looks whether it did.
            if endpoint.driver == "bridge":
                self._dying.append(plan.host_link(endpoint.endpoint_id))
            elif attached.namespace_fd >= 0:
                self._linker.unlink(endpoint, attached.namespace_fd)
        attached.let_go()
        for port in attached.held:
            self.publisher.forget(port)
        return attached

    def check_request(self, request: EndpointRequest) -> None:
        """Refuse what `connect` could never do; for containers that do not run."""
        record = self.registry.get(request.network)
        if record.driver in ("host", "null") and not record.config_only:
            raise NetworkRefused(f"container cannot be connected to {record.name} network")
        endpoints.check(record, request)

    def connect(
        self,
        container_id: str,
        pid: int,
        request: EndpointRequest,
        *,
        hostname: str,
        name: str,
        upstream: tuple[str, ...] = (),
        egress_list: Sequence[str] = (),
    ) -> tuple[Attachment, list[HeldPort]]:
        """Connect a running container to one more network; what it has now, and ports that are no longer held."""
        record = self.registry.get(request.network)
        attached = self.attached.get(container_id)
        if attached is None:
            policy = egress.parse(egress_list)
            gate = Gate(policy) if policy is not None else None
            attached = Attached(name, hostname, pid, (), [], (), upstream or host_servers(), gate=gate)
        if record.driver in ("host", "null") and not record.config_only:
            raise NetworkRefused(f"container cannot be connected to {record.name} network")
        if any(endpoint.network_id == record.id for endpoint in attached.endpoints):
            raise NetworkRefused(f"endpoint with name {attached.name} already exists in network {record.name}")
        with contextlib.ExitStack() as cleanup, contextlib.ExitStack() as undo:
            namespace_fd = open_namespace(f"/proc/{pid}/ns/net", name)
            cleanup.callback(os.close, namespace_fd)
            endpoint = self._allocate(request, container_id, attached)
            assert endpoint is not None
            undo.callback(self.registry.release, endpoint.network_id, endpoint.ipv4, endpoint.ipv6)
            after = (*attached.endpoints, endpoint)
            families = plan.default_families(after)[endpoint.endpoint_id]
            undo.callback(self.lists.filter.install)
            if container_id not in self.attached:
                self.lists.begin(container_id, attached)
            self.lists.move(container_id, attached, after)  # before there is a link
            self._linker.link(record, endpoint, families, namespace_fd, name)
            undo.callback(self._linker.unlink, endpoint, namespace_fd)
            dropped = self._change_endpoints(attached, after)
            self._serve_names(attached, namespace_fd)
            self.attached[container_id] = attached
            attached.keep_namespace(namespace_fd)
            self.directory.add(endpoint)
            undo.pop_all()
        return self._attachment(attached), dropped

    def disconnect(self, container_id: str, ref: str) -> tuple[Attachment, list[HeldPort]]:
        """Take a running container off a network; what it has now, and ports that are no longer held."""
        record = self.registry.get(ref)
        attached = self.attached.get(container_id)
        gone = next((e for e in attached.endpoints if e.network_id == record.id), None) if attached else None
        if attached is None or gone is None:
            raise NetworkRefused(f"container {container_id} is not connected to network {record.name}")
        after = tuple(endpoint for endpoint in attached.endpoints if endpoint is not gone)
        dropped = self._change_endpoints(attached, after)
        self.directory.remove(gone)
        if attached.dns is not None:
            attached.dns.endpoints = after
        self._linker.unlink(gone, attached.namespace_fd)
        self.lists.move(container_id, replace(attached, endpoints=(*after, gone)), after)
        self.lists.leave([gone.ipv4, gone.ipv6])
        self.registry.release(gone.network_id, gone.ipv4, gone.ipv6)
        self._linker.restore_routes(attached)
        return self._attachment(attached), dropped

    def change_egress(self, container_id: str, texts: Sequence[str]) -> Attachment | None:
        """Give a running container another egress list, or none; what it has now, None if it is on no network."""
        attached = self.attached.get(container_id)
        if attached is None:
            return None
        policy = egress.parse(texts)
        if policy is not None and attached.dns is None:
            namespace_fd = open_namespace(f"/proc/{attached.pid}/ns/net", attached.name)
            try:
                self._serve_names(attached, namespace_fd, wanted=True)
            finally:
                os.close(namespace_fd)
        self.lists.change(container_id, attached, policy)
        if attached.dns is not None:
            attached.dns.gate = attached.gate
        return self._attachment(attached)

    def change_ports(
        self,
        container_id: str,
        added: Sequence[PortBinding],
        removed: Sequence[PortBinding],
        wanted: Sequence[PortBinding],
    ) -> tuple[tuple[PortBinding, ...], list[HeldPort]]:
        """Publish and withdraw ports of a running container, all or nothing; all it has, and what is no longer held."""
        attached = self.attached.get(container_id)
        if attached is None:
            raise NetworkRefused(f"container {container_id} is not attached to a network")
        old, before = attached.held, self._holding.elements(attached)
        leaving = {holding.side(binding) for binding in removed}
        dropped = {holding.side(port.binding): port for port in old if holding.side(port.binding) in leaving}
        kept = [port for port in old if holding.side(port.binding) not in leaving]
        # A port that only changes its place in the container keeps its socket: no moment in which others could take it.
        moved: list[HeldPort] = []
        for binding in added:
            port = dropped.get(holding.side(binding))
            if port is not None and port.binding.host_ip == binding.host_ip and not binding.host_port_end:
                moved.append(replace(dropped.pop(holding.side(binding)), binding=binding))
        places = {holding.side(port.binding) for port in moved}
        new = self._holding.publish(attached, [binding for binding in added if holding.side(binding) not in places])
        attached.held = [*kept, *moved, *new]
        try:
            self.filter.replace(before, self._holding.elements(attached))
        except NftError:
            attached.held = old
            self.publisher.release(new)
            raise
        attached.bindings = tuple(wanted)
        for port in dropped.values():
            self.publisher.forget(port)
        conntrack.forget(holding.udp_ports([*dropped.values(), *moved, *new]))
        return self._holding.shown(attached), list(dropped.values())

    def traffic(self, container_id: str) -> Traffic:
        """What a container received and sent; empty when it is on no network."""
        attached = self.attached.get(container_id)
        if attached is None:
            return Traffic({}, {})
        counts = self.filter.counts(self._holding.elements(attached))
        return self._traffic(attached, self._host.netlink.counters(), counts)

    def all_traffic(self) -> dict[str, Traffic]:
        """The same of every container that is on a network."""
        interfaces, counts = self._host.netlink.counters(), self.filter.counts()
        return {one: self._traffic(attached, interfaces, counts) for one, attached in self.attached.items()}

    def _traffic(
        self, attached: Attached, interfaces: Mapping[str, tuple[int, int, int, int]], counts: rules.Counts
    ) -> Traffic:
        bindings, target = self._counted(attached), holding.target_of(attached.endpoints)
        return traffic.of_container(attached.endpoints, interfaces, target, bindings, counts)

    @staticmethod
    def _counted(attached: Attached) -> list[PortBinding]:
        return [port.binding for port in attached.held if not port.routed]

    def published(self) -> list[tuple[Attached, tuple[PortBinding, ...]]]:
        """Containers with the ports of the host that lead to them, as Docker shows these."""
        return [
            (attached, self._holding.shown(attached))
            for attached in self.attached.values()
            if self._holding.translates(attached.endpoints)
        ]

    def rename(self, container_id: str, name: str) -> tuple[Endpoint, ...]:
        """Call a container by another name; its endpoints now."""
        attached = self.attached.get(container_id)
        if attached is None:
            return ()
        old, attached.name = attached.name, name
        for endpoint in attached.endpoints:
            self.directory.remove(endpoint)
        attached.endpoints = tuple(endpoints.renamed(endpoint, old, name) for endpoint in attached.endpoints)
        self.lists.leave([text for endpoint in attached.endpoints for text in (endpoint.ipv4, endpoint.ipv6)])
        for endpoint in attached.endpoints:
            self.directory.add(endpoint)
        if attached.dns is not None:
            attached.dns.endpoints = attached.endpoints
        return attached.endpoints

    def _change_endpoints(self, attached: Attached, wanted: tuple[Endpoint, ...]) -> list[HeldPort]:
        """Move a container's rules and published ports to another set of endpoints; ports it no longer has."""
        before = self._holding.elements(attached)
        old_endpoints, old_held = attached.endpoints, attached.held
        attached.endpoints = wanted
        target = holding.target_of(wanted)
        kept = bool(old_held) and old_held[0].routed != self._holding.translates(wanted)
        if plan.gateway_endpoint(wanted) is None:
            attached.held, kept = [], False
        elif kept:
            attached.held = [replace(port, target=target) for port in old_held]
        else:
            attached.held = self._holding.publish(attached, attached.bindings)
        try:
            self.filter.replace(before, self._holding.elements(attached))
        except NftError:
            if not kept:
                self.publisher.release(attached.held)
            attached.endpoints, attached.held = old_endpoints, old_held
            raise
        dropped = [] if kept else old_held
        for port in dropped:
            self.publisher.forget(port)
        return dropped

    def sweep(self) -> bool:
        """Delete pairs of detached containers that are still there (a namespace that others keep alive)."""
        dying, self._dying = self._dying, []
        for name in dying:
            self._host.delete_link(name)
        return bool(dying)

    def _allocate(self, request: EndpointRequest, container_id: str, attached: Attached) -> Endpoint | None:
        record = self.registry.get(request.network)
        endpoints.check_kind(record, request)
        if not record.connects:
            return None  # none, and host, where there is nothing to set up
        called = (attached.name, container_id[:12], attached.hostname)
        return endpoints.build(
            self.registry,
            record,
            request,
            attached.endpoints,
            called,
            attached.upstream,
            bridge_names=self.settings.bridge_names,
        )

    def _serve_names(self, attached: Attached, namespace_fd: int, *, wanted: bool = False) -> None:
        """Give a container its DNS server if it needs one, or tell that server where the container is now.

        One on user-defined networks needs it for names, one with an egress list for what they stand for.
        """
        needed = wanted or attached.gate is not None or any(endpoint.dns_names for endpoint in attached.endpoints)
        if attached.dns is None and needed and attached.endpoints:
            try:
                with self._host.within(namespace_fd):
                    attached.dns = dns.open_sockets()
            except OSError as error:
                raise SandboxFailed(f"container {attached.name}", error) from error
        if attached.dns is not None:
            attached.dns.endpoints = attached.endpoints
            attached.dns.upstream = attached.upstream
            attached.dns.gate = attached.gate
            attached.dns.forward = any(e.gateway or e.gateway6 or e.on_link for e in attached.endpoints)
