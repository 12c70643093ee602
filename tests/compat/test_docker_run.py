"""`docker run` of the stock CLI: flags, streams and exit codes."""

from __future__ import annotations

import pytest

from tests.support.daemon import IMAGE, Engine


def run(engine: Engine, *words: str) -> str:
    return engine.output("run", "--rm", *words)


def test_output_and_exit_code(engine: Engine) -> None:
    done = engine.docker("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["nothing-of-this-name"], 127, 'exec: "nothing-of-this-name": executable file not found in $PATH'),
        (["/no/such/file"], 127, "no such file or directory"),
        (["/not-executable"], 126, "permission denied"),
        (["/etc"], 126, ""),
        (["sh", "-c", "kill -9 $$"], 137, ""),
        (["sh", "-c", "exit 255"], 255, ""),
    ],
)
def test_exit_codes(engine: Engine, command: list[str], code: int, text: str) -> None:
    done = engine.docker("run", "--rm", "--init", IMAGE, *command)
    assert done.returncode == code
    assert text in done.stderr
    assert engine.output("ps", "-aq") == ""
