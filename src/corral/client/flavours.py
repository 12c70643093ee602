"""One method, two flavours.

A verb is written once, as a coroutine function, in a class that says nothing of how it is called:

    class ContainerVerbs:
        @verb
        async def start(self) -> None: ...

    class Container(ContainerVerbs, Blocking): ...         container.start()
    class AsyncContainer(ContainerVerbs, Awaiting): ...    await container.start()

What `verb` makes looks at the object that it is called on: on a Blocking one the coroutine, which never suspends there
(`corral.client.waiting`), is run to its end and its result returned; on an Awaiting one it is handed to the caller.
Type checkers see the same.  Verbs that build on other verbs use the Awaiting flavour of their nouns, whoever calls.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, Self, TypeVar, overload

from corral.errors import CorralError

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("a blocking call has suspended")


async def _finished(work: Coroutine[Any, Any, None], error: BaseException | None) -> None:
    """Clean up; what fails then is a note on the error that the block has raised, if it has."""
    try:
        await work
    except CorralError as failed:
        if error is None:
            raise
        error.add_note(f"cannot clean up: {failed}")


class Blocking:
    """Base of the nouns whose verbs return when they are done."""

    def __enter__(self) -> Self:
        drive(self._begin())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        drive(_finished(self._finish(), error))

    async def _begin(self) -> None:
        """At the beginning of a `with` block."""

    async def _finish(self) -> None:
        """At its end, whatever happened within."""


class Awaiting:
    """Base of the nouns whose verbs are awaited."""

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _finished(self._finish(), error)

    async def _begin(self) -> None:
        """At the beginning of an `async with` block."""

    async def _finish(self) -> None:
        """At its end, whatever happened within."""


class Pending(Generic[T]):
    """A call that waits to be awaited; `async with` awaits it and enters the result."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._entered: Any = None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()

    async def __aenter__(self) -> T:
        result = await self._work
        self._entered = result
        if not isinstance(result, Awaiting):
            raise TypeError(f"{type(result).__name__} is no context manager")
        await result.__aenter__()
        return result

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._entered.__aexit__(kind, error, trace)


class Verb(Generic[P, T]):
    """A coroutine function as a method of either flavour."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, T]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, noun: Blocking, kind: Any) -> Callable[P, T]: ...
    @overload
    def __get__(self, noun: Awaiting, kind: Any) -> Callable[P, Pending[T]]: ...
    @overload
    def __get__(self, noun: None, kind: Any) -> Self: ...

    def __get__(self, noun: Any, kind: Any) -> Any:
        if noun is None:
            return self
        function = self._function
        if isinstance(noun, Blocking):
            return functools.wraps(function)(lambda *args, **named: drive(function(noun, *args, **named)))
        return functools.wraps(function)(lambda *args, **named: Pending(function(noun, *args, **named)))


def verb(function: Callable[Concatenate[S, P], Coroutine[Any, Any, T]]) -> Verb[P, T]:
    """Make a coroutine function a verb."""
    return Verb(function)


class Source(Protocol[T_co]):
    """Where pieces come from."""

    async def next(self) -> T_co:
        """Raises StopAsyncIteration at the end."""

    def close(self) -> None:
        """Want no more; at once, from any state."""


class Stream(Generic[T]):
    """Pieces as they come.  Ends with its source, with `close`, with its `with` block, or when it is dropped."""

    def __init__(self, source: Source[T]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return drive(self._source.next())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """Want no more."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._source.close()


class AsyncStream(Generic[T]):
    """Pieces as they come.  Begins when it is awaited, entered, or first iterated; ends as a Stream does."""

    def __init__(self, opening: Callable[[], Coroutine[Any, Any, Source[T]]]) -> None:
        self._opening = opening
        self._source: Source[T] | None = None
        self._closed = False

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._opened().__await__()

    async def _opened(self) -> Self:
        if self._source is None and not self._closed:
            self._source = await self._opening()
        return self

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        await self._opened()
        if self._source is None:
            raise StopAsyncIteration
        return await self._source.next()

    def close(self) -> None:
        """Want no more."""
        self._closed = True
        if self._source is not None:
            self._source.close()

    async def __aenter__(self) -> Self:
        return await self._opened()

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._source is not None:
            self._source.close()


class Flow(Generic[P, T]):
    """A coroutine function that opens a source, as a method of either flavour that returns a stream."""

    def __init__(self, function: Callable[..., Coroutine[Any, Any, Source[T]]]) -> None:
        self._function = function
        self.__doc__ = function.__doc__

    @overload
    def __get__(self, noun: Blocking, kind: Any) -> Callable[P, Stream[T]]: ...
    @overload
    def __get__(self, noun: Awaiting, kind: Any) -> Callable[P, AsyncStream[T]]: ...
    @overload
    def __get__(self, noun: None, kind: Any) -> Self: ...

    def __get__(self, noun: Any, kind: Any) -> Any:
        if noun is None:
            return self
        function = self._function
        if isinstance(noun, Blocking):
            return functools.wraps(function)(lambda *args, **named: Stream(drive(function(noun, *args, **named))))
        return functools.wraps(function)(lambda *args, **named: AsyncStream(lambda: function(noun, *args, **named)))


def flow(function: Callable[Concatenate[S, P], Coroutine[Any, Any, Source[T]]]) -> Flow[P, T]:
    """Make a coroutine function that opens a source a flow."""
    return Flow(function)
