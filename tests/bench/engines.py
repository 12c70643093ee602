"""Time engines side by side through the Engine API and the stock docker CLI.

    python tests/bench/engines.py corral=/run/corral.sock docker=/run/docker.sock [--only run,exec] [--repeat 10]

Every workload runs on all engines in turn, so that a noisy machine disturbs them alike; the first turn is not
counted.  A row shows the medians and the ratio of the first engine to each other: below 1 it is ahead.  Each engine
needs the image `busybox` (--image names another with sh, true, sleep, seq and dd).
"""

from __future__ import annotations

import argparse
import concurrent.futures
import http.client
import io
import json
import socket
import statistics
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=300)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(300)
        self.sock.connect(self._path)


class Engine:
    """One engine, reached over its socket."""

    def __init__(self, name: str, path: str, image: str) -> None:
        self.name, self.path, self.image = name, path, image
        self._connection = Connection(path)

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """One request; `body` is sent as JSON, or as it is when it is bytes.  Raises OSError on an error status."""
        raw = isinstance(body, bytes)
        data = body if raw or body is None else json.dumps(body)
        kind = "application/x-tar" if raw else "application/json"
        self._connection.request(method, path, data, {"Content-Type": kind})  # type: ignore[arg-type]
        response = self._connection.getresponse()
        answer = response.read()
        if response.status >= 400:
            raise OSError(f"{method} {path}: {response.status} {answer[:200]!r}")
        return answer

    def cli(self, *words: str) -> None:
        """Run the docker CLI against this engine."""
        command = ["docker", "-H", f"unix://{self.path}", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def create(self, *command: str, **host: Any) -> str:
        """A new container's id."""
        body = {"Image": self.image, "Cmd": command, "HostConfig": host}
        return str(json.loads(self.call("POST", "/containers/create", body))["Id"])

    def start(self, container: str) -> None:
        """Start it."""
        self.call("POST", f"/containers/{container}/start")

    def finish(self, container: str) -> None:
        """Start it and wait for its end."""
        self.start(container)
        self.call("POST", f"/containers/{container}/wait")

    def remove(self, container: str) -> None:
        """Remove it, running or not."""
        self.call("DELETE", f"/containers/{container}?force=1")


def timed(work: Callable[[], object]) -> float:
    """Seconds that `work` takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def run(engine: Engine) -> float:
    """docker run --rm IMAGE true: s"""
    return timed(lambda: engine.cli("run", "--rm", engine.image, "true"))


def run_no_network(engine: Engine) -> float:
    """docker run --rm --network none IMAGE true: s"""
    return timed(lambda: engine.cli("run", "--rm", "--network", "none", engine.image, "true"))


def run_publish(engine: Engine) -> float:
    """docker run --rm -p 127.0.0.1::80 IMAGE true: s"""
    return timed(lambda: engine.cli("run", "--rm", "-p", "127.0.0.1::80", engine.image, "true"))


def lifecycle(engine: Engine) -> float:
    """create, start, wait, remove through the API: s"""

    def work() -> None:
        container = engine.create("true")
        engine.finish(container)
        engine.remove(container)

    return timed(work)


def parallel(engine: Engine) -> float:
    """40 lifecycles, 8 at a time: s per container"""

    def one(_: int) -> float:
        return lifecycle(Engine(engine.name, engine.path, engine.image))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return timed(lambda: list(pool.map(one, range(40)))) / 40


def exec_(engine: Engine) -> float:
    """exec of `true` in a running container (create, start, inspect): s"""
    container = engine.create("sleep", "600")
    engine.start(container)

    def work() -> None:
        made = json.loads(engine.call("POST", f"/containers/{container}/exec", {"Cmd": ["true"], "AttachStdout": True}))
        other = Engine(engine.name, engine.path, engine.image)
        other.call("POST", f"/exec/{made['Id']}/start", {"Detach": False})
        assert json.loads(engine.call("GET", f"/exec/{made['Id']}/json"))["ExitCode"] == 0

    try:
        return timed(lambda: [work() for _ in range(10)]) / 10
    finally:
        engine.remove(container)


def kill(engine: Engine) -> float:
    """remove a running container by force: s"""
    container = engine.create("sleep", "600")
    engine.start(container)
    return timed(lambda: engine.remove(container))


def list_200(engine: Engine) -> float:
    """list 200 containers: s"""
    made = [engine.create("true") for _ in range(200)]
    try:
        return statistics.median(timed(lambda: engine.call("GET", "/containers/json?all=1")) for _ in range(5))
    finally:
        for container in made:
            engine.remove(container)


def stream(engine: Engine) -> float:
    """512 MiB of output through an attached CLI, no log: s"""
    words = ("run", "--rm", "--log-driver", "none", "--network", "none", engine.image)
    return timed(lambda: engine.cli(*words, "dd", "if=/dev/zero", "bs=1M", "count=512"))


def log_write(engine: Engine) -> float:
    """log 1,000,000 lines: s"""
    container = engine.create("seq", "1000000", NetworkMode="none")
    try:
        return timed(lambda: engine.finish(container))
    finally:
        engine.remove(container)


def log_read(engine: Engine) -> float:
    """docker logs of 300,000 lines: s"""
    container = engine.create("seq", "300000", NetworkMode="none")
    try:
        engine.finish(container)
        return timed(lambda: engine.cli("logs", container))
    finally:
        engine.remove(container)


def copy(engine: Engine) -> float:
    """5,000 small files into a container and back: s"""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(5000):
            member = tarfile.TarInfo(f"many/d{number % 50}/f{number}")
            member.size = 200
            tar.addfile(member, io.BytesIO(b"x" * 200))
    container = engine.create("true")

    def work() -> None:
        engine.call("PUT", f"/containers/{container}/archive?path=/", buffer.getvalue())
        engine.call("GET", f"/containers/{container}/archive?path=/many")

    try:
        return timed(work)
    finally:
        engine.remove(container)


def memory(engine: Engine) -> float:
    """memory of the whole machine for one more idle container, over 40: MiB"""

    def available() -> int:
        Path("/proc/sys/vm/drop_caches").write_text("3")
        time.sleep(1)
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0])

    made: list[str] = []

    def add(count: int) -> None:
        for _ in range(count):
            made.append(engine.create("sleep", "600"))
            engine.start(made[-1])

    try:
        add(5)
        before = available()
        add(40)
        return (before - available()) / 1024 / 40
    finally:
        for container in made:
            engine.remove(container)


def start_300(engine: Engine) -> float:
    """300 containers started in turn: the last 30 starts compared with the first 30 (1: as fast)"""
    made: list[str] = []
    starts: list[float] = []
    try:
        for _ in range(300):
            made.append(engine.create("sleep", "600"))
            starts.append(timed(lambda: engine.start(made[-1])))
        return statistics.median(starts[-30:]) / statistics.median(starts[:30])
    finally:
        for container in made:
            engine.remove(container)


def _build(engine: Engine, query: str, files: int) -> float:
    steps = "".join(f"RUN echo {number} > /file{number}\n" for number in range(8))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        texts = {"Dockerfile": f"FROM {engine.image}\nCOPY . /src\n{steps}"}
        texts |= {f"d{number % 20}/f{number}": f"content {number}\n" * 50 for number in range(files)}
        for name, text in texts.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(text), 1_700_000_000
            archive.addfile(info, io.BytesIO(text.encode()))
    context = buffer.getvalue()

    def work() -> None:
        answer = engine.call("POST", f"/build?t=bench-build&{query}", context)
        assert b'"error"' not in answer, answer[-300:]

    return timed(work)


def build_no_cache(engine: Engine) -> float:
    """build without cache: COPY of 50 files and 8 RUN (classic API)"""
    return _build(engine, "nocache=1", 50)


def build_cached(engine: Engine) -> float:
    """the same, all of it cached, with a context of 2,000 files"""
    _build(engine, "", 2000)
    return _build(engine, "", 2000)


WORKLOADS: dict[str, tuple[Callable[[Engine], float], int]] = {
    "run": (run, 15),
    "run-no-network": (run_no_network, 15),
    "run-publish": (run_publish, 10),
    "lifecycle": (lifecycle, 20),
    "parallel": (parallel, 3),
    "exec": (exec_, 5),
    "kill": (kill, 10),
    "list-200": (list_200, 2),
    "stream": (stream, 3),
    "log-write": (log_write, 3),
    "log-read": (log_read, 3),
    "copy": (copy, 3),
    "build-no-cache": (build_no_cache, 5),
    "build-cached": (build_cached, 3),
    "memory": (memory, 2),
    "start-300": (start_300, 1),
}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--image", default="busybox")
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--repeat", type=int, default=0)
    options = parser.parse_args()
    engines = [Engine(*text.split("=", 1), options.image) for text in options.engine]
    for name in options.only.split(","):
        workload, repeat = WORKLOADS[name]
        seen: dict[str, list[float]] = {engine.name: [] for engine in engines}
        for turn in range((options.repeat or repeat) + 1):
            for engine in engines:
                figure = workload(engine)
                if turn:
                    seen[engine.name].append(figure)
        medians = [statistics.median(seen[engine.name]) for engine in engines]
        ratios = "".join(f"  x{medians[0] / other:.3f}" for other in medians[1:])
        shown = "".join(f"{median:>10.4g}" for median in medians)
        print(f"{name:>15}{shown}{ratios}  {workload.__doc__}", flush=True)


if __name__ == "__main__":
    main()
