"""`docker run -it`, `exec -it` and `attach` on a real terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.daemon import IMAGE, Engine, docker_cli
from tests.support.terminal import Terminal
from tests.support.wait import until


@contextmanager
def typed(engine: Engine, *words: str, rows: int = 24, columns: int = 80) -> Iterator[Terminal]:
    """A docker command on a terminal."""
    environment = {**engine.environment(), "TERM": "xterm", "HOME": "/nonexistent"}
    with Terminal([docker_cli(), *words], environment, rows, columns) as terminal:
        yield terminal


def test_shell(engine: Engine) -> None:
    with typed(engine, "run", "--rm", "-it", IMAGE, "sh") as terminal:
        terminal.expect("# ")
        terminal.type("tty; echo $((40 + 2)) $TERM\r")
        terminal.expect("/dev/pts/0")
        terminal.expect("42 xterm")
        terminal.type("exit 5\r")
        assert terminal.finish() == 5


def test_size_and_resize(engine: Engine) -> None:
    with typed(engine, "run", "--rm", "-it", IMAGE, "sh", rows=31, columns=97) as terminal:
        terminal.expect("# ")
        terminal.type("stty size\r")
        terminal.expect("31 97")
        terminal.expect("# ")
        terminal.resize(45, 120)
        terminal.type("while test $(stty size | cut -c1-2) = 31; do :; done; stty size; exit\r")
        terminal.expect("45 120")
        assert terminal.finish() == 0


def test_interrupt_reaches_the_foreground_job_only(engine: Engine) -> None:
    with typed(engine, "run", "--rm", "-it", IMAGE, "sh") as terminal:
        terminal.expect("# ")
        terminal.type("sh -c 'echo ready; exec sleep 100'\r")
        terminal.expect("ready\r\n")
        terminal.type("\x03")
        terminal.expect("# ")
        terminal.type("echo code=$?\r")
        terminal.expect("code=130")
        terminal.type("exit\r")
        assert terminal.finish() == 0


def test_job_control(engine: Engine) -> None:
    with typed(engine, "run", "--rm", "-it", IMAGE, "sh") as terminal:
        terminal.expect("# ")
        terminal.type("sh -c 'echo ready; exec sleep 100'\r")
        terminal.expect("ready\r\n")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.expect("# ")
        terminal.type("bg\r")
        terminal.expect("# ")
        terminal.type("jobs\r")
        terminal.expect("Running")
        terminal.type("kill %1; wait; echo ended\r")
        terminal.expect("ended\r\n")
        terminal.expect("# ")
        terminal.type("\x04")  # end of input
        terminal.finish()


def test_detach_keys_and_attach_again(engine: Engine) -> None:
    with typed(engine, "run", "-it", "--name", "leave", IMAGE, "sh") as terminal:
        terminal.expect("# ")
        terminal.type("\x10\x11")  # ctrl-p ctrl-q
        assert terminal.finish() == 0
    assert engine.state("leave")["Running"] is True
    with typed(engine, "attach", "--detach-keys", "ctrl-x,y", "leave") as terminal:
        terminal.type("echo 'back'\"again\"\r")
        terminal.expect("backagain")
        terminal.type("\x18y")
        assert "read escape sequence" in terminal.seen.decode() or terminal.finish() in (0, 1)
    assert engine.state("leave")["Running"] is True
    engine.output("rm", "-f", "leave")


def test_part_of_a_detach_sequence_is_typed(engine: Engine) -> None:
    with typed(engine, "run", "--rm", "-it", "--detach-keys", "a,b", IMAGE, "cat") as terminal:
        terminal.type("xaxab")
        terminal.expect("xax")
        terminal.finish()


def test_exec_with_a_terminal(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    with typed(engine, "exec", "-it", container, "sh", rows=20, columns=60) as terminal:
        terminal.expect("# ")
        terminal.type("stty size; tty\r")
        terminal.expect("20 60")
        terminal.expect("/dev/pts/")
        terminal.type("exit 9\r")
        assert terminal.finish() == 9


def test_output_is_raw_and_logged_with_carriage_returns(engine: Engine) -> None:
    container = engine.create("sh", "-c", "echo one; echo two >&2", Tty=True)
    engine.post(f"/containers/{container}/start")
    engine.wait(container)
    reply = engine.get(f"/containers/{container}/logs", stdout="1", stderr="1")
    assert reply.body == b"one\r\ntwo\r\n"


def test_terminal_without_a_client(engine: Engine) -> None:
    container = engine.output("run", "-dt", IMAGE, "sh", "-c", "tty; sleep 60")
    until(lambda: "/dev/pts/0" in engine.output("logs", container))


def test_console_is_owned_by_the_containers_user(engine: Engine) -> None:
    with typed(
        engine, "run", "--rm", "-it", "-u", "bob", IMAGE, "sh", "-c", "stat -c %u /dev/pts/0; ls -l /dev/console"
    ) as terminal:
        assert terminal.finish() == 0
        assert b"1000" in terminal.seen


def test_much_output_is_complete(engine: Engine) -> None:
    with typed(engine, "run", "--rm", "-it", IMAGE, "seq", "1", "20000") as terminal:
        assert terminal.finish() == 0
        assert terminal.seen.split()[-1] == b"20000"
        assert len(terminal.seen.split()) == 20000
