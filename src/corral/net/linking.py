"""What networks and endpoints are in the kernel: bridges on the host, links into containers.  Used by one thread."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_interface, ip_network

import msgspec

from corral.net import ipam, netlink, parents, plan, sandbox
from corral.net.attached import Attached
from corral.net.model import Endpoint, InvalidNetwork, NetworkRecord, NetworkSettings, SandboxFailed


class Linker:
    """Makes and removes links; `sweep` gets rid of links of containers that just ended."""

    def __init__(self, settings: NetworkSettings, host: sandbox.Host, sweep: Callable[[], object]) -> None:
        self._settings = settings
        self._host = host
        self._sweep = sweep

    def ensure(self, record: NetworkRecord) -> None:
        """Make or repair what a network is on the host; OSError."""
        if record.parent:
            self.ensure_parent(record)
            return
        addresses = [
            ip_interface(f"{pool.gateway}/{ip_network(pool.subnet).prefixlen}") for pool in record.pools if pool.gateway
        ]
        first = next((a.ip for a in addresses if a.version == 4), None)
        mac = ipam.mac_of(first) if isinstance(first, IPv4Address) else "02:42:" + os.urandom(4).hex(":")
        mtu = int(record.options.get(plan.MTU_OPTION, self._settings.mtu))
        if self._settings.ip_forward and any(address.version == 6 for address in addresses):
            sandbox.enable_ipv6_forwarding()
        self._host.ensure_bridge(record.bridge, addresses, mac, mtu)

    def ensure_parent(self, record: NetworkRecord) -> bool:
        """Make the parent of a macvlan or ipvlan network if need be; whether it was made.  OSError, InvalidNetwork."""
        name = record.parent
        if parents.is_own(record):
            # Where the kernel has no dummy, an ifb does the same: it swallows what is sent to it.
            kind = next((kind for kind in ("dummy", "ifb") if self._host.knows(kind)), "dummy")
            return self._host.ensure_up(name, lambda: netlink.plain(name, kind))
        if self._host.index_of(name) is not None:
            return self._host.ensure_up(name, lambda: netlink.plain(name, "dummy"))
        wanted = parents.vlan(name)
        below = self._host.index_of(wanted.parent)
        if below is None:
            raise InvalidNetwork(f"-o parent interface does was not found on the host: {wanted.parent}")
        try:
            return self._host.ensure_up(name, lambda: netlink.vlan(name, parent=below, number=wanted.number))
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise InvalidNetwork(f"failed to create {name} vlan link: {reason}") from error

    def create(self, record: NetworkRecord) -> NetworkRecord:
        """Make what a new network is on the host; the record with what was found out.  OSError and refusals."""
        if not record.parent:
            if self._host.index_of(record.bridge) is not None:
                raise InvalidNetwork(
                    f"cannot create network {record.id} ({record.bridge}): the interface exists already"
                )
            try:
                self.ensure(record)
            except OSError:
                self._host.delete_link(record.bridge)
                raise
            return record
        if not self._host.knows(record.driver):
            raise parents.DriverMissing(record.driver)
        return msgspec.structs.replace(record, parent_ours=self.ensure_parent(record))

    def remove(self, record: NetworkRecord) -> None:
        """Take what is ours of a network off the host."""
        if record.bridge and not record.foreign_bridge:
            self._host.delete_link(record.bridge)
        if record.parent_ours:
            self._host.delete_link(record.parent)

    def unlink(self, endpoint: Endpoint, namespace_fd: int) -> None:
        """Take an endpoint's link away."""
        if endpoint.driver == "bridge":
            self._host.delete_link(plan.host_link(endpoint.endpoint_id))
        elif namespace_fd >= 0:
            self._host.delete_inside(namespace_fd, endpoint.interface)

    def link(
        self, record: NetworkRecord, endpoint: Endpoint, families: frozenset[int], namespace_fd: int, who: str
    ) -> None:
        """Put an endpoint into a namespace, with the default routes of `families`; SandboxFailed."""
        wanted = plan.link(
            record,
            endpoint,
            default_mtu=self._settings.mtu,
            families=families,
            hairpin=not self._settings.userland_proxy,
        )
        try:
            try:
                self._host.add_endpoint(wanted, namespace_fd)
            except OSError:
                # Somebody may have deleted the bridge by hand, or the namespace still has the link of a moment ago:
                # put both right and try once more.
                self._sweep()
                self._host.forget_master(record.bridge or record.parent)
                self.ensure(record)
                self._host.add_endpoint(wanted, namespace_fd)
        except OSError as error:
            raise SandboxFailed(f"container {who}", error) from error

    def restore_routes(self, attached: Attached) -> None:
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
                direct = plan.device_routes(endpoint, families[endpoint.endpoint_id])
                self._host.set_default_routes(namespace_fd, endpoint.interface, [ip_address(g) for g in mine], direct)
        except OSError as error:
            raise SandboxFailed(f"container {attached.name}", error) from error
        finally:
            os.close(namespace_fd)

    def link_all(
        self,
        find: Callable[[str], NetworkRecord],
        attached: Attached,
        namespace_fd: int,
        undo: contextlib.ExitStack,
    ) -> None:
        """Put all endpoints of a container into its namespace; `find` gets a network by id."""
        if not attached.endpoints:
            self._host.loopback_up(namespace_fd)
            return
        families = plan.default_families(attached.endpoints)
        for endpoint in attached.endpoints:
            mine = families[endpoint.endpoint_id]
            self.link(find(endpoint.network_id), endpoint, mine, namespace_fd, attached.name)
            undo.callback(self.unlink, endpoint, namespace_fd)
