"""HTTP on a real socket: what clients send, cut short or malformed, and connections that are given away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from corral.api.http import Answer, Request, Response, Stream, Taken
from corral.api.server import Server

Handler = Callable[[Request], Awaitable[Answer]]
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def serve(tmp_path: Path, handler: Handler, talk: Talk) -> None:
    """Serve `handler` on a unix socket while `talk` is its client."""

    async def run() -> None:
        path = str(tmp_path / "s")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        server = Server(handler)
        await server.listen(listener)
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            async with asyncio.timeout(10):
                await talk(reader, writer)
        finally:
            writer.close()
            await server.close()
            await asyncio.sleep(0)

    asyncio.run(run())


async def echo(request: Request) -> Answer:
    body = await request.body()
    return Response(200, f"{request.method} {request.path} ".encode() + body, "text/plain")


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next answer on a connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status = int(head.split()[1])
    lines = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if line)
    if lines.get("transfer-encoding") == "chunked":
        parts = []
        while size := int((await reader.readline()).strip(), 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        await reader.readline()
        return status, b"".join(parts)
    return status, await reader.readexactly(int(lines.get("content-length", 0)))


def test_a_connection_takes_one_request_after_another(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(3):
            writer.write(b"POST /a%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi" % number)
            assert await answer(reader) == (200, b"POST /a%d hi" % number)
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\nGET /y HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [await answer(reader), await answer(reader)] == [(200, b"GET /x "), (200, b"GET /y ")]

    serve(tmp_path, echo, talk)


def test_chunked_and_expected_bodies(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert await answer(reader) == (200, b"POST /a abcde")
        writer.write(b"PUT /b HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(b"z")
        assert await answer(reader) == (200, b"PUT /b z")

    serve(tmp_path, echo, talk)


def test_head_has_no_body(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: 8" in head or b"content-length: 8" in head
        assert await answer(reader) == (200, b"GET /b ")

    serve(tmp_path, echo, talk)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\1\2\3\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no Host
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: nope\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: nope\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * (2 << 20) + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS on a plain socket
    ],
)
def test_what_is_no_http_is_answered_and_ended(tmp_path: Path, data: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        said = await reader.read()
        assert said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))

    serve(tmp_path, echo, talk)


def test_a_body_cut_short_never_reaches_the_handler_as_whole(tmp_path: Path) -> None:
    whole: list[bytes] = []
    ended = asyncio.Event()

    async def handler(request: Request) -> Answer:
        try:
            whole.append(await request.body())
        finally:
            ended.set()
        return Response(200)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        writer.write_eof()
        await ended.wait()
        assert await reader.read() == b""

    serve(tmp_path, handler, talk)
    assert whole == []


def test_a_stream_ends_when_its_client_goes(tmp_path: Path) -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0)
        finally:
            closed.set()

    async def handler(request: Request) -> Answer:
        return Stream(endless())

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"tick\n")
        writer.close()
        await closed.wait()

    serve(tmp_path, handler, talk)


def test_a_slow_reader_holds_a_stream_back(tmp_path: Path) -> None:
    made = 0

    async def plenty() -> AsyncIterator[bytes]:
        nonlocal made
        for _ in range(300):
            made += 1
            yield b"x" * 65536

    async def handler(request: Request) -> Answer:
        return Stream(plenty())

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        before = -1
        while made != before:
            before = made
            for _ in range(50):
                await asyncio.sleep(0)
        assert made < 100
        status, body = await answer(reader)
        assert (status, len(body)) == (200, 300 * 65536)

    serve(tmp_path, handler, talk)


def test_an_unread_body_does_not_become_the_next_request(tmp_path: Path) -> None:
    seen: list[str] = []

    async def handler(request: Request) -> Answer:
        seen.append(request.path)
        return Response(204)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner)
        assert (await answer(reader))[0] == 204
        writer.write(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await answer(reader)

    serve(tmp_path, handler, talk)
    assert "/smuggled" not in seen


def test_a_hijacked_connection_is_the_takers(tmp_path: Path) -> None:
    taken: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()

    async def handler(request: Request) -> Answer:
        hijacked = await request.hijack("application/vnd.docker.raw-stream")
        taken.put_nowait((hijacked.fd, hijacked.initial))
        return Taken()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
        fd, initial = await taken.get()
        assert initial == b"early"
        connection = socket.socket(fileno=fd)
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        writer.write(b"more")
        writer.write_eof()
        assert await loop.sock_recv(connection, 100) == b"more"
        assert await loop.sock_recv(connection, 100) == b""  # its input has ended, and it can still be told something
        await loop.sock_sendall(connection, b"said")
        connection.close()
        assert await reader.read() == b"said"

    serve(tmp_path, handler, talk)


def test_no_descriptor_is_left_over(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await answer(reader)

    serve(tmp_path, echo, talk)
    (tmp_path / "s").unlink()
    before = len(os.listdir("/proc/self/fd"))
    serve(tmp_path, echo, talk)
    assert len(os.listdir("/proc/self/fd")) == before
