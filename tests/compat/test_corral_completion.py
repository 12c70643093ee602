"""Completions of `corral` in the real shells, on terminals, with the names of a real daemon."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon
from tests.support.terminal import Terminal
from tests.support.wait import until

_BIN = Path(__file__).resolve().parents[2] / "bin"
_CORRAL = str(_BIN / "corral")
_TIMEOUT_S = 20
_SHELLS = ("bash", "bash-alone", "zsh", "fish")


@pytest.fixture
def names(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon with something of every kind."""
    daemon.output("run", "-d", "--name", "whole-runs", IMAGE, "sleep", "1000")
    daemon.output("run", "-d", "--name", "whole-waits", IMAGE, "true")
    daemon.output("wait", "whole-waits")
    daemon.output("network", "create", "whole-network")
    daemon.output("volume", "create", "whole-volume")
    daemon.output("tag", IMAGE, "whole.test/image:old")
    yield daemon
    daemon.remove_all()
    daemon.output("network", "rm", "whole-network")
    daemon.output("volume", "rm", "whole-volume")
    daemon.output("rmi", "whole.test/image:old")


def _environment(daemon: Daemon, home: Path) -> dict[str, str]:
    return {
        "PATH": f"{_BIN}:/usr/bin:/bin", "HOME": str(home), "CORRAL_HOST": daemon.host, "TERM": "xterm",
        "LANG": "C.UTF-8", "XDG_CONFIG_HOME": str(home), "XDG_DATA_HOME": str(home), "XDG_CACHE_HOME": str(home),
    }  # fmt: skip


def _script(shell: str, environment: dict[str, str]) -> str:
    done = subprocess.run([_CORRAL, "completion", shell], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@contextmanager
def _shell(name: str, daemon: Daemon, home: Path) -> Iterator[Terminal]:
    """An interactive shell with the completions loaded, as its users load them, and with the prompt `ready> `."""
    environment = _environment(daemon, home)
    (home / "script").write_text(_script(name.partition("-")[0], environment))
    (home / "some-folder").mkdir()
    (home / "some-file").write_text("")
    if name.startswith("bash"):
        lines = ["PS1='ready> '", "bind 'set bell-style none'", "bind 'set enable-bracketed-paste off'"]
        lines += ["source /usr/share/bash-completion/bash_completion"] if name == "bash" else []
        (home / "rc").write_text("\n".join([*lines, f"source {home}/script", ""]))
        argv = ["bash", "--noprofile", "--rcfile", str(home / "rc"), "-i"]
    elif name == "zsh":
        (home / "functions").mkdir()
        (home / "script").rename(home / "functions" / "_corral")
        (home / ".zshrc").write_text(
            f"fpath=({home}/functions $fpath)\nautoload -U compinit\ncompinit -u\n"
            "PS1='ready> '\nunsetopt beep prompt_sp\n"
        )
        argv = ["zsh", "-i"]
    else:
        (home / "fish" / "completions").mkdir(parents=True)
        (home / "script").rename(home / "fish" / "completions" / "corral.fish")
        (home / "fish" / "config.fish").write_text("function fish_prompt; echo -n 'ready> '; end\nset fish_greeting\n")
        argv = ["fish", "-i"]
    assert shutil.which(argv[0]), f"{argv[0]} is missing"
    with Terminal(["env", "-C", str(home), *argv], environment, rows=50, columns=200) as terminal:
        terminal.expect("ready> ", _TIMEOUT_S)
        yield terminal


@pytest.mark.parametrize("shell", _SHELLS)
def test_completes_in_a_real_shell(names: Daemon, tmp_path: Path, shell: str) -> None:
    """What TAB makes of a line; it is run with `echo` in front, which may stand there only after the completion."""
    out = tmp_path / "out"
    with _shell(shell, names, tmp_path) as terminal:
        for typed, words in (
            ("corral sto", "stop"),
            ("corral network con", "network connect"),
            ("corral stop whole", "stop whole-runs"),
            ("corral start whole", "start whole-waits"),
            ("corral run --network whole", "run --network whole-network"),
            ("corral run --network=whole", "run --network=whole-network"),
            ("corral volume rm whole", "volume rm whole-volume"),
            ("corral rmi whole.test/image:o", "rmi whole.test/image:old"),
            ("corral run --restart unl", "run --restart unless-stopped"),
            ("corral run --no-healthc", "run --no-healthcheck"),
            ("corral build some-fo", "build some-folder"),
            ("corral load -i some-fi", "load -i some-file"),
            ("corral context use def", "context use default"),
        ):
            terminal.type(f"{typed}\t\x01echo > {out} \x05 :end\r")
            until(lambda: terminal.drain() or (out.exists() and out.read_text().endswith(":end\n")), _TIMEOUT_S)
            # zsh takes the slash of a folder away when a blank follows
            assert out.read_text().removesuffix(" :end\n").rstrip(" /") == f"corral {words}"
            out.unlink()


def _asked(daemon: Daemon, home: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [_CORRAL, "__complete", *words],
        env=_environment(daemon, home), capture_output=True, text=True, timeout=_TIMEOUT_S, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition("\t")[0] for line in done.stdout.splitlines()]


def test_names_are_those_that_make_sense(names: Daemon, tmp_path: Path) -> None:
    assert _asked(names, tmp_path, "stop", "") == ["whole-runs", ":4"]
    assert _asked(names, tmp_path, "start", "") == ["whole-waits", ":4"]
    assert _asked(names, tmp_path, "rm", "") == ["whole-waits", ":4"]
    assert set(_asked(names, tmp_path, "rm", "-f", "")) == {"whole-runs", "whole-waits", ":4"}
    assert _asked(names, tmp_path, "rm", "-f", "whole-runs", "") == ["whole-waits", ":4"]
    assert _asked(names, tmp_path, "unpause", "") == [":4"]
    assert set(_asked(names, tmp_path, "inspect", "whole")) == {
        "whole-runs", "whole-waits", "whole-network", "whole-volume", "whole.test/image:old", ":4"
    }  # fmt: skip
    assert _asked(names, tmp_path, "cp", "whole-r") == ["whole-runs:", ":2"]
    assert _asked(names, tmp_path, "network", "disconnect", "whole-network", "whole-r") == ["whole-runs", ":4"]
    assert _asked(names, tmp_path, "exec", "whole-runs", "") == [":0"]
    identity = names.output("inspect", "-f", "{{.Id}}", "whole-runs")
    assert _asked(names, tmp_path, "stop", identity[:4]) == [identity[:12], ":4"]


def test_without_a_daemon_there_are_no_names_and_no_complaints(names: Daemon, tmp_path: Path) -> None:
    assert _asked(names, tmp_path, "-H", "unix:///nosuch", "stop", "") == [":4"]
    assert _asked(names, tmp_path, "-H", "unix:///nosuch", "network", "l") == ["ls", ":4"]
    assert _asked(names, tmp_path, "--context", "") == ["default", "all", ":4"]


def test_a_daemon_that_says_nothing_does_not_lock_up_the_shell(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        done = subprocess.run(
            [_CORRAL, "-H", f"unix://{path}", "__complete", "-H", f"unix://{path}", "stop", ""],
            capture_output=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    assert done.returncode == -signal.SIGALRM
