"""User-defined networks on a real kernel: names, isolation, connect and disconnect, gateways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import socket
import struct
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.net import dnswire
from corral.net.ipam import AddressInUse, AddressOutsidePool, PoolOverlaps
from corral.net.model import NetworkInUse, NetworkNameTaken, NoSuchNetwork, PoolRecord, PredefinedNetwork
from corral.net.networks import EndpointRequest, Networks, NetworkSettings, NetworkSpec, PortBinding
from corral.net.nft import Nft, NftMissing
from corral.store.db import Database
from tests.integration.test_net_bridge import BRIDGE, link_names, networks, outside
from tests.support.netns import Space, ask, needs_root, on_new_host, refused, serve_peer_address, sh, spaces

pytestmark = needs_root


def question(name: str, kind: int = dnswire.A) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 77, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


async def query(space: Space, name: str, kind: int = dnswire.A) -> tuple[int, list[str]]:
    """(code, addresses) that 127.0.0.11 gives to a process in `space`."""
    loop = asyncio.get_running_loop()
    with space.socket(socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.11", 53))
        await loop.sock_sendall(client, question(name, kind))
        async with asyncio.timeout(8):
            reply = await loop.sock_recv(client, 4096)
    assert reply[:2] == struct.pack("!H", 77)
    size = 4 if kind == dnswire.A else 16
    family = socket.AF_INET if kind == dnswire.A else socket.AF_INET6
    pattern = struct.pack("!HHH", 0xC00C, kind, 1) + b"...." + struct.pack("!H", size)
    found = re.findall(pattern.replace(b"....", b"[\\s\\S]{4}") + b"([\\s\\S]{%d})" % size, reply)
    return reply[3] & 0xF, sorted(socket.inet_ntop(family, address) for address in found)


async def join(net: Networks, space: Space, name: str, *requests: EndpointRequest, ports: tuple[PortBinding, ...] = ()):  # type: ignore[no-untyped-def]
    return await net.attach(name[0] * 64, space.pid, requests, ports, hostname=f"{name}-host", name=name)


@on_new_host
async def test_names_on_a_network(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        record = await net.create(NetworkSpec("app", ipv6=True))
        with spaces(3) as (a, b, c):
            one = await join(net, a, "alpha", EndpointRequest("app", aliases=("web",)))
            await join(net, b, "beta", EndpointRequest("app", aliases=("web",)))
            await join(net, c, "gamma", *BRIDGE)
            first, second = "172.18.0.2", "172.18.0.3"
            for name in ("alpha", "ALPHA", "a" * 12, "alpha-host", "alpha.app"):
                assert await query(b, name) == (dnswire.NOERROR, [first])
            assert await query(a, "web") == (dnswire.NOERROR, [first, second])
            assert await query(a, "beta", dnswire.AAAA) == (
                dnswire.NOERROR,
                [(await net.get("app")).endpoints["b" * 64].ipv6],
            )
            assert one.endpoints[0].ipv6.startswith("fd")
            assert record.bridge in link_names()
            code, _ = await query(a, "gamma")  # on another network: unknown here
            assert code != dnswire.NOERROR
            await net.rename("b" * 64, "delta")
            assert await query(a, "delta") == (dnswire.NOERROR, [second])
            assert (await query(a, "beta"))[0] != dnswire.NOERROR
            async with await serve_peer_address(b, 80, "172.18.0.3"):
                assert await ask(a, second, 80) == first
            await net.detach("b" * 64)
            assert (await query(a, "delta"))[0] != dnswire.NOERROR


@on_new_host
async def test_reverse_names_and_tcp(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        await net.create(NetworkSpec("app"))
        with spaces(1) as (a,):
            await join(net, a, "alpha", EndpointRequest("app"))
            loop = asyncio.get_running_loop()
            with a.socket() as client:
                async with asyncio.timeout(5):
                    await loop.sock_connect(client, ("127.0.0.11", 53))
                    message = question("2.0.18.172.in-addr.arpa", dnswire.PTR)
                    await loop.sock_sendall(client, struct.pack("!H", len(message)) + message)
                    reply = await loop.sock_recv(client, 4096)
            assert b"\5alpha\3app\0" in reply
            with a.socket(socket.SOCK_DGRAM) as taken:
                taken.bind(("0.0.0.0", 53))  # a name server of the container's own


@on_new_host
async def test_other_names_are_asked_upstream(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        await net.create(NetworkSpec("app"))
        await net.create(NetworkSpec("inner", internal=True))
        loop = asyncio.get_running_loop()
        with spaces(2) as (a, b), socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as upstream:
            upstream.bind(("127.0.0.53", 53))

            async def answer_one() -> None:
                message, client = await loop.sock_recvfrom(upstream, 4096)
                parsed = dnswire.parse(message)
                assert parsed.name == "example.org"
                await loop.sock_sendto(upstream, dnswire.answer(parsed, [dnswire.IPv4Address("192.0.2.1")]), client)

            answering = asyncio.create_task(answer_one())
            for name, space, network in (("alpha", a, "app"), ("beta", b, "inner")):
                await net.attach(
                    name[0] * 64,
                    space.pid,
                    [EndpointRequest(network)],
                    (),
                    hostname="h",
                    name=name,
                    upstream=("127.0.0.53",),
                )
            assert await query(a, "example.org") == (dnswire.NOERROR, ["192.0.2.1"])
            await answering
            assert (await query(b, "example.org"))[0] == dnswire.NXDOMAIN  # internal: nothing leaves


@on_new_host
async def test_networks_are_apart_and_internal_ones_are_closed(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        await net.create(NetworkSpec("app"))
        await net.create(NetworkSpec("quiet", options={"com.docker.network.bridge.enable_icc": "false"}))
        await net.create(NetworkSpec("inner", internal=True))
        with spaces(6) as (a, b, c, d, e, machine):
            outside(machine)
            await join(net, a, "alpha", EndpointRequest("app"), ports=(PortBinding("tcp", 80, "", 8080),))
            await join(net, b, "beta", EndpointRequest("quiet"))
            await join(net, c, "gamma", EndpointRequest("quiet"))
            await join(net, d, "delta", EndpointRequest("inner"))
            await join(net, e, "echo", EndpointRequest("inner"))
            async with (
                await serve_peer_address(a, 80),
                await serve_peer_address(c, 80),
                await serve_peer_address(e, 80),
                await serve_peer_address(machine, 80),
            ):
                assert await refused(b, "172.18.0.2", 80)  # another network
                assert await ask(b, "172.19.0.1", 8080) == "172.19.0.2"  # but by its published port
                assert await refused(b, "172.19.0.3", 80)  # icc is off
                assert await ask(d, "172.20.0.3", 80) == "172.20.0.2"
                assert await ask(b, "10.9.0.2", 80) == "10.9.0.1"
                assert await refused(d, "10.9.0.2", 80)
                assert d.sh("ip route show default") == ""


@on_new_host
async def test_connect_and_disconnect_a_running_container(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        await net.create(NetworkSpec("app"))
        await net.create(NetworkSpec("late", pools=(PoolRecord("10.77.0.0/24", "10.77.0.128/25", "10.77.0.1"),)))
        with spaces(2) as (a, b):
            await join(net, a, "alpha", EndpointRequest("app"), ports=(PortBinding("tcp", 80, "", 8080),))
            await join(net, b, "beta", EndpointRequest("late"))
            request = EndpointRequest("late", aliases=("x",), ipv4="10.77.0.9", gw_priority=5)
            now = await net.connect("a" * 64, a.pid, request, hostname="h", name="alpha")
            assert now is not None
            assert [e.interface for e in now.endpoints] == ["eth0", "eth1"]
            assert a.sh("ip route show default").split()[2] == "10.77.0.1"
            assert await query(b, "x") == (dnswire.NOERROR, ["10.77.0.9"])
            with pytest.raises(CorralError, match="endpoint with name alpha already exists in network late"):
                await net.connect("a" * 64, a.pid, request, hostname="h", name="alpha")
            async with await serve_peer_address(a, 80):
                assert await ask(None, "127.0.0.1", 8080) == "10.77.0.1"  # the port moved with the default route
                assert await ask(None, "::1", 8080) == "10.77.0.1"
                after = await net.disconnect("a" * 64, "late")
                assert [e.network_name for e in after.endpoints] == ["app"]
                assert a.sh("ip route show default").split()[2] == "172.18.0.1"
                assert await ask(None, "127.0.0.1", 8080) == "172.18.0.1"
                assert (await query(b, "x"))[0] != dnswire.NOERROR
                await net.disconnect("a" * 64, "app")
                assert await refused(None, "127.0.0.1", 8080)
                assert [link["ifname"] for link in json.loads(a.sh("ip -j link"))] == ["lo"]
                await net.connect("a" * 64, a.pid, EndpointRequest("bridge"), hostname="h", name="alpha")
                assert await ask(None, "127.0.0.1", 8080) == "172.17.0.1"
            with pytest.raises(CorralError, match="is not connected to network late"):
                await net.disconnect("a" * 64, "late")
            await net.detach("a" * 64)


@on_new_host
async def test_refusals(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        record = await net.create(NetworkSpec("app", pools=(PoolRecord("10.5.0.0/29"),)))
        refused_specs: list[tuple[NetworkSpec, type[CorralError]]] = [
            (NetworkSpec("app"), NetworkNameTaken),
            (NetworkSpec("bridge"), PredefinedNetwork),
            (NetworkSpec("over", pools=(PoolRecord("10.5.0.0/16"),)), PoolOverlaps),
            (NetworkSpec("b", pools=(PoolRecord("10.6.0.0/99"),)), CorralError),
            (NetworkSpec("b", pools=(PoolRecord("10.6.0.1/24"),)), CorralError),
            (NetworkSpec("b", pools=(PoolRecord("10.6.0.0/24", "10.7.0.0/25"),)), CorralError),
            (NetworkSpec("b", pools=(PoolRecord("10.6.0.0/24", "", "10.7.0.1"),)), CorralError),
            (NetworkSpec("b", driver="weave"), CorralError),
            (NetworkSpec("b", options={"com.docker.network.bridge.name": "a-name-that-is-long"}), CorralError),
            (NetworkSpec("b", options={"com.docker.network.bridge.name": "lo"}), CorralError),
            (NetworkSpec(""), CorralError),
            (NetworkSpec("../x"), CorralError),
        ]
        before = link_names()
        for spec, kind in refused_specs:
            with pytest.raises(kind):
                await net.create(spec)
        assert link_names() == before
        with spaces(2) as (a, b):
            await join(net, a, "alpha", EndpointRequest("app", ipv4="10.5.0.3"))
            with pytest.raises(AddressInUse):
                await join(net, b, "beta", EndpointRequest("app", ipv4="10.5.0.3"))
            with pytest.raises(AddressOutsidePool):
                await join(net, b, "beta", EndpointRequest("app", ipv4="10.6.0.3"))
            with pytest.raises(AddressOutsidePool):
                await net.check_request(EndpointRequest("app", ipv4="10.6.0.3"))
            with pytest.raises(NetworkInUse, match=r"network app id .* has active endpoints"):
                await net.remove("app")
            assert await net.prune(lambda _: False) == ()
            await net.detach("a" * 64)
        for name in ("bridge", "host", "none"):
            with pytest.raises(PredefinedNetwork, match="is a pre-defined network and cannot be removed"):
                await net.remove(name)
        await net.remove(record.id[:8])
        with pytest.raises(NoSuchNetwork, match="network app not found"):
            await net.get("app")
        assert record.bridge not in link_names()
        await net.create(NetworkSpec("again", pools=(PoolRecord("10.5.0.0/29"),)))
        assert await net.prune(lambda kept: kept.name != "again") == ("again",)


@on_new_host
async def test_an_exhausted_pool_and_its_recovery(tmp_path: Path) -> None:
    async with networks(tmp_path) as net:
        await net.create(NetworkSpec("tiny", pools=(PoolRecord("10.5.0.0/30"),)))
        with spaces(2) as (a, b):
            await join(net, a, "alpha", EndpointRequest("tiny"))
            with pytest.raises(CorralError, match="no available IPv4 addresses on this network's address pools: tiny"):
                await join(net, b, "beta", EndpointRequest("tiny"))
            await net.detach("a" * 64)
            await join(net, b, "beta", EndpointRequest("tiny"))
            await net.detach("b" * 64)


@on_new_host
async def test_networks_outlive_the_daemon(tmp_path: Path) -> None:
    db = Database(str(tmp_path / "db"))
    first = Networks(db, NetworkSettings())
    await first.open({})
    made = await first.create(NetworkSpec("app", labels={"a": "b"}, options={"com.docker.network.driver.mtu": "1400"}))
    with spaces(2) as (a, b):
        kept = await join(first, a, "alpha", EndpointRequest("app"))
        await first.close(keep=True)
        second = Networks(db, NetworkSettings())
        await second.open({"a" * 64: (a.pid, kept.endpoints, kept.ports)})
        assert (await second.get("app")).record == made
        assert json.loads(a.sh("ip -j link show eth0"))[0]["mtu"] == 1400
        await join(second, b, "beta", EndpointRequest("app"))
        assert await query(a, "beta") == (dnswire.NOERROR, ["172.18.0.3"])
        assert await query(b, "alpha") == (dnswire.NOERROR, ["172.18.0.2"])
        await second.close(keep=False)
    db.close()
    assert link_names() == {"lo"}


@on_new_host
async def test_more_descriptors_than_select_can_count(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("the limit of open files here is below 2,000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    try:
        async with networks(tmp_path) as net:
            await net.create(NetworkSpec("app"))
            with contextlib.ExitStack() as many, spaces(1) as (a,):
                for _ in range(1100):
                    many.callback(os.close, os.dup(0))
                await join(net, a, "alpha", EndpointRequest("app"), ports=(PortBinding("tcp", 80, "", 8080),))
                assert await query(a, "alpha") == (dnswire.NOERROR, ["172.18.0.2"])
                with pytest.raises(NftMissing):
                    Nft()
                await net.detach("a" * 64)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@on_new_host
async def test_ipv6_from_end_to_end(tmp_path: Path) -> None:
    async with networks(tmp_path, NetworkSettings(ipv6=True, fixed_cidr_v6="fd00:7::/64")) as net:
        with spaces(2) as (web, machine):
            outside(machine)
            sh("ip addr add fd00:9::1/64 dev out0 nodad")
            machine.sh("ip addr add fd00:9::2/64 dev eth0 nodad")
            ports = (PortBinding("tcp", 80, "", 8080),)
            attachment = await join(net, web, "web", *BRIDGE, ports=ports)
            (endpoint,) = attachment.endpoints
            assert (endpoint.ipv6, endpoint.prefix6, endpoint.gateway6) == ("fd00:7::2", 64, "fd00:7::1")
            assert web.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_dad") == "0\n"  # else two seconds of silence
            with web.socket(family=socket.AF_INET6) as listening:
                listening.bind(("::", 80))
                listening.listen()
                for source, host in ((machine, "fd00:9::1"), (None, "::1"), (machine, "10.9.0.1")):
                    asking = asyncio.create_task(ask(source, host, 8080, 30))
                    async with asyncio.timeout(30):
                        client, address = await asyncio.get_running_loop().sock_accept(listening)
                    client.close()
                    assert await asking == ""
                    if host == "fd00:9::1":
                        assert address[0] == "fd00:9::2"
            await net.detach("w" * 64)
