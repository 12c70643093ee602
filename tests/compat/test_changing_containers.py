"""What a client looks at changes under its eyes: each is told so, and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemon import IMAGE, Daemon
from tests.support.wait import until


def _ask(raw: socket.socket, line: str) -> None:
    raw.sendall(f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


def _rest(raw: socket.socket) -> bytes:
    data = b""
    while piece := raw.recv(1 << 16):
        data += piece
    return data


def _large(daemon: Daemon, then: str = "true") -> str:
    """A container that has ended, whose export does not fit into a socket; started again, it does something else."""
    container = daemon.start("sh", "-c", f"test -e /large && {then}; head -c 8000000 /dev/urandom > /large")
    until(lambda: not daemon.state(container)["Running"])
    return container


@contextlib.contextmanager
def _export_after(daemon: Daemon, container: str, change: str) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A change and then an export, both asked for while another export has the file system; now it is their turn."""
    with daemon.raw() as first, daemon.raw() as changing, daemon.raw() as second:
        _ask(first, f"GET /containers/{container}/export")
        assert first.recv(1, socket.MSG_PEEK)
        for raw, line in ((changing, change), (second, f"GET /containers/{container}/export")):
            _ask(raw, line)
            assert daemon.get("/_ping").status == 200  # by now it waits for its turn
        first.close()
        yield changing, second


def test_removed_while_an_export_waits(daemon: Daemon) -> None:
    container = _large(daemon)
    with _export_after(daemon, container, f"DELETE /containers/{container}") as (removing, second):
        assert _rest(removing).startswith(b"HTTP/1.1 204 ")
        answer = _rest(second)
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"No such container" in answer
    assert "Traceback" not in daemon.log()


def test_started_while_an_export_waits(daemon: Daemon) -> None:
    """Its layer must not be mounted a second time under the running container."""
    container = _large(daemon, "sleep 600")
    with _export_after(daemon, container, f"POST /containers/{container}/start") as (starting, second):
        assert _rest(starting).startswith(b"HTTP/1.1 204 ")
        assert second.recv(1, socket.MSG_PEEK)
        assert os.listdir(os.path.join(daemon.exec_root, "held")) == []
        assert _rest(second).startswith(b"HTTP/1.1 200 ")


def test_removed_while_a_client_reads_the_past(daemon: Daemon) -> None:
    container = daemon.start("sh", "-c", "head -c 2000000 /dev/zero | tr '\\0' x | fold -w 99; echo")
    until(lambda: not daemon.state(container)["Running"])
    before = len(daemon.descriptors())
    with daemon.raw() as raw:
        _ask(raw, f"POST /containers/{container}/attach?logs=1&stream=1&stdout=1&stdin=1")
        assert raw.recv(1, socket.MSG_PEEK)
        daemon.output("rm", container)
        assert _rest(raw).count(b"x") >= 2_000_000
    until(lambda: len(daemon.descriptors()) <= before)


def test_clients_that_hang_up_at_once(daemon: Daemon) -> None:
    container = _large(daemon)
    for _ in range(30):
        with daemon.raw() as raw:
            _ask(raw, f"GET /containers/{container}/export")
    daemon.output("cp", f"{container}:/etc/passwd", "-")
    until(lambda: os.listdir(os.path.join(daemon.exec_root, "held")) == [])


def test_a_folder_without_devices(daemon: Daemon, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "broken").symlink_to("nowhere")
    (tmp_path / "sub").mkdir()
    os.mknod(tmp_path / "sub" / "zero", 0o20600, os.makedev(1, 5))
    listed = daemon.output("run", "--rm", "--device", f"{tmp_path}:/dev/all", IMAGE, "find", "/dev/all", "-type", "c")
    assert listed == "/dev/all/sub/zero"
