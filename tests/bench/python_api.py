"""The Python API: import, requests over one connection, exec and sandboxes, beside docker-py.

PYTHONPATH=src python -m tests.bench.python_api SOCKET IMAGE
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import docker

from corral.client import AsyncClient, Client, Sandbox

_REQUESTS = 500
_ROUNDS = 15


def per_second(call: Callable[[], object]) -> float:
    """How often `call` can be done."""
    call()
    began = time.perf_counter()
    for _ in range(_REQUESTS):
        call()
    return _REQUESTS / (time.perf_counter() - began)


def median_ms(call: Callable[[], object]) -> float:
    """How long `call` takes."""
    call()
    times = []
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


async def awaited_per_second(host: str) -> float:
    async with AsyncClient(host) as client:
        await client.version()
        began = time.perf_counter()
        for _ in range(_REQUESTS):
            await client.version()
        return _REQUESTS / (time.perf_counter() - began)


def importing(module: str) -> float:
    """Milliseconds of a process that imports a module, less one that does not."""
    run = lambda program: median_ms(lambda: subprocess.run([sys.executable, "-c", program], check=True))  # noqa: E731
    return run(f"import {module}") - run("pass")


def first_output(client: Client, image: str) -> None:
    with Sandbox(image, client=client) as box:
        assert box.run("echo", "here").text == "here\n"


def main() -> None:
    host, image = f"unix://{sys.argv[1]}", sys.argv[2]
    theirs = docker.DockerClient(base_url=host)
    with Client(host) as ours:
        print(f"import: {importing('corral.client'):.0f} ms, docker-py {importing('docker'):.0f} ms")
        print(f"requests/s: {per_second(ours.version):.0f}, docker-py {per_second(theirs.version):.0f}")
        print(f"requests/s, asyncio: {asyncio.run(awaited_per_second(host)):.0f}")
        with ours.containers.run(image, "sleep", "600") as box:
            other = theirs.containers.get(box.id)
            mine = median_ms(lambda: box.exec("true"))
            print(f"exec: {mine:.1f} ms, docker-py {median_ms(lambda: other.exec_run('true')):.1f} ms")
        print(f"sandbox, made, first output, removed: {median_ms(lambda: first_output(ours, image)):.0f} ms")
        with Sandbox(image, client=ours) as box:
            box.snapshot("s")
            print(f"sandbox, rewind: {median_ms(lambda: box.rewind('s')):.0f} ms")
            print(f"sandbox, run: {median_ms(lambda: box.run('true')):.1f} ms")
    theirs.close()


if __name__ == "__main__":
    main()
