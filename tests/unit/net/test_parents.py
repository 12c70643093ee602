"""macvlan and ipvlan: options, parents and what becomes of an endpoint."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.net import parents, plan
from corral.net.model import Endpoint, InvalidNetwork, NetworkRecord


def record(**options: str) -> NetworkRecord:
    return NetworkRecord("n" * 64, "net", "ipvlan", "", parent="lan0", options=options)


@given(st.text(max_size=15))
def test_any_missing_parent_is_a_vlan_or_refused(name: str) -> None:
    try:
        found = parents.vlan(name)
    except InvalidNetwork:
        return
    assert 1 <= found.number <= 4094 and name.startswith(f"{found.parent}.")


def test_layer_three_routes_to_the_interface() -> None:
    assert parents.on_link(record(ipvlan_mode="l3s")) and not parents.on_link(record())
    endpoint = Endpoint("n" * 64, "net", "e" * 64, "10.1.0.5", 24, interface="eth0", driver="ipvlan", on_link=True)
    families = plan.default_families((endpoint,))[endpoint.endpoint_id]
    made = plan.link(record(ipvlan_mode="l3"), endpoint, default_mtu=1500, families=families, hairpin=False)
    assert (made.kind, made.mode, made.master, made.device_routes, made.gateways) == ("ipvlan", 1, "lan0", (4,), ())
    assert made.describe().startswith("ip link add eth0 link lan0 type ipvlan")


def test_ports_are_published_through_bridges_only() -> None:
    assert plan.gateway_endpoint((Endpoint("n", "net", "e", "10.1.0.5", gateway="10.1.0.1", driver="macvlan"),)) is None
    bridged = Endpoint("n", "net", "e", "10.1.0.5", gateway="10.1.0.1")
    assert plan.gateway_endpoint((bridged,)) is bridged


@pytest.mark.parametrize(("driver", "default"), [("macvlan", "bridge"), ("ipvlan", "l2")])
def test_modes(driver: str, default: str) -> None:
    assert parents.mode(driver, {}) == default
    with pytest.raises(InvalidNetwork, match="is not valid"):
        parents.mode(driver, {f"{driver}_mode": "x"})
