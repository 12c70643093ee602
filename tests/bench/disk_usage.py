"""How long `GET /system/df` and `GET /images/json` take with many images, right after a change and again.

PYTHONPATH=src python -m tests.bench.disk_usage [images]
"""

from __future__ import annotations

import os
import statistics
import sys
import time

from tests.support import images as made
from tests.support.daemon import Daemon, running_daemon
from tests.support.images import directory, member, tar_of

_RUNS = 30


def main() -> None:
    """Load images of a shared base and two layers of their own; print milliseconds."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with running_daemon() as daemon:
        base = _layer("base")
        for number in range(count):
            _load(daemon, [base, _layer(f"a{number}"), _layer(f"b{number}")], f"image{number}:1")
        for path in ("/system/df", "/v1.51/system/df", "/images/json", "/images/json?shared-size=1"):
            again = [_ms(daemon, path) for _ in range(_RUNS)]
            changed = [_after_a_change(daemon, path, run) for run in range(_RUNS)]
            print(f"{path}: {statistics.median(again):.1f} ms, after a change {statistics.median(changed):.1f} ms")


def _layer(name: str) -> bytes:
    return tar_of([directory("d"), member(f"d/{name}", os.urandom(10_000))])


def _load(daemon: Daemon, layers: list[bytes], name: str) -> None:
    data = made.docker_archive(layers, [name])
    reply = daemon.request("POST", "/images/load?quiet=1", data, {"Content-Type": "application/x-tar"})
    assert reply.status == 200, reply.body


def _after_a_change(daemon: Daemon, path: str, run: int) -> float:
    daemon.post("/images/image0:1/tag", repo=f"changed{run}", tag="1")
    return _ms(daemon, path)


def _ms(daemon: Daemon, path: str) -> float:
    started = time.perf_counter()
    assert daemon.get(path).status == 200
    return (time.perf_counter() - started) * 1e3


if __name__ == "__main__":
    main()
