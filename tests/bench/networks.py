"""Networks: throughput and names beside dockerd, and what attaching a container costs the engine.

    PYTHONPATH=src python -m tests.bench.networks [--seconds 3] [--rounds 5]

iperf3 and dnsperf come from Debian's packages (see tests/support/debian.py).  Where `dockerd` is on PATH the same is
done with it, in turns, in a network namespace of its own.  For many containers on one bridge there is
`python -m tests.bench.many 1000 bridge`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from corral.net import reach
from corral.net.networks import EndpointRequest, Networks, NetworkSettings, PortBinding
from corral.store.db import Database
from tests.support.daemon import IMAGE, Engine, running_daemon
from tests.support.debian import installed
from tests.support.netns import Space, on_new_host, spaces
from tests.support.wait import until

_PORT = 5201
_LISTENING = 0x0A


class Side:
    """An engine with two containers on a network; one has the port of iperf3 published."""

    def __init__(self, name: str, engine: Engine, host: Space, tools: Path) -> None:
        self.name, self.engine, self.host = name, engine, host
        self._environment = {**os.environ, "LD_LIBRARY_PATH": f"{tools}/usr/lib/x86_64-linux-gnu"}
        self._tools = tools / "usr/bin"
        engine.output("network", "create", "app")
        for container, words in (("server", ("-p", f"{_PORT}:{_PORT}")), ("client", ())):
            engine.output("run", "-d", "--name", container, "--network", "app", *words, IMAGE, "sleep", "100000")
        self.address = engine.inspect("server")["NetworkSettings"]["Networks"]["app"]["IPAddress"]

    def run(self, where: str, *words: str) -> str:
        """Run a tool in the network of a container, or (`host`) of the engine."""
        return subprocess.run(
            self.command(where, *words), env=self._environment, check=True, capture_output=True, text=True
        ).stdout

    def command(self, where: str, *words: str) -> list[str]:
        pid = self.host.pid if where == "host" else self.engine.state(where)["Pid"]
        return ["nsenter", "-t", str(pid), "-n", str(self._tools / words[0]), *words[1:]]

    def throughput(self, where: str, address: str, seconds: int) -> float:
        """Gbit/s of one TCP connection from there to the server."""
        command = self.command("server", "iperf3", "-s", "-1", "-p", str(_PORT))
        with subprocess.Popen(command, env=self._environment, stdout=subprocess.DEVNULL) as serving:
            try:
                until(self._listens, 10)
                told = json.loads(self.run(where, "iperf3", "-J", "-c", address, "-p", str(_PORT), "-t", str(seconds)))
            except BaseException:
                serving.kill()
                raise
        return float(told["end"]["sum_received"]["bits_per_second"]) / 1e9

    def _listens(self) -> bool:
        with open(f"/proc/{self.engine.state('server')['Pid']}/net/tcp6") as file:
            return _PORT in reach.listening(file.read(), _LISTENING)

    def names(self, seconds: int, questions: str) -> float:
        """Answers a second of the DNS server of a container."""
        told = self.run(
            "client", "dnsperf", "-s", "127.0.0.11", "-d", questions, "-l", str(seconds), "-c", "10", "-q", "100"
        )
        found = re.search(r"Queries per second:\s+([\d.]+)", told)
        lost = re.search(r"Queries lost:\s+(\d+)", told)
        assert found and lost and int(lost[1]) == 0, told
        return float(found[1])


@contextlib.contextmanager
def dockerd() -> Iterator[tuple[Engine, Space]]:
    """dockerd with folders and a network namespace of its own."""
    folder = tempfile.mkdtemp(prefix="dockerd-")
    space = Space()
    space.sh("ip link set lo up")
    engine = Engine(os.path.join(folder, "docker.sock"))
    command = [
        "nsenter",
        f"--net=/proc/{space.pid}/ns/net",
        "dockerd",
        "-H",
        engine.host,
        "--data-root",
        f"{folder}/data",
    ]
    command += ["--exec-root", f"{folder}/exec", "-p", f"{folder}/pid", "--cgroup-parent", "/corral-bench-dockerd"]
    with open(os.path.join(folder, "log"), "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def answers() -> bool:
        try:
            return engine.get("/_ping").status == 200
        except OSError:
            return False

    try:
        until(answers, 40)
        engine.load_image()
        yield engine, space
        engine.remove_all()
    finally:
        process.terminate()
        process.wait(30)
        space.end()
        subprocess.run(["sh", "-c", f"grep -o '{folder}[^ ]*' /proc/self/mountinfo | xargs -r -n1 umount"], check=False)
        subprocess.run(
            [
                "find",
                "/sys/fs/cgroup",
                "-depth",
                "-path",
                "*/corral-bench-dockerd*",
                "-type",
                "d",
                "-exec",
                "rmdir",
                "{}",
                ";",
            ],
            check=False,
        )
        shutil.rmtree(folder, ignore_errors=True)


def beside(seconds: int, rounds: int) -> None:
    """Throughput and names of one engine, or of two in turns."""
    tools = installed("iperf3", "dnsperf")
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(running_daemon())
        sides = [Side("corral", daemon, daemon.space, tools)]
        if shutil.which("dockerd"):
            sides.append(Side("dockerd", *stack.enter_context(dockerd()), tools))
        questions = stack.enter_context(tempfile.NamedTemporaryFile("w"))
        questions.write("server A\n")
        questions.flush()
        workloads: list[tuple[str, Callable[[Side], float]]] = [
            ("container to container, Gbit/s", lambda side: side.throughput("client", side.address, seconds)),
            ("host to published port, Gbit/s", lambda side: side.throughput("host", "127.0.0.1", seconds)),
            ("DNS answers a second", lambda side: side.names(seconds, questions.name)),
        ]
        for name, workload in workloads:
            found: dict[str, list[float]] = {side.name: [] for side in sides}
            for _ in range(rounds):
                for side in sides:
                    found[side.name].append(workload(side))
            shown = ", ".join(
                f"{who} {statistics.median(ones):.1f} ({min(ones):.1f} to {max(ones):.1f})"
                for who, ones in found.items()
            )
            print(f"{name}: {shown}", flush=True)


def attaching(name: str, count: int, settings: NetworkSettings, egress: tuple[str, ...], ports: bool) -> None:
    """Milliseconds of engine time to attach one container to the default bridge."""

    @on_new_host
    async def work() -> None:
        taken = []
        with tempfile.TemporaryDirectory() as folder, spaces(count) as containers:
            db = Database(os.path.join(folder, "db"))
            networks = Networks(db, settings)
            await networks.open({})
            for number, container in enumerate(containers):
                binding = (PortBinding("tcp", 80),) if ports else ()
                begin = time.perf_counter()
                await networks.attach(
                    f"{number:064x}", container.pid, (EndpointRequest("bridge", egress=bool(egress)),), binding,
                    hostname="h", name=f"c{number}", egress_list=egress,
                )  # fmt: skip
                taken.append(time.perf_counter() - begin)
            await networks.close(keep=False)
            db.close()
        median, slow = statistics.median(taken) * 1e3, sorted(taken)[len(taken) * 9 // 10] * 1e3
        print(f"attach {name}: {median:.2f} ms at the median, {slow:.2f} ms for one in ten", flush=True)

    work()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(sys.argv[1:])
    attaching("without ports", 100, NetworkSettings(), (), False)
    attaching("with a published port", 100, NetworkSettings(), (), True)
    attaching("with a port behind the host's firewall", 100, NetworkSettings(host_firewall=True), (), True)
    attaching("with an egress list", 100, NetworkSettings(), ("allow=10.0.0.0/8:443", "allow=deb.debian.org:80"), True)
    beside(given.seconds, given.rounds)


if __name__ == "__main__":
    main()
