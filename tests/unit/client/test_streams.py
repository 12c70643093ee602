"""Streams taken apart: the same pieces however the bytes are cut, and errors for what is not a stream."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api.streams import frame, json_line
from corral.client.errors import Failed, UnreadableAnswer
from corral.client.streams import Advance, Decoder, Frames, Lines, Output, Raw, Records
from corral.wire.shown.images import Progress
from corral.wire.shown.system import Event

_WRITES = st.lists(st.tuples(st.booleans(), st.binary(max_size=40)), max_size=12)
_CUTS = st.lists(st.integers(0, 600), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def decoded(decoder: Decoder[Any], parts: Iterable[bytes]) -> list[Any]:
    found = [piece for part in parts for piece in decoder.feed(part)]
    return [*found, *decoder.end()]


def joined(pieces: list[Output]) -> tuple[bytes, bytes]:
    return (
        b"".join(piece.data for piece in pieces if not piece.stderr),
        b"".join(piece.data for piece in pieces if piece.stderr),
    )


@given(_WRITES, _CUTS)
def test_frames_are_the_same_however_they_arrive(writes: list[tuple[bool, bytes]], places: list[int]) -> None:
    data = b"".join(frame(2 if stderr else 1, written) for stderr, written in writes)
    pieces = decoded(Frames(), cut(data, places))
    assert joined(pieces) == joined([Output(written, stderr) for stderr, written in writes])
    order = [piece.stderr for piece in pieces]
    kept = [stderr for stderr, written in writes if written]
    assert [one for index, one in enumerate(order) if not index or order[index - 1] != one] == [
        one for index, one in enumerate(kept) if not index or kept[index - 1] != one
    ]


@given(_WRITES, _CUTS)
def test_a_frame_that_is_cut_short_is_told(writes: list[tuple[bool, bytes]], places: list[int]) -> None:
    data = b"".join(frame(1, written) for _, written in writes) + frame(1, b"last")
    for end in (len(data) - 1, len(data) - 4, len(data) - 5):
        with pytest.raises(UnreadableAnswer):
            decoded(Frames(), cut(data[:end], places))


@given(st.binary(max_size=200), _CUTS)
def test_any_bytes_are_frames_or_refused(data: bytes, places: list[int]) -> None:
    try:
        pieces = decoded(Frames(), cut(data, places))
    except (UnreadableAnswer, Failed):
        return
    assert sum(len(piece.data) for piece in pieces) <= len(data)


def test_a_frame_of_four_gigabytes_takes_no_memory() -> None:
    decoder = Frames()
    assert list(decoder.feed(b"\1\0\0\0\xff\xff\xff\xff")) == []
    assert list(decoder.feed(b"some")) == [Output(b"some")]


def test_the_daemons_own_word_in_a_stream_is_an_error() -> None:
    decoder = Frames()
    assert list(decoder.feed(frame(1, b"out"))) == [Output(b"out")]
    with pytest.raises(Failed, match="no more"):
        decoder.feed(frame(3, b"no more\n"))


@given(st.text(alphabet="ab\u00e4\n", max_size=60), st.booleans(), _CUTS)
def test_lines(text: str, framed: bool, places: list[int]) -> None:
    raw = text.encode()
    parts = cut(frame(1, raw) if framed else raw, places)
    expected = text.split("\n")
    assert decoded(Lines(Frames() if framed else Raw()), parts) == (expected if expected[-1] else expected[:-1])


def test_each_stream_has_lines_of_its_own() -> None:
    data = frame(1, b"one ") + frame(2, b"wrong\nmore") + frame(1, b"line\r\n")
    assert decoded(Lines(Frames()), [data]) == ["wrong", "one line", "more"]


@given(st.lists(st.dictionaries(st.sampled_from(["status", "id"]), st.text(max_size=8)), max_size=6), _CUTS)
def test_records(records: list[dict[str, str]], places: list[int]) -> None:
    data = b"".join(json_line(record) for record in records)
    found = decoded(Records(Progress), cut(data, places))
    assert [(one.id, one.status) for one in found] == [(one.get("id", ""), one.get("status", "")) for one in records]


@pytest.mark.parametrize("data", [b"{", b"[1]\n", b'{"timeNano": "x"}\n', b"\xff\n", b"[" * 100_000 + b"\n"])
def test_records_that_are_none(data: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        decoded(Records(Event), [data])


def test_an_error_in_the_middle_of_progress_is_raised() -> None:
    decoder = Advance()
    line = {"status": "Downloading", "id": "a", "progressDetail": {"current": 3, "total": 9}}
    [record] = decoder.feed(msgspec.json.encode(line) + b"\n")
    assert (record.status, record.detail.current, record.detail.total) == ("Downloading", 3, 9)
    with pytest.raises(Failed, match="manifest unknown"):
        decoder.feed(b'{"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"}\n')
