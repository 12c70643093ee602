"""Standard streams: to clients and log, input with back-pressure, detach keys."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.shim.logs import NoLog
from corral.shim.loop import HANG_UP, READ, WRITE
from corral.shim.stdio import Streams, _DetachKeys


class FakeLoop:
    """A loop that a test turns by hand: descriptors, what they are watched for, and their callbacks."""

    def __init__(self) -> None:
        self.watched: dict[int, tuple[int, Callable[[int], None]]] = {}

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        self.watched[fd] = (events, callback)

    def forget(self, fd: int) -> None:
        self.watched.pop(fd, None)

    def turn(self) -> bool:
        """Report once what is ready; whether anything was."""
        import select

        poll = select.poll()
        for fd, (events, _) in self.watched.items():
            poll.register(fd, (select.POLLIN if events & READ else 0) | (select.POLLOUT if events & WRITE else 0))
        ready = poll.poll(0)
        for fd, bits in ready:
            if fd not in self.watched:
                continue
            events, callback = self.watched[fd]
            happened = 0
            if bits & select.POLLIN:
                happened |= READ
            if bits & select.POLLOUT:
                happened |= WRITE
            if bits & (select.POLLHUP | select.POLLERR):
                happened |= HANG_UP | (events & READ)
            callback(happened)
        return bool(ready)

    def settle(self) -> None:
        for _ in range(1000):
            if not self.turn():
                return
        raise AssertionError("the loop never rests")


class Process:
    """The streams under test with a process's ends of its pipes."""

    def __init__(self, **options: Any) -> None:
        self.loop = FakeLoop()
        self.told: list[str] = []
        self.streams = Streams(
            self.loop,  # type: ignore[arg-type]
            NoLog(),
            terminal=False,
            stdin_once=options.get("stdin_once", True),
            on_log=lambda: self.told.append("log"),
            on_detach=lambda: self.told.append("detach"),
            on_end=lambda: self.told.append("end"),
            on_idle=lambda: self.told.append("idle"),
        )
        self.stdin, stdin = os.pipe()
        stdout, self.stdout = os.pipe()
        stderr, self.stderr = os.pipe()
        self.streams.take_pipes(stdin, stdout, stderr)

    def attach(self, **options: Any) -> socket.socket:
        ours, theirs = socket.socketpair()
        chosen = {"stdin": True, "outputs": ["stdout", "stderr"], "detach_keys": b"", **options}
        self.streams.attach(theirs.detach(), **chosen)
        ours.setblocking(False)
        return ours

    def exit(self) -> None:
        for fd in (self.stdin, self.stdout, self.stderr):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process()
    yield made
    made.exit()
    made.loop.settle()
    made.streams.finish()
    made.loop.settle()
    assert made.loop.watched == {}


def frame(stream: int, data: bytes) -> bytes:
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def received(client: socket.socket) -> bytes:
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := client.recv(1 << 20):
            data += piece
    return data


def test_output_reaches_every_client_that_wants_it(process: Process) -> None:
    both, one = process.attach(), process.attach(outputs=["stderr"])
    os.write(process.stdout, b"out")
    process.loop.settle()
    os.write(process.stderr, b"err")
    process.loop.settle()
    assert received(both) == frame(1, b"out") + frame(2, b"err")
    assert received(one) == frame(2, b"err")
    both.close()
    one.close()


def test_input_and_its_end(process: Process) -> None:
    client = process.attach()
    client.sendall(b"typed")
    process.loop.settle()
    assert os.read(process.stdin, 100) == b"typed"
    client.shutdown(socket.SHUT_WR)
    process.loop.settle()
    assert os.read(process.stdin, 100) == b""
    os.write(process.stdout, b"still")
    process.loop.settle()
    assert received(client) == frame(1, b"still")
    client.close()


def test_without_stdin_once_the_input_stays_open() -> None:
    process = Process(stdin_once=False)
    client = process.attach()
    client.shutdown(socket.SHUT_WR)
    process.loop.settle()
    os.set_blocking(process.stdin, False)
    with pytest.raises(BlockingIOError):
        os.read(process.stdin, 1)
    client.close()
    process.exit()
    process.loop.settle()
    process.streams.finish()


def test_a_slow_client_slows_the_process_and_loses_nothing(process: Process) -> None:
    client = process.attach()
    os.set_blocking(process.stdout, False)
    written = 0
    for _ in range(200):
        try:
            written += os.write(process.stdout, b"x" * 65536)
        except BlockingIOError:
            before = written
            process.loop.settle()
            with contextlib.suppress(BlockingIOError):
                written += os.write(process.stdout, b"x" * 65536)
            if written == before:
                break
    else:
        raise AssertionError("memory is not bounded")
    assert written < 8 << 20
    os.close(process.stdout)
    os.close(process.stderr)
    data = b""
    while piece := received(client) or (process.loop.turn() and b"") or received(client):
        data += piece
        process.loop.settle()
    payload = 0
    while data:
        length = int.from_bytes(data[4:8], "big")
        payload += length
        data = data[8 + length :]
    assert payload == written
    client.close()


def test_a_client_that_hangs_up_is_forgotten(process: Process) -> None:
    client = process.attach()
    client.close()
    os.write(process.stdout, b"nobody reads this")
    process.loop.settle()
    assert not process.streams.has_clients
    assert "idle" in process.told


def test_the_end_is_told_once_every_output_has_ended(process: Process) -> None:
    os.write(process.stdout, b"last")
    os.close(process.stdout)
    process.loop.settle()
    assert "end" not in process.told
    os.close(process.stderr)
    process.loop.settle()
    assert process.told.count("end") == 1


def test_input_for_a_process_that_takes_none_is_kept_within_bounds(process: Process) -> None:
    client = process.attach()
    sent = 0
    for _ in range(300):
        try:
            sent += client.send(b"y" * 65536)
        except BlockingIOError:
            before = sent
            process.loop.settle()
            with contextlib.suppress(BlockingIOError):
                sent += client.send(b"y" * 65536)
            if sent == before:
                break
    else:
        raise AssertionError("memory is not bounded")
    got = 0
    os.set_blocking(process.stdin, False)
    client.shutdown(socket.SHUT_WR)
    while True:
        try:
            piece = os.read(process.stdin, 1 << 20)
        except BlockingIOError:
            process.loop.turn()
            continue
        if not piece:
            break
        got += len(piece)
        process.loop.turn()
    assert got == sent
    client.close()


def test_detach_keys_end_the_attachment_not_the_process(process: Process) -> None:
    client = process.attach(detach_keys=b"\x10\x11")
    client.sendall(b"ab\x10c\x10\x11never")
    process.loop.settle()
    assert os.read(process.stdin, 100) == b"ab\x10c"
    assert "detach" in process.told
    assert received(client) == b""
    os.write(process.stdout, b"goes on")
    process.loop.settle()
    client.close()


KEYS = st.sampled_from([b"\x10\x11", b"a", b"aab", b"aba"])


@given(KEYS, st.lists(st.sampled_from([b"a", b"b", b"\x10", b"\x11", b"aa", b"\x10\x11"]), max_size=12))
def test_input_without_the_sequence_is_passed_on_whole(keys: bytes, pieces: list[bytes]) -> None:
    typed, passed = b"".join(pieces), b""
    detach = _DetachKeys(keys)
    for piece in pieces:
        more, detached = detach.feed(piece)
        passed += more
        if detached:
            assert keys in typed
            assert typed.startswith(passed + keys)
            return
    assert typed.startswith(passed)
    assert keys.startswith(typed[len(passed) :])
    if len(set(keys)) == len(keys):
        assert keys not in typed
