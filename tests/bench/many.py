"""Many containers on one machine: start rate, growth, `ps`, memory, and a restart of the daemon over them.

PYTHONPATH=src python -m tests.bench.many [containers] [none|bridge]
PYTHONPATH=src python -m tests.bench.many --boot        1,000 stopped and 100 running containers, restart
"""

from __future__ import annotations

import os
import statistics
import sys
import time

from tests.support.daemon import Daemon, running_daemon

_EDGE = 50


def main() -> None:
    """The command."""
    with running_daemon() as daemon:
        if sys.argv[1:] == ["--boot"]:
            boot(daemon)
        else:
            many(daemon, int(sys.argv[1]) if len(sys.argv) > 1 else 1000, (sys.argv[2:] or ["none"])[0])
        begin = time.perf_counter()
        daemon.remove_all()
        print(f"remove all: {time.perf_counter() - begin:.1f} s")


def many(daemon: Daemon, count: int, network: str) -> None:
    """Start `count` containers one after another."""
    before = memory_kib(daemon.pid)
    taken = []
    begin = time.perf_counter()
    for _ in range(count):
        started = time.perf_counter()
        daemon.start("sleep", "100000", HostConfig={"NetworkMode": network})
        taken.append(time.perf_counter() - started)
    total = time.perf_counter() - begin
    first, last = statistics.median(taken[:_EDGE]), statistics.median(taken[-_EDGE:])
    print(f"{count} containers, network {network}: {count / total:.1f} starts a second")
    print(f"first {_EDGE}: {first * 1e3:.1f} ms, last {_EDGE}: {last * 1e3:.1f} ms, ratio {last / first:.2f}")
    print(f"GET /containers/json: {ms(daemon):.1f} ms; docker ps -q: {ps(daemon):.0f} ms")
    held = memory_kib(daemon.pid)
    shims = [pid for pid in daemon.processes() if name_of(pid).startswith("corral-shim")]
    each = statistics.mean(pss_kib(pid) for pid in shims) if shims else 0
    print(f"daemon and launcher: {before / 1024:.0f} MiB before, {held / 1024:.0f} MiB now; a shim: {each:.0f} KiB")
    restart(daemon)


def boot(daemon: Daemon) -> None:
    """1,000 containers that have run and 100 that run; how long until the daemon answers again."""
    for number in range(1100):
        container = daemon.start(
            *(("sleep", "100000") if number < 100 else ("true",)), HostConfig={"NetworkMode": "none"}
        )
        if number >= 100:
            daemon.wait(container)
    for _ in range(3):
        restart(daemon)


def restart(daemon: Daemon) -> None:
    """Kill the daemon, start it, and look at the containers."""
    daemon.end(9)
    begin = time.perf_counter()
    daemon.launch()
    ready = time.perf_counter() - begin
    running = len(daemon.get("/containers/json").json())
    print(f"restart: first answer after {ready:.2f} s, {running} running after {time.perf_counter() - begin:.2f} s")


def ms(daemon: Daemon) -> float:
    """Median milliseconds of a list over the API."""
    taken = []
    for _ in range(10):
        started = time.perf_counter()
        daemon.get("/containers/json")
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e3


def ps(daemon: Daemon) -> float:
    """Median milliseconds of `docker ps -q`."""
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        daemon.output("ps", "-q")
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e3


def name_of(pid: int) -> str:
    """The command name of a process, "" when it is gone."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def pss_kib(pid: int) -> int:
    """Proportional set size of one process."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    except OSError:
        return 0


def memory_kib(pid: int) -> int:
    """Of the daemon and its launcher."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = [int(child) for child in file.read().split()]
    return pss_kib(pid) + sum(pss_kib(child) for child in children if os.path.exists(f"/proc/{child}"))


if __name__ == "__main__":
    main()
