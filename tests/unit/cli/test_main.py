"""The program as a whole, without a daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral.cli import commands
from corral.cli.flags import parse
from corral.cli.helptext import command as help_of
from corral.cli.main import main
from corral.cli.relay import Frames

_SOURCE = Path(__file__).resolve().parents[3] / "src" / "corral"
_PLACES = {
    f"{place[0]}.{place[1]}": place for table in (commands.COMMON, commands.OTHERS) for place in table.values()
} | {f"{place[0]}.{place[1]}": place for _, members in commands.GROUPS.values() for place in members.values()}


@pytest.mark.parametrize("name", sorted(_PLACES))
def test_every_command_loads_and_explains_itself(name: str) -> None:
    command = commands.load(_PLACES[name])
    assert len({flag.name for flag in command.flags}) == len(command.flags)
    shorts = [flag.short for flag in command.flags if flag.short]
    assert len(set(shorts)) == len(shorts)
    assert all(flag.help or flag.hidden for flag in command.flags)
    assert help_of("corral x", command).startswith("Usage:  corral x ")
    parse(command.flags, [])


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (
            ["rnu"],
            1,
            "corral: unknown command: corral rnu\n\nDid you mean 'corral run'?\n\nRun 'corral --help' for more",
        ),
        (["image", "lss"], 1, "corral: unknown command: corral image lss\n\nUsage:  corral image\n\nDid you mean"),
        (["ps", "x"], 1, "corral: 'corral ps' accepts no arguments"),
        (["run"], 1, "corral: 'corral run' requires at least 1 argument\n"),
        (["rename", "a"], 1, "corral: 'corral rename' requires 2 arguments\n"),
        (["ps", "--al"], 125, "unknown flag: --al (did you mean --all?)\n\nUsage:  corral ps [OPTIONS]\n"),
        (["--foo", "ps"], 125, "unknown flag: --foo"),
        (["-H", "unix:///nonexistent", "ps"], 1, "Cannot connect to the Docker daemon at unix:///nonexistent."),
        (["-H", "unix:///nonexistent", "run", "x"], 125, "corral: Cannot connect to the Docker daemon"),
        (["-H", "a", "--context", "b", "ps"], 1, "conflicting options"),
        (["--context", "nonexistent-context", "ps"], 1, "Failed to initialize: unable to resolve docker endpoint"),
        (["run", "-m", "x", "y"], 125, 'invalid argument "x" for "-m, --memory" flag'),
        (["cp", "a", "b"], 1, "must specify at least one container source"),
    ],
)
def test_refuses(capsys: pytest.CaptureFixture[str], words: list[str], status: int, text: str) -> None:
    assert main(words) == status
    assert capsys.readouterr().err.startswith(text)


@pytest.mark.parametrize(
    "words", [["--help"], [], ["help"], ["image", "--help"], ["run", "--help"], ["help", "ps"], ["-v"]]
)
def test_explains(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out


def test_a_group_alone_is_no_answer_to_anything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["container"]) == 0
    out, err = capsys.readouterr()
    assert (out, err[:24]) == ("", "Usage:  corral container")


def test_a_closed_pipe_is_no_error_to_talk_about() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-IS", str(_SOURCE / "cli" / "__main__.py"), "--help"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert done.stderr == b""
    assert done.returncode == 141


def test_a_full_disk_is_an_error_not_a_trace_back() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-IS", str(_SOURCE / "cli" / "__main__.py"), "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.stderr == b"corral: No space left on device\n"
    assert done.returncode == 1


def test_the_common_path_imports_nothing_heavy() -> None:
    """Each of these costs milliseconds that a whole `ps` has not got."""
    program = "import sys; from corral.cli import main, listing, transport, endpoint; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env={"PYTHONPATH": str(_SOURCE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    heavy = {
        "re",
        "enum",
        "json",
        "socket",
        "signal",
        "typing",
        "argparse",
        "subprocess",
        "http",
        "urllib",
        "dataclasses",
        "shutil",
    }
    assert heavy & set(done.stdout.split()) == set()


def test_frames_are_put_together_from_any_pieces(capfd: pytest.CaptureFixture[str]) -> None:
    stream = (
        b"\x01\0\0\0\0\0\0\x03out" + b"\x02\0\0\0\0\0\0\x03err" + b"\x01\0\0\0\0\0\0\0" + b"\x03\0\0\0\0\0\0\x04oops"
    )
    for step in (1, 2, 5, 100):
        frames = Frames()
        for start in range(0, len(stream), step):
            frames.feed(stream[start : start + step])
        assert frames.failure == "oops"
        assert capfd.readouterr() == ("out", "err")
