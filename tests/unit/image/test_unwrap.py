"""bzip2 and xz archives come in as what they hold."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.image.layers import CorruptLayer
from corral.image.unwrap import unwrap


def read(data: bytes, piece: int = 1000) -> bytes:
    stream = io.BytesIO(data)
    source = unwrap(lambda: stream.read(piece))
    found = b""
    while part := source():
        found += part
    assert source() == b""
    return found


DATA = os.urandom(5000) + bytes(3_000_000)


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_both_forms(piece: int) -> None:
    data = DATA[:6000]
    assert read(bz2.compress(data), piece) == data
    assert read(lzma.compress(data), piece) == data


def test_many_streams_and_padding() -> None:
    assert read(lzma.compress(DATA) + bytes(8) + lzma.compress(b"more")) == DATA + b"more"
    assert read(bz2.compress(b"a") + bz2.compress(b"b")) == b"ab"


@given(st.binary(max_size=40))
def test_everything_else_passes(data: bytes) -> None:
    assert read(gzip.compress(data)) == gzip.compress(data)
    assert read(b"x" + data, 3) == b"x" + data


@pytest.mark.parametrize("compressed", [bz2.compress(DATA), lzma.compress(DATA)])
def test_damage(compressed: bytes) -> None:
    with pytest.raises(CorruptLayer, match="unexpected EOF"):
        read(compressed[:-20])
    with pytest.raises(CorruptLayer):
        read(compressed[:60] + b"damage" + compressed[66:])
    with pytest.raises(CorruptLayer):
        read(compressed + b"trailing garbage")
