"""Rules, plans and firewall listings as values."""

from __future__ import annotations

from corral.net import plan, rules
from corral.net.coexist import dropping_chains
from corral.net.model import Endpoint, NetworkRecord, PoolRecord, PortBinding
from corral.net.ports import Target

RECORD = NetworkRecord("i" * 64, "app", "bridge", "", pools=(PoolRecord("10.0.0.0/24", "", "10.0.0.1"),), bridge="br-1")


def endpoint(number: int, **changes: object) -> Endpoint:
    values: dict[str, object] = {
        "network_id": f"n{number}",
        "network_name": f"net{number}",
        "endpoint_id": f"{number}" * 64,
        "ipv4": f"10.0.0.{number}",
        "prefix_len": 24,
        "gateway": "10.0.0.1",
        "mac": "02:42:0a:00:00:02",
        "interface": "eth0",
    }
    return Endpoint(**{**values, **changes})  # type: ignore[arg-type]


def test_ports_of_every_address_and_of_one() -> None:
    bindings = [PortBinding("tcp", 80, "0.0.0.0", 8080), PortBinding("tcp", 80, "::", 8080)]
    bindings.append(PortBinding("udp", 53, "127.0.0.1", 53))
    found = rules.of_ports(bindings, Target("10.0.0.2", ""))
    assert rules.change("add", "t", found) == (
        "add element inet t own4 { 10.0.0.2 . tcp . 8080, 10.0.0.2 . udp . 53 }\n"
        "add element inet t in4 { 10.0.0.2 . tcp . 8080, 10.0.0.2 . udp . 53 }\n"
        "add element inet t out4 { 10.0.0.2 . tcp . 8080, 10.0.0.2 . udp . 53 }\n"
        "add element inet t port4 { tcp . 8080 : 10.0.0.2 . 80 }\n"
        "add element inet t port4at { 127.0.0.1 . udp . 53 : 10.0.0.2 . 53 }\n"
    )
    assert "delete element inet t port4 { tcp . 8080 }\n" in rules.change("delete", "t", found)


def test_gateway_modes() -> None:
    bindings = [PortBinding("tcp", 80, "0.0.0.0", 8080)]
    (routed,) = rules.of_ports(bindings, Target("10.0.0.2", ""), modes=("routed", "nat"))
    assert (routed.set, routed.key) == ("routed4", "10.0.0.2 . tcp . 80")
    assert rules.of_ports(bindings, Target("10.0.0.2", ""), modes=("isolated", "nat")) == []


def test_elements_of_networks() -> None:
    assert {element.set for element in rules.of_network(RECORD)} == {
        "bridges",
        "same",
        "talk",
        "masquerade4",
        "masquerade6",
        "owned4",
    }


def test_the_default_route_goes_to_the_highest_priority_then_to_the_first_name() -> None:
    first, second, third = endpoint(1), endpoint(2), endpoint(3, gateway="")
    families = plan.default_families((second, first, third))
    assert families == {"1" * 64: {4}, "2" * 64: frozenset(), "3" * 64: frozenset()}
    wanted = endpoint(2, gw_priority=1)
    assert plan.default_families((first, wanted))["2" * 64] == {4}


def test_a_plan_reads_like_commands() -> None:
    made = plan.link(RECORD, endpoint(2), default_mtu=1500, families=frozenset({4}), hairpin=False)
    assert made.describe().splitlines() == [
        "ip link add veth22222222222 master br-1 up mtu 1500 type veth peer eth0",
        "ip address add 10.0.0.2/24 dev eth0",
        "ip route add default via 10.0.0.1 dev eth0",
    ]
    assert len(made.host) == 15  # the kernel takes no longer name


def test_forward_chains_that_drop() -> None:
    listing = """table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
	}
}
table inet mine {
	chain fwd {
		type filter hook forward priority filter; policy accept;
	}
}
table bridge other {
	chain f {
		type filter hook forward priority filter; policy drop;
	}
}
"""
    assert dropping_chains(listing) == [("ip", "filter", "FORWARD")]
