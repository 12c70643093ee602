"""The HTTP client: every kind of body, kept connections, and daemons that misbehave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from corral.cli import progress
from corral.cli.endpoint import Endpoint
from corral.cli.problems import CliError, DaemonError, NotConnected
from corral.cli.transport import Client, query_string, quote
from tests.support.script import PING, Script, answer, scripted


@contextmanager
def _served(*connections: list[bytes], tcp: bool = False) -> Iterator[tuple[Client, Script]]:
    with scripted(*connections, tcp=tcp) as (host, script):
        client = Client(Endpoint(host))
        try:
            yield client, script
        finally:
            client.close()


@pytest.mark.parametrize("tcp", [False, True])
def test_one_connection_for_everything(tcp: bool) -> None:
    answers = [PING, answer(b'{"a": 1}'), answer(b"", "204 No Content"), answer(b'"x"', "201 Created")]
    with _served(answers, tcp=tcp) as (client, script):
        assert client.get("/info") == {"a": 1}
        assert client.post("/x", {"t": 3, "none": None, "yes": True}) is None
        assert client.post("/y", body={"k": [1]}) == "x"
    assert [request.split(b"\r\n")[0] for request in script.requests] == [
        b"HEAD /_ping HTTP/1.1",
        b"GET /v1.44/info HTTP/1.1",
        b"POST /v1.44/x?t=3&yes=1 HTTP/1.1",
        b"POST /v1.44/y HTTP/1.1",
    ]
    assert script.requests[3].endswith(b'\r\n\r\n{"k":[1]}')


def test_chunks_and_records() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b'5\r\n{"a":\r\n6;x=y\r\n 1}\n{"\r\n8\r\nb": 2}\n\n\r\n0\r\nTrailer: x\r\n\r\n'
    with _served([PING, head + body, answer(b"1")]) as (client, _):
        assert list(client.request("GET", "/events").records()) == [{"a": 1}, {"b": 2}]
        assert client.get("/again") == 1


def test_a_body_that_ends_with_the_connection() -> None:
    with _served([PING, b"HTTP/1.1 200 OK\r\n\r\nto the end"]) as (client, _):
        assert client.request("GET", "/x").read() == b"to the end"


def test_a_stream_is_sent_in_chunks() -> None:
    with _served([PING, answer(b"{}")]) as (client, script):
        client.request("POST", "/load", stream=iter([b"abc", b"", b"de"])).read()
    assert script.requests[1].endswith(b"\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def test_a_kept_connection_that_was_closed_is_made_again() -> None:
    with _served([PING], [answer(b"1")]) as (client, _):
        assert client.get("/x") == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message":"no such thing"}', "no such thing"),
        (b"plain text\n", "plain text"),
        (b"", "status 404"),
        (b"[]", "[]"),
    ],
)
def test_a_refusal(body: bytes, message: str) -> None:
    with _served([PING, answer(body, "404 Not Found")]) as (client, _):
        with pytest.raises(DaemonError) as caught:
            client.get("/x")
        assert caught.value.message == message
        assert caught.value.code == 404
        assert str(caught.value) == f"Error response from daemon: {message}"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{]x",
    ],
)
def test_a_malformedanswer(answer: bytes) -> None:
    with _served([PING, answer]) as (client, _):
        client.version  # noqa: B018  asked for before the malformed answer, on a connection of its own
        with pytest.raises(CliError):
            client.get("/x")


def test_nobody_listens() -> None:
    for host in ("unix:///nonexistent", "tcp://127.0.0.1:1"):
        with pytest.raises(NotConnected, match=f"Cannot connect to the Docker daemon at {host}"):
            Client(Endpoint(host)).get("/x")


def test_quoting() -> None:
    assert quote("a b/ü?", "/") == "a%20b/%C3%BC%3F"
    assert query_string({"b": ["x", "y"], "a": False, "c": None}) == "?a=0&b=x&b=y"
    assert query_string({}) == ""


class _Screen:
    """Standard output that is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True


_PULL: list[dict[str, Any]] = [
    {"status": "Pulling from library/x", "id": "1"},
    {"status": "Downloading", "id": "abc", "progressDetail": {"current": 5, "total": 10}},
    {"status": "Pull complete", "id": "abc", "progressDetail": {}},
    {"status": "Status: Downloaded newer image for x:1"},
]


def test_progress_is_bars_on_a_terminal_and_lines_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    progress.show(_PULL)
    assert capsys.readouterr().out == (
        "1: Pulling from library/x\nabc: Pull complete\nStatus: Downloaded newer image for x:1\n"
    )
    screen = _Screen()
    progress.show(_PULL, screen)  # type: ignore[arg-type]
    assert screen.text.endswith("\x1b[2Kabc: Pull complete \r\nStatus: Downloaded newer image for x:1\n")


def test_progress_ends_with_its_error() -> None:
    with pytest.raises(CliError, match="manifest unknown"):
        progress.silently([{"errorDetail": {"message": "manifest unknown"}, "error": "x"}])


@pytest.mark.parametrize(
    ("current", "total", "width", "text"),
    [
        (0, 0, 80, "      0B"),
        (5, 10, 80, "[" + "=" * 25 + ">" + " " * 24 + "]       5B/10B"),
        (5, 10, 20, "      5B/10B"),
    ],
)
def test_bar(current: int, total: int, width: int, text: str) -> None:
    assert progress.bar(current, total, width, 0.1) == text
