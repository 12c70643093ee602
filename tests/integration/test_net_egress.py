"""Egress lists on a real kernel: what gets out, who decides, and what happens when somebody flushes the rules."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError
from corral.net import dnswire
from corral.net.model import PoolRecord
from corral.net.networks import EndpointRequest, Networks, NetworkSettings, NetworkSpec, PortBinding
from corral.net.nft import Nft
from corral.net.refusals import Refusal
from corral.store.db import Database
from tests.integration.test_net_bridge import networks, outside
from tests.integration.test_net_user import query
from tests.support.netns import Space, ask, needs_root, on_new_host, refused, serve_peer_address, sh, spaces, until

pytestmark = needs_root

A, B = "a" * 64, "b" * 64
UPSTREAM = "127.0.0.53"


def settings(path: Path, **more: Any) -> NetworkSettings:
    return NetworkSettings(exec_root=str(path), **more)


@contextlib.asynccontextmanager
async def name_server(names: dict[str, Sequence[str]], ttl_s: int = 60) -> AsyncIterator[list[str]]:
    """A DNS server at UPSTREAM; the names it was asked for."""
    loop, asked = asyncio.get_running_loop(), list[str]()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as upstream:
        upstream.bind((UPSTREAM, 53))

        def answer() -> None:
            message, client = upstream.recvfrom(4096)
            parsed = dnswire.parse(message)
            asked.append(parsed.name)
            version = {dnswire.A: 4, dnswire.AAAA: 6}.get(parsed.type)
            found = [ip_address(text) for text in names.get(parsed.name, ()) if ip_address(text).version == version]
            reply = dnswire.answer(parsed, found, code=dnswire.NOERROR if parsed.name in names else dnswire.NXDOMAIN)
            upstream.sendto(reply.replace(b"\0\0\x02\x58", ttl_s.to_bytes(4, "big")), client)  # 600 s

        loop.add_reader(upstream, answer)
        try:
            yield asked
        finally:
            loop.remove_reader(upstream)


async def join(
    net: Networks, space: Space, name: str, egress: Sequence[str], *networks: str, ports: tuple[PortBinding, ...] = ()
) -> None:
    requests = [EndpointRequest(network, egress=bool(egress)) for network in networks or ("bridge",)]
    await net.attach(
        name[0] * 64,
        space.pid,
        requests,
        ports,
        hostname=name,
        name=name,
        upstream=(UPSTREAM,),
        egress_list=egress,
    )


@on_new_host
async def test_only_what_is_listed_gets_out(tmp_path: Path) -> None:
    async with networks(tmp_path, settings(tmp_path)) as net:
        told: list[tuple[str, Refusal]] = []
        net.on_refusal = lambda container_id, refusal: told.append((container_id, refusal))
        with spaces(4) as (a, b, c, machine):
            outside(machine)
            await join(net, a, "alpha", ["allow=10.9.0.2:80,172.17.0.3:80"], ports=(PortBinding("tcp", 90, "", 8090),))
            await join(net, b, "beta", [])
            await join(net, c, "gamma", [])
            async with (
                await serve_peer_address(machine, 80),
                await serve_peer_address(machine, 81),
                await serve_peer_address(a, 90),
                await serve_peer_address(b, 80),
                await serve_peer_address(b, 81),
                await serve_peer_address(c, 80),
                await serve_peer_address(None, 7000, "172.17.0.1"),
            ):
                assert await ask(a, "10.9.0.2", 80) == "10.9.0.1"
                assert await ask(a, "172.17.0.3", 80) == "172.17.0.2"  # a neighbour, by address
                assert await ask(c, "172.17.0.2", 90) == "172.17.0.4"  # who asks it is answered
                assert await ask(machine, "10.9.0.1", 8090) == "10.9.0.2"
                assert await ask(None, "172.17.0.2", 90) == "172.17.0.1"
                for address, port in (("10.9.0.2", 81), ("172.17.0.3", 81), ("172.17.0.4", 80), ("172.17.0.1", 7000)):
                    with pytest.raises(ConnectionRefusedError):
                        await ask(a, address, port)
                    await until(lambda at=(address, port): at in [(r.address, r.port) for _, r in told])  # type: ignore[misc]
                assert {(container_id, refusal.proto) for container_id, refusal in told} == {(A, "tcp")}
                assert await ask(b, "172.17.0.4", 80) == "172.17.0.3"  # the others are as before
                assert await ask(b, "10.9.0.2", 81) == "10.9.0.1"
            await net.detach(A)
            assert "egress" not in sh("nft list tables")


@on_new_host
async def test_names_are_let_through_before_they_are_answered(tmp_path: Path) -> None:
    async with networks(tmp_path, settings(tmp_path)) as net:
        told: list[Refusal] = []
        net.on_refusal = lambda _, refusal: told.append(refusal)
        await net.create(NetworkSpec("app"))
        names = {"good.example": ["10.9.0.2"], "x.wild.example": ["10.9.0.2"], "bad.example": ["10.9.0.2"]}
        names["here.wild.example"] = ["172.18.0.3", "127.0.0.1"]
        with spaces(3) as (a, b, machine):
            outside(machine)
            await join(net, a, "alpha", ["allow=good.example:80,*.wild.example:81", "allow=beta:82"], "app")
            await join(net, b, "beta", [], "app")
            async with (
                name_server(names) as asked,
                await serve_peer_address(machine, 80),
                await serve_peer_address(machine, 81),
                await serve_peer_address(b, 81),
                await serve_peer_address(b, 82),
            ):
                assert await refused(a, "10.9.0.2", 80)
                assert await query(a, "good.example") == (dnswire.NOERROR, ["10.9.0.2"])
                assert await ask(a, "10.9.0.2", 80) == "10.9.0.1"
                assert await refused(a, "10.9.0.2", 81)
                assert await query(a, "x.wild.example") == (dnswire.NOERROR, ["10.9.0.2"])
                assert await ask(a, "10.9.0.2", 81) == "10.9.0.1"
                assert [entry[:3] for entry in net.resolved(A)] == [
                    ("good.example", "10.9.0.2", ":80"),
                    ("x.wild.example", "10.9.0.2", ":81"),
                ]
                assert all(60 < entry[3] <= 90 for entry in net.resolved(A))
                for name in ("bad.example", "wild.example", "2.0.0.127.in-addr.arpa"):
                    assert await query(a, name) == (dnswire.NXDOMAIN, [])
                assert sorted(asked) == ["good.example", "x.wild.example"]
                assert told[-1].proto == "dns"
                assert await query(a, "here.wild.example") == (dnswire.NOERROR, ["127.0.0.1", "172.18.0.3"])
                assert await refused(a, "172.18.0.3", 81)  # names of others do not lead to neighbours
                assert await query(a, "beta.app") == (dnswire.NOERROR, ["172.18.0.3"])
                assert await ask(a, "172.18.0.3", 82) == "172.18.0.2"
                await net.detach(B)
                assert [entry[0] for entry in net.resolved(A)] == ["good.example", "x.wild.example"]


@on_new_host
async def test_ipv6_and_several_networks_changed_while_it_runs(tmp_path: Path) -> None:
    async with networks(tmp_path, settings(tmp_path)) as net:
        for number, name in enumerate(("one", "two")):
            await net.create(NetworkSpec(name, ipv6=True, pools=(PoolRecord(f"fd00:{number}::/64"),)))
        with spaces(3) as (a, b, c):
            await join(net, a, "alpha", ["allow=[fd00:0::3]:80,fd00:1::/64"], "one")
            await join(net, b, "beta", [], "one")
            await join(net, c, "gamma", [], "two")
            async with (
                await serve_six(b, 80),
                await serve_six(b, 81),
                await serve_six(c, 80),
                await serve_six(a, 90),
            ):
                assert await ask(a, "fd00::3", 80) == "fd00::2"
                with pytest.raises(ConnectionRefusedError):
                    await ask(a, "fd00::3", 81)
                assert await ask(b, "fd00::2", 90) == "fd00::3"
                link_local = b.sh("ip -6 -o addr show dev eth0 scope link").split()[3].partition("/")[0]
                assert not reaches(a, f"{link_local}%eth0", 80)
                await net.connect(A, a.pid, EndpointRequest("two", egress=True), hostname="h", name="alpha")
                assert await ask(a, "fd00:1::2", 80) == "fd00:1::3"
                assert await refused(a, "172.19.0.2", 80)
                await net.disconnect(A, "one")
                assert await ask(a, "fd00:1::2", 80) == "fd00:1::3"
                a.sh("ip addr add fd00:1::99/64 dev eth1 nodad")
                assert not reaches(a, "fd00:1::2", 80, source="fd00:1::99")
                assert await ask(c, "fd00:1::3", 90) == "fd00:1::2"
            with pytest.raises(CorralError, match="cannot limit egress on network shut: the host does not route"):
                await net.create(
                    NetworkSpec(
                        "shut", internal=True, options={"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}
                    )
                )
                await net.connect(A, a.pid, EndpointRequest("shut", egress=True), hostname="h", name="alpha")


async def serve_six(space: Space, port: int) -> asyncio.Server:
    listening = space.socket(family=socket.AF_INET6)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("::", port))

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("peername")[0].encode())
        await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, sock=listening)


def reaches(space: Space, host: str, port: int, source: str = "") -> bool:
    """Whether a TCP connection is answered within a second."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with space.inside():
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    with space.socket(family=family) as client:
        client.settimeout(1)
        try:
            if source:
                client.bind((source, 0))
            client.connect(found)
        except OSError:
            return False
    return True


def mac(space: Space) -> str:
    return str(json.loads(space.sh("ip -j link show eth0"))[0]["address"])


def frames(sender: Space, receiver: Space, kind: bytes) -> int:
    """How many of a frame of some kind arrive, of which one was sent."""
    macs = [bytes.fromhex(mac(space).replace(":", "")) for space in (receiver, sender)]
    sockets = []
    for space in (sender, receiver):
        with space.inside():
            sockets.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)))
            sockets[-1].bind(("eth0", 0x0003))
    with sockets[0], sockets[1]:
        marks = [b"-first-", b"-last-"]
        sockets[0].send(b"".join([*macs, kind, marks[0] * 8]))
        control = socket.inet_aton("172.17.0.99")  # an ARP request, which passes: what was sent before it has come
        body = b"\0\1\x08\0\6\4\0\1" + macs[1] + control + b"\0" * 6 + control + marks[1]
        sockets[0].send(b"".join([*macs, b"\x08\x06", body]))
        sockets[1].settimeout(5)
        found = 0
        while marks[1] not in (frame := sockets[1].recv(2048)):
            found += marks[0] in frame
    return found


@on_new_host
async def test_a_container_that_owns_its_network_cannot_get_around_its_list(tmp_path: Path) -> None:
    async with networks(tmp_path, settings(tmp_path)) as net:
        with spaces(4) as (a, b, c, machine):
            outside(machine)
            await join(net, a, "alpha", ["none"])
            await join(net, b, "beta", [])
            await join(net, c, "gamma", [])
            neighbour = mac(b)
            async with await serve_peer_address(machine, 80), await serve_peer_address(b, 80):
                assert await ask(b, "10.9.0.2", 80) == "10.9.0.1"
                for address in ("10.9.0.2", "172.17.0.3"):
                    assert not reaches(a, address, 80)
                a.sh("ip addr add 172.17.0.77/16 dev eth0")  # an address of nobody
                for address in ("10.9.0.2", "172.17.0.3"):
                    assert not reaches(a, address, 80, source="172.17.0.77")
                a.sh(f"ip neigh replace 172.17.0.3 lladdr {neighbour} dev eth0")  # straight to the neighbour
                assert not reaches(a, "172.17.0.3", 80)
                tagged = b"\x81\x00\x00\x05\x08\x00"
                assert frames(c, b, tagged) == frames(c, b, b"\x88\xb5") == 1  # the others can
                assert frames(a, b, tagged) == frames(a, b, b"\x88\xb5") == 0
                a.sh("ip addr add 172.17.0.3/32 dev lo")
                assert not reaches(a, "10.9.0.2", 80, source="172.17.0.3")
                with a.socket(socket.SOCK_DGRAM) as mute:
                    mute.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    with b.socket(socket.SOCK_DGRAM) as ear:
                        ear.bind(("", 5353))
                        with contextlib.suppress(OSError):
                            mute.sendto(b"x", ("172.17.255.255", 5353))
                        assert not reaches(a, "172.17.0.3", 80)
                        with pytest.raises(BlockingIOError):
                            ear.recv(10)


@on_new_host
async def test_other_resolvers_are_refused(tmp_path: Path) -> None:
    async with networks(tmp_path, settings(tmp_path)) as net:
        with spaces(2) as (a, machine):
            outside(machine)
            for address in ("8.8.8.8", "9.9.9.9"):
                machine.sh(f"ip addr add {address}/32 dev lo")
                sh(f"ip route add {address} via 10.9.0.2")
            await join(net, a, "alpha", ["deny=10.9.0.2:444"])
            async with (
                await serve_peer_address(machine, 53),
                await serve_peer_address(machine, 443),
                await serve_peer_address(machine, 444),
                await serve_peer_address(machine, 853),
            ):
                assert await ask(a, "10.9.0.2", 443) == "10.9.0.1"  # all else is allowed
                for address, port in (("10.9.0.2", 444), ("10.9.0.2", 53), ("10.9.0.2", 853), ("8.8.8.8", 443)):
                    assert await refused(a, address, port)
                await net.change_egress(A, ["allow=8.8.8.8:443,0.0.0.0/0"])
                assert await ask(a, "8.8.8.8", 443) == "10.9.0.1"
                assert await refused(a, "9.9.9.9", 443)
                assert await refused(a, "10.9.0.2", 53)
                await net.change_egress(A, ["allow=10.9.0.2:53"])
                assert await ask(a, "10.9.0.2", 53) == "10.9.0.1"
                await net.change_egress(A, [])
                assert await ask(a, "9.9.9.9", 443) == "10.9.0.1"


@on_new_host
async def test_a_change_ends_what_it_forbids(tmp_path: Path) -> None:
    async with networks(tmp_path, settings(tmp_path)) as net:
        await net.create(NetworkSpec("app"))
        with spaces(2) as (a, machine):
            outside(machine)
            await join(net, a, "alpha", ["allow=good.example:80,also.example:80"], "app")
            loop, ended = asyncio.get_running_loop(), asyncio.Event()

            async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                for _ in range(2):
                    writer.write(await reader.read(100))
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(3):
                        assert await reader.read(100) == b""
                writer.transport.abort()
                ended.set()

            listening = machine.socket()
            listening.bind(("0.0.0.0", 80))
            names = {"good.example": ["10.9.0.2"]}
            async with name_server(names), await asyncio.start_server(echo, sock=listening):
                assert await query(a, "good.example") == (dnswire.NOERROR, ["10.9.0.2"])
                with a.socket() as client:
                    await loop.sock_connect(client, ("10.9.0.2", 80))

                    async def said(word: bytes) -> bytes:
                        await loop.sock_sendall(client, word)
                        async with asyncio.timeout(2):
                            return await loop.sock_recv(client, 100)

                    assert await said(b"one") == b"one"
                    await net.change_egress(A, ["allow=good.example:80"])
                    assert await said(b"two") == b"two"  # what is allowed still goes on
                    await net.change_egress(A, ["none"])
                    with pytest.raises((OSError, TimeoutError)):
                        await said(b"three")
                assert await query(a, "good.example") == (dnswire.NXDOMAIN, [])
                await ended.wait()


@on_new_host
async def test_lists_hold_when_the_rules_are_flushed_or_the_daemon_is_another(tmp_path: Path) -> None:
    db = Database(str(tmp_path / "db"))
    first = Networks(db, settings(tmp_path))
    await first.open({})
    with spaces(2) as (a, machine):
        outside(machine)
        async with (
            await serve_peer_address(machine, 80),
            await serve_peer_address(machine, 81),
            name_server({"good.example": ["10.9.0.2"]}),
        ):
            await join(first, a, "alpha", ["allow=good.example:80"])
            assert await query(a, "good.example") == (dnswire.NOERROR, ["10.9.0.2"])
            kept = (await first.get("bridge")).endpoints[A]
            for _ in range(3):
                sh("nft flush ruleset")
                assert not reaches(a, "10.9.0.2", 81)
            await until(lambda: "chain spoof" in sh("nft list ruleset"))
            assert await ask(a, "10.9.0.2", 80) == "10.9.0.1"
            assert await refused(a, "10.9.0.2", 81)
            await first.close(keep=True)
            assert reaches(a, "10.9.0.2", 80) and not reaches(a, "10.9.0.2", 81)
            second = Networks(db, settings(tmp_path))
            await second.open({A: (a.pid, (kept,), ())}, {A: ["allow=good.example:80"]})
            assert [entry[:2] for entry in second.resolved(A)] == [("good.example", "10.9.0.2")]
            assert await ask(a, "10.9.0.2", 80) == "10.9.0.1"
            assert await refused(a, "10.9.0.2", 81)
            sh("nft flush ruleset")
            assert not reaches(a, "10.9.0.2", 81)
            await until(lambda: "chain spoof" in sh("nft list ruleset"))
            assert await query(a, "good.example") == (dnswire.NOERROR, ["10.9.0.2"])
            await second.close(keep=False)
            assert "corral" not in sh("nft list tables")
    db.close()


@on_new_host
async def test_a_list_holds_on_a_bridge_that_somebody_deleted(tmp_path: Path) -> None:
    async with networks(tmp_path, settings(tmp_path)) as net:
        with spaces(2) as (a, b):
            sh("ip link del corral0")
            await join(net, a, "alpha", ["none"])
            await join(net, b, "beta", [])
            async with await serve_peer_address(b, 80):
                assert await ask(None, "172.17.0.3", 80) == "172.17.0.1"
                assert not reaches(a, "172.17.0.3", 80)
            with pytest.raises(CorralError, match="a port is a number"):
                await net.change_egress(B, ["allow=x:0"])
            assert await net.change_egress("c" * 64, ["none"]) is None


@on_new_host
async def test_without_a_packet_filter_there_are_no_lists(tmp_path: Path) -> None:
    async with networks(tmp_path, settings(tmp_path, packet_filter=False)) as net:
        with spaces(2) as (a, b):
            with pytest.raises(CorralError, match="does not use the packet filter"):
                await join(net, a, "alpha", ["none"])
            await join(net, b, "beta", [])
            with pytest.raises(CorralError, match="does not use the packet filter"):
                await net.change_egress(B, ["none"])
            assert (await net.get("bridge")).endpoints.keys() == {B}


@on_new_host
async def test_on_kernels_where_tables_belong_to_nobody_they_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Nft, "own", lambda self, family, table: False)
    async with networks(tmp_path, settings(tmp_path)) as net:
        with spaces(2) as (a, machine):
            outside(machine)
            await join(net, a, "alpha", ["allow=good.example"])
            assert "lets others flush the rules of egress lists" in caplog.text
            async with (
                name_server({"good.example": ["10.9.0.2"], "also.example": []}),
                await serve_peer_address(machine, 80),
            ):
                for _ in range(2):
                    sh("nft flush ruleset")
                    await until(lambda: "goto r_" in sh("nft list ruleset"))
                    assert not reaches(a, "10.9.0.2", 80)
                sh("nft delete table inet corral_egress")
                assert await query(a, "good.example") == (dnswire.NOERROR, ["10.9.0.2"])
                assert await ask(a, "10.9.0.2", 80) == "10.9.0.1"
                sh("nft delete table inet corral_egress")
                await net.change_egress(A, ["none"])
                assert not reaches(a, "10.9.0.2", 80)
                sh("nft delete table inet corral_egress")
                await net.detach(A)
                assert "egress" not in sh("nft list tables")
