"""Clients that stand still: they keep nobody else waiting, and leave nothing behind when they go."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.support.daemon import Daemon
from tests.support.wait import until

# More than the event loop's default pool has threads on any machine.
_MANY = 40
_BODY = "Expect: 100-continue\r\nContent-Length: 5000000\r\n"


@pytest.mark.parametrize(
    ("line", "headers"),
    [
        ("GET /containers/{id}/export", ""),
        ("GET /containers/{id}/archive?path=/large", ""),
        ("PUT /containers/{id}/archive?path=/tmp", _BODY),
        ("POST /images/load", _BODY),
        ("POST /containers/{id}/attach?logs=1&stdout=1", ""),
        ("GET /containers/{id}/logs?stdout=1", ""),
    ],
)
def test_many_that_stand_still(daemon: Daemon, line: str, headers: str) -> None:
    """Each has had the first bytes of its answer, and neither reads nor writes any more."""
    much = "head -c 30000000 /dev/urandom > /large; head -c 2000000 /dev/zero | tr '\\0' x | fold -w 99"
    container = daemon.start("sh", "-c", f"{much}; echo; echo end; sleep 600")
    until(lambda: daemon.output("logs", "--tail", "1", container) == "end")
    before = len(daemon.descriptors())
    with contextlib.ExitStack() as stack:
        for _ in range(_MANY):
            raw = stack.enter_context(daemon.raw())
            raw.sendall(f"{line.replace('{id}', container)} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            assert raw.recv(1, socket.MSG_PEEK)
        assert "busybox" in daemon.output("exec", container, "ls", "/bin")
        assert daemon.output("cp", f"{container}:/etc/passwd", "-")
        assert daemon.get(f"/containers/{container}/json", size="1").status == 200
        assert daemon.get(f"/containers/{container}/changes").status == 200
    until(lambda: len(daemon.descriptors()) <= before)
    assert daemon.state(container)["Running"]
    assert "Traceback" not in daemon.log()


def test_the_past_is_whole_for_whoever_attaches(daemon: Daemon) -> None:
    container = daemon.start("sh", "-c", "seq 1 20000; sleep 600", Tty=True)
    until(lambda: daemon.output("logs", "--tail", "1", container) == "20000")
    with daemon.raw() as raw:
        raw.sendall(f"POST /containers/{container}/attach?logs=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        data = b""
        while piece := raw.recv(1 << 16):
            data += piece
    assert data.partition(b"\r\n\r\n")[2].split() == [str(number).encode() for number in range(1, 20001)]
