"""The default bridge through the stock CLI: addresses, names, outbound traffic, published ports."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import IMAGE, Daemon
from tests.support.netns import Space, fetch, inside
from tests.support.wait import until


@pytest.fixture
def beside(daemon: Daemon) -> Iterator[Space]:
    """Another machine on a wire to the daemon's: 10.99.0.1 here, 10.99.0.2 there."""
    space = Space()
    try:
        daemon.space.sh(f"ip link add wire0 type veth peer name wire1 netns {space.pid}")
        daemon.space.sh("ip addr add 10.99.0.1/24 dev wire0")
        daemon.space.sh("ip link set wire0 up")
        space.sh("ip addr add 10.99.0.2/24 dev wire1")
        space.sh("ip link set wire1 up")
        space.sh("ip link set lo up")
        yield space
    finally:
        daemon.space.sh("ip link del wire0")
        space.end()


def web(daemon: Daemon, *flags: str) -> str:
    """A container that serves /etc over HTTP on port 80."""
    container = daemon.output("run", "-d", *flags, IMAGE, "httpd", "-f", "-h", "/etc")
    until(lambda: daemon.docker("exec", container, "sh", "-c", "netstat -ltn | grep -q :80").returncode == 0)
    return container


def address(daemon: Daemon, container: str) -> str:
    return str(daemon.inspect(container)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"])


def test_containers_reach_each_other(daemon: Daemon) -> None:
    first = web(daemon)
    second = daemon.output("run", "-d", IMAGE, "sleep", "60")
    assert address(daemon, first) != address(daemon, second)
    got = daemon.output("exec", second, "wget", "-q", "-O", "-", f"http://{address(daemon, first)}/passwd")
    assert "root:" in got
    settings = daemon.inspect(second)["NetworkSettings"]["Networks"]["bridge"]
    assert daemon.output("exec", second, "ip", "route").startswith(f"default via {settings['Gateway']}")
    assert settings["MacAddress"] in daemon.output("exec", second, "ip", "link")
    hosts = daemon.output("exec", second, "cat", "/etc/hosts").split()
    assert address(daemon, second) in hosts and second[:12] in hosts
    daemon.remove_all()


def test_outbound_traffic_is_translated(daemon: Daemon, beside: Space) -> None:
    server = subprocess.Popen(
        ["nsenter", "-t", str(beside.pid), "-n", "busybox", "nc", "-ll", "-p", "8000", "-e", "/bin/cat"],
        stdin=subprocess.DEVNULL,
    )
    try:
        until(lambda: "8000" in beside.sh("ss -ltn"))
        done = daemon.docker("run", "--rm", "-i", IMAGE, "nc", "-w", "2", "10.99.0.2", "8000", input="echoed\n")
        assert done.stdout == "echoed\n"
        assert daemon.docker("run", "--rm", IMAGE, "ping", "-c", "1", "-W", "2", "10.99.0.2").returncode == 0
    finally:
        server.kill()
        server.wait()


def test_published_ports(daemon: Daemon, beside: Space) -> None:
    container = web(daemon, "-p", "8080:80", "-p", "127.0.0.1::80", "-P")
    assert "root:" in fetch(beside, "10.99.0.1", 8080, "/passwd")
    assert "root:" in fetch(daemon.space, "127.0.0.1", 8080, "/passwd")
    assert "root:" in fetch(daemon.space, "10.99.0.1", 8080, "/passwd")
    ports = daemon.inspect(container)["NetworkSettings"]["Ports"]["80/tcp"]
    local = next(entry["HostPort"] for entry in ports if entry["HostIp"] == "127.0.0.1")
    assert "root:" in fetch(daemon.space, "127.0.0.1", int(local), "/passwd")
    with pytest.raises(OSError):
        fetch(beside, "10.99.0.1", int(local), "/passwd")
    other = daemon.output("run", "-d", IMAGE, "sleep", "60")
    gateway = daemon.inspect(other)["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
    assert "root:" in daemon.output("exec", other, "wget", "-q", "-O", "-", f"http://{gateway}:8080/passwd")
    daemon.output("rm", "-f", container)
    with pytest.raises(OSError):
        fetch(beside, "10.99.0.1", 8080, "/passwd")
    with pytest.raises(OSError):
        fetch(daemon.space, "127.0.0.1", 8080, "/passwd")
    daemon.remove_all()


@pytest.mark.parametrize("host", ["10.99.0.1", "127.0.0.1"])
def test_udp(daemon: Daemon, beside: Space, host: str) -> None:
    container = daemon.output("run", "-d", "-p", "5353:53/udp", IMAGE, "sleep", "60")
    with inside(daemon.state(container)["Pid"]):
        server = socket.socket(type=socket.SOCK_DGRAM)
    client = (daemon.space if host == "127.0.0.1" else beside).socket(socket.SOCK_DGRAM)
    with server, client:
        server.bind(("0.0.0.0", 53))
        for one in (server, client):
            one.settimeout(5)
        client.connect((host, 5353))
        client.send(b"asked")
        data, peer = server.recvfrom(100)
        assert data == b"asked"
        server.sendto(b"answered", peer)
        assert client.recv(100) == b"answered"


def test_port_in_use_by_another_program(daemon: Daemon) -> None:
    with daemon.space.socket() as taken:
        taken.bind(("0.0.0.0", 8123))
        taken.listen()
        done = daemon.docker("run", "--rm", "-p", "8123:80", IMAGE, "true")
        assert done.returncode == 125
        assert "8123" in done.stderr and "address already in use" in done.stderr
    assert daemon.docker("run", "--rm", "-p", "8123:80", IMAGE, "true").returncode == 0


def test_port_ranges_and_exposed_ports(daemon: Daemon) -> None:
    container = daemon.output("run", "-d", "-p", "7000-7002:80-82", "--expose", "90", "-P", IMAGE, "sleep", "60")
    ports = daemon.inspect(container)["NetworkSettings"]["Ports"]
    assert [ports[f"{port}/tcp"][0]["HostPort"] for port in (80, 81, 82)] == ["7000", "7001", "7002"]
    assert int(ports["90/tcp"][0]["HostPort"]) >= 32768
    shown = daemon.output("ps", "--format", "{{.Ports}}")
    assert "0.0.0.0:7000->80/tcp" in shown
    daemon.remove_all()


def test_resolver_of_the_host(daemon: Daemon) -> None:
    text = daemon.output("run", "--rm", IMAGE, "cat", "/etc/resolv.conf")
    assert "nameserver" in text


def test_network_host_and_none(daemon: Daemon) -> None:
    names = daemon.output("run", "--rm", "--network", "host", IMAGE, "ls", "/sys/class/net").split()
    assert set(names) == {"lo", *daemon.links()}
    done = daemon.docker("run", "--rm", "--network", "none", IMAGE, "ping", "-c", "1", "-W", "1", "127.0.0.1")
    assert done.returncode == 0
    assert daemon.docker("run", "--rm", "--network", "nowhere", IMAGE, "true").returncode == 125


def test_user_defined_network_with_names(daemon: Daemon) -> None:
    daemon.output("network", "create", "shop")
    try:
        daemon.output(
            "run", "-d", "--name", "store", "--network", "shop", "--network-alias", "db", IMAGE, "sleep", "60"
        )
        for name in ("store", "db"):
            out = daemon.output("run", "--rm", "--network", "shop", IMAGE, "ping", "-c", "1", "-W", "2", name)
            assert "1 packets received" in out
        assert daemon.docker("network", "rm", "shop").returncode != 0
        found = json.loads(daemon.output("network", "inspect", "shop"))[0]
        assert [entry["Name"] for entry in found["Containers"].values()] == ["store"]
        later = daemon.output("run", "-d", IMAGE, "sleep", "60")
        daemon.output("network", "connect", "shop", later)
        assert daemon.docker("exec", later, "ping", "-c", "1", "-W", "2", "store").returncode == 0
        daemon.output("network", "disconnect", "shop", later)
        assert daemon.docker("exec", later, "ping", "-c", "1", "-W", "1", "store").returncode != 0
    finally:
        daemon.remove_all()
        daemon.output("network", "rm", "shop")


def test_hundreds_of_ports(daemon: Daemon) -> None:
    before = daemon.elements()
    container = daemon.output("run", "-d", "-p", "20000-20199:20000-20199", IMAGE, "sleep", "60")
    assert len(daemon.output("port", container).splitlines()) >= 200
    daemon.output("rm", "-f", container)
    assert daemon.elements() == before


def reached(space: Space, host: str, port: int = 80) -> bool:
    try:
        return "root:" in fetch(space, host, port, "/passwd", timeout_s=1)
    except OSError:
        return False


def in_mode(daemon: Daemon, mode: str, *flags: str) -> None:
    option = f"com.docker.network.bridge.gateway_mode_ipv4={mode}"
    daemon.output("network", "create", "-o", option, "--subnet", "10.98.0.0/24", *flags, "moded")


def test_gateway_modes(daemon: Daemon, beside: Space) -> None:
    beside.sh("ip route add 10.98.0.0/24 via 10.99.0.1")
    in_mode(daemon, "routed")
    web(daemon, "--network", "moded", "-p", "8301:80")
    web(daemon, "--network", "moded")
    assert reached(beside, "10.98.0.2") and not reached(beside, "10.98.0.3")
    assert not reached(beside, "10.99.0.1", 8301)
    daemon.remove_all()
    daemon.output("network", "rm", "moded")
    in_mode(daemon, "nat-unprotected")
    web(daemon, "--network", "moded", "-p", "8301:80")
    web(daemon, "--network", "moded")
    assert reached(beside, "10.98.0.2") and reached(beside, "10.98.0.3") and reached(beside, "10.99.0.1", 8301)
    daemon.remove_all()
    daemon.output("network", "rm", "moded")


def test_an_isolated_network_has_no_gateway(daemon: Daemon) -> None:
    option = "com.docker.network.bridge.gateway_mode_ipv4=isolated"
    open_one = daemon.docker("network", "create", "-o", option, "moded")
    assert open_one.returncode == 1 and "'isolated' can only be used for an internal network" in open_one.stderr
    in_mode(daemon, "isolated", "--internal", "-o", "com.docker.network.bridge.name=moded0")
    one = daemon.output("run", "-d", "--network", "moded", "--name", "one", IMAGE, "sleep", "60")
    assert daemon.output("run", "--rm", "--network", "moded", IMAGE, "ping", "-c", "1", "-w", "2", "one")
    assert daemon.inspect(one)["NetworkSettings"]["Networks"]["moded"]["Gateway"] == ""
    assert "10.98." not in daemon.space.sh("ip addr show moded0")
    daemon.restart()
    assert "10.98." not in daemon.space.sh("ip addr show moded0")
    daemon.remove_all()
    daemon.output("network", "rm", "moded")


def test_ranges_and_what_is_left_of_them(daemon: Daemon) -> None:
    # Not with the docker command: it sends the pools in any order, and addresses come from the first.
    first = {
        "Subnet": "10.98.0.0/24", "IPRange": "10.98.0.128/30", "Gateway": "10.98.0.1",
        "AuxiliaryAddresses": {"a": "10.98.0.128", "b": "10.98.0.2"},
    }  # fmt: skip
    pools = [first, {"Subnet": "10.97.0.0/24"}]
    created = daemon.post("/networks/create", {"Name": "ranged", "EnableIPv6": True, "IPAM": {"Config": pools}})
    assert created.status == 201, created.body
    box = daemon.output("run", "-d", "--network", "ranged", IMAGE, "sleep", "60")
    settings = daemon.inspect(box)["NetworkSettings"]["Networks"]["ranged"]
    assert settings["IPAddress"] == "10.98.0.129" and settings["GlobalIPv6Address"].startswith("fd")
    found = daemon.get("/networks/ranged", verbose="true", scope="local").json()
    subnets = found["Status"]["IPAM"]["Subnets"]
    assert subnets["10.98.0.0/24"] == {"IPsInUse": 6, "DynamicIPsAvailable": 2}
    assert subnets["10.97.0.0/24"] == {"IPsInUse": 3, "DynamicIPsAvailable": 253}
    assert max(usage["DynamicIPsAvailable"] for usage in subnets.values()) == (1 << 64) - 3
    assert "Status" not in daemon.get("/v1.51/networks/ranged").json()
    assert daemon.get("/networks/ranged", scope="swarm").status == 404
    for _ in range(2):
        daemon.output("run", "-d", "--network", "ranged", IMAGE, "sleep", "60")
    overflow = daemon.output("run", "-d", "--network", "ranged", IMAGE, "sleep", "60")
    assert daemon.inspect(overflow)["NetworkSettings"]["Networks"]["ranged"]["IPAddress"].startswith("10.97.")
    daemon.remove_all()
    daemon.output("network", "rm", "ranged")


def test_filters_of_the_list(daemon: Daemon) -> None:
    daemon.output("network", "create", "--label", "team=a", "filtered-one")
    daemon.output("network", "create", "filtered-two")

    def names(*filters: str) -> set[str]:
        flags = [word for text in filters for word in ("--filter", text)]
        return set(daemon.output("network", "ls", "--format", "{{.Name}}", *flags).split())

    assert names("name=^filtered-o") == {"filtered-one"} and names("name=two$") == {"filtered-two"}
    assert names("label=team=a") == {"filtered-one"} and names("type=builtin") == {"bridge", "host", "none"}
    assert names("driver=null") == {"none"} and names("scope=swarm") == set()
    assert {"filtered-one", "filtered-two"} <= names("dangling=true")
    bad = daemon.docker("network", "ls", "--filter", "type=odd")
    assert bad.returncode == 1 and "invalid filter" in bad.stderr
    daemon.output("network", "rm", "filtered-one", "filtered-two")


def test_link_local_addresses(daemon: Daemon) -> None:
    daemon.output("network", "create", "local")
    flags = ("--network", "local", "--link-local-ip", "169.254.34.68", "--link-local-ip", "fe80::34:68")
    box = daemon.output("run", "-d", *flags, IMAGE, "sleep", "60")
    shown = daemon.output("exec", box, "ip", "addr", "show", "eth0")
    assert "169.254.34.68/16" in shown and "fe80::34:68/64" in shown
    config = daemon.inspect(box)["NetworkSettings"]["Networks"]["local"]["IPAMConfig"]
    assert config["LinkLocalIPs"] == ["169.254.34.68", "fe80::34:68"]
    for wrong in ("10.0.0.1", "x"):
        refused = daemon.docker("run", "-d", "--network", "local", "--link-local-ip", wrong, IMAGE, "true")
        assert refused.returncode == 125 and wrong in refused.stderr
    daemon.remove_all()
    daemon.output("network", "rm", "local")
