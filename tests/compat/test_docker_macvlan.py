"""macvlan networks through the stock CLI; ipvlan and VLANs as far as the kernel has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.daemon import IMAGE, Daemon
from tests.support.netns import Space
from tests.support.wait import until


@pytest.fixture
def lan(daemon: Daemon) -> Iterator[Space]:
    """A machine (10.77.0.1) on the wire of the host's interface lan0."""
    space = Space()
    try:
        daemon.space.sh(f"ip link add lan0 type veth peer name wire1 netns {space.pid}")
        daemon.space.sh("ip link set lan0 up")
        space.sh("ip addr add 10.77.0.1/24 dev wire1")
        space.sh("ip link set wire1 up")
        yield space
    finally:
        daemon.remove_all()
        for name in daemon.output("network", "ls", "-qf", "type=custom").split():
            daemon.output("network", "rm", name)
        daemon.space.sh("ip link del lan0")
        space.end()


def macvlan(daemon: Daemon, name: str, *flags: str) -> str:
    return daemon.output("network", "create", "-d", "macvlan", "--subnet", "10.77.0.0/24", *flags, name)


def pings(daemon: Daemon, container: str, address: str) -> bool:
    return daemon.docker("exec", container, "ping", "-c", "1", "-w", "2", address).returncode == 0


def test_containers_are_on_the_parents_wire(daemon: Daemon, lan: Space) -> None:
    macvlan(daemon, "wire", "-o", "parent=lan0", "--gateway", "10.77.0.1", "--aux-address", "printer=10.77.0.2")
    one = daemon.output("run", "-d", "--network", "wire", "--name", "one", IMAGE, "sleep", "100")
    two = daemon.output("run", "-d", "--network", "wire", "--ip", "10.77.0.50", IMAGE, "sleep", "100")
    settings = daemon.inspect(one)["NetworkSettings"]["Networks"]["wire"]
    assert (settings["IPAddress"], settings["Gateway"]) == ("10.77.0.3", "10.77.0.1")
    assert settings["MacAddress"] in daemon.output("exec", one, "ip", "link", "show", "eth0")
    assert daemon.output("exec", one, "ip", "route").startswith("default via 10.77.0.1 dev eth0")
    assert pings(daemon, one, "10.77.0.1") and pings(daemon, one, "10.77.0.50")
    assert "0% packet loss" in lan.sh("busybox ping -c 1 -w 2 10.77.0.50")
    assert pings(daemon, two, "one")
    assert [link for link in daemon.links() if link.startswith("veth")] == []


def test_connect_disconnect_and_restart_of_the_daemon(daemon: Daemon, lan: Space) -> None:
    macvlan(daemon, "wire", "-o", "parent=lan0")
    box = daemon.output("run", "-d", "-p", "8201:80", IMAGE, "sleep", "100")
    daemon.output("network", "connect", "--ip", "10.77.0.9", "wire", box)
    assert pings(daemon, box, "10.77.0.1")
    assert daemon.output("exec", box, "ip", "route").startswith("default via 172.")
    daemon.restart()
    assert pings(daemon, box, "10.77.0.1") and daemon.output("port", box)
    busy = daemon.docker("network", "rm", "wire")
    assert busy.returncode == 1 and "has active endpoints" in busy.stderr
    daemon.output("network", "disconnect", "wire", box)
    assert "eth1" not in daemon.output("exec", box, "ip", "link")
    daemon.output("network", "connect", "--ip", "10.77.0.9", "wire", box)
    assert pings(daemon, box, "10.77.0.1")
    sharing = daemon.output("run", "-d", "--network", f"container:{box}", IMAGE, "sleep", "100")
    daemon.output("kill", box)
    until(lambda: "10.77.0.9" not in daemon.output("exec", sharing, "ip", "addr"))


@pytest.mark.parametrize("mode", ["private", "vepa", "passthru"])
def test_modes(daemon: Daemon, lan: Space, mode: str) -> None:
    macvlan(daemon, "wire", "-o", "parent=lan0", "-o", f"macvlan_mode={mode}")
    one = daemon.output("run", "-d", "--network", "wire", IMAGE, "sleep", "100")
    assert pings(daemon, one, "10.77.0.1")
    assert f"macvlan mode {mode}" in daemon.space.sh(f"nsenter -t {daemon.state(one)['Pid']} -n ip -d link show eth0")
    second = daemon.docker("run", "-d", "--network", "wire", IMAGE, "sleep", "100")
    if mode == "passthru":
        assert second.returncode == 125 and "cannot set up the network of container" in second.stderr
    else:
        assert not pings(daemon, one, "10.77.0.4")


def test_without_a_parent_it_is_closed(daemon: Daemon, lan: Space) -> None:
    made = macvlan(daemon, "closed")
    assert f"dm-{made[:12]}" in " ".join(daemon.links())
    one = daemon.output("run", "-d", "--network", "closed", IMAGE, "sleep", "100")
    two = daemon.output("run", "-d", "--network", "closed", "--name", "two", IMAGE, "sleep", "100")
    assert pings(daemon, one, "two") and two
    assert "default" not in daemon.output("exec", one, "ip", "route")
    daemon.restart()
    assert pings(daemon, one, "two")
    daemon.remove_all()
    daemon.output("network", "rm", "closed")
    assert f"dm-{made[:12]}" not in " ".join(daemon.links())


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("macvlan", ["parent=nope"], "invalid subinterface vlan name nope, example formatting is eth0.10"),
        ("macvlan", ["parent=lan0.5000"], "vlan id must be between 1-4094, received: 5000"),
        ("macvlan", ["parent=lan0.x"], "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        ("macvlan", ["parent=lan0.1.2"], "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10"),
        ("macvlan", ["parent=nope.5"], "-o parent interface does was not found on the host: nope"),
        ("macvlan", ["parent=lo"], "loopback interface is not a valid macvlan parent link"),
        ("macvlan", ["parent=a/b"], "invalid parent interface name: a/b"),
        ("macvlan", ["parent=lan0", "macvlan_mode=foo"], "requested macvlan mode 'foo' is not valid, 'bridge' mode is"),
        ("ipvlan", ["parent=lan0", "ipvlan_mode=foo"], "requested ipvlan mode 'foo' is not valid, 'l2' mode is"),
        ("ipvlan", ["parent=lan0", "ipvlan_flag=foo"], "requested ipvlan flag 'foo' is not valid"),
    ],
)
def test_refused(daemon: Daemon, lan: Space, driver: str, options: list[str], message: str) -> None:
    before = daemon.links()
    flags = [word for option in options for word in ("-o", option)]
    done = daemon.docker("network", "create", "-d", driver, "--subnet", "10.77.0.0/24", *flags, "bad")
    assert done.returncode == 1 and message in done.stderr
    assert daemon.links() == before and "bad" not in daemon.output("network", "ls", "--format", "{{.Name}}").split()


def test_a_parent_has_one_network(daemon: Daemon, lan: Space) -> None:
    first = macvlan(daemon, "wire", "-o", "parent=lan0")
    done = daemon.docker("network", "create", "-d", "macvlan", "-o", "parent=lan0", "--subnet", "10.78.0.0/24", "again")
    assert done.returncode == 1 and f"network dm-{first[:12]} is already using parent interface lan0" in done.stderr


def test_ipvlan_where_the_kernel_has_it(daemon: Daemon, lan: Space) -> None:
    done = daemon.docker("network", "create", "-d", "ipvlan", "-o", "parent=lan0", "--subnet", "10.77.0.0/24", "ip")
    if done.returncode:
        assert "this kernel has no ipvlan interfaces" in done.stderr
        return
    one = daemon.output("run", "-d", "--network", "ip", IMAGE, "sleep", "100")
    assert pings(daemon, one, "10.77.0.1")


def test_a_vlan_is_made_and_removed_where_the_kernel_has_it(daemon: Daemon, lan: Space) -> None:
    flags = ("-d", "macvlan", "-o", "parent=lan0.50", "--subnet", "10.77.0.0/24")
    done = daemon.docker("network", "create", *flags, "tagged")
    if done.returncode:
        assert "failed to create lan0.50 vlan link: operation not supported" in done.stderr
        return
    assert "lan0.50" in " ".join(daemon.links())
    daemon.output("network", "rm", "tagged")
    assert "lan0.50" not in " ".join(daemon.links())
