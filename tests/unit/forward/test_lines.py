"""Output becomes lines, whatever pieces it comes in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.forward.lines import LINE_LIMIT_BYTES, Line, Splitter

CHUNKS = st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=60)), max_size=12)


def frame(number: int, data: bytes) -> bytes:
    return bytes((number, 0, 0, 0)) + len(data).to_bytes(4, "big") + data


def texts(lines: list[Line], stream: str) -> bytes:
    return b"".join(line.text + (b"" if line.partial else b"\n") for line in lines if line.stream == stream)


@given(CHUNKS, st.integers(1, 50))
def test_nothing_is_lost_or_mixed(chunks: list[tuple[int, bytes]], piece: int) -> None:
    data = b"".join(frame(number, chunk) for number, chunk in chunks)
    splitter = Splitter(terminal=False)
    lines = [line for start in range(0, len(data), piece) for line in splitter.feed(data[start : start + piece])]
    lines += splitter.finish()
    for number, stream in ((1, "stdout"), (2, "stderr")):
        sent = b"".join(chunk for wanted, chunk in chunks if wanted == number)
        assert texts(lines, stream) == (sent if sent.endswith(b"\n") or not sent else sent + b"\n")


def test_long_lines_come_in_pieces() -> None:
    splitter = Splitter(terminal=True)
    long = b"x" * (2 * LINE_LIMIT_BYTES + 5)
    lines = [*splitter.feed(long), *splitter.feed(b"y\nz")]
    assert [(len(line.text), line.partial) for line in lines] == [
        (LINE_LIMIT_BYTES, True), (LINE_LIMIT_BYTES, True), (6, False),
    ]  # fmt: skip
    assert [line.text for line in splitter.finish()] == [b"z"]
