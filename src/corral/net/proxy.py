"""The userland proxy: carries what the packet filter cannot rewrite, all ports in one event loop.

That is ::1 and other IPv6 addresses of the host when the container has no IPv6, and everything for the moments in
which somebody has flushed the packet filter.  All other traffic is rewritten in the kernel and never comes here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass, field

from corral.net.publish import HeldPort

_log = logging.getLogger(__name__)

_CHUNK = 1 << 16
_UDP_IDLE_S = 90.0
_MAX_FLOWS = 1024  # UDP clients of one port; the one that came first makes room


@dataclass(slots=True)
class _Served:
    """A port that is being served, with what belongs to it."""

    port: HeldPort
    socket: socket.socket
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    flows: dict[object, _Flow] = field(default_factory=dict)


@dataclass(slots=True)
class _Flow:
    """A UDP client: its own socket towards the container and when it was last used (loop time, seconds)."""

    upstream: socket.socket
    used_s: float


class Proxy:
    """Serves held ports in the running loop; `add` and `remove` are called in that loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._served: dict[int, _Served] = {}
        self._expiry: asyncio.TimerHandle | None = None

    def add(self, port: HeldPort) -> None:
        """Serve a port; again to serve it with another target."""
        if port.socket is None or port.binding.proto == "sctp":
            return
        known = self._served.get(port.socket.fileno())
        if known is not None:
            known.port = port  # the container moved to another address
            return
        served = _Served(port, port.socket)
        self._served[port.socket.fileno()] = served
        ready = self._accept if port.binding.proto == "tcp" else self._datagrams
        self._loop.add_reader(port.socket.fileno(), ready, served)

    def remove(self, port: HeldPort) -> None:
        """Stop serving a port: its connections end and its socket is closed."""
        if port.socket is None:
            return
        served = self._served.pop(port.socket.fileno(), None)
        if served is not None:
            self._loop.remove_reader(served.socket.fileno())
            for task in served.tasks:
                task.cancel()
            for key in list(served.flows):
                self._end_flow(served, key)
        port.socket.close()

    def close(self) -> None:
        """Stop serving everything."""
        if self._expiry is not None:
            self._expiry.cancel()
        for served in list(self._served.values()):
            self.remove(served.port)

    # -- TCP ---------------------------------------------------------------------------------------------------

    def _accept(self, served: _Served) -> None:
        try:
            client, _ = served.socket.accept()
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return
        except OSError as error:
            # Out of descriptors: the connection stays in the backlog; wait instead of spinning on it.
            _log.warning("cannot accept on port %d: %s", served.port.binding.host_port, error)
            self._loop.remove_reader(served.socket.fileno())
            self._loop.call_later(1.0, self._resume, served)
            return
        client.setblocking(False)
        task = self._loop.create_task(self._carry(served, client))
        served.tasks.add(task)
        task.add_done_callback(served.tasks.discard)

    def _resume(self, served: _Served) -> None:
        if self._served.get(served.socket.fileno()) is served:
            self._loop.add_reader(served.socket.fileno(), self._accept, served)

    async def _carry(self, served: _Served, client: socket.socket) -> None:
        """One connection, until both directions ended; a container that refuses is a reset for the client."""
        with client, _towards(served.port, socket.SOCK_STREAM) as upstream:
            try:
                await self._loop.sock_connect(upstream, _address(served.port))
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pump(client, upstream))
                    group.create_task(self._pump(upstream, client))
            except* OSError:
                with contextlib.suppress(OSError):
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        buffer = memoryview(bytearray(_CHUNK))
        while count := await self._loop.sock_recv_into(source, buffer):
            await self._loop.sock_sendall(sink, buffer[:count])
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    # -- UDP ---------------------------------------------------------------------------------------------------

    def _datagrams(self, served: _Served) -> None:
        for _ in range(64):
            try:
                data, ancillary, _, client = served.socket.recvmsg(_CHUNK, 128)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error for an earlier answer
            asked = [entry for entry in ancillary if entry[0] in (socket.IPPROTO_IP, socket.IPPROTO_IPV6)]
            flow = served.flows.get(client) or self._begin_flow(served, client, asked)
            flow.used_s = self._loop.time()
            with contextlib.suppress(OSError):
                flow.upstream.send(data)

    def _begin_flow(self, served: _Served, client: object, asked: list[tuple[int, int, bytes]]) -> _Flow:
        if len(served.flows) >= _MAX_FLOWS:
            self._end_flow(served, next(iter(served.flows)))
        upstream = _towards(served.port, socket.SOCK_DGRAM)
        upstream.connect(_address(served.port))
        flow = served.flows[client] = _Flow(upstream, self._loop.time())
        self._loop.add_reader(upstream.fileno(), self._answers, served, client, flow, asked)
        if self._expiry is None:
            self._expiry = self._loop.call_later(_UDP_IDLE_S, self._expire)
        return flow

    def _answers(self, served: _Served, client: object, flow: _Flow, asked: list[tuple[int, int, bytes]]) -> None:
        try:
            data = flow.upstream.recv(_CHUNK)
            flow.used_s = self._loop.time()
            served.socket.sendmsg([data], asked, 0, client)  # type: ignore[arg-type]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return  # nobody listens in the container, or the client is gone; UDP tells neither

    def _end_flow(self, served: _Served, client: object) -> None:
        flow = served.flows.pop(client)
        self._loop.remove_reader(flow.upstream.fileno())
        flow.upstream.close()

    def _expire(self) -> None:
        self._expiry = None
        oldest = self._loop.time() - _UDP_IDLE_S
        remaining = False
        for served in self._served.values():
            for client in [key for key, flow in served.flows.items() if flow.used_s < oldest]:
                self._end_flow(served, client)
            remaining = remaining or bool(served.flows)
        if remaining:
            self._expiry = self._loop.call_later(_UDP_IDLE_S, self._expire)


def _towards(port: HeldPort, kind: int) -> socket.socket:
    family = socket.AF_INET if port.target.ipv4 else socket.AF_INET6
    return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def _address(port: HeldPort) -> tuple[str, int]:
    return port.target.ipv4 or port.target.ipv6, port.binding.container_port
