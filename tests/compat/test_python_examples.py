"""Every example of docs/python.md runs as it stands, and other people's type checkers understand it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon

_ROOT = Path(__file__).resolve().parents[2]
_PAGE = _ROOT / "docs" / "python.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", _PAGE.read_text(), re.MULTILINE | re.DOTALL)

# A line of what each prints, which it cannot print by accident.
SAID = [
    "3 b'hello\\n' b'oops\\n'",
    "Output(data=b'hello you\\n', stderr=False)",
    "line 3",
    "['0\\n', '1\\n', '2\\n', '3\\n']",
    "b'data'",
    "s3cret",
]

_USE = """
from typing import assert_type
from corral.client import AsyncClient, AsyncContainer, AsyncSandbox, Client, Container, Output, Process, Result, Sandbox
from corral.client import AsyncProcess, AsyncStream, Stream

def blocking(client: Client) -> None:
    box = client.containers.run("image", "word", name="n", memory="64m", ports={80: 8080})
    assert_type(box, Container)
    assert_type(box.stop(timeout=3), None)
    assert_type(box.exec("true", stdin=b"x"), Result)
    assert_type(box.process("true"), Process)
    assert_type(box.logs(follow=True), Stream[Output])
    assert_type(box.fork("s1"), Container)
    with client.containers.create("image") as made, Sandbox("image", pids=3) as sandbox:
        assert_type(made, Container)
        assert_type(sandbox.fork("s1"), Sandbox)
    for line in box.lines():
        assert_type(line, str)

async def awaiting(client: AsyncClient) -> None:
    box = await client.containers.run("image", "word", name="n")
    assert_type(box, AsyncContainer)
    assert_type(await box.exec("true"), Result)
    assert_type(await box.process("true"), AsyncProcess)
    assert_type(box.logs(follow=True), AsyncStream[Output])
    async with client.containers.create("image") as made, AsyncSandbox("image") as sandbox:
        assert_type(made, AsyncContainer)
        assert_type(await sandbox.fork("s1"), AsyncSandbox)
    async for line in box.lines():
        assert_type(line, str)
"""
_MISUSE = """
from corral.client import AsyncClient, Client, Sandbox
def wrong(client: Client, other: AsyncClient) -> None:
    client.containers.run("image", memroy=1)
    client.containers.run("image", 3)
    client.containers.get("x").stop(timeout="soon")
    other.containers.get("x").stop()
    Sandbox("image", pids="many")
    for line in other.events(): pass
"""


def environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT / "src"), "HOME": str(folder)}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example(daemon: Daemon, number: int, tmp_path: Path) -> None:
    program = EXAMPLES[number].replace("IMAGE", repr(IMAGE))
    given = {**environment(tmp_path), "CORRAL_HOST": daemon.host}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=given, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert SAID[number] in done.stdout
    assert daemon.containers() == set()


def test_each_example_says_something() -> None:
    assert len(SAID) == len(EXAMPLES)


def test_types_of_other_peoples_programs(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(_USE)
    (tmp_path / "misuse.py").write_text(_MISUSE)
    for number, example in enumerate(EXAMPLES):
        (tmp_path / f"example{number}.py").write_text(f'IMAGE = "image"\n{example}')
    files = ["use.py", "misuse.py", *(f"example{number}.py" for number in range(len(EXAMPLES)))]
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file=", *files]
    given = {**environment(tmp_path), "MYPYPATH": str(_ROOT / "src")}
    done = subprocess.run(command, env=given, cwd=tmp_path, capture_output=True, text=True, timeout=110)
    lines = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line.split(":")[:2] for line in lines] == [["misuse.py", str(line)] for line in range(4, 10)], done.stdout
