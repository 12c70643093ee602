"""`corral top`: the live table, on a terminal as a person uses it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.support.corral import CORRAL, corral, environment
from tests.support.daemon import IMAGE, Daemon
from tests.support.terminal import Terminal
from tests.support.wait import until

_TIMEOUT_S = 30
_LEFT = "\x1b[?1049l"  # back on the screen that was there before
_BUSY = "echo from-spinner; while :; do :; done"


@pytest.fixture
def busy(daemon: Daemon) -> Daemon:
    daemon.output("run", "-d", "--name", "idle", IMAGE, "sleep", "1000")
    daemon.output("run", "-d", "--name", "spinner", "--cpus", "0.2", "--stop-timeout", "0", IMAGE, "sh", "-c", _BUSY)
    return daemon


@pytest.fixture
def table(busy: Daemon) -> Iterator[Terminal]:
    """The table, drawn, with the busy container on top."""
    with Terminal([CORRAL, "top"], environment(busy, TERM="xterm"), rows=24, columns=132) as terminal:
        terminal.expect("2 running, CPU", _TIMEOUT_S)
        yield terminal


def _frame(terminal: Terminal) -> str:
    """The last whole picture of the screen."""
    terminal.drain()
    return terminal.seen.decode(errors="replace").rpartition("\x1b[H")[0].rpartition("\x1b[H")[2]


def test_shows_what_containers_use(table: Terminal) -> None:
    def used() -> float:
        found = re.search(r"spinner.* (\d+\.\d) +[\d.]+[KM]iB", _frame(table))
        return float(found[1]) if found else 0.0

    until(lambda: used() > 5, _TIMEOUT_S)
    shown = _frame(table)
    for word in ("NAME", "CPU %*", "MEMORY", "NET IN/OUT", "DISK R/W", "spinner", "idle", IMAGE, "Up "):
        assert word in shown, word


def test_no_colours(busy: Daemon) -> None:
    with Terminal([CORRAL, "top"], environment(busy, TERM="xterm", NO_COLOR="1"), columns=132) as terminal:
        until(lambda: "spinner" in _frame(terminal), _TIMEOUT_S)
        assert "\x1b[7m" in _frame(terminal) and "\x1b[37m" not in _frame(terminal)
        terminal.type("q")
        assert terminal.finish(_TIMEOUT_S) == 0


def test_ends_in_order(busy: Daemon) -> None:
    def key(text: str) -> object:
        return lambda terminal: terminal.type(text)

    def kill(number: int) -> object:
        return lambda terminal: os.kill(terminal.pid, number)

    for end, status in (
        (key("q"), 0),
        (key("\x03"), 130),
        (kill(signal.SIGTERM), 128 + signal.SIGTERM),
        (kill(signal.SIGHUP), 128 + signal.SIGHUP),
    ):
        with Terminal([CORRAL, "top"], environment(busy, TERM="xterm"), rows=24, columns=100) as terminal:
            before = terminal.mode()
            terminal.expect("2 running, CPU", _TIMEOUT_S)
            assert terminal.mode() != before
            end(terminal)  # type: ignore[operator]
            assert terminal.finish(_TIMEOUT_S) == status
            assert terminal.mode() == before
            shown = terminal.seen.decode(errors="replace")
            assert _LEFT in shown and "\x1b[?25h" in shown.replace("\x1b[?12l", "")
            assert "Traceback" not in shown


def test_a_terminal_that_vanishes_ends_it(busy: Daemon) -> None:
    terminal = Terminal([CORRAL, "top"], environment(busy, TERM="xterm"))
    terminal.expect("2 running, CPU", _TIMEOUT_S)
    terminal.hang_up()
    until(lambda: terminal.has_ended(), _TIMEOUT_S)


def test_keys_sort(table: Terminal) -> None:
    def names() -> list[str]:
        return [name for line in _frame(table).splitlines() for name in ("idle", "spinner") if name in line]

    table.type("a")
    until(lambda: "NAME*" in _frame(table) and names() == ["idle", "spinner"], _TIMEOUT_S)
    table.type("a")
    until(lambda: names() == ["spinner", "idle"], _TIMEOUT_S)


def test_logs_and_back(table: Terminal) -> None:
    table.type("a")  # by name: `idle` is the first
    table.expect("NAME*", _TIMEOUT_S)
    table.type("\x1b[B")
    table.type("l")
    table.expect(_LEFT, _TIMEOUT_S)
    table.expect("from-spinner", _TIMEOUT_S)
    table.type("\x03")
    table.expect("2 running, CPU", _TIMEOUT_S)
    table.type("q")
    assert table.finish(_TIMEOUT_S) == 0


def test_a_shell_and_back(table: Terminal) -> None:
    table.type("a")
    table.expect("NAME*", _TIMEOUT_S)
    table.type("j")
    table.type("k")
    table.type("s")
    table.expect(_LEFT, _TIMEOUT_S)
    table.type("cat /proc/1/cmdline | tr '\\0' '-'; exit\r")
    table.expect("sleep-1000-", _TIMEOUT_S)
    table.expect("2 running, CPU", _TIMEOUT_S)
    table.type("q")
    assert table.finish(_TIMEOUT_S) == 0


def test_stops_a_container_after_a_question(table: Terminal, busy: Daemon) -> None:
    table.type("a")
    table.expect("NAME*", _TIMEOUT_S)
    table.type("j")
    table.type("x")
    table.expect("Stop spinner?", _TIMEOUT_S)
    table.type("n")
    table.expect("q quit", _TIMEOUT_S)
    assert busy.state("spinner")["Running"]
    table.type("x")
    table.expect("Stop spinner?", _TIMEOUT_S)
    table.type("y")
    table.expect("spinner has stopped", _TIMEOUT_S)
    table.expect("1 running", _TIMEOUT_S)
    assert not busy.state("spinner")["Running"]


def test_follows_the_size_and_new_containers(table: Terminal, busy: Daemon) -> None:
    table.resize(10, 50)
    until(lambda: "NAME" in _frame(table) and "IMAGE" not in _frame(table), _TIMEOUT_S)
    busy.output("run", "-d", "--name", "third", IMAGE, "sleep", "1000")
    table.expect("third", _TIMEOUT_S)
    busy.output("rename", "third", "fourth")
    table.expect("fourth", _TIMEOUT_S)


def test_a_daemon_that_goes_away_and_comes_back(own_daemon: Daemon) -> None:
    own_daemon.output("run", "-d", "--name", "lasting", IMAGE, "sleep", "1000")
    with Terminal([CORRAL, "top"], environment(own_daemon, TERM="xterm"), columns=150) as terminal:
        terminal.expect("1 running", _TIMEOUT_S)
        own_daemon.end()
        terminal.expect("Is the docker daemon running?", _TIMEOUT_S)
        own_daemon.launch()
        terminal.expect("1 running", _TIMEOUT_S)
        terminal.expect("lasting", _TIMEOUT_S)


def test_without_a_terminal_or_a_daemon(busy: Daemon) -> None:
    done = corral(busy, "top")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "the live table needs a terminal: use `corral stats`, or `corral top CONTAINER`\n"
    with Terminal([CORRAL, "-H", "unix:///nosuch", "top"], environment(busy, TERM="xterm")) as terminal:
        assert terminal.finish(_TIMEOUT_S) == 1
        assert terminal.seen.startswith(b"Cannot connect to the Docker daemon at unix:///nosuch")
        assert b"\x1b" not in terminal.seen
