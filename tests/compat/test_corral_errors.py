"""What `corral` says and does when something is wrong: hints, closed pipes, full disks, interrupts, odd targets."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.cli import advice
from tests.support.corral import CORRAL, corral, environment
from tests.support.daemon import IMAGE, Daemon
from tests.support.terminal import Terminal
from tests.support.wait import until

_TIMEOUT_S = 30


@pytest.fixture
def web(daemon: Daemon) -> Daemon:
    daemon.output("run", "-d", "--name", "webserver", "-p", "8080:80", IMAGE, "sh", "-c", "echo line; sleep 1000")
    until(lambda: daemon.output("logs", "webserver") == "line")
    return daemon


# --- hints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["stop", "webservre"], "did you mean webserver?"),
        (["start", "webservre"], "did you mean webserver?"),
        (["exec", "webservre", "true"], "did you mean webserver?"),
        (["inspect", "webservre"], "did you mean webserver?"),
        (["logs", "zzz"], "see `corral ps -a`"),
        (["rmi", "corral.test/bussybox:1"], "did you mean corral.test/busybox:1?"),
        (["run", "--pull", "never", "nosuch:1"], "corral pull nosuch:1"),
        (["push", "reg.test/x"], "give an image that name first: corral tag IMAGE reg.test/x:latest"),
        (["run", "--rm", "--network", "brigde", IMAGE, "true"], "did you mean bridge?"),
        (["network", "rm", "zzz"], "corral network create zzz"),
        (["volume", "rm", "zzz"], "see `corral volume ls`"),
        (["run", "--rm", "-p", "8080:80", IMAGE, "true"], "port 8080 belongs to the container webserver"),
        (["run", "--name", "webserver", IMAGE], "corral rm webserver, or choose another --name"),
        (["rm", "webserver"], "corral stop webserver, or remove it with -f"),
        (["-H", "unix:///nosuch", "ps"], "start one there: corrald -H unix:///nosuch"),
    ],
)
def test_errors_say_what_to_do(web: Daemon, words: list[str], hint: str) -> None:
    done = corral(web, *words)
    assert done.returncode in (1, 125)
    assert f"Hint: {hint}\n" in done.stderr


def test_a_socket_that_one_may_not_use(web: Daemon) -> None:
    """As `nobody`: the group of the socket is named, or that there is none."""
    os.chmod(web.folder, 0o711)
    for group, text in (
        (0, "only root may use this socket"),
        (4, "members of the group adm may: sudo usermod -aG adm"),
    ):
        os.chown(web.socket_path, 0, group)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", CORRAL, "ps"],
            env=environment(web), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "permission denied while trying to connect" in done.stderr
        assert f"Hint: {text}" in done.stderr
    os.chown(web.socket_path, 0, 0)


def test_the_owner_of_a_port_is_found() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert advice.listener(listening.getsockname()[1]).endswith(f"(pid {os.getpid()})")
    assert advice.listener(1) == ""


# --- outputs that cannot be written ------------------------------------------------------------------------------

_PRINTING = [
    ["ps", "-a"], ["images"], ["inspect", "webserver"], ["logs", "webserver"], ["network", "ls"], ["info"], ["version"],
    ["top", "webserver"], ["save", IMAGE], ["export", "webserver"], ["cp", "webserver:/bin/busybox", "-"],
    ["run", "--help"], ["exec", "webserver", "ls", "/bin"], ["run", "--rm", IMAGE, "ls", "/bin"],
    ["stats", "--no-stream"], ["completion", "bash"], ["context", "ls"],
    ["history", IMAGE], ["system", "df"], ["events", "--since", "1h", "--until", "0s"],
]  # fmt: skip


@pytest.mark.parametrize("words", _PRINTING, ids=" ".join)
def test_a_full_disk_is_an_error(web: Daemon, words: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [CORRAL, *words], env=environment(web), stdout=full, stderr=subprocess.PIPE, text=True, timeout=_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "corral: No space left on device\n")


@pytest.mark.parametrize("words", _PRINTING, ids=" ".join)
def test_a_closed_pipe_is_none(web: Daemon, words: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [CORRAL, *words], env=environment(web), stdout=write, stderr=subprocess.PIPE, text=True, timeout=_TIMEOUT_S,
        check=False,
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for almost nothing."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("words", [["save", "-o", "FILE", IMAGE], ["export", "-o", "FILE", "webserver"]], ids=" ".join)
def test_half_a_file_never_appears(web: Daemon, small: Path, words: list[str]) -> None:
    (small / "file").write_text("before")
    done = corral(web, *[str(small / "file") if word == "FILE" else word for word in words])
    assert (done.returncode, done.stderr) == (1, "corral: No space left on device\n")
    assert os.listdir(small) == ["file"] and (small / "file").read_text() == "before"
    done = corral(web, "cp", "webserver:/bin/busybox", str(small / "copied"))
    assert (done.returncode, done.stderr) == (1, "corral: No space left on device\n")


def test_devices_links_and_pipes_are_not_replaced(web: Daemon, tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "folder").mkdir()
    before = {path.name: os.lstat(path).st_ino for path in tmp_path.iterdir()}
    for words in (["save", "-o", "", IMAGE], ["export", "-o", "", "webserver"]):
        for name in ("null", "pipe", "link", "folder"):
            words[2] = str(tmp_path / name)
            theirs, ours = web.docker(*words), corral(web, *words)
            assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
            assert ours.returncode == 1
    copy = ("cp", "webserver:/etc/group", str(tmp_path / "null"))
    assert (corral(web, *copy).returncode, corral(web, *copy).stderr) == (1, web.docker(*copy).stderr)
    assert {path.name: os.lstat(path).st_ino for path in tmp_path.iterdir()} == before


# --- interrupts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["logs", "-f", "webserver"], ["events"], ["wait", "webserver"], ["stats"], ["load"]], ids=" ".join
)
def test_ctrl_c_ends_a_command_without_a_word(web: Daemon, words: list[str]) -> None:
    with subprocess.Popen(
        [CORRAL, *words], env=environment(web), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as client:
        # it is connected: the kernel says so of its socket
        until(lambda: _has_socket(client.pid), _TIMEOUT_S)
        client.send_signal(signal.SIGINT)
        assert client.wait(_TIMEOUT_S) == 130
        assert client.stderr is not None and client.stderr.read() == b""


def _has_socket(pid: int) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{fd}").startswith("socket:") for fd in os.listdir(folder))
    except FileNotFoundError:  # one was closed while we looked
        return False


# --- progress ----------------------------------------------------------------------------------------------------


def test_bars_with_rate_and_time_left() -> None:
    from corral.cli.progress import bar

    assert bar(25_000_000, 100_000_000, 100, 5.0) == ("[============>" + " " * 37 + "]     25MB/100MB  5MB/s  16s")
    assert bar(25_000_000, 0, 100, 5.0) == "    25MB  5MB/s"
    assert bar(25_000_000, 100_000_000, 20, 5.0) == "    25MB/100MB  5MB/s  16s"


def test_what_travels_is_metered_on_a_terminal(web: Daemon, tmp_path: Path) -> None:
    """A transfer that lasts shows its rate, and the line is gone at the end; a quick one shows nothing."""
    slow = tmp_path / "slow"
    os.mkfifo(slow)
    with Terminal([CORRAL, "import", str(slow)], environment(web, TERM="xterm"), columns=120) as terminal:
        with open(slow, "wb", buffering=0) as pipe:
            terminal.drain()

            def fed() -> bool:
                pipe.write(b"\0" * 10_240)
                terminal.drain()
                return b"kB/s" in terminal.seen

            until(fed, _TIMEOUT_S)
        terminal.finish(_TIMEOUT_S)
        shown = terminal.seen.decode(errors="replace")
    assert "\r\x1b[2KSending " in shown
    assert "\r\x1b[2K" in shown.rpartition("kB/s")[2]
    words = ["cp", "webserver:/etc/passwd", str(tmp_path / "passwd")]
    with Terminal([CORRAL, *words], environment(web, TERM="xterm"), columns=120) as terminal:
        terminal.finish(_TIMEOUT_S)
        quick = terminal.seen.decode(errors="replace")
    assert "\x1b" not in quick and quick.startswith("Successfully copied")
