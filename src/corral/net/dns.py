"""The embedded DNS server: 127.0.0.11 in every container that is on a user-defined network.

Each such container has a UDP and a TCP socket of ours in its own namespace, on ports of the kernel's choice, to
which a rule in that namespace sends what goes to 127.0.0.11:53; so the container can still bind port 53 itself.
All are served by the daemon's event loop.  Names of the container's networks are answered here and never leave the
host; everything else is passed on unchanged, from the host's namespace, to the container's upstream servers.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from corral.net import dnswire, redirect
from corral.net.directory import Directory
from corral.net.gate import Gate
from corral.net.model import Endpoint

_ADDRESS = "127.0.0.11"
_UPSTREAM_TIMEOUT_S = 4.0
_TCP_IDLE_S = 10.0
_MAX_PENDING = 1024
_MAX_TCP = 64
_PORT = 53


@dataclass(slots=True)
class Server:
    """One container's server: its sockets and whom it serves."""

    udp: socket.socket
    tcp: socket.socket
    endpoints: tuple[Endpoint, ...] = ()
    upstream: tuple[str, ...] = ()
    forward: bool = True  # containers on internal networks only ask nobody else
    gate: Gate | None = None  # of a container with an egress list
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    connections: int = 0


def open_sockets() -> Server:
    """A server in the calling thread's network namespace, whose `lo` is up; OSError."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        udp.bind((_ADDRESS, 0))
        tcp.bind((_ADDRESS, 0))
        tcp.listen(64)
        redirect.install(_ADDRESS, udp.getsockname()[1], tcp.getsockname()[1])
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return Server(udp, tcp)


class Dns:
    """Serves servers in the running loop; `add`, `update` and `remove` are called in that loop."""

    def __init__(self, directory: Directory, *, port: int = _PORT) -> None:
        """`port` is that of the upstream servers."""
        self._directory = directory
        self._loop = asyncio.get_running_loop()
        self._servers: set[int] = set()
        self._port = port

    def add(self, server: Server) -> None:
        """Serve; again changes nothing."""
        if server.udp.fileno() in self._servers:
            return
        self._servers.add(server.udp.fileno())
        self._loop.add_reader(server.udp.fileno(), self._datagrams, server)
        self._loop.add_reader(server.tcp.fileno(), self._accept, server)

    def remove(self, server: Server) -> None:
        """Stop serving, and close."""
        if server.udp.fileno() in self._servers:
            self._servers.discard(server.udp.fileno())
            self._loop.remove_reader(server.udp.fileno())
            self._loop.remove_reader(server.tcp.fileno())
        for task in server.tasks:
            task.cancel()
        server.udp.close()
        server.tcp.close()

    def resolve(self, server: Server, query: dnswire.Query) -> bytes | None:
        """The answer from our networks; None when others are to be asked."""
        if query.type == dnswire.PTR:
            return self._reverse(server, query)
        found = self._neighbours(server, query)
        if not found:
            return None
        addresses = list(dict.fromkeys(ip_address(text) for text in _texts(found, query)))
        random.shuffle(addresses)  # several containers of one alias share the work
        return dnswire.answer(query, addresses)

    def _neighbours(self, server: Server, query: dnswire.Query) -> list[Endpoint]:
        """Who on the container's networks is called so."""
        found: list[Endpoint] = []
        for endpoint in server.endpoints:
            if not endpoint.dns_names:
                continue
            linked = next((target for target, alias in endpoint.links if alias.lower() == query.name), None)
            name = query.name if linked is None else linked[:12].lower()  # ids are known by their first 12 digits
            found += self._directory.find(endpoint.network_id, name)
        return found

    def _reverse(self, server: Server, query: dnswire.Query) -> bytes | None:
        address = dnswire.reverse(query.name)
        if address is None:
            return None
        for endpoint in server.endpoints:
            found = self._directory.at(endpoint.network_id, address)
            if found is not None:
                return dnswire.answer(query, [f"{found.dns_names[0]}.{found.network_name}"])
        if any(self._directory.ours(endpoint.network_id, address) for endpoint in server.endpoints):
            return dnswire.answer(query, [], code=dnswire.NXDOMAIN)  # nobody outside may learn who asks for whom
        return None

    def _local(self, server: Server, message: bytes) -> tuple[dnswire.Query | None, bytes | None]:
        """(query, answer): without an answer the query is for others; without both the message is dropped."""
        try:
            query = dnswire.parse(message)
        except dnswire.Malformed:
            answerable = len(message) >= 12 and not message[2] & 0x80
            return None, dnswire.failure(message, dnswire.FORMERR) if answerable else None
        if query.opcode:
            return query, dnswire.answer(query, [], code=dnswire.NOTIMP)
        found = self.resolve(server, query)
        if found is None and (not server.forward or not server.upstream):
            found = dnswire.answer(query, [], code=dnswire.NXDOMAIN if server.upstream else dnswire.SERVFAIL)
        return query, found

    # -- egress lists ------------------------------------------------------------------------------------------

    async def _gated(self, server: Server, gate: Gate, query: dnswire.Query, message: bytes, *, stream: bool) -> bytes:
        """The answer to a container with an egress list; its addresses are let through before it is given."""
        neighbours = [] if query.opcode or query.type == dnswire.PTR else self._neighbours(server, query)
        names = dict.fromkeys([query.name, *(name.lower() for one in neighbours for name in one.dns_names)])
        edns = bool(dnswire.payload_size(message, query))
        if not neighbours and not self._may_ask(server, gate, query):
            gate.refuse(query.name)
            return dnswire.filtered(query, edns=edns)
        reply = self._local(server, message)[1]
        if reply is None:
            reply = await self._upward(server, query, message, stream=stream)
        try:
            records = dnswire.addresses(reply, query)
        except dnswire.Malformed:
            return dnswire.answer(query, [], code=dnswire.SERVFAIL)
        if not await gate.open(names if neighbours else (query.name,), records, ours=bool(neighbours)):
            return dnswire.answer(query, [], code=dnswire.SERVFAIL)
        return reply

    def _may_ask(self, server: Server, gate: Gate, query: dnswire.Query) -> bool:
        if gate.asks([query.name]):
            return True
        address = dnswire.reverse(query.name) if query.type == dnswire.PTR else None
        # Whoever owns a block of addresses reads the questions about them: only those that can be reached are asked.
        return address is not None and (address in gate.names or self._reverse(server, query) is not None)

    # -- UDP ---------------------------------------------------------------------------------------------------

    def _datagrams(self, server: Server) -> None:
        for _ in range(64):  # then others get their turn
            try:
                message, client = server.udp.recvfrom(4096)
            except OSError:
                return
            query, reply = self._local(server, message)
            if server.gate is not None and query is not None:
                reply = None  # the task below answers
            if reply is not None:
                _send(server.udp, _fit(reply, query, message) if query else reply, client)
            elif query is not None:
                if len(server.tasks) >= _MAX_PENDING:
                    _send(server.udp, dnswire.answer(query, [], code=dnswire.SERVFAIL), client)
                    continue
                self._start(server, self._forward_datagram(server, message, query, client))

    def _start(self, server: Server, work: Coroutine[None, None, None]) -> None:
        task: asyncio.Task[None] = self._loop.create_task(work)
        server.tasks.add(task)
        task.add_done_callback(server.tasks.discard)

    async def _forward_datagram(
        self, server: Server, message: bytes, query: dnswire.Query, client: tuple[str, int]
    ) -> None:
        if server.gate is not None:
            reply = await self._gated(server, server.gate, query, message, stream=False)
            reply = _fit(reply, query, message)
        else:
            reply = await self._upward(server, query, message, stream=False)
        _send(server.udp, dnswire.with_id(reply, query.id), client)

    async def _upward(self, server: Server, query: dnswire.Query, message: bytes, *, stream: bool) -> bytes:
        """What the first upstream server that answers says, or that none did."""
        ask = self._ask_stream if stream else self._ask
        for upstream in server.upstream:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_UPSTREAM_TIMEOUT_S):
                    return await ask(upstream, message)
        return dnswire.answer(query, [], code=dnswire.SERVFAIL)

    async def _ask(self, upstream: str, message: bytes) -> bytes:
        """One server's reply.  A fresh connected socket and a random id make forged replies hard to place."""
        number = random.SystemRandom().getrandbits(16)
        asked = ip_address(upstream)
        family = socket.AF_INET if asked.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as upward:
            upward.connect((upstream, self._port))
            await self._loop.sock_sendall(upward, dnswire.with_id(message, number))
            while True:
                reply = await self._loop.sock_recv(upward, 65535)
                if len(reply) >= 12 and reply[:2] == struct.pack("!H", number):
                    return reply

    # -- TCP ---------------------------------------------------------------------------------------------------

    def _accept(self, server: Server) -> None:
        try:
            client, _ = server.tcp.accept()
        except OSError:
            return
        if server.connections >= _MAX_TCP:
            client.close()
            return
        client.setblocking(False)
        self._start(server, self._serve_stream(server, client))

    async def _serve_stream(self, server: Server, client: socket.socket) -> None:
        server.connections += 1
        try:
            reader, writer = await asyncio.open_connection(sock=client)
            try:
                while True:
                    async with asyncio.timeout(_TCP_IDLE_S):
                        message = await _read_message(reader)
                    reply = await self._stream_reply(server, message)
                    if reply is None:
                        return
                    writer.write(struct.pack("!H", len(reply)) + reply)
                    await writer.drain()
            finally:
                writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return  # the client went, or was silent for too long
        finally:
            server.connections -= 1

    async def _stream_reply(self, server: Server, message: bytes) -> bytes | None:
        query, reply = self._local(server, message)
        if server.gate is not None and query is not None:
            return await self._gated(server, server.gate, query, message, stream=True)
        if reply is not None or query is None:
            return reply
        return await self._upward(server, query, message, stream=True)

    async def _ask_stream(self, upstream: str, message: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(upstream, self._port)
        try:
            writer.write(struct.pack("!H", len(message)) + message)
            await writer.drain()
            return await _read_message(reader)
        finally:
            writer.close()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(length)


def _texts(found: Sequence[Endpoint], query: dnswire.Query) -> list[str]:
    """The addresses of endpoints that a question is about."""
    if query.type == dnswire.A:
        return [endpoint.ipv4 for endpoint in found if endpoint.ipv4]
    return [endpoint.ipv6 for endpoint in found if endpoint.ipv6] if query.type == dnswire.AAAA else []


def _fit(reply: bytes, query: dnswire.Query, message: bytes) -> bytes:
    """The reply, or what sends the client to TCP if it is larger than the client said it takes."""
    return dnswire.fit(reply, query, max(dnswire.MAX_UDP, dnswire.payload_size(message, query)))


def _send(udp: socket.socket, reply: bytes, client: tuple[str, int]) -> None:
    with contextlib.suppress(OSError):  # the client may be gone; DNS clients ask again
        udp.sendto(reply, client)
