"""The embedded server's answers, over loopback sockets: no namespace, no root."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from ipaddress import IPv4Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.net import dnswire
from corral.net.directory import Directory
from corral.net.dns import Dns, Server
from corral.net.model import Endpoint


def endpoint(number: int, *names: str, ipv6: str = "", links: tuple[tuple[str, str], ...] = ()) -> Endpoint:
    address = f"10.0.0.{number}"
    return Endpoint("n" * 64, "app", f"{number}" * 64, address, 24, "10.0.0.1", ipv6=ipv6, dns_names=names, links=links)


def message(name: str, kind: int = dnswire.A, opcode: int = 0) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    header = struct.pack("!HHHHHH", 9, 0x0100 | opcode << 11, 1, 0, 0, 0)
    return header + labels + b"\0" + struct.pack("!HH", kind, 1)


def code_and_count(reply: bytes | None) -> tuple[int, int]:
    assert reply is not None
    return reply[3] & 0xF, struct.unpack_from("!H", reply, 6)[0]


def directory() -> Directory:
    made = Directory()
    made.add_network("n" * 64, "app", (ip_network("10.0.0.0/24"),))
    for each in (endpoint(2, "a", "web"), endpoint(3, "b", "web", ipv6="fd00::3")):
        made.add(each)
    return made


async def with_server(test: Callable[[Dns, Server], Coroutine[None, None, None]], port: int = 53) -> None:
    """Run a test with a server on loopback."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    udp.bind(("127.0.0.1", 0))
    tcp = socket.create_server(("127.0.0.1", 0))
    tcp.setblocking(False)
    linked = (("b", "linked"),)
    server = Server(udp, tcp, (endpoint(2, "a", "web", links=linked),), ("127.0.0.1",))
    served = Dns(directory(), port=port)
    served.add(server)
    try:
        await test(served, server)
    finally:
        served.remove(server)


def test_answers_from_our_networks() -> None:
    async def check(served: Dns, server: Server) -> None:
        def resolve(name: str, kind: int = dnswire.A) -> bytes | None:
            return served.resolve(server, dnswire.parse(message(name, kind)))

        assert code_and_count(resolve("web")) == (dnswire.NOERROR, 2)
        assert code_and_count(resolve("a.app")) == (dnswire.NOERROR, 1)
        assert code_and_count(resolve("linked")) == (dnswire.NOERROR, 1)
        assert code_and_count(resolve("b", dnswire.AAAA)) == (dnswire.NOERROR, 1)
        assert code_and_count(resolve("a", dnswire.AAAA)) == (dnswire.NOERROR, 0)  # ours, so nobody else is asked
        assert code_and_count(resolve("a", 15)) == (dnswire.NOERROR, 0)
        assert resolve("example.org") is None
        assert resolve("a.other") is None
        assert code_and_count(resolve("3.0.0.10.in-addr.arpa", dnswire.PTR)) == (dnswire.NOERROR, 1)
        assert code_and_count(resolve("77.0.0.10.in-addr.arpa", dnswire.PTR)) == (dnswire.NXDOMAIN, 0)
        assert resolve("8.8.8.8.in-addr.arpa", dnswire.PTR) is None
        first = {bytes(resolve("web") or b"")[-4:] for _ in range(50)}
        assert len(first) == 2  # the order changes

    asyncio.run(with_server(check))


def test_malformed_and_strange_queries_get_an_answer() -> None:
    async def check(served: Dns, server: Server) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect(server.udp.getsockname())
            for sent, code in (
                (message("a")[:-4], dnswire.FORMERR),
                (message("a", opcode=2), dnswire.NOTIMP),
                (message("a"), dnswire.NOERROR),
            ):
                client.send(b"short")  # gets none, and does no harm
                client.send(sent)
                async with asyncio.timeout(3):
                    reply = await loop.sock_recv(client, 512)
                assert reply[:2] == b"\0\x09"
                assert reply[3] & 0xF == code

    asyncio.run(with_server(check))


@pytest.mark.parametrize("silent", [True, False])
def test_upstream_answers_and_failures(silent: bool) -> None:
    upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    upstream.bind(("127.0.0.1", 0))
    port = upstream.getsockname()[1]
    if silent:
        upstream.close()  # nobody there: the kernel says so at once

    async def check(served: Dns, server: Server) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
            client.connect(server.udp.getsockname())
            client.send(message("example.org"))
            async with asyncio.timeout(3):
                if not silent:
                    asked, who = await loop.sock_recvfrom(upstream, 512)
                    query = dnswire.parse(asked)
                    forged = dnswire.with_id(dnswire.answer(query, []), query.id ^ 1)
                    await loop.sock_sendto(upstream, forged, who)
                    await loop.sock_sendto(upstream, dnswire.answer(query, [IPv4Address("192.0.2.1")]), who)
                reply = await loop.sock_recv(client, 512)
        assert reply[:2] == b"\0\x09"
        assert code_and_count(reply) == ((dnswire.SERVFAIL, 0) if silent else (dnswire.NOERROR, 1))

    try:
        asyncio.run(with_server(check, port))
    finally:
        upstream.close()


def test_tcp_carries_several_queries() -> None:
    async def check(served: Dns, server: Server) -> None:
        reader, writer = await asyncio.open_connection(*server.tcp.getsockname())
        for name in ("a", "b"):
            writer.write(struct.pack("!H", len(message(name))) + message(name))
            async with asyncio.timeout(3):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                assert code_and_count(await reader.readexactly(length)) == (dnswire.NOERROR, 1)
        writer.write(b"\0\3abc")  # not even a header: the connection ends
        async with asyncio.timeout(3):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()

    asyncio.run(with_server(check))


@given(st.lists(st.tuples(st.booleans(), st.integers(2, 6), st.sampled_from(["a", "b", "web"])), max_size=30))
def test_the_directory_knows_who_is_there(steps: list[tuple[bool, int, str]]) -> None:
    made, present = Directory(), {}
    for arrive, number, name in steps:
        if arrive and number not in present:
            present[number] = endpoint(number, name)
            made.add(present[number])
        elif not arrive and number in present:
            made.remove(present.pop(number))
    for name in ("a", "b", "web"):
        found = {e.ipv4 for e in made.find("n" * 64, name)}
        assert found == {e.ipv4 for e in present.values() if name in e.dns_names}
    for number in range(2, 7):
        at = made.at("n" * 64, IPv4Address(f"10.0.0.{number}"))
        assert at == present.get(number)
