"""gzip in members: what goes in comes out, and what comes out depends on nothing else."""

from __future__ import annotations

import gzip
import random

import pytest

from corral.build import gzipping


def compressed(data: bytes, piece: int) -> bytes:
    out: list[bytes] = []
    stream = gzipping.Gzip(out.append)
    for start in range(0, len(data), piece):
        stream.feed(data[start : start + piece])
    stream.finish()
    return b"".join(out)


@pytest.mark.parametrize("size", [0, 1, 100_000, 4 << 20, (4 << 20) + 1, 17 << 20])
def test_what_goes_in_comes_out(size: int) -> None:
    data = (b"some text that repeats itself " * (size // 30 + 1))[:size]
    found = compressed(data, 300_000)
    assert gzip.decompress(found) == data
    assert found == compressed(data, 1 << 20)
    assert size < 1000 or len(found) < size // 20


def test_what_does_not_get_smaller_is_stored() -> None:
    data = random.Random(1).randbytes(9 << 20)
    found = compressed(data, 1 << 20)
    assert gzip.decompress(found) == data
    assert len(data) < len(found) < len(data) + 4000


def test_a_stream_may_be_given_up() -> None:
    stream = gzipping.Gzip(lambda data: None)
    stream.feed(bytes(20 << 20))
    stream.close()
