from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.volume.plugins import PluginError, Plugins, UnknownVolumeDriver

ANSWERS: dict[str, bytes] = {}


class _Handler(socketserver.StreamRequestHandler):
    """Reads a request and answers with the bytes that the test wants."""

    def handle(self) -> None:
        path = self.rfile.readline().split()[1].decode()
        length = 0
        while line := self.rfile.readline().strip():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split()[1])
        self.rfile.read(length)
        self.wfile.write(ANSWERS[path])


def ok(body: object) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data)


@pytest.fixture
def plugins(tmp_path: Path) -> Iterator[Plugins]:
    ANSWERS.clear()
    ANSWERS["/Plugin.Activate"] = ok({"Implements": ["VolumeDriver"]})
    with socketserver.ThreadingUnixStreamServer(str(tmp_path / "p.sock"), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Plugins([str(tmp_path)], [str(tmp_path / "specs")])
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (ok({"Err": "no space"}), "VolumeDriver.Mount: no space"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 16\r\n\r\n" + b'{"Err":"broken"}', "VolumeDriver.Mount: broken"),
        (b"HTTP/1.1 502 X\r\nContent-Length: 4\r\n\r\nplop", "VolumeDriver.Mount: plop"),
        (ok(["a", "list"]), "not a JSON object"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{{{", "not a JSON object"),
        (b"nonsense\r\n", "cannot reach plugin"),
        (b"", "cannot reach plugin"),
    ],
)
def test_answers_that_are_no_success(plugins: Plugins, answer: bytes, text: str) -> None:
    ANSWERS["/VolumeDriver.Mount"] = answer
    with pytest.raises(PluginError, match=text):
        plugins.get("p").call("Mount", Name="v", ID="x")


def test_plugins_of_another_kind(plugins: Plugins) -> None:
    ANSWERS["/Plugin.Activate"] = ok({"Implements": ["authz"]})
    with pytest.raises(UnknownVolumeDriver, match="does not implement VolumeDriver"):
        plugins.get("p")
    assert plugins.names() == ["p"]
    assert plugins.drivers() == []


@pytest.mark.parametrize("name", ["", "../p", ".p", "q"])
def test_names_without_a_plugin(plugins: Plugins, name: str) -> None:
    with pytest.raises(UnknownVolumeDriver, match="not found"):
        plugins.get(name)


@pytest.mark.parametrize("text", ["ftp://x", "tcp://host:port", "gibberish", ""])
def test_addresses_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.spec").write_text(text)
    with pytest.raises(UnknownVolumeDriver, match="cannot reach plugin"):
        Plugins([], [str(tmp_path)]).get("bad")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"Addr": 1', '{"Addr": "tcp://x", "TLSConfig": {"CAFile": "/no"}}'])
def test_json_files_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UnknownVolumeDriver):
        Plugins([], [str(tmp_path)]).get("bad")
