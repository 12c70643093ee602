"""Network namespaces for tests: one that plays the host, others that play containers and machines beside it.

`on_new_host` runs a coroutine on a thread of its own in a new network namespace: the machine's links and firewall
are out of reach, and threads and processes started from there stay inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, ParamSpec

import pytest

from corral.linux import namespaces

P = ParamSpec("P")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def sh(command: str) -> str:
    """Run a command in the calling thread's namespace; what it prints; CalledProcessError."""
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True).stdout


def on_new_host(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function; it runs in an empty network namespace with `lo` up."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                namespaces.unshare(namespaces.CLONE_NEWNET)
                sh("ip link set lo up")
                asyncio.run(asyncio.wait_for(test(*args, **kwargs), 60))
            except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
                failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if failures:
            raise failures[0]

    return run


@contextlib.contextmanager
def inside(pid: int) -> Iterator[None]:
    """Run a block (without awaiting) on this thread in the network namespace of a process."""
    with open("/proc/thread-self/ns/net") as home, open(f"/proc/{pid}/ns/net") as there:
        namespaces.setns(there.fileno(), namespaces.CLONE_NEWNET)
        try:
            yield
        finally:
            namespaces.setns(home.fileno(), namespaces.CLONE_NEWNET)


class Space:
    """A process with a network namespace of its own."""

    def __init__(self) -> None:
        argv = ["unshare", "-n", "sh", "-c", "echo ready; exec cat"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.pid = self._process.pid

    def end(self) -> None:
        """End the process, and with it the namespace."""
        self._process.kill()
        self._process.communicate()

    def sh(self, command: str) -> str:
        """Run a command inside."""
        return sh(f"nsenter -t {self.pid} -n {command}")

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """Run a block (without awaiting) on this thread in the namespace."""
        return inside(self.pid)

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        """A non-blocking socket of the namespace."""
        with self.inside():
            return socket.socket(family, kind | socket.SOCK_NONBLOCK)


@contextlib.contextmanager
def spaces(count: int) -> Iterator[list[Space]]:
    """Some namespaces for the length of a block."""
    with contextlib.ExitStack() as stack:
        made = []
        for _ in range(count):
            made.append(Space())
            stack.callback(made[-1].end)
        yield made


async def serve_peer_address(space: Space | None, port: int, host: str = "0.0.0.0") -> asyncio.Server:
    """A TCP server that tells each client the address it sees it come from."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("peername")[0].encode())
        await writer.drain()
        writer.close()

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = space.socket(family=family) if space else socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return await asyncio.start_server(answer, sock=listening)


async def ask(space: Space | None, host: str, port: int, timeout_s: float = 15.0) -> str:
    """What a server says to a connection from `space` (None: the host); OSError, TimeoutError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    client = space.socket(family=family) if space else socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    with client:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(client, (host, port))
            said = b""
            while part := await asyncio.get_running_loop().sock_recv(client, 4096):
                said += part
            return said.decode()


async def refused(space: Space | None, host: str, port: int) -> bool:
    """Whether a connection fails, by an error or by silence."""
    try:
        await ask(space, host, port, 0.3)
    except (OSError, TimeoutError):
        return True
    return False


async def until(condition: Callable[[], bool], deadline_s: float = 5.0) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - the kernel has no event for most of what tests wait for
            await asyncio.sleep(0.01)


def fetch(space: Space, host: str, port: int, path: str = "/", timeout_s: float = 5.0) -> str:
    """What an HTTP/1.0 server answers to a GET from inside a namespace; OSError."""
    with space.socket() as client:
        client.settimeout(timeout_s)
        client.connect((host, port))
        client.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
        data = b""
        while piece := client.recv(65536):
            data += piece
    return data.decode(errors="replace")
