"""Egress lists on a real kernel: what gets out, who decides, and what happens when somebody flushes the rules."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.net import dnswire
from corral.net.networks import EndpointRequest, Networks, NetworkSettings, NetworkSpec, PortBinding
from corral.net.refusals import Refusal
from corral.store.db import Database
from tests.integration.test_net_bridge import BRIDGE, networks, outside
from tests.integration.test_net_user import query
from tests.support.netns import Space, ask, needs_root, on_new_host, refused, serve_peer_address, sh, spaces, until

pytestmark = needs_root

A, B = "a" * 64, "b" * 64
UPSTREAM = "127.0.0.53"


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
    async with networks(tmp_path) as net:
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
    async with networks(tmp_path) as net:
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
