"""Frames between shim and engine: any cut of the stream gives the same messages."""

from __future__ import annotations

import itertools
import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.shim import frames
from corral.shim.protocol import DESCRIPTOR_LIMIT, MESSAGE_LIMIT_BYTES, Decoder, ProtocolError, encode

VALUES = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=20)
MESSAGES = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), VALUES, max_size=4)


@given(st.lists(st.tuples(MESSAGES, st.integers(0, 3)), max_size=6), st.lists(st.integers(0, 400), max_size=8))
def test_any_cut_gives_the_same_messages(messages: list[tuple[dict[str, Any], int]], cuts: list[int]) -> None:
    data, owed, fresh = b"", [], iter(range(1000))
    for message, count in messages:
        owed.append((len(data), [next(fresh) for _ in range(count)]))  # they come with the frame's first byte
        data += encode(message, count)
    decoder, found = Decoder(), []
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for start, end in itertools.pairwise(edges):
        descriptors = [fd for at, fds in owed if start <= at < end for fd in fds]
        found += list(decoder.feed(data[start:end], descriptors))
    assert [message for message, _ in found] == [message for message, _ in messages]
    assert [fds for _, fds in found] == [fds for _, fds in owed]


@pytest.mark.parametrize(
    "data",
    [
        (MESSAGE_LIMIT_BYTES + 1).to_bytes(4, "big") + b"\0",
        b"\0\0\0\2" + bytes((DESCRIPTOR_LIMIT + 1,)) + b"{}",
        encode({}, 1),  # its descriptor never came
    ],
)
def test_what_is_no_frame_is_refused_before_it_is_kept(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(Decoder().feed(data))


def test_descriptors_travel_with_their_message() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        read, write = os.pipe()
        frames.send(ours, {"a": 1}, [write])
        os.close(write)
        received = frames.receive(theirs)
        assert received is not None
        ((message, (passed,)),) = Decoder().feed(*received)
        assert message == {"a": 1}
        os.write(passed, b"x")
        assert os.read(read, 1) == b"x"
        os.close(passed)
        os.close(read)
        ours.close()
        assert frames.receive(theirs) is None
