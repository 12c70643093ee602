"""Snapshots of a container that has written much: what taking one, starting from it and rewinding to it cost.

PYTHONPATH=src python -m tests.bench.snapshots
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from tests.support.daemon import running_daemon
from tests.support.wait import until

_FILL = (
    "for i in 1 2 3 4; do dd if=/dev/urandom of=/big$i bs=1M count=256 2>/dev/null; done; mkdir /many; i=0; "
    "while [ $i -lt 5000 ]; do echo $i > /many/$i; i=$((i+1)); done; touch /done"
)
_ROUNDS = 21


def main() -> None:
    """The command."""
    with running_daemon() as daemon:
        stopped = daemon.start("sh", "-c", _FILL, name="stopped")
        until(lambda: not daemon.state(stopped)["Running"], 120)

        def snapshot(name: str) -> None:
            assert daemon.post(f"/containers/{name}/snapshots", {"Name": "s"}).status == 201

        print(f"snapshot of a stopped container: {ms(lambda: snapshot('stopped')):.1f} ms")
        creates, starts, rewinds = [], [], []
        for _ in range(_ROUNDS):
            host = {"FromSnapshot": "stopped@s", "NetworkMode": "none"}
            body = {"Cmd": ["sleep", "1000"], "HostConfig": host}
            begin = time.perf_counter()
            fork = daemon.post("/containers/create", body).json()["Id"]
            creates.append((time.perf_counter() - begin) * 1e3)
            starts.append(ms(lambda fork=fork: daemon.post(f"/containers/{fork}/start")))  # type: ignore[misc]
            daemon.delete(f"/containers/{fork}", force="1")
            rewinds.append(ms(lambda: daemon.post("/containers/stopped/rewind", snapshot="s")))
        for what, taken in (("create from it", creates), ("start of that", starts), ("rewind to it", rewinds)):
            print(f"{what}: {statistics.median(taken):.1f} ms")
        daemon.start("sh", "-c", f"{_FILL}; sleep 1000", name="running")
        until(lambda: daemon.docker("exec", "running", "test", "-e", "/done").returncode == 0, 120)
        print(f"snapshot of a running container: {ms(lambda: snapshot('running')):.0f} ms")
        daemon.remove_all()


def ms(work: Callable[[], object]) -> float:
    """How long something takes, in milliseconds."""
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1e3


if __name__ == "__main__":
    main()
