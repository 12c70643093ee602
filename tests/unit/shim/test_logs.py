"""The writer of json-file logs: Docker's format, line by line, bounded."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.shim.logs import LINE_LIMIT_BYTES, JsonFile, NoLog, open_log


def entries(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def texts(path: Path) -> list[str]:
    return [entry["log"] for entry in entries(path)]


def test_the_format_is_docker_s(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"), 0, 1)
    assert log.write("stdout", b'a "quoted" \\ line\n\x1b[0m\ttab\n') is True
    log.finish()
    first, second = entries(tmp_path / "l")
    assert list(first) == ["log", "stream", "time"]
    assert (first["log"], first["stream"]) == ('a "quoted" \\ line\n', "stdout")
    assert second["log"] == "\x1b[0m\ttab\n"
    assert first["time"].endswith("Z") and len(first["time"]) == 30
    assert (tmp_path / "l").stat().st_mode & 0o777 == 0o640


def test_an_unfinished_line_waits_for_its_end(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"), 0, 1)
    assert log.write("stdout", b"half") is False
    assert log.write("stderr", b"whole\n") is True
    assert log.write("stdout", b" done\nrest") is True
    assert texts(tmp_path / "l") == ["whole\n", "half done\n"]
    log.finish()
    assert texts(tmp_path / "l")[2:] == ["rest"]


def test_long_lines_are_cut_and_never_inside_a_character(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"), 0, 1)
    text = "x" + "ü" * LINE_LIMIT_BYTES + "\n"
    log.write("stdout", text.encode()[:-1])
    log.write("stdout", b"\n")
    log.finish()
    found = texts(tmp_path / "l")
    assert "".join(found) == text
    assert all(not piece.endswith("\n") for piece in found[:-1])
    assert "�" not in "".join(found)


def test_what_is_not_utf_8_is_replaced(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"), 0, 1)
    log.write("stdout", b"\xff\xfe ok\n")
    log.finish()
    assert texts(tmp_path / "l") == ["�� ok\n"]


def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    path = tmp_path / "l"
    log = JsonFile(str(path), 200, 3)
    for number in range(20):
        log.write("stdout", b"%d\n" % number)
    log.finish()
    names = sorted(name.name for name in tmp_path.iterdir())
    assert names == ["l", "l.1", "l.2"]
    kept = [text for name in reversed(names) for text in texts(tmp_path / name)]
    assert kept == [f"{number}\n" for number in range(20 - len(kept), 20)]
    assert all((tmp_path / name).stat().st_size <= 200 for name in names)


def test_one_file_starts_over(tmp_path: Path) -> None:
    log = JsonFile(str(tmp_path / "l"), 150, 1)
    for number in range(9):
        log.write("stdout", b"%d\n" % number)
    log.finish()
    assert [name.name for name in tmp_path.iterdir()] == ["l"]
    assert texts(tmp_path / "l")[-1] == "8\n"


def test_a_log_goes_on_where_it_ended(tmp_path: Path) -> None:
    for word in (b"a\n", b"b\n"):
        log = JsonFile(str(tmp_path / "l"), 1000, 2)
        log.write("stdout", word)
        log.finish()
    assert texts(tmp_path / "l") == ["a\n", "b\n"]


def test_a_full_disk_costs_lines_not_the_container() -> None:
    log = JsonFile("/dev/full", 0, 1)
    try:
        log.write("stdout", b"lost\n")
    except OSError as error:  # a device cannot be truncated; a file can
        assert error.filename is None
    finally:
        log.finish()


def test_none_keeps_nothing(tmp_path: Path) -> None:
    log = open_log(None)
    assert isinstance(log, NoLog)
    assert log.write("stdout", b"x\n") is False
    log.finish()
    made = open_log({"path": str(tmp_path / "l"), "max_size": 1, "max_files": 1, "compress": False, "attributes": ""})
    made.finish()
    assert os.listdir(tmp_path) == ["l"]


@settings(max_examples=80)
@given(st.lists(st.binary(max_size=60), max_size=10))
def test_any_bytes_become_lines_of_json(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("log") / "l"
    log = JsonFile(str(path), 0, 1)
    for piece in pieces:
        log.write("stdout", piece)
    log.finish()
    assert "".join(texts(path)) == b"".join(pieces).decode("utf-8", "replace")
