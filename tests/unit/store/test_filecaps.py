"""File capabilities on both sides of a user namespace."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from corral.oci.idmap import IdMap
from corral.store import filecaps

IDS = IdMap(((0, 100_000, 65_536),), ((0, 100_000, 65_536),))
TWO = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 7)


def three(root: int) -> bytes:
    return struct.pack("<6I", 0x03000001, 1 << 13, 0, 0, 7, root)


def test_both_ways() -> None:
    assert filecaps.seen_outside(TWO, IDS) == three(100_000)
    assert filecaps.seen_inside(three(100_000), IDS) == TWO
    assert filecaps.seen_inside(three(100_005), IDS) == three(5)
    assert filecaps.seen_outside(three(5), IDS) == three(100_005)
    assert filecaps.seen_outside(three(70_000), IDS) == three(70_000)


@given(st.binary(max_size=30))
def test_anything_else_is_left_alone(value: bytes) -> None:
    version = value[3] if len(value) in (20, 24) else 0
    if (len(value), version) not in ((20, 2), (24, 3)):
        assert filecaps.seen_outside(value, IDS) == filecaps.seen_inside(value, IDS) == value
