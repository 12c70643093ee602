"""The client and servers that say what a test wrote down: kept connections, refusals, and answers that break off."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral import client as api
from corral.cli import contexts
from corral.client import AsyncClient, Client
from corral.client.channel import Channel
from corral.client.errors import BadArgument, Interrupted, NotConnected, TimedOut, UnreadableAnswer
from corral.client.flavours import drive
from corral.client.waiting import Polling
from corral.endpoint import NoEndpoint
from tests.support.script import PING, answer, scripted
from tests.support.wait import until

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the user's configuration."""
    for name in ("DOCKER_HOST", "CORRAL_HOST", "DOCKER_CONTEXT", "DOCKER_API_VERSION", "DOCKER_TLS_VERIFY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


@pytest.mark.parametrize("tcp", [False, True])
def test_one_connection_for_everything(tcp: bool) -> None:
    answers = [PING, answer(b'{"Name": "here"}'), answer(b"", "204 No Content"), answer(b"", "304 Not Modified")]
    with scripted(answers, tcp=tcp) as (host, script), Client(host) as client:
        assert client.info().name == "here"
        container = api.Container(client.session, "a b/c")
        container.stop(timeout=3)
        container.start()
    assert [request.split(b"\r\n")[0] for request in script.requests] == [
        b"HEAD /_ping HTTP/1.1",
        b"GET /v1.44/info HTTP/1.1",
        b"POST /v1.44/containers/a%20b%2Fc/stop?t=3 HTTP/1.1",
        b"POST /v1.44/containers/a%20b%2Fc/start HTTP/1.1",
    ]


def test_a_kept_connection_that_was_closed_is_made_again() -> None:
    with scripted([PING], [answer(b'{"Name": "again"}')]) as (host, _), Client(host) as client:
        assert client.info().name == "again"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("400 Bad Request", api.InvalidParameter),
        ("401 Unauthorized", api.Unauthorized),
        ("403 Forbidden", api.Forbidden),
        ("404 Not Found", api.NotFound),
        ("409 Conflict", api.Conflict),
        ("500 Internal Server Error", api.Failed),
        ("501 Not Implemented", api.Unsupported),
        ("503 Service Unavailable", api.Unavailable),
        ("418 Teapot", api.InvalidParameter),
        ("599 Worse", api.Failed),
    ],
)
def test_a_refusal_is_of_a_kind_and_has_the_daemons_words(status: str, kind: type[api.Refusal]) -> None:
    refused = answer(b'{"message": "because"}', status)
    with scripted([PING, refused, answer(b'{"Name": "on"}')]) as (host, _), Client(host) as client:
        with pytest.raises(kind) as caught:
            client.info()
        assert (str(caught.value), caught.value.status) == ("because", int(status[:3]))
        assert isinstance(caught.value, api.CorralError) and isinstance(caught.value, api.Refusal)
        assert client.info().name == "on"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (b"", Interrupted),
        (b"HTTP/1.1 200 OK\r\nContent-Le", Interrupted),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{"Name"', Interrupted),
        (_CHUNKED + b"5\r\n{}", Interrupted),
        (_CHUNKED + b"five\r\n", UnreadableAnswer),
        (b"SSH-2.0-OpenSSH\r\n\r\n", UnreadableAnswer),
        (answer(b"<html>"), UnreadableAnswer),
        (answer(b'{"Name": 3}'), UnreadableAnswer),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 400_000, UnreadableAnswer),
    ],
)
def test_an_answer_that_is_none(given: bytes, error: type[Exception]) -> None:
    # Interrupted before any answer on a kept connection is tried once more on a new one.
    connections = [[PING, given], [given]] if given in (b"", b"HTTP/1.1 200 OK\r\nContent-Le") else [[PING, given]]
    with scripted(*connections) as (host, _), Client(host) as client, pytest.raises(error):
        client.info()


def test_what_changes_something_is_not_repeated() -> None:
    with scripted([PING, b""]) as (host, script), Client(host) as client, pytest.raises(Interrupted):
        api.Container(client.session, "a").start()
    assert len(script.requests) == 2


def test_a_stream_that_breaks_off_gives_what_came_before() -> None:
    event = b'{"Type": "container", "Action": "die"}\n'
    with scripted([PING, _CHUNKED + b"%x\r\n" % len(event) + event + b"\r\n"]) as (host, _), Client(host) as client:
        events = client.events()
        assert next(events).action == "die"
        with pytest.raises(Interrupted):
            next(events)
        assert list(events) == []


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/s")
        listener.listen()
        yield f"unix://{tmp_path}/s"


def test_a_daemon_that_does_not_answer(silent: str) -> None:
    with Client(silent, timeout=0.05) as client, pytest.raises(TimedOut):
        client.ping()


async def _awaited(call: Any) -> Any:
    return await call


def test_a_task_that_is_cancelled_leaves_no_connection(silent: str) -> None:
    async def work() -> None:
        async with AsyncClient(silent) as client:
            task = asyncio.ensure_future(_awaited(client.ping()))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.info()

    asyncio.run(work())


def test_closing_ends_a_reader_in_another_thread() -> None:
    ours, theirs = socket.socketpair()
    channel = Channel(ours, Polling())
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(drive(channel.receive())))
    thread.start()
    until(lambda: channel.waiting == 1)
    channel.close()
    thread.join(10)
    assert found == [b""]
    assert theirs.recv(1) == b""
    theirs.close()


@pytest.mark.parametrize("host", ["unix:///nonexistent/s", "tcp://127.0.0.1:1", "ssh://x", "tcp://127.0.0.1:x"])
def test_no_daemon(host: str) -> None:
    async def awaited() -> None:
        async with AsyncClient(host) as client:
            await client.ping()

    with pytest.raises(NotConnected, match="cannot connect"):
        asyncio.run(awaited())
    with Client(host) as client, pytest.raises(NotConnected, match="cannot connect"):
        client.ping()


def test_the_daemon_is_found_as_the_command_line_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert Client().host == "unix:///var/run/corral.sock"
    meta = {"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": "tcp://far:2376", "SkipTLSVerify": True}}}
    contexts.write(str(tmp_path), meta)
    assert Client(context="far").host == "tcp://far:2376"
    assert Client(context="far").session.endpoint.tls is not None
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert Client().host == "tcp://far:2376"
    monkeypatch.setenv("DOCKER_HOST", "unix:///docker")
    assert Client().host == "unix:///docker"
    monkeypatch.setenv("CORRAL_HOST", "unix:///corral")
    assert Client().host == "unix:///corral"
    assert Client("unix:///given").host == "unix:///given"
    with pytest.raises(NoEndpoint):
        Client(context="nowhere")


def test_a_closed_client_says_so() -> None:
    client = Client("unix:///nonexistent/s")
    client.close()
    with pytest.raises(api.Ended):
        client.ping()


def test_names_with_line_ends_do_not_become_headers() -> None:
    with scripted([PING]) as (host, _), Client(host) as client, pytest.raises((BadArgument, Interrupted)):
        client.request("GET", "/info HTTP/1.1\r\nX: y")


def test_a_blocking_program_does_not_load_asyncio() -> None:
    program = "import sys, corral.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    heavy = {"asyncio", "ssl", "subprocess", "logging", "http.client", "json", "tarfile"}
    assert heavy & set(done.stdout.split()) == set()
