"""A program in a container that somebody talks to: an exec, or a container that is attached to."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import msgspec

from corral.client.errors import Ended, TimedOut
from corral.client.flavours import Awaiting, Blocking, drive, verb
from corral.client.session import Hijacked
from corral.client.streams import Decoder, Frames, Output, Raw

_INPUT_AHEAD_BYTES = 256 << 10


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a program went.  `exit_code` is None if it had to be left running."""

    exit_code: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    truncated: bool = False  # there was more output than was asked for
    timed_out: bool = False  # it was ended because its time was over
    oom_killed: bool = False  # the kernel ended it, or one of its children, for want of memory
    duration_s: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with 0."""
        return self.exit_code == 0 and not self.timed_out

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.stdout.decode("utf-8", "replace")


class Collected:
    """The beginning of each stream, `limit_bytes` of both together (None: all), and whether there was more."""

    def __init__(self, limit_bytes: int | None) -> None:
        self._room = limit_bytes
        self._parts: dict[bool, list[bytes]] = {False: [], True: []}
        self.truncated = False

    def add(self, piece: Output) -> None:
        """Keep what fits."""
        data = piece.data
        if self._room is not None:
            if len(data) > self._room:
                self.truncated = True
                data = data[: self._room]
            self._room -= len(data)
        if data:
            self._parts[piece.stderr].append(data)

    def result(
        self, began: float, *, exit_code: int | None, timed_out: bool = False, oom_killed: bool = False
    ) -> Result:
        """With what else is known of the program; `began` by the monotonic clock."""
        return Result(
            exit_code=exit_code,
            stdout=b"".join(self._parts[False]),
            stderr=b"".join(self._parts[True]),
            truncated=self.truncated,
            timed_out=timed_out,
            oom_killed=oom_killed,
            duration_s=time.monotonic() - began,
        )


class Call:
    """A connection to a program: which exec or container it is, how to learn its exit code, and whether it reads."""

    def __init__(
        self, hijacked: Hijacked, identity: str, exit_code: Callable[[], Coroutine[Any, Any, int]], *, stdin: bool
    ) -> None:
        self.hijacked = hijacked
        self.identity = identity
        self.exit_code = exit_code
        self.stdin = stdin


class ProcessVerbs:
    """What can be done with a program.  Its `with` block ends with the connection, not with the program."""

    def __init__(self, call: Call) -> None:
        hijacked = call.hijacked
        self.id = call.identity
        self._has_stdin = call.stdin
        self._exit_code = call.exit_code
        self._channel = hijacked.channel
        self._decoder: Decoder[Output] = Frames() if hijacked.framed else Raw()
        self._ready: deque[Output] = deque(self._decoder.feed(hijacked.early) if hijacked.early else ())
        self._over = False

    @verb
    async def write(self, data: bytes) -> None:
        """Send to standard input; raises Interrupted if nobody reads it any more.

        A program that answers while it reads can fill both ways: read in another thread or task, or give its input
        to `exec` as a whole.
        """
        self._channel.put(data)
        await self._channel.flush()

    @verb
    async def close_stdin(self) -> None:
        """The end of standard input; output goes on."""
        await self._channel.end_input()

    @verb
    async def read(self, timeout: float | None = None) -> Output | None:
        """The next piece of output, None at its end; raises TimedOut, after which it can be tried again."""
        return await self._next(timeout)

    @verb
    async def wait(self) -> int:
        """Skip what is left of the output; the exit code."""
        while await self._next(None) is not None:
            pass
        return await self._exit_code()

    @verb
    async def communicate(
        self, stdin: bytes = b"", *, limit_bytes: int | None = None, timeout: float | None = None
    ) -> Result:
        """Send all of `stdin` and its end while taking the output until its end; raises TimedOut."""
        began, found = time.monotonic(), Collected(limit_bytes)
        await self.carry(stdin, found, timeout)
        return found.result(began, exit_code=await self._exit_code())

    def close(self) -> None:
        """Give up the connection; the program goes on, without a reader."""
        self._channel.close()
        self._over = True

    async def carry(self, stdin: bytes, found: Collected, timeout_s: float | None) -> None:
        """Send `stdin` and its end, and take the output into `found` until its end; raises TimedOut."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        rest, ended = memoryview(stdin), not self._has_stdin
        while True:
            while self._ready:
                found.add(self._ready.popleft())
            if self._over:
                return
            if not self._channel.has_pending and not ended:
                if rest:
                    self._channel.put(bytes(rest[:_INPUT_AHEAD_BYTES]))
                    rest = rest[_INPUT_AHEAD_BYTES:]
                else:
                    ended = True
                    await self._channel.end_input()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimedOut(f"it did not end within {timeout_s:g} s")
            data = await self._channel.turn(left)
            if data is not None:
                self._take(data)

    async def _next(self, timeout_s: float | None) -> Output | None:
        while not self._ready:
            if self._over:
                return None
            self._take(await self._channel.receive(timeout_s))
        return self._ready.popleft()

    def _take(self, data: bytes) -> None:
        if data:
            self._ready.extend(self._decoder.feed(data))
            return
        if self._channel.is_closed():
            raise Ended("the connection to the program has been closed")
        self._over = True
        self._channel.close()
        self._ready.extend(self._decoder.end())

    async def _finish(self) -> None:
        self.close()

    def __del__(self) -> None:
        self._channel.close()


class Process(ProcessVerbs, Blocking):
    """A program; iterating over it gives its output as it comes."""

    def __iter__(self) -> Iterator[Output]:
        while (piece := drive(self._next(None))) is not None:
            yield piece


class AsyncProcess(ProcessVerbs, Awaiting):
    """A program; iterating over it gives its output as it comes."""

    async def __aiter__(self) -> AsyncIterator[Output]:
        while (piece := await self._next(None)) is not None:
            yield piece
