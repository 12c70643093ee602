"""Compare registries: push and pull of blobs with 1, 8 and 64 clients, engine by engine in turn.

    python3 tests/bench/registry.py [--seconds 3] [--rounds 3]

Starts `corral registry serve` and Debian's docker-registry, each with an empty folder, and prints medians.  A
client is a process with a plain blocking socket, so that it costs as little as it can on the cores that it shares.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "src")
LARGE_BYTES = 64 << 20
SMALL_BYTES = 4096
TAIL_BYTES = 50
# What is pushed: the same bytes each time but for a tail, so that its hash costs the client nothing.
BASES = {size: memoryview(os.urandom(size)) for size in (LARGE_BYTES, SMALL_BYTES)}
HASHES = {size: hashlib.sha256(base[:-TAIL_BYTES]) for size, base in BASES.items()}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def server(kind: str, folder: str) -> Iterator[int]:
    """A registry with its content below `folder`; the port."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    root = tempfile.mkdtemp(prefix=f"{kind}-", dir=folder)
    if kind == "corral":
        words = [sys.executable, "-m", "corral.registry", "serve", "--root", root, "--listen", address]
        environment = {**os.environ, "PYTHONPATH": SOURCE}
    else:
        config = os.path.join(folder, f"{kind}.yml")
        with open(config, "w") as file:
            file.write(
                "version: 0.1\nlog: {level: error}\n"
                f"storage: {{filesystem: {{rootdirectory: {root}}}}}\nhttp: {{addr: '{address}'}}\n"
            )
        words, environment = ["docker-registry", "serve", config], dict(os.environ)
    with open(os.path.join(folder, f"{kind}.log"), "ab") as log:  # both write an access log
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(root)


class Client:
    """A connection that is kept."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(1 << 20))

    def request(self, method: str, target: str, *body: bytes | memoryview) -> tuple[int, dict[str, str], int]:
        """Status, headers, and how many bytes the body had; those are thrown away."""
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {sum(map(len, body))}\r\n"
        head += "Content-Type: application/octet-stream\r\n\r\n"
        self._sock.sendall(head.encode())
        for part in body:
            self._sock.sendall(part)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            more = self._sock.recv(65536)
            assert more, "the registry closed the connection"
            data += more
        first, *lines = data[:end].decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0")) if method != "HEAD" else 0
        left = length - (len(data) - end - 4)
        while left > 0:
            count = self._sock.recv_into(self._buffer[: min(left, len(self._buffer))])
            assert count, "the registry closed the connection"
            left -= count
        return int(first.split()[1]), headers, length

    def push(self, name: str, digest: str, *data: bytes | memoryview) -> None:
        status, headers, _ = self.request("POST", f"/v2/{name}/blobs/uploads/")
        assert status == 202, status
        location = headers["location"]
        target = location[location.index("/v2/") :]
        target += ("&" if "?" in target else "?") + f"digest={digest}"
        status, _, _ = self.request("PUT", target, *data)
        assert status == 201, status

    def pull(self, name: str, digest: str, size: int) -> None:
        status, _, length = self.request("GET", f"/v2/{name}/blobs/{digest}")
        assert (status, length) == (200, size), (status, length)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def push_loop(port: int, number: int, size: int, end: float) -> int:
    """Push blobs that nobody has pushed, hashed beforehand; how many."""
    client = Client(port)
    count = 0
    while time.monotonic() < end:
        tail = b"%016d-%016d-%016d" % (os.getpid(), number, count)
        value = HASHES[size].copy()
        value.update(tail)
        client.push(f"bench/r{number % 4}", f"sha256:{value.hexdigest()}", BASES[size][: -len(tail)], tail)
        count += 1
    return count


def pull_loop(port: int, number: int, size: int, end: float) -> int:
    """Pull what was pushed by `prepare`; how many."""
    client = Client(port)
    count = 0
    while time.monotonic() < end:
        client.pull("bench/pull", DIGESTS[size][(number + count) % 4], size)
        count += 1
    return count


def prepared(size: int, index: int) -> bytes:
    return bytes([65 + index]) * size


def prepare(port: int) -> None:
    client = Client(port)
    for size in (SMALL_BYTES, LARGE_BYTES):
        for index in range(4):
            data = prepared(size, index)
            client.push("bench/pull", DIGESTS[size][index], data)


DIGESTS = {size: [digest_of(prepared(size, index)) for index in range(4)] for size in BASES}


def worker(
    loop: Callable[..., int], port: int, number: int, size: int, gate: object, out: object, for_s: float
) -> None:
    gate.wait()  # type: ignore[attr-defined]
    began = time.monotonic()
    count = loop(port, number, size, began + for_s)
    out.put((count, time.monotonic() - began))  # type: ignore[attr-defined]


def measure(loop: Callable[..., int], port: int, clients: int, size: int, for_s: float) -> float:
    """Blobs a second of all clients together."""
    context = multiprocessing.get_context("fork")
    gate, out = context.Barrier(clients), context.Queue()
    processes = [
        context.Process(target=worker, args=(loop, port, number, size, gate, out, for_s)) for number in range(clients)
    ]
    for process in processes:
        process.start()
    results = [out.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    return sum(count / took for count, took in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    kinds = ["corral", "docker-registry"]
    folder = tempfile.mkdtemp(prefix="registry-bench-", dir="/var/tmp")
    try:
        print(f"{'workload':34} " + " ".join(f"{kind:>16}" for kind in kinds) + "    ratio")
        for what, loop in (("push", push_loop), ("pull", pull_loop)):
            for size, unit in ((LARGE_BYTES, "MiB/s"), (SMALL_BYTES, "blobs/s")):
                for clients in (1, 8, 64):
                    label = f"{what} {size >> 10} KiB, {clients} clients, {unit}"
                    if options.only not in label:
                        continue
                    found: dict[str, list[float]] = {kind: [] for kind in kinds}
                    for _ in range(options.rounds):
                        for kind in kinds:
                            with server(kind, folder) as port:
                                if what == "pull":
                                    prepare(port)
                                rate = measure(loop, port, clients, size, options.seconds)
                                found[kind].append(rate * (size >> 20) if size == LARGE_BYTES else rate)
                    medians = [statistics.median(found[kind]) for kind in kinds]
                    ratio = medians[0] / medians[1]
                    print(
                        f"{label:34} " + " ".join(f"{value:16.0f}" for value in medians) + f"   {ratio:6.2f}",
                        flush=True,
                    )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
