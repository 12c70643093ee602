"""Reading logs back: over rotations, from the tail, between times, and after a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.engine import logs
from corral.engine.record import timestamp
from corral.shim.logs import JsonFile


def line(number: int, stream: str = "stdout", text: str = "") -> bytes:
    record = {"log": text or f"line {number}\n", "stream": stream, "time": timestamp(number * 10**9)}
    return json.dumps(record).encode() + b"\n"


def write(path: Path, *files: list[bytes]) -> None:
    """Files of one log, the newest first."""
    for number, lines in enumerate(files):
        path.with_name(path.name + (f".{number}" if number else "")).write_bytes(b"".join(lines))


def read(path: Path, **wanted: Any) -> bytes:
    asked = {"stdout": True, "stderr": True, "framed": False, **wanted}
    reader = logs._Reader(str(path), logs.Wanted(**asked))
    try:
        reader.seek()
        return b"".join(iter(reader.next, b""))
    finally:
        reader.close()


def numbers(text: bytes) -> list[int]:
    return [int(word.split()[-1]) for word in text.decode().splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "x-json.log"
    write(path, [line(n) for n in (7, 8)], [line(n) for n in (4, 5, 6)], [line(n) for n in (1, 2, 3)])
    return path


def test_all_files_oldest_first(log: Path) -> None:
    assert numbers(read(log)) == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("tail", range(10))
def test_the_tail_crosses_files(log: Path, tail: int) -> None:
    assert numbers(read(log, tail=tail)) == [1, 2, 3, 4, 5, 6, 7, 8][max(0, 8 - tail) :]


def test_since_and_until(log: Path) -> None:
    assert numbers(read(log, since_ns=4 * 10**9)) == [4, 5, 6, 7, 8]
    assert numbers(read(log, until_ns=4 * 10**9)) == [1, 2, 3, 4]
    assert numbers(read(log, since_ns=3 * 10**9 + 1, until_ns=5 * 10**9)) == [4, 5]


def test_timestamps(tmp_path: Path) -> None:
    write(tmp_path / "l", [line(1)])
    assert read(tmp_path / "l", timestamps=True) == b"1970-01-01T00:00:01.000000000Z line 1\n"


def test_streams_and_frames(tmp_path: Path) -> None:
    path = tmp_path / "l"
    write(path, [line(1), line(2), line(3, "stderr"), line(4)])
    assert numbers(read(path, stderr=False)) == [1, 2, 4]
    assert numbers(read(path, stdout=False)) == [3]
    framed = read(path, framed=True)
    assert framed == (
        b"\1\0\0\0\0\0\0\x0eline 1\nline 2\n" + b"\2\0\0\0\0\0\0\x07line 3\n" + b"\1\0\0\0\0\0\0\x07line 4\n"
    )


def test_an_absent_or_empty_log(tmp_path: Path) -> None:
    assert read(tmp_path / "absent") == b""
    write(tmp_path / "l", [])
    assert read(tmp_path / "l") == b""
    assert read(tmp_path / "l", tail=3) == b""


def test_lines_that_a_crash_has_damaged_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "l"
    write(path, [line(1), line(2)[:20] + line(3), b"\0" * 64 + b"\n", b"\xff\n", b"[]\n", b"\n", line(4), line(5)[:10]])
    assert numbers(read(path)) == [1, 4]


def test_what_grows_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "l"
    write(path, [line(1)])
    reader = logs._Reader(str(path), logs.Wanted(True, True, framed=False))
    reader.seek()
    assert numbers(reader.next()) == [1]
    assert reader.next() == b""
    with path.open("ab") as file:
        file.write(line(2)[:12])
        file.flush()
        assert reader.next() == b""
        file.write(line(2)[12:])
    assert numbers(reader.next()) == [2]
    path.rename(tmp_path / "l.1")
    write(path, [line(3)])
    assert numbers(reader.next()) == [3]
    reader.close()


OUTPUT = st.lists(
    st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(st.characters(codec="utf-8"), max_size=40)), max_size=20
)


@settings(max_examples=60)
@given(OUTPUT, st.integers(1, 4))
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, output: Any, pieces: int) -> None:
    """Whatever a process prints, in whatever pieces, comes back stream by stream."""
    path = tmp_path_factory.mktemp("log") / "l"
    writer = JsonFile(str(path), 0, 1)
    for stream, text in output:
        data = text.encode()
        step = max(1, len(data) // pieces)
        for start in range(0, len(data), step):
            writer.write(stream, data[start : start + step])
    writer.finish()
    for stream in ("stdout", "stderr"):
        expected = "".join(text for name, text in output if name == stream)
        assert read(path, stdout=stream == "stdout", stderr=stream == "stderr").decode() == expected
