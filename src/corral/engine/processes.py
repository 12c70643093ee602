"""`docker top`: the host's `ps`, reduced to one container's processes."""

from __future__ import annotations

import asyncio
from typing import Any

from corral.engine import lifecycle
from corral.engine.live import Live
from corral.engine.tasks import ShimGone
from corral.errors import InvalidParameter, System, Unavailable


class CannotList(System):
    """`ps` failed."""


async def top(live: Live, arguments: str) -> dict[str, Any]:
    """Titles and rows of `ps` with `arguments`; raises unless the container runs."""
    lifecycle.check("exec" if live.record.state.status != "paused" else "stop", live.record.state.status, live.id)
    words = arguments.split()
    if any("=" in word for word in words):
        raise InvalidParameter("ps_args must not set column headers")
    if live.task is None:
        raise CannotList(f"cannot list the processes of {live.id}: it has just ended")
    try:
        members = set((await live.task.request("pids"))["pids"])
    except ShimGone:
        lifecycle.check("exec", "exited", live.id)
        raise
    output = await _run_ps(words)
    return _select(output, members)


async def _run_ps(words: list[str]) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "ps",
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise Unavailable("error running ps: it is not installed on the host") from None
    output, errors = await process.communicate()
    if process.returncode:
        raise CannotList(f"error running ps: {errors.decode(errors='replace').strip()}")
    return output.decode(errors="replace")


def _select(output: str, members: set[int]) -> dict[str, Any]:
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise CannotList("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdecimal() and int(fields[column]) in members:
            rows.append(fields)
    return {"Titles": titles, "Processes": rows}
