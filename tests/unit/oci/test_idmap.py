"""Ids of user namespaces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.oci.idmap import OVERFLOW_ID, IdMap, UnmappedId, chained, consecutive

TWO = IdMap(((0, 200_000, 1000), (1000, 300_000, 64_536)), ((0, 400_000, 65_536),))
IDENTITY = ((0, 0, (1 << 32) - 1),)


def test_both_ways() -> None:
    assert TWO.root == (200_000, 400_000)
    assert TWO.to_host(999, 5) == (200_999, 400_005)
    assert TWO.to_host(1000, 5) == (300_000, 400_005)
    assert TWO.to_container(300_001, 400_005) == (1001, 5)
    assert TWO.to_container(0, 0) == (OVERFLOW_ID, OVERFLOW_ID)
    with pytest.raises(UnmappedId, match="Container ID 70000 cannot be mapped to a host ID"):
        TWO.to_host(70_000, 0)


def test_ranges_follow_each_other_lowest_first() -> None:
    assert consecutive([(300_000, 64_536), (200_000, 1000)]) == TWO.uids
    assert TWO.described()[1] == [{"containerID": 0, "hostID": 400_000, "size": 65_536}]


@given(st.integers(0, 70_000))
def test_there_and_back(number: int) -> None:
    try:
        outside = TWO.to_host(number, 0)[0]
    except UnmappedId:
        assert number >= 65_536
        return
    assert TWO.to_container(outside, 0)[0] == number


def test_chains() -> None:
    assert chained(IDENTITY, TWO.uids) == TWO.uids
    assert chained(((1000, 0, 1),), TWO.uids) == ((1000, 200_000, 1),)
    assert chained(((5, 998, 4),), TWO.uids) == ((5, 200_998, 2), (7, 300_000, 2))
    assert chained(((0, 100_000, 10),), TWO.uids) == ()


@given(st.integers(0, 80_000), st.integers(0, 80_000), st.integers(1, 80_000), st.integers(0, 80_000))
def test_a_chain_is_one_after_the_other(first: int, middle: int, size: int, offset: int) -> None:
    number = first + offset % size
    found = [b + number - a for a, b, count in chained(((first, middle, size),), TWO.uids) if a <= number < a + count]
    try:
        assert found == [TWO.to_host(middle + offset % size, 0)[0]]
    except UnmappedId:
        assert found == []
