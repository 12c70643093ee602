"""The host ports that containers hold, and what they are in the packet filter; part of what `core` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corral.net import plan, ports, rules
from corral.net.attached import Attached
from corral.net.model import Element, Endpoint, PortBinding, PortsFailed
from corral.net.ports import Target
from corral.net.publish import HeldPort, PortTaken, Publisher
from corral.net.registry import Registry


class Holding:
    """Takes ports for containers, and tells the elements of all that a container is on its networks."""

    def __init__(self, registry: Registry, publisher: Publisher) -> None:
        self._registry = registry
        self._publisher = publisher

    def publish(self, attached: Attached, bindings: Sequence[PortBinding]) -> list[HeldPort]:
        """Take ports of the host for an attached container, all or none; PortsFailed."""
        gateway = plan.gateway_endpoint(attached.endpoints)
        if gateway is None or not bindings:
            return []
        try:
            return self.hold(attached.endpoints, bindings)
        except PortTaken as error:
            raise PortsFailed(attached.name, gateway.endpoint_id, str(error)) from error

    def hold(self, joined: tuple[Endpoint, ...], bindings: Sequence[PortBinding]) -> list[HeldPort]:
        """Take ports of the host for bindings, or none where the container's own address is what is reached."""
        if self.translates(joined):
            return self._publisher.hold(self._placed(joined, bindings), target_of(joined))
        return [HeldPort(ports.check(binding), target_of(joined), None, routed=True) for binding in bindings]

    def _placed(self, joined: tuple[Endpoint, ...], bindings: Sequence[PortBinding]) -> list[PortBinding]:
        """Bindings that name no address at the one that their network has for these, if it has one."""
        gateway = plan.gateway_endpoint(joined)
        record = self._registry.find(gateway.network_id) if gateway else None
        address = record.options.get(rules.HOST_BINDING, "") if record else ""
        wanted = "" if address == "0.0.0.0" else address
        return [binding if binding.host_ip else replace(binding, host_ip=wanted) for binding in bindings]

    def translates(self, joined: tuple[Endpoint, ...]) -> bool:
        """Whether published ports are rewritten, and not reached at the container's own address."""
        gateway = plan.gateway_endpoint(joined)
        record = self._registry.find(gateway.network_id) if gateway else None
        if gateway is None or record is None:
            return True
        families = [family for family, address in ((4, gateway.ipv4), (6, gateway.ipv6)) if address]
        return any(rules.gateway_mode(record, family).startswith("nat") for family in families)

    def shown(self, attached: Attached) -> tuple[PortBinding, ...]:
        """The ports of a container as Docker shows them."""
        return ports.expand((port.binding for port in attached.held), ipv6=self._publisher.ipv6)

    def elements(self, attached: Attached) -> list[Element]:
        """What a container is in the packet filter: its endpoints and ports."""
        found: list[Element] = []
        for endpoint in attached.endpoints:
            if endpoint.driver == "bridge":
                found += rules.of_endpoint(endpoint, plan.host_link(endpoint.endpoint_id))
        gateway = plan.gateway_endpoint(attached.endpoints)
        if gateway is not None and attached.held:
            record = self._registry.find(gateway.network_id)  # None: a container outlived the default bridge's removal
            modes = (rules.gateway_mode(record, 4), rules.gateway_mode(record, 6)) if record else ("nat", "nat")
            found += rules.of_ports(
                self.shown(attached),
                Target(gateway.ipv4, gateway.ipv6),
                modes=modes,
            )
        return found


def target_of(endpoints: tuple[Endpoint, ...]) -> Target:
    """The container's side of published ports: its addresses where the default route is."""
    gateway = plan.gateway_endpoint(endpoints)
    return Target(gateway.ipv4, gateway.ipv6) if gateway else Target("", "")


def udp_ports(held: Sequence[HeldPort]) -> set[int]:
    """The host's numbers of the UDP ports among them."""
    return {port.binding.host_port for port in held if port.binding.proto == "udp"}


def side(binding: PortBinding) -> tuple[str, str, int]:
    """The host side of a binding; without IPv6 on the host, 0.0.0.0 and every address are the same."""
    return binding.proto, binding.host_ip.replace("0.0.0.0", ""), binding.host_port
