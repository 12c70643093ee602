"""The default bridge network on a real kernel: attach, detach, published ports, conflicts, restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.net.model import PortsFailed, SandboxFailed
from corral.net.networks import EndpointRequest, Networks, NetworkSettings, PortBinding
from corral.store.db import Database
from tests.support.netns import Space, ask, needs_root, on_new_host, refused, serve_peer_address, sh, spaces, until

pytestmark = needs_root

BRIDGE = (EndpointRequest("bridge"),)


@contextlib.asynccontextmanager
async def networks(path: Path, settings: NetworkSettings | None = None) -> AsyncIterator[Networks]:
    """Open networks that take everything with them at the end."""
    db = Database(str(path / "db"))
    opened = Networks(db, settings or NetworkSettings())
    try:
        await opened.open({})
        yield opened
    finally:
        await opened.close(keep=False)
        db.close()


def link_names() -> set[str]:
    return {link["ifname"] for link in json.loads(sh("ip -j link"))}


def outside(space: Space) -> None:
    """Connect `space` to the host as a machine on its network: 10.9.0.2, the host being 10.9.0.1."""
    sh(f"ip link add out0 type veth peer name eth0 netns {space.pid}; ip addr add 10.9.0.1/24 dev out0")
    sh("ip link set out0 up")
    space.sh("ip link set eth0 up")
    space.sh("ip addr add 10.9.0.2/24 dev eth0")


@on_new_host
async def test_attach_configures_the_namespace_and_detach_leaves_nothing(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(1) as (one,):
            attachment = await net.attach("a" * 64, one.pid, BRIDGE, (), hostname="h", name="one")
            (endpoint,) = attachment.endpoints
            assert (endpoint.ipv4, endpoint.prefix_len, endpoint.gateway) == ("172.17.0.2", 16, "172.17.0.1")
            assert endpoint.mac == "02:42:ac:11:00:02"
            (eth0,) = json.loads(one.sh("ip -j addr show eth0"))
            assert eth0["address"] == endpoint.mac
            assert [a["local"] for a in eth0["addr_info"]] == ["172.17.0.2"]
            assert one.sh("ip route show default").split()[:3] == ["default", "via", "172.17.0.1"]
            assert (await net.get("bridge")).endpoints == {"a" * 64: endpoint}
        await net.detach("a" * 64)
        await net.detach("a" * 64)
        await until(lambda: link_names() == {"lo", "corral0"})
        assert "172.17.0.2" not in sh("nft list ruleset")
        assert not (await net.get("bridge")).endpoints
    assert link_names() == {"lo"}
    assert sh("nft list ruleset") == ""


@on_new_host
async def test_a_namespace_that_outlives_its_container_loses_its_link(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(1) as (one,):
            await net.attach("a" * 64, one.pid, BRIDGE, (), hostname="h", name="one")
            await net.detach("a" * 64)
            await until(lambda: link_names() == {"lo", "corral0"})


@on_new_host
async def test_none_brings_up_loopback_only(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(1) as (one,):
            attachment = await net.attach("a" * 64, one.pid, [EndpointRequest("none")], (), hostname="h", name="one")
            assert attachment.endpoints == ()
            assert [link["ifname"] for link in json.loads(one.sh("ip -j link show up"))] == ["lo"]
            await net.detach("a" * 64)


@on_new_host
async def test_published_ports_from_everywhere(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(3) as (web, other, client):
            outside(client)
            ports = [PortBinding("tcp", 80, "", 8080), PortBinding("tcp", 80)]
            attachment = await net.attach("a" * 64, web.pid, BRIDGE, ports, hostname="h", name="web")
            await net.attach("b" * 64, other.pid, BRIDGE, (), hostname="h", name="other")
            assert [(p.host_ip, p.host_port) for p in attachment.ports[:2]] == [("0.0.0.0", 8080), ("::", 8080)]
            chosen = attachment.ports[2].host_port
            assert 32768 <= chosen <= 60999
            async with await serve_peer_address(web, 80):
                assert await ask(None, "127.0.0.1", 8080) == "172.17.0.1"
                assert await ask(None, "127.0.0.1", chosen) == "172.17.0.1"
                assert await ask(None, "::1", 8080) == "172.17.0.1"
                assert await ask(None, "10.9.0.1", 8080) == "10.9.0.1"
                assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"  # the client's own address arrives
                assert await ask(other, "172.17.0.1", 8080) == "172.17.0.3"
                assert await ask(other, "172.17.0.2", 80) == "172.17.0.3"
                assert await ask(web, "172.17.0.1", 8080) == "172.17.0.1"
                assert await ask(web, "10.9.0.1", 8080) == "172.17.0.1"
            await net.detach("a" * 64)
            assert await refused(None, "127.0.0.1", 8080)
            assert await refused(client, "10.9.0.1", 8080)


@on_new_host
async def test_own_ports_without_the_proxy(tmp_path: Path) -> None:
    async with networks(tmp_path, NetworkSettings(userland_proxy=False)) as net:
        with spaces(1) as (web,):
            await net.attach("a" * 64, web.pid, BRIDGE, [PortBinding("tcp", 80, "", 8080)], hostname="h", name="web")
            async with await serve_peer_address(web, 80):
                assert await ask(web, "172.17.0.1", 8080) == "172.17.0.1"
                assert await ask(None, "127.0.0.1", 8080) == "172.17.0.1"
            await net.detach("a" * 64)


@on_new_host
async def test_a_port_on_loopback_stays_on_loopback(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(2) as (web, client):
            outside(client)
            client.sh("ip route add 172.17.0.0/16 via 10.9.0.1")
            client.sh("ip route add 127.0.0.5/32 via 10.9.0.1")
            ports = [PortBinding("tcp", 80, "127.0.0.1", 8080)]
            await net.attach("a" * 64, web.pid, BRIDGE, ports, hostname="h", name="web")
            async with await serve_peer_address(web, 80):
                assert await ask(None, "127.0.0.1", 8080) == "172.17.0.1"
                assert await refused(client, "10.9.0.1", 8080)
                assert await refused(client, "172.17.0.2", 80)  # straight to the container, past the host's address
            await net.detach("a" * 64)


@on_new_host
async def test_udp_both_ways(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(1) as (one,):
            await net.attach("a" * 64, one.pid, BRIDGE, [PortBinding("udp", 53, "", 5353)], hostname="h", name="one")
            loop = asyncio.get_running_loop()
            with one.socket(socket.SOCK_DGRAM) as server:
                server.bind(("0.0.0.0", 53))
                for host in ("127.0.0.1", "::1"):
                    family = socket.AF_INET6 if ":" in host else socket.AF_INET
                    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
                        client.connect((host, 5353))
                        await loop.sock_sendall(client, b"ping")
                        async with asyncio.timeout(3):
                            data, address = await loop.sock_recvfrom(server, 100)
                            await loop.sock_sendto(server, data + b" pong", address)
                            assert await loop.sock_recv(client, 100) == b"ping pong"
            await net.detach("a" * 64)


@on_new_host
async def test_a_udp_client_that_never_pauses_finds_the_new_container(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        loop = asyncio.get_running_loop()
        with spaces(3) as (old, new, machine):
            outside(machine)
            with machine.socket(socket.SOCK_DGRAM) as client:
                client.bind(("10.9.0.2", 4000))
                for number, space in enumerate((old, new)):
                    port = [PortBinding("udp", 53, "", 5353)]
                    await net.attach(f"{number}" * 64, space.pid, BRIDGE, port, hostname="h", name="dns")
                    with space.socket(socket.SOCK_DGRAM) as server:
                        server.bind(("0.0.0.0", 53))
                        await loop.sock_sendto(client, b"ping", ("10.9.0.1", 5353))
                        async with asyncio.timeout(3):
                            assert (await loop.sock_recvfrom(server, 100))[1][0] == "10.9.0.2"
                    await net.detach(f"{number}" * 64)
                    await loop.sock_sendto(client, b"ping", ("10.9.0.1", 5353))  # a flow to the host itself begins


@on_new_host
async def test_the_settings_of_the_default_bridge(tmp_path: Path) -> None:
    settings = NetworkSettings(
        bridge="own0", bip="10.8.0.1/24", fixed_cidr="10.8.0.128/25", default_gateway="10.8.0.9", mtu=1400
    )
    async with networks(tmp_path, settings) as net:
        with spaces(1) as (one,):
            (endpoint,) = (await net.attach("a" * 64, one.pid, BRIDGE, (), hostname="h", name="one")).endpoints
            assert endpoint.ipv4 == "10.8.0.128"
            assert endpoint.gateway == "10.8.0.9"
            assert "10.8.0.1/24" in sh("ip addr show own0")
            assert json.loads(one.sh("ip -j link show eth0"))[0]["mtu"] == 1400
            await net.detach("a" * 64)


@on_new_host
async def test_an_administrators_bridge_is_used_as_it_is(tmp_path: Path) -> None:
    sh("ip link add own0 type bridge")
    sh("ip addr add 10.7.0.1/24 dev own0")
    for _ in range(2):
        async with networks(tmp_path, NetworkSettings(bridge="own0")) as net:
            with spaces(1) as (one,):
                (endpoint,) = (await net.attach("a" * 64, one.pid, BRIDGE, (), hostname="h", name="one")).endpoints
                assert (endpoint.ipv4, endpoint.gateway) == ("10.7.0.2", "10.7.0.1")
                await net.detach("a" * 64)
            assert len(sh("ip -4 -o addr show own0").splitlines()) == 1
            with open("/proc/sys/net/ipv6/conf/own0/accept_ra") as file:
                assert file.read() == "0\n"
    assert link_names() == {"lo", "own0"}


@on_new_host
async def test_outbound_traffic_has_the_hosts_address(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(2) as (one, machine):
            outside(machine)
            await net.attach("a" * 64, one.pid, BRIDGE, (), hostname="h", name="one")
            async with await serve_peer_address(machine, 80):
                assert await ask(one, "10.9.0.2", 80) == "10.9.0.1"
            await net.detach("a" * 64)


@on_new_host
async def test_a_taken_port_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(2) as (one, two), socket.create_server(("0.0.0.0", 8080)):
            with pytest.raises(PortsFailed) as caught:
                await net.attach("a" * 64, one.pid, BRIDGE, [PortBinding("tcp", 80, "", 8080)], hostname="h", name="w")
            text = str(caught.value)
            assert text.startswith("driver failed programming external connectivity on endpoint w (")
            assert text.endswith("failed to bind host port for 0.0.0.0:8080:172.17.0.2:80/tcp: address already in use")
            assert link_names() == {"lo", "corral0"}
            ports = [PortBinding("tcp", 80, "", 8081), PortBinding("tcp", 81, "", 8082)]
            first = await net.attach("a" * 64, one.pid, BRIDGE, ports, hostname="h", name="w")
            with pytest.raises(PortsFailed, match=r"Bind for 0\.0\.0\.0:8082 failed: port is already allocated"):
                again = [PortBinding("tcp", 80, "", 8090), PortBinding("tcp", 80, "", 8082)]
                await net.attach("b" * 64, two.pid, BRIDGE, again, hostname="h", name="x")
            ranged = [PortBinding("tcp", 80, "", 8080, 8090)]
            second = await net.attach("b" * 64, two.pid, BRIDGE, ranged, hostname="h", name="x")
            assert second.ports[0].host_port == 8083
            assert first.endpoints[0].ipv4 != second.endpoints[0].ipv4
            await net.detach("a" * 64)
            await net.detach("b" * 64)


@on_new_host
async def test_bad_requests_change_nothing(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        before = sh("nft list ruleset")
        with spaces(1) as (one,):
            bad_ports = [
                PortBinding("icmp", 80),
                PortBinding("tcp", 0),
                PortBinding("tcp", 80, "300.0.0.1", 80),
                PortBinding("tcp", 80, "203.0.113.7", 80),
                PortBinding("tcp", 80, "", 70000),
            ]
            for port in bad_ports:
                with pytest.raises(CorralError):
                    await net.attach("a" * 64, one.pid, BRIDGE, [port], hostname="h", name="one")
            bad_requests = [
                EndpointRequest("nowhere"),
                EndpointRequest("bridge", ipv4="172.17.0.9"),
                EndpointRequest("bridge", mac="01:02:03:04:05:06"),
                EndpointRequest("bridge", mac="hello"),
            ]
            for request in bad_requests:
                with pytest.raises(CorralError):
                    await net.attach("a" * 64, one.pid, [request], (), hostname="h", name="one")
        with pytest.raises(SandboxFailed):
            await net.attach("a" * 64, one.pid, BRIDGE, (), hostname="h", name="one")  # the process is gone
        assert sh("nft list ruleset") == before
        assert link_names() == {"lo", "corral0"}


@on_new_host
async def test_a_container_cannot_speak_as_another(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(3) as (web, honest, thief):
            for number, space in enumerate((web, honest, thief)):
                await net.attach(f"{number}" * 64, space.pid, BRIDGE, (), hostname="h", name=f"c{number}")
            async with await serve_peer_address(web, 80):
                assert await ask(thief, "172.17.0.2", 80) == "172.17.0.4"
                thief.sh("ip addr flush dev eth0")
                thief.sh("ip addr add 172.17.0.3/16 dev eth0")
                assert await refused(thief, "172.17.0.2", 80)
                thief.sh("ip addr flush dev eth0")
                thief.sh("ip addr add 172.17.9.9/16 dev eth0")  # nobody's: a virtual address of its own is fine
                assert await ask(thief, "172.17.0.2", 80) == "172.17.9.9"
                assert await ask(honest, "172.17.0.2", 80) == "172.17.0.3"


@on_new_host
async def test_a_bridge_deleted_by_hand_comes_back(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(1) as (one,):
            sh("ip link del corral0")
            await net.attach("a" * 64, one.pid, BRIDGE, [PortBinding("tcp", 80, "", 8080)], hostname="h", name="one")
            async with await serve_peer_address(one, 80):
                assert await ask(None, "127.0.0.1", 8080) == "172.17.0.1"
            await net.detach("a" * 64)


@on_new_host
async def test_a_new_daemon_takes_over_what_lives(tmp_path: Path) -> None:
    db = Database(str(tmp_path / "db"))
    with spaces(2) as (web, gone):
        first = Networks(db, NetworkSettings())
        await first.open({})
        held = await first.attach("a" * 64, web.pid, BRIDGE, [PortBinding("tcp", 80, "", 80)], hostname="h", name="web")
        await first.attach("b" * 64, gone.pid, BRIDGE, [PortBinding("tcp", 80, "", 81)], hostname="h", name="gone")
        await first.close(keep=True)
        async with await serve_peer_address(web, 80):
            assert await ask(None, "127.0.0.1", 80) == "172.17.0.1"  # the kernel carries on without us
            second = Networks(db, NetworkSettings())
            await second.open({"a" * 64: (web.pid, held.endpoints, held.ports)})
            assert await ask(None, "127.0.0.1", 80) == "172.17.0.1"
            assert await ask(None, "::1", 80) == "172.17.0.1"
        assert len([name for name in link_names() if name.startswith("veth")]) == 1
        with spaces(1) as (new,):
            fresh = await second.attach("c" * 64, new.pid, BRIDGE, (), hostname="h", name="new")
            assert fresh.endpoints[0].ipv4 == "172.17.0.3"
            await second.detach("c" * 64)
        await second.detach("a" * 64)
        assert await refused(None, "127.0.0.1", 80)
        await second.close(keep=False)
    db.close()


@on_new_host
async def test_a_flushed_packet_filter_heals(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(1) as (web,):
            await net.attach("a" * 64, web.pid, BRIDGE, [PortBinding("tcp", 80, "", 8080)], hostname="h", name="web")
            before = sh("nft list ruleset")
            for command in ("nft flush ruleset", "nft flush chain inet corral ports", "nft delete table bridge corral"):
                sh(command)
                await until(lambda: sh("nft list ruleset") == before, 1.0)
            sh("nft flush ruleset")
            await net.detach("a" * 64)  # not healed yet: that is no error
            await until(lambda: "chain ports" in sh("nft list ruleset"), 1.0)
            sh("nft add table ip other")
            await net.attach("a" * 64, web.pid, BRIDGE, (), hostname="h", name="web")
            assert "table ip other" in sh("nft list ruleset")
            sh("nft delete table ip other")


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
@on_new_host
async def test_a_host_that_drops_what_it_forwards(tmp_path: Path, flavour: str) -> None:
    sh(f"iptables-{flavour} -P FORWARD DROP")
    async with networks(tmp_path) as net:
        with spaces(2) as (web, client):
            outside(client)
            await net.attach("a" * 64, web.pid, BRIDGE, [PortBinding("tcp", 80, "", 8080)], hostname="h", name="web")
            async with await serve_peer_address(web, 80), await serve_peer_address(client, 81):
                assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"
                assert await ask(web, "10.9.0.2", 81) == "10.9.0.1"
                assert await refused(client, "172.17.0.2", 80)
            await net.detach("a" * 64)
    assert sh(f"iptables-{flavour} -S FORWARD").split("\n") == ["-P FORWARD DROP", ""]


@on_new_host
async def test_a_firewall_that_starts_dropping_later(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        with spaces(2) as (web, client):
            outside(client)
            await net.attach("a" * 64, web.pid, BRIDGE, [PortBinding("tcp", 80, "", 8080)], hostname="h", name="web")
            sh("iptables-nft -P FORWARD DROP")
            await until(lambda: "containers of corral" in sh("iptables-nft -S FORWARD"), 2.0)
            await until(lambda: "meta mark set" in sh("nft list chain inet corral allow"), 2.0)
            async with await serve_peer_address(web, 80):
                assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"
            await net.detach("a" * 64)


@on_new_host
async def test_two_daemons_side_by_side(tmp_path: Path) -> None:
    (tmp_path / "2").mkdir()
    other = NetworkSettings(bridge="second0", table="second")
    async with networks(tmp_path) as net, networks(tmp_path / "2", other) as net2:
        with spaces(2) as (one, two):
            a = await net.attach("a" * 64, one.pid, BRIDGE, [PortBinding("tcp", 80, "", 81)], hostname="h", name="w")
            b = await net2.attach("a" * 64, two.pid, BRIDGE, [PortBinding("tcp", 80, "", 82)], hostname="h", name="w")
            assert (a.endpoints[0].ipv4, b.endpoints[0].ipv4) == ("172.17.0.2", "172.18.0.2")
            async with await serve_peer_address(one, 80), await serve_peer_address(two, 80):
                assert await ask(None, "127.0.0.1", 81) == "172.17.0.1"
                assert await ask(None, "127.0.0.1", 82) == "172.18.0.1"
                assert await refused(one, "172.18.0.2", 80)
                assert await ask(one, "172.18.0.1", 82) == "172.18.0.1"
