"""The proxy over loopback sockets."""

from __future__ import annotations

import asyncio
import socket

from corral.net.model import PortBinding
from corral.net.ports import Target
from corral.net.proxy import Proxy
from corral.net.publish import HeldPort, Publisher


def held(proto: str, container_port: int) -> HeldPort:
    publisher = Publisher(proxied=True)
    (port,) = publisher.hold([PortBinding(proto, container_port, "127.0.0.1")], Target("127.0.0.1", ""))
    return port


def test_tcp_half_close_and_a_container_that_refuses() -> None:
    async def check() -> None:
        async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write((await reader.read()).upper())  # answers only after the client has finished
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(upper, "127.0.0.1", 0)
        port = held("tcp", server.sockets[0].getsockname()[1])
        proxy = Proxy()
        proxy.add(port)
        proxy.add(port)
        for expected in (b"HELLO" * 100_000, None):
            reader, writer = await asyncio.open_connection("127.0.0.1", port.binding.host_port)
            writer.write(b"hello" * 100_000)
            writer.write_eof()
            async with asyncio.timeout(5):
                try:
                    got: bytes | None = await reader.read()
                except ConnectionError:
                    got = None
            assert got == expected
            writer.close()
            server.close()
            await server.wait_closed()
        proxy.remove(port)
        proxy.remove(port)
        with socket.socket() as again:
            assert again.connect_ex(("127.0.0.1", port.binding.host_port)) != 0

    asyncio.run(check())


def test_udp_clients_are_kept_apart() -> None:
    async def check() -> None:
        loop = asyncio.get_running_loop()
        datagram = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_INET, datagram) as server:
            server.bind(("127.0.0.1", 0))
            port = held("udp", server.getsockname()[1])
            proxy = Proxy()
            proxy.add(port)
            with socket.socket(socket.AF_INET, datagram) as one, socket.socket(socket.AF_INET, datagram) as two:
                for client, text in ((one, b"1"), (two, b"2"), (one, b"3")):
                    client.connect(("127.0.0.1", port.binding.host_port))
                    client.send(text)
                    async with asyncio.timeout(3):
                        data, sender = await loop.sock_recvfrom(server, 10)
                        assert data == text
                        await loop.sock_sendto(server, data * 2, sender)
                        assert await loop.sock_recv(client, 10) == text * 2
            proxy.close()

    asyncio.run(check())
