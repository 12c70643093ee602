"""Published ports behind the host's own input rules, on a real kernel with real firewalls."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral.net.networks import Networks, NetworkSettings, PortBinding
from tests.integration.test_net_bridge import BRIDGE, networks, outside
from tests.support.netns import Space, ask, needs_root, on_new_host, refused, serve_peer_address, sh, spaces, until

pytestmark = needs_root

SCREENED = NetworkSettings(host_firewall=True)
PORTS = [PortBinding("tcp", 80, "", 8080), PortBinding("udp", 53, "", 5353), PortBinding("tcp", 80, "10.9.0.1", 8081)]


@contextlib.asynccontextmanager
async def published(path: Path, web: Space) -> AsyncIterator[Networks]:
    """Networks with a container whose ports 8080, 5353/udp and 10.9.0.1:8081 are published, that serves port 80."""
    async with networks(path, SCREENED) as net:
        await net.attach("a" * 64, web.pid, BRIDGE, PORTS, hostname="h", name="web")
        async with await serve_peer_address(web, 80):
            yield net
        await net.detach("a" * 64)


FIREWALLS = {
    "nft": (
        "nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; policy drop; };"
        " add rule inet fw in iifname lo accept; add rule inet fw in ct state established accept'",
        "nft insert rule inet fw in tcp dport { 8080, 8081 } ct state new accept",
        "nft flush ruleset",
    ),
    "iptables-nft": (
        "iptables-nft -P INPUT DROP; iptables-nft -A INPUT -i lo -j ACCEPT;"
        " iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "iptables-nft -I INPUT -p tcp --dport 8080:8081 -j ACCEPT",
        "nft delete table ip filter",
    ),
    "iptables-legacy": (
        "iptables-legacy -P INPUT DROP; iptables-legacy -A INPUT -i lo -j ACCEPT;"
        " iptables-legacy -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "iptables-legacy -I INPUT -p tcp -m conntrack --ctstate NEW -m multiport --dports 8080,8081 -j ACCEPT",
        "iptables-legacy -F; iptables-legacy -P INPUT ACCEPT",
    ),
}


@pytest.mark.parametrize("firewall", FIREWALLS)
@on_new_host
async def test_a_port_is_open_when_the_input_rules_are(tmp_path: Path, firewall: str) -> None:
    close, let, lift = FIREWALLS[firewall]
    with spaces(3) as (web, client, neighbour):
        outside(client)
        async with published(tmp_path, web) as net:
            await net.attach("b" * 64, neighbour.pid, BRIDGE, (), hostname="n", name="neighbour")
            assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"
            sh(close)
            assert await refused(client, "10.9.0.1", 8080)
            assert await refused(client, "10.9.0.1", 8081)
            assert await ask(None, "127.0.0.1", 8080) == "172.17.0.1"
            assert await ask(None, "10.9.0.1", 8080) == "10.9.0.1"
            assert await ask(neighbour, "172.17.0.2", 80) == "172.17.0.3"
            assert await ask(neighbour, "10.9.0.1", 8080) == "172.17.0.3"
            sh(let)
            assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"
            assert await ask(client, "10.9.0.1", 8081) == "10.9.0.2"
            sh(lift)
            await until(lambda: "chain screen" in sh("nft list ruleset"), 2.0)
            assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"
            await net.detach("b" * 64)


@on_new_host
async def test_a_source_that_the_firewall_allows_and_one_that_it_does_not(tmp_path: Path) -> None:
    with spaces(2) as (web, client):
        outside(client)
        client.sh("ip addr add 10.9.0.3/24 dev eth0")
        sh(FIREWALLS["nft"][0])
        sh("nft insert rule inet fw in ip saddr 10.9.0.3 udp dport 5353 accept")
        async with published(tmp_path, web):
            server = web.socket(socket.SOCK_DGRAM)
            server.bind(("0.0.0.0", 53))
            with server, client.socket(socket.SOCK_DGRAM) as denied, client.socket(socket.SOCK_DGRAM) as allowed:
                denied.bind(("10.9.0.2", 4000))
                allowed.bind(("10.9.0.3", 4000))
                loop = asyncio.get_running_loop()
                for size in (9, 5000):  # the second one comes in fragments, and the kernel has no connection for it yet
                    denied.sendto(b"d" * size, ("10.9.0.1", 5353))
                    allowed.sendto(b"a" * size, ("10.9.0.1", 5353))
                    async with asyncio.timeout(5):
                        assert await loop.sock_recvfrom(server, 9000) == (b"a" * size, ("10.9.0.3", 4000))
                        await loop.sock_sendto(server, b"answer", ("10.9.0.3", 4000))
                        assert await loop.sock_recvfrom(allowed, 100) == (b"answer", ("10.9.0.1", 5353))
                    sh("conntrack -D -p udp >/dev/null 2>&1 || true")


@on_new_host
async def test_ipv6(tmp_path: Path) -> None:
    settings = NetworkSettings(host_firewall=True, ipv6=True, fixed_cidr_v6="fd00:17::/64")
    with spaces(2) as (web, client):
        outside(client)
        sh("ip -6 addr add fd00:9::1/64 dev out0 nodad")
        client.sh("ip -6 addr add fd00:9::2/64 dev eth0 nodad")
        sh(FIREWALLS["nft"][0])
        sh("nft add rule inet fw in meta l4proto ipv6-icmp accept")
        async with networks(tmp_path, settings) as net:
            await net.attach("a" * 64, web.pid, BRIDGE, PORTS, hostname="h", name="web")
            async with await serve_peer_address(web, 80, "::"):
                assert await refused(client, "fd00:9::1", 8080)
                sh(FIREWALLS["nft"][1])
                assert await ask(client, "fd00:9::1", 8080) == "fd00:9::2"
            await net.detach("a" * 64)


@on_new_host
async def test_without_a_daemon_a_connection_begins_with_the_clients_second_try(tmp_path: Path) -> None:
    with spaces(2) as (web, client):
        outside(client)
        async with published(tmp_path, web) as net:
            assert net.core.filter.group is not None
            net.core.filter.group = None  # nobody listens
            net.core.install()
            with client.socket() as connection:
                await asyncio.wait_for(asyncio.get_running_loop().sock_connect(connection, ("10.9.0.1", 8080)), 10)
