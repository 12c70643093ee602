"""The Python API in either flavour, behind one face: what is awaited is awaited here, so that one suite tests both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from corral.client import AsyncClient, AsyncSandbox, AsyncStream, Client, Sandbox
from corral.client.flavours import Awaiting, Pending


class Sync:
    """The blocking flavour, as it is."""

    def client(self, host: str, **more: Any) -> Any:
        return Client(host, **more)

    def sandbox(self, image: str, client: Any, **more: Any) -> Any:
        return Sandbox(image, client=client, **more)

    def close(self) -> None:
        pass


class Async:
    """The flavour for asyncio, in a loop of its own."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner(debug=True)

    def client(self, host: str, **more: Any) -> Any:
        return Face(self, AsyncClient(host, **more))

    def sandbox(self, image: str, client: Any, **more: Any) -> Any:
        return Face(self, AsyncSandbox(image, client=client.inner, **more))

    def run(self, awaitable: Any) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self.runner.run(wait())

    def faced(self, value: Any) -> Any:
        if isinstance(value, Pending):
            return self.faced(self.run(value))
        if isinstance(value, AsyncStream):
            return Face(self, self.run(value))
        return Face(self, value) if isinstance(value, Awaiting) else value

    def close(self) -> None:
        self.runner.close()


class Face:
    """An object of the async flavour that can be used like its blocking sister."""

    def __init__(self, flavour: Async, inner: Any) -> None:
        self.flavour = flavour
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value) or isinstance(value, Awaiting):
            return self.flavour.faced(value)
        call: Callable[..., Any] = value
        return lambda *args, **named: self.flavour.faced(call(*args, **named))

    def __enter__(self) -> Face:
        self.flavour.run(self.inner.__aenter__())
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.flavour.run(self.inner.__aexit__(kind, error, trace))

    def __iter__(self) -> Iterator[Any]:
        iterator = self.inner.__aiter__()
        while True:
            try:
                yield self.flavour.run(iterator.__anext__())
            except StopAsyncIteration:
                return

    def __next__(self) -> Any:
        return self.flavour.run(self.inner.__anext__())
