"""`corral logs` of several containers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.corral import CORRAL, corral, environment
from tests.support.daemon import IMAGE, Daemon
from tests.support.terminal import Terminal
from tests.support.wait import until

_TIMEOUT_S = 20
# Two containers that take turns: each waits for the other's file.
_TURNS = 'n=0; while [ $n -lt 3 ]; do until [ -e /v/$n$MINE ]; do sleep 0.01; done; echo "$MINE $n"; '
_FIRST = _TURNS + "touch /v/${n}b; n=$((n+1)); done; echo problem >&2"
_SECOND = _TURNS + "n=$((n+1)); touch /v/${n}a; done"


@pytest.fixture
def turns(daemon: Daemon) -> Iterator[Daemon]:
    daemon.output("volume", "create", "turns")
    daemon.output("run", "-d", "--name", "aa", "-e", "MINE=a", "-v", "turns:/v", IMAGE, "sh", "-c", _FIRST)
    daemon.output("run", "-d", "--name", "second", "-e", "MINE=b", "-v", "turns:/v", IMAGE, "sh", "-c", _SECOND)
    daemon.output("run", "--rm", "-v", "turns:/v", IMAGE, "touch", "/v/0a")
    daemon.output("wait", "aa", "second")
    yield daemon
    daemon.remove_all()
    daemon.output("volume", "rm", "turns")


def _merged(daemon: Daemon) -> list[str]:
    """The lines on standard output in the order of their times, which the shims gave them, with the names."""
    stamped = [
        (*line.split(" ", 1), name)
        for name in ("aa", "second")
        for line in daemon.docker("logs", "-t", name).stdout.splitlines()
    ]
    assert len(stamped) == 6
    return [f"{name:<6} | {text}" for _, text, name in sorted(stamped)]


def test_lines_come_in_their_order_with_names(turns: Daemon) -> None:
    done = corral(turns, "logs", "aa", "second")
    assert (done.returncode, done.stderr) == (0, "aa     | problem\n")
    assert done.stdout.splitlines() == _merged(turns)
    assert corral(turns, "logs", "-f", "second", "aa").stdout.splitlines() == _merged(turns)


def test_times_tails_and_one_container(turns: Daemon) -> None:
    stamped = corral(turns, "logs", "-t", "--tail", "1", "second", "aa").stdout.splitlines()
    assert [line.split()[0:2] for line in stamped] == [["second", "|"]]  # the last line of aa went to standard error
    assert stamped[0].split()[2].endswith("Z") and stamped[0].endswith("b 2")
    assert corral(turns, "logs", "aa").stdout == turns.docker("logs", "aa").stdout


def test_a_container_that_does_not_exist(turns: Daemon) -> None:
    done = corral(turns, "logs", "aa", "nosuch")
    assert (done.returncode, done.stdout) == (1, "")
    assert "No such container: nosuch" in done.stderr


def test_colours_are_for_terminals(turns: Daemon) -> None:
    plain = {"TERM": "xterm", "NO_COLOR": "1"}
    for more, coloured in (({"TERM": "xterm"}, True), (plain, False), ({"TERM": "dumb"}, False)):
        with Terminal([CORRAL, "logs", "aa", "second"], environment(turns, **more)) as terminal:
            assert terminal.finish() == 0
            shown = terminal.seen.decode()
        assert ("\x1b[36maa     |\x1b[0m a 0" in shown) == coloured
        assert ("\x1b[33msecond |\x1b[0m b 0" in shown) == coloured
        assert ("\x1b" in shown) == coloured


def test_following_goes_on_as_lines_come_and_ends_with_the_containers(daemon: Daemon) -> None:
    script = 'echo begun; read word; echo "got $word"; read word; printf no-end'
    for name in ("one", "two"):
        daemon.output("create", "-i", "--name", name, IMAGE, "sh", "-c", script)
    writers = [
        subprocess.Popen(
            [CORRAL, "start", "-ai", name], env=environment(daemon), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        for name in ("one", "two")
    ]
    try:
        until(lambda: all(daemon.state(name)["Running"] for name in ("one", "two")))
        with subprocess.Popen(
            [CORRAL, "logs", "-f", "one", "two"], env=environment(daemon), stdout=subprocess.PIPE, text=True
        ) as follower:
            assert follower.stdout is not None
            assert {follower.stdout.readline(), follower.stdout.readline()} == {"one | begun\n", "two | begun\n"}
            _say(writers[1], b"hello\n")
            assert follower.stdout.readline() == "two | got hello\n"
            _say(writers[0], b"you\n")
            assert follower.stdout.readline() == "one | got you\n"
            for writer in writers:
                _say(writer, b"end\n")
            assert {follower.stdout.readline(), follower.stdout.readline()} == {"one | no-end\n", "two | no-end\n"}
            assert follower.stdout.read() == ""
            assert follower.wait(_TIMEOUT_S) == 0
    finally:
        for writer in writers:
            writer.communicate(timeout=_TIMEOUT_S)


def _say(writer: subprocess.Popen[bytes], data: bytes) -> None:
    assert writer.stdin is not None
    os.write(writer.stdin.fileno(), data)


def test_ctrl_c_ends_following(daemon: Daemon) -> None:
    for name in ("one", "two"):
        daemon.output("run", "-d", "--name", name, IMAGE, "sh", "-c", "echo begun; sleep 1000")
    with subprocess.Popen(
        [CORRAL, "logs", "-f", "one", "two"],
        env=environment(daemon), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as follower:  # fmt: skip
        assert follower.stdout is not None and follower.stderr is not None
        assert {follower.stdout.readline(), follower.stdout.readline()} == {"one | begun\n", "two | begun\n"}
        follower.send_signal(signal.SIGINT)
        assert follower.wait(_TIMEOUT_S) == 130
        assert follower.stderr.read() == ""
