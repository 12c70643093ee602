"""The lines of `corral top` for any screen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corral.cli import toptable
from corral.cli.toptable import Row


def _row(name: str, cpu: float = 0.0) -> Row:
    row = Row(name * 4, name, f"image/{name}", "Up 3 minutes")
    row.cpu_percent = cpu
    return row


@given(st.text("abc", max_size=80), st.integers(1, 300))
def test_lines_are_as_wide_as_the_screen(name: str, width: int) -> None:
    row = _row(name)
    row.memory_bytes = row.memory_limit_bytes = row.received_rate = 1e15
    assert len(toptable.line(row, width)) == width
    assert len(toptable.heading(width, "c")) == width


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 60))
def test_the_selected_row_is_on_the_screen(count: int, selected: int, height: int) -> None:
    found = toptable.window(count, min(selected, max(0, count - 1)), height)
    assert len(found) == min(count, height)
    if count and height:
        assert min(selected, count - 1) in found


def test_order() -> None:
    rows = [_row("b", 1.0), _row("c", 5.0), _row("a", 1.0)]
    assert [row.name for row in toptable.ordered(rows, "c", False)] == ["c", "a", "b"]
    assert [row.name for row in toptable.ordered(rows, "a", False)] == ["a", "b", "c"]
    assert [row.name for row in toptable.ordered(rows, "a", True)] == ["c", "b", "a"]
