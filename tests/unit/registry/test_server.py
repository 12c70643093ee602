"""The HTTP server on a real socket: what only bytes in pieces, slow clients and broken ones show."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from corral.registry.http import wire
from corral.registry.http.server import Server
from tests.support.desk import Desk, sha256
from tests.support.wait import until


class Running:
    """A server in a thread."""

    def __init__(self, desk: Desk, connections_max: int) -> None:
        self.records: list[tuple[str, int]] = []
        self.desk = desk
        self.server = Server(
            desk.service.surface.handle,
            lambda request, status, *more: self.records.append((request.head.method, status)),
            connections_max,
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.thread = threading.Thread(target=self.server.run, args=(self.listener, None))

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, 20)

    def ask(self, *parts: bytes) -> bytes:
        """Send the parts and answer everything that comes back until the server closes."""
        with self.connect() as sock:
            for part in parts:
                sock.sendall(part)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)


def read_all(sock: socket.socket) -> bytes:
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionResetError:
        pass
    return data


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    with _started() as make:
        yield lambda connections_max=100: make(Desk(tmp_path), connections_max)


@contextmanager
def _started() -> Iterator[Callable[[Desk, int], Running]]:
    running: list[Running] = []

    def make(desk: Desk, connections_max: int) -> Running:
        started = Running(desk, connections_max)
        started.thread.start()
        running.append(started)
        return started

    yield make
    for one in running:
        one.server._closing = True
        with socket.create_connection(one.address, 20):  # wakes the accept of a thread, which no signal reaches
            pass
        one.thread.join(20)
        one.server.finish(20)
        one.listener.close()
        assert not one.server._wires


def upload(running: Running) -> str:
    return running.desk.request("POST", "/v2/a/blobs/uploads/").headers["location"]


def chunked(data: bytes, size: int) -> bytes:
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(b"%x;x=y\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nTrailer: x\r\n\r\n"


@pytest.mark.parametrize("size", [1, 7, 4096, 65534, 1 << 20])
def test_chunked_bodies(start: Callable[..., Running], size: int) -> None:
    running = start()
    data = bytes(range(256)) * (16 if size < 100 else 12_000)
    location = upload(running)
    head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    end = f"PUT {location}?digest={sha256(data)} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    answer = running.ask(head + chunked(data, size) + end)  # the next request right behind it
    assert b"HTTP/1.1 202 " in answer and b"HTTP/1.1 201 " in answer
    assert running.desk.request("GET", f"/v2/a/blobs/{sha256(data)}").body == data


@pytest.mark.parametrize("body", [b"zz\r\n", b"-1\r\n", b"\r\n", b"5\r\nabcdefgh\r\n", b"0x5\r\n", b"1" * 300])
def test_malformed_chunks(start: Callable[..., Running], body: bytes) -> None:
    running = start()
    head = f"PATCH {upload(running)} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert running.ask(head + body).startswith(b"HTTP/1.1 400 ")


def test_what_came_of_a_broken_upload_stays(start: Callable[..., Running]) -> None:
    running = start()
    location = upload(running)
    with running.connect() as sock:
        sock.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode() + b"x" * 400)
    until(lambda: running.desk.request("GET", location).headers["range"] == "0-399")
    until(lambda: ("PATCH", 499) in running.records)
    assert running.desk.request("PATCH", location, b"y", content_range="400-400").status == 202


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"garbage\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100, b"G" * 40_000],
)
def test_garbage_is_answered(start: Callable[..., Running], data: bytes) -> None:
    answer = start().ask(data)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))


def test_a_client_of_tls_is_answered_at_once(start: Callable[..., Running]) -> None:
    with start().connect() as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
        assert sock.recv(100).startswith(b"HTTP/1.1 400 ")


def test_pipelined_requests_and_old_ones(start: Callable[..., Running]) -> None:
    running = start()
    answer = running.ask(b"\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\nHEAD /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 OK") == 2 and answer.count(b"{}") == 1
    assert b"Connection: close" in running.ask(b"GET /v2/ HTTP/1.0\r\n\r\n")


def test_a_client_that_waits_to_be_told(start: Callable[..., Running]) -> None:
    running = start()
    digest = sha256(b"hello")
    with running.connect() as sock:
        sock.sendall(
            f"POST /v2/a/blobs/uploads/?digest={digest} HTTP/1.1\r\nHost: x\r\n"
            "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n".encode()
        )
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"hello")
        assert sock.recv(1000).startswith(b"HTTP/1.1 201 ")
    with running.connect() as sock:
        sock.sendall(
            b"POST /v2/A/blobs/uploads/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


def test_a_refused_body_is_read_so_that_the_answer_arrives(start: Callable[..., Running]) -> None:
    running = start()
    head = b"PUT /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    data = head % (5 << 20) + b" " * (5 << 20) + b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = running.ask(data)
    assert answer.startswith(b"HTTP/1.1 413 ") and answer.endswith(b"{}\n")
    assert running.ask(head % (1 << 40) + b" " * (1 << 20)).startswith(b"HTTP/1.1 413 ")


def test_large_and_partial_files(start: Callable[..., Running]) -> None:
    running = start()
    data = hashlib.sha256(b"seed").digest() * 100_000
    digest = running.desk.push_blob("a", data)
    head = f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n".encode()
    assert running.ask(head + b"\r\n").partition(b"\r\n\r\n")[2] == data
    part = running.ask(head + b"Range: bytes=100-2000099\r\n\r\n")
    assert part.startswith(b"HTTP/1.1 206 ") and part.partition(b"\r\n\r\n")[2] == data[100:2000100]


def test_slow_heads_and_bodies_end(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDLE_S", "_HEAD_S", "_SILENCE_S"):
        monkeypatch.setattr(wire, name, 0.2)
    running = start()
    for begin in (b"", b"GET /v2/ HT", b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"):
        with running.connect() as sock:
            sock.sendall(begin)
            assert read_all(sock) == b""
    location = upload(running)
    monkeypatch.setattr(wire, "IDLE_S", 30.0)
    monkeypatch.setattr(wire, "_HEAD_S", 30.0)
    with running.connect() as sock:
        sock.sendall(f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc".encode())
        assert read_all(sock).startswith(b"HTTP/1.1 408 ")


def test_a_body_that_trickles_ends(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_BODY_GRACE_S", -1.0)
    running = start()
    with running.connect() as sock:
        sock.sendall(f"PATCH {upload(running)} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\na".encode())
        assert read_all(sock).startswith(b"HTTP/1.1 408 ")


def test_at_the_limit_the_idlest_connection_goes(start: Callable[..., Running]) -> None:
    running = start(connections_max=2)
    request = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as stack:
        sockets = []
        for _ in range(3):
            sockets.append(stack.enter_context(running.connect()))
            sockets[-1].sendall(request)
            assert sockets[-1].recv(1000).startswith(b"HTTP/1.1 200 ")
            until(lambda: all(one.idle_since is not None for one in list(running.server._wires)))
        assert read_all(sockets[0]) == b""


def test_half_a_head_does_not_keep_others_out(start: Callable[..., Running]) -> None:
    running = start(connections_max=3)
    slow = [running.connect() for _ in range(3)]
    for sock in slow:
        sock.sendall(b"GET /v2/ HT")
    assert running.ask(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    for sock in slow:
        sock.close()


def test_errors_have_the_form_of_the_specification(start: Callable[..., Running]) -> None:
    answer = start().ask(b"GET /v2/a/manifests/x HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head and b"Docker-Distribution-Api-Version: registry/2.0" in head
    assert json.loads(body)["errors"][0]["code"] == "MANIFEST_UNKNOWN"
