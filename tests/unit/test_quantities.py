"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.quantities import duration_ns, parse_size


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("20m", 20 << 20), ("64M", 64 << 20), ("1gb", 1 << 30), ("1.5 g", 3 << 29), ("4KiB", 4096), ("7", 7),
        ("7b", 7), (" 2t ", 2 << 40), ("-1", -1), ("0", 0),
    ],
)  # fmt: skip
def test_sizes(text: str, found: int) -> None:
    assert parse_size(text) == found


@pytest.mark.parametrize(
    "text", ["", "m", "1x", "1.m", ".5g", "1  g", "-2", "1kk", "1ib2", "٣", "1e3", "0x10", "1 gib b"]
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        parse_size(text)


@given(st.text(max_size=12))
def test_any_text_is_a_size_or_is_refused(text: str) -> None:
    try:
        assert parse_size(text) >= -1
    except ValueError as error:
        assert str(error) == f"invalid size: '{text}'"


def test_durations() -> None:
    assert duration_ns("1h30m") == 5400 * 10**9 and duration_ns("1.5s") == 1_500_000_000
