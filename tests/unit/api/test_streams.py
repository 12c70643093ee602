"""Frames of multiplexed output and lines of JSON."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from corral.api.streams import STDERR, STDOUT, error_line, frame, json_line


@given(st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=50)), max_size=10))
def test_frames_can_be_taken_apart(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(frame(stream, part) for stream, part in parts)
    found = []
    while data:
        assert data[1:4] == b"\0\0\0"
        length = int.from_bytes(data[4:8], "big")
        found.append((data[0], data[8 : 8 + length]))
        data = data[8 + length :]
    assert found == parts


@given(st.text())
def test_a_record_is_one_line(text: str) -> None:
    try:
        line = json_line({"status": text})
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        return
    assert line.endswith(b"\r\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {"status": text}


def test_an_error_ends_a_stream() -> None:
    assert json.loads(error_line("no", 404)) == {"errorDetail": {"message": "no", "code": 404}, "error": "no"}
    assert json.loads(error_line("no")) == {"errorDetail": {"message": "no"}, "error": "no"}
