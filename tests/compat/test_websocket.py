"""Attach over a websocket, with a real client library on the other end."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    Request,
)

from tests.support.daemon import Engine


class Browser:
    """A websocket client."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.status = 0
        self.received = b""
        self.pongs = 0
        self.closed: int | None = None

    def open(self, target: str) -> None:
        self.connection.sendall(self.protocol.send(Request(host="docker", target=target)))
        while not self.status:
            self.read()

    def read(self) -> None:
        data = self.connection.recv(65536)
        self.protocol.receive_data(data or None)
        for event in self.protocol.events():
            if isinstance(event, AcceptConnection):
                self.status = 101
            elif isinstance(event, RejectConnection):
                self.status = event.status_code
            elif isinstance(event, BytesMessage):
                self.received += event.data
            elif isinstance(event, Pong):
                self.pongs += 1
            elif isinstance(event, CloseConnection):
                self.closed = event.code

    def send(self, data: bytes) -> None:
        self.connection.sendall(self.protocol.send(Message(data=data)))


@contextmanager
def browser(engine: Engine, target: str) -> Iterator[Browser]:
    with engine.raw() as connection:
        found = Browser(connection)
        found.open(target)
        yield found


def test_input_and_output(engine: Engine) -> None:
    container = engine.start("sh", "-c", "read a; echo got $a; echo bad >&2", OpenStdin=True, StdinOnce=True)
    with browser(engine, f"/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1&stderr=1") as client:
        assert client.status == 101
        client.connection.sendall(client.protocol.send(Ping()))
        while not client.pongs:
            client.read()
        client.send(b"it\n")
        while client.closed is None:
            client.read()
    assert sorted(client.received.split(b"\n")) == [b"", b"bad", b"got it"] and client.closed == 1000
    assert engine.wait(container) == 0


def test_before_the_start_and_with_past_output(engine: Engine) -> None:
    container = engine.create("sh", "-c", "echo first; read a; echo $a", OpenStdin=True, Tty=True)
    with browser(engine, f"/containers/{container}/attach/ws?stream=1&stdout=1") as client:
        engine.post(f"/containers/{container}/start")
        while b"first" not in client.received:
            client.read()
        with browser(engine, f"/v1.40/containers/{container}/attach/ws?logs=1&stream=1&stdin=1&stdout=1") as second:
            while b"first" not in second.received:
                second.read()
            second.send(b"again\r")
            while client.closed is None or second.closed is None:
                (client if client.closed is None else second).read()
    assert client.received.count(b"again") == second.received.count(b"again") == 2


def test_a_client_that_closes_leaves_the_container_alone(engine: Engine) -> None:
    container = engine.start("sleep", "100")
    with browser(engine, f"/containers/{container}/attach/ws?stream=1&stdout=1") as client:
        client.connection.sendall(client.protocol.send(CloseConnection(code=1000)))
        while client.closed is None:
            client.read()
    assert engine.state(container)["Running"]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "this endpoint needs a websocket handshake"),
        ({"Upgrade": "websocket", "Sec-WebSocket-Key": "short"}, "this endpoint needs a websocket handshake"),
        (
            {"Upgrade": "websocket", "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode()},
            "unsupported websocket version: only 13 is known",
        ),
    ],
)
def test_what_is_no_handshake(engine: Engine, headers: dict[str, str], message: str) -> None:
    container = engine.create("true")
    reply = engine.request("GET", f"/containers/{container}/attach/ws?stream=1", b"", headers)
    assert (reply.status, reply.message) == (400, message)
    assert engine.request("GET", "/containers/nosuch/attach/ws", b"", headers).status == 404


def test_detach_keys(engine: Engine) -> None:
    container = engine.start("cat", OpenStdin=True, Tty=True)
    target = f"/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=a,b"
    with browser(engine, target) as client:
        client.send(b"xax")
        while b"xax" not in client.received:
            client.read()
        client.send(b"ab")
        while client.closed is None:
            client.read()
    assert b"b" not in client.received
    assert engine.state(container)["Running"]
