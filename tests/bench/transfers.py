"""Time load, push and pull side by side, and measure the memory of a large pull.

    python -m tests.bench.transfers corral=/run/corral.sock docker=/run/docker.sock --registry 127.0.0.1:5000
    python -m tests.bench.transfers corral=/run/corral.sock --registry ... --memory PIDFILE

Images are made here: `files` has one layer of 60,000 small files, `layers` has eight of 64 MiB, `one` a busybox,
`debian` the root file system of --root-tar (`mmdebstrap --variant=minbase bookworm root.tar`).  Every
step runs on all engines in turn, after a round that is not counted.  With --memory a pull of 2 GiB is watched: the
proportional set size of the daemon whose process id PIDFILE holds, and of all its children, every 20 ms.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import statistics
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.engines import Engine
from tests.support import images as made
from tests.support import registry as registries

MIB = 1 << 20
Make = Callable[[int], list[bytes]]


def small_files(salt: int, count: int = 60_000) -> list[bytes]:
    """One layer of many files."""
    folders = [made.directory(f"d{n}") for n in range(200)]
    files = [made.member(f"d{n % 200}/f{n}", b"content %d %d\n" % (salt, n) * 30) for n in range(count)]
    return [made.tar_of([*folders, *files])]


def big_layers(salt: int, count: int = 8, size: int = 64 * MIB) -> Iterator[bytes]:
    """Layers of one file each that compresses to about half."""
    for n in range(count):
        source = random.Random(salt * 1000 + n)
        noise = source.randbytes(MIB // 2)
        yield made.tar_of([made.member(f"file{n}", b"".join(_pieces(noise, size)))])


def root_with_salt(path: str, salt: int) -> list[bytes]:
    """A root file system's tar as a layer that nobody has seen: one file more, before the end."""
    data = Path(path).read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512)
    return [data + made.tar_of([made.member("salt", str(salt).encode())])]


def _pieces(noise: bytes, size: int) -> Iterator[bytes]:
    for n in range(size // MIB):
        yield n.to_bytes(8, "big") + noise[8:] + bytes(MIB // 2)


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def request(engine: Engine, method: str, path: str, body: bytes | None = None, **query: str) -> bytes:
    """A request whose stream may end with an error, which is raised."""
    answer = engine.call(method, f"{path}?{urllib.parse.urlencode(query)}", body)
    if b'"errorDetail"' in answer:
        raise OSError(answer[-300:])
    return answer


def remove(engine: Engine, name: str) -> None:
    """Remove an image that may not be there."""
    try:
        engine.call("DELETE", f"/images/{urllib.parse.quote(name, safe='')}?force=1")
    except OSError as error:
        if "404" not in str(error):
            raise


def measure(engines: list[Engine], registry: str, kind: str, make: Make, rounds: int) -> None:
    """Print load, push and pull of one image, whose content is another in every round: no registry knows it."""
    figures: dict[str, dict[str, list[float]]] = {step: {e.name: [] for e in engines} for step in STEPS}
    for turn in range(rounds + 1):
        data = made.docker_archive(make(os.getpid() * 100 + turn), [f"{kind}:bench"])
        for engine in engines:
            repository = f"{registry}/bench/{kind}-{engine.name}-{turn}-{os.getpid()}"
            remove(engine, f"{kind}:bench")
            taken = {"load": timed(lambda e=engine, d=data: request(e, "POST", "/images/load", d, quiet="1"))}
            request(engine, "POST", f"/images/{kind}:bench/tag", repo=repository, tag="1")
            target = f"/images/{urllib.parse.quote(repository, safe='')}/push"
            taken["push"] = timed(lambda e=engine, t=target: _push(e, t))
            remove(engine, f"{repository}:1")
            remove(engine, f"{kind}:bench")
            taken["pull"] = timed(
                lambda e=engine, r=repository: request(e, "POST", "/images/create", fromImage=r, tag="1")
            )
            remove(engine, f"{repository}:1")
            if turn:
                for step, seconds in taken.items():
                    figures[step][engine.name].append(seconds)
    for step in STEPS:
        medians = [statistics.median(figures[step][engine.name]) for engine in engines]
        ratios = "".join(f"  x{medians[0] / other:.2f}" for other in medians[1:])
        print(f"{step} {kind:8}" + "".join(f"{seconds:9.2f} s" for seconds in medians) + ratios, flush=True)


STEPS = ("load", "push", "pull")


def _push(engine: Engine, target: str) -> None:
    import base64

    header = base64.urlsafe_b64encode(b"{}").decode()
    engine._connection.request("POST", target + "?tag=1", b"", {"X-Registry-Auth": header})
    answer = engine._connection.getresponse().read()
    if b'"errorDetail"' in answer:
        raise OSError(answer[-300:])


def watch_memory(engine: Engine, registry: str, pid: int) -> None:
    """Pull 2 GiB in one layer and in eight; print the highest memory of all processes together."""
    for count, size in ((1, 2048 * MIB), (8, 256 * MIB)):
        repository = f"bench/memory-{count}"
        layers = [gzip.compress(layer, 1, mtime=0) for layer in big_layers(0, count, size)]
        diff_ids = []
        for layer in big_layers(0, count, size):
            diff_ids.append(made.digest(layer))
        push(registry, repository, layers, diff_ids)
        del layers
        remove(engine, f"{registry}/{repository}:1")
        done = threading.Event()
        highest = [0]
        watcher = threading.Thread(target=_watch, args=(pid, done, highest))
        before = memory_kib(pid)
        watcher.start()
        name = f"{registry}/{repository}"
        seconds = timed(lambda n=name: request(engine, "POST", "/images/create", fromImage=n, tag="1"))
        done.set()
        watcher.join()
        remove(engine, f"{name}:1")
        print(f"2 GiB in {count}: {seconds:.1f} s, {before / 1024:.0f} MiB before, {highest[0] / 1024:.0f} MiB at most")


def push(registry: str, repository: str, layers: list[bytes], diff_ids: list[str]) -> None:
    """Put an image of these compressed layers into a registry."""
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    found = []
    for layer in [config.encode(), *layers]:
        registries.push_blob(registry, repository, made.digest(layer), layer)
        found.append({"digest": made.digest(layer), "size": len(layer)})
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    types = ["application/vnd.docker.container.image.v1+json"]
    types += ["application/vnd.docker.image.rootfs.diff.tar.gzip"] * len(layers)
    described = [{"mediaType": name, **item} for name, item in zip(types, found, strict=True)]
    manifest = {"schemaVersion": 2, "mediaType": kind, "config": described[0], "layers": described[1:]}
    registries.push(registry, repository, "1", kind, json.dumps(manifest).encode())


def _watch(pid: int, done: threading.Event, highest: list[int]) -> None:
    while not done.wait(0.02):
        highest[0] = max(highest[0], memory_kib(pid))


def memory_kib(pid: int) -> int:
    """Proportional set size of a process and everything below it."""
    total = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total = sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                children = file.read().split()
            total += sum(memory_kib(int(child)) for child in children)
    except OSError:
        return total
    return total


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--registry", required=True, metavar="HOST:PORT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="one,files,layers")
    parser.add_argument("--root-tar", metavar="FILE", help="a root file system, for --only debian")
    parser.add_argument("--memory", metavar="PIDFILE")
    options = parser.parse_args()
    engines = [Engine(*text.split("=", 1), "busybox") for text in options.engines]
    if options.memory:
        watch_memory(engines[0], options.registry, int(Path(options.memory).read_text()))
        return
    makers: dict[str, Make] = {
        "one": lambda salt: [made.busybox_layer(), made.tar_of([made.member("salt", str(salt).encode())])],
        "files": small_files,
        "layers": lambda salt: list(big_layers(salt)),
        "debian": lambda salt: root_with_salt(options.root_tar, salt),
    }
    for kind in options.only.split(","):
        measure(engines, options.registry, kind, makers[kind], options.rounds)


if __name__ == "__main__":
    main()
