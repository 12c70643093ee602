"""The classic stream: in whatever order events come, lines come in the order of the file; what waits is bounded."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from corral.api import classic
from corral.api.outlet import Outlet
from corral.build import request as events


def vertex(number: int) -> events.Vertex:
    return events.Vertex(number, 3, f"STEP {number}", "s", None)


def told(number: int) -> list[events.Event]:
    step = vertex(number)
    return [
        events.Started(step), events.Running(step, "c" * 64), events.Wrote(step, 1, b"out\n"),
        events.Wrote(step, 2, b"err\n"), events.Ran(step, "c" * 64), events.Finished(step, "d" * 64),
    ]  # fmt: skip


EXPECTED = "".join(
    f"Step {number}/3 : STEP {number}\n ---> Running in cccccccccccc\nout\n\x1b[91merr\n\x1b[0m"
    "Removing intermediate container cccccccccccc\n" + (" ---> dddddddddddd\n" if number < 3 else "")
    for number in (1, 2, 3)
)  # the last one is the image, which is not made yet


@given(st.permutations([1] * 6 + [2] * 6 + [3] * 6))
def test_lines_come_in_the_order_of_the_file(turns: list[int]) -> None:
    found: list[dict[str, Any]] = []
    lines = classic.Lines(found.append, quiet=False, remove=True)
    waiting = {number: told(number) for number in (1, 2, 3)}
    for number in turns:
        lines.take(waiting[number].pop(0))
    assert "".join(record["stream"] for record in found) == EXPECTED


def test_what_comes_before_its_turn_is_clipped() -> None:
    found: list[dict[str, Any]] = []
    lines = classic.Lines(found.append, quiet=False, remove=True)
    lines.take(events.Started(vertex(1)))
    lines.take(events.Started(vertex(2)))
    for _ in range(100):
        lines.take(events.Wrote(vertex(2), 1, b"x" * (1 << 20)))
    lines.take(events.Finished(vertex(1), ""))
    text = "".join(record["stream"] for record in found)
    assert len(text) < 6 << 20 and text.count("[output clipped") == 1
    lines.take(events.Wrote(vertex(2), 1, b"later\n"))
    assert found[-1] == {"stream": "later\n"}


def test_quiet_keeps_what_a_failure_shows() -> None:
    found: list[dict[str, Any]] = []
    lines = classic.Lines(found.append, quiet=True, remove=True)
    for event in told(1):
        lines.take(event)
    assert found == [] and any(record.get("stream") == "out\n" for record in lines.held)


def test_letters_are_not_torn() -> None:
    found: list[dict[str, Any]] = []
    lines = classic.Lines(found.append, quiet=False, remove=True)
    data = "ä€".encode()
    for index in range(len(data)):
        lines.take(events.Wrote(vertex(1), 1, data[index : index + 1]))
    assert "".join(record["stream"] for record in found) == "ä€"


def test_an_outlet_makes_whoever_fills_it_wait() -> None:
    async def check() -> None:
        outlet: Outlet[int] = Outlet()
        for number in range(1000):
            outlet.put(number)
        waiting = asyncio.ensure_future(outlet.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert [await outlet.get() for _ in range(990)] == list(range(990))
        await waiting
        outlet.end()
        assert outlet.rest() == list(range(990, 1000))

    asyncio.run(check())
