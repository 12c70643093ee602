"""A corrald for tests: in a network namespace of its own, with its own folders and cgroup parent, and what it left.

An `Engine` is anything that speaks the API (also a reference dockerd, given with `--engine`); a `Daemon` is an Engine
that was started here, can be killed and started again, and can be asked what it has not given back.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import docker
import pytest

from tests.support.images import directory, docker_archive, member, tar_of
from tests.support.netns import Space
from tests.support.wait import until

IMAGE = "corral.test/busybox:1"
DOCKER = shutil.which("docker") or ""
_SOURCE = str(Path(__file__).resolve().parents[2] / "src")
_CGROUPS = "/sys/fs/cgroup"
_START_S = 20
_COMMAND_S = 20.0


def busybox_image(name: str = IMAGE, **run: Any) -> bytes:
    """A docker-archive: every applet of the static busybox, and an account `bob` (1000) who is also in `wheel`."""
    with open("/bin/busybox", "rb") as file:
        program = file.read()
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    members = [directory(folder) for folder in ("bin", "etc", "proc", "sys", "dev", "root", "home", "mnt", "var")]
    members += [directory("tmp", 0o1777), member("bin/busybox", program, mode=0o755)]
    members += [
        member(f"bin/{applet}", kind=b"2", link="busybox", mode=0o777) for applet in applets if applet != "busybox"
    ]
    members += [
        member(
            "etc/passwd",
            b"root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        ),
        member("etc/group", b"root:x:0:\nwheel:x:10:root,bob\nbob:x:1000:\nstaff:x:50:\n"),
        member("not-executable", b"plain text\n"),
    ]
    return docker_archive([tar_of(members)], [name], **run)


@dataclass(frozen=True)
class Reply:
    """What an engine answered to a plain request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of an error."""
        return str(self.json()["message"])


def docker_cli() -> str:
    """The stock docker CLI; a test that needs it is skipped on a machine without."""
    if not DOCKER:
        pytest.skip("the docker CLI is not installed")
    return DOCKER


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """Clients of the engine that listens on a unix socket."""

    def __init__(self, socket_path: str) -> None:
        self.socket_path = socket_path
        self.host = f"unix://{socket_path}"
        self._client: Any = None

    def environment(self) -> dict[str, str]:
        """For a docker CLI: this engine, and nothing of the user's configuration."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return {**kept, "DOCKER_HOST": self.host, "HOME": "/nonexistent", "DOCKER_CLI_HINTS": "false"}

    def docker(
        self, *words: str, input: bytes | str | None = None, timeout_s: float = _COMMAND_S, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """The stock CLI; CompletedProcess with text."""
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if input is None else {"input": _text(input)}
        done = subprocess.run(
            [docker_cli(), *words],
            env=self.environment(),
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout_s,
            check=False,
            **source,
        )
        if check:
            assert done.returncode == 0, f"docker {' '.join(words)}: {done.returncode}: {done.stderr}{done.stdout}"
        return done

    def output(self, *words: str, **more: Any) -> str:
        """What a successful docker command prints, without the last newline."""
        return self.docker(*words, check=True, **more).stdout.rstrip("\n")

    def popen(self, *words: str, **more: Any) -> subprocess.Popen[bytes]:
        """A docker command that goes on while the test does."""
        more = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
        return subprocess.Popen([docker_cli(), *words], env=self.environment(), **more)

    def inspect(self, ref: str) -> dict[str, Any]:
        """A container."""
        reply = self.get(f"/containers/{ref}/json")
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json()
        return found

    def inspect_image(self, ref: str) -> dict[str, Any]:
        """An image."""
        reply = self.get(f"/images/{ref}/json")
        assert reply.status == 200, reply.body
        found: dict[str, Any] = reply.json()
        return found

    def state(self, ref: str) -> dict[str, Any]:
        """A container's State."""
        found: dict[str, Any] = self.inspect(ref)["State"]
        return found

    def request(
        self, method: str, target: str, /, body: Any = None, headers: dict[str, str] | None = None, **query: Any
    ) -> Reply:
        """One request on a connection of its own; `body` is sent as JSON unless it is bytes."""
        connection = self.connection()
        with contextlib.closing(connection):
            given = dict(headers or {})
            if body is not None and not isinstance(body, bytes):
                body = json.dumps(body).encode()
            if body is not None:
                given.setdefault("Content-Type", "application/json")
            connection.request(method, target + (f"?{urlencode(query, quote_via=quote)}" if query else ""), body, given)
            response = connection.getresponse()
            return Reply(response.status, dict(response.headers), response.read())

    def get(self, target: str, /, **query: Any) -> Reply:
        return self.request("GET", target, **query)

    def post(self, target: str, /, body: Any = None, **query: Any) -> Reply:
        return self.request("POST", target, body, **query)

    def delete(self, target: str, /, **query: Any) -> Reply:
        return self.request("DELETE", target, **query)

    def connection(self, timeout_s: float = _COMMAND_S) -> http.client.HTTPConnection:
        return _UnixConnection(self.socket_path, timeout_s)

    def raw(self, timeout_s: float = _COMMAND_S) -> socket.socket:
        """A connection without a client on top."""
        connected = socket.socket(socket.AF_UNIX)
        connected.settimeout(timeout_s)
        connected.connect(self.socket_path)
        return connected

    @property
    def py(self) -> Any:
        """A docker-py client."""
        if self._client is None:
            self._client = docker.DockerClient(base_url=self.host, timeout=_COMMAND_S)
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def load_image(self) -> None:
        """Have IMAGE."""
        reply = self.request("POST", "/images/load", busybox_image(), {"Content-Type": "application/x-tar"})
        assert reply.status == 200, reply.body
        assert b"error" not in reply.body, reply.body

    def create(self, *command: str, name: str | None = None, **body: Any) -> str:
        """A container made through the API; its id."""
        query = {"name": name} if name else {}
        reply = self.post("/containers/create", {"Image": IMAGE, "Cmd": list(command), **body}, **query)
        assert reply.status == 201, reply.body
        return str(reply.json()["Id"])

    def start(self, *command: str, **more: Any) -> str:
        """A running container; its id."""
        container = self.create(*command, **more)
        reply = self.post(f"/containers/{container}/start")
        assert reply.status == 204, reply.body
        return container

    def wait(self, ref: str) -> int:
        """Until the container has ended; its exit code."""
        return int(self.post(f"/containers/{ref}/wait").json()["StatusCode"])

    def containers(self) -> set[str]:
        """The ids of all containers."""
        return {entry["Id"] for entry in self.get("/containers/json", all="1").json()}

    def remove_all(self, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """Remove every container that is not in `but`."""
        for container in self.containers() - but:
            reply = self.delete(f"/containers/{container}", force="1", v="1")
            assert reply.status in (204, 404), reply.body


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode(errors="surrogateescape")


class Daemon(Engine):
    """A corrald process and everything around it."""

    def __init__(self, *flags: str, wrapper: tuple[str, ...] = ()) -> None:
        self.folder = tempfile.mkdtemp(prefix="corrald-")
        self.data_root = os.path.join(self.folder, "data")
        self.exec_root = os.path.join(self.folder, "exec")
        self.log_path = os.path.join(self.folder, "log")
        self.cgroup_parent = f"/corral-test-{uuid.uuid4().hex[:8]}"
        self.space = Space()
        self.space.sh("ip link set lo up")
        self.flags = flags
        self.wrapper = wrapper
        self.process: subprocess.Popen[bytes] | None = None
        super().__init__(os.path.join(self.folder, "docker.sock"))

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def command(self) -> list[str]:
        """How this daemon is started, inside its network namespace."""
        return [
            "nsenter", f"--net=/proc/{self.space.pid}/ns/net", *self.wrapper,
            sys.executable, "-m", "corral.daemon",
            "-H", self.host, "--data-root", self.data_root, "--exec-root", self.exec_root,
            "-p", os.path.join(self.folder, "pid"), "--cgroup-parent", self.cgroup_parent,
            "--config-file", os.path.join(self.folder, "daemon.json"), *self.flags,
        ]  # fmt: skip

    def launch(self) -> None:
        """Start the process and return when it answers."""
        config = Path(self.folder, "daemon.json")
        if not config.exists():
            config.write_text("{}")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": _SOURCE},
            )
        until(self._answers, _START_S)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"corrald ended: {self.log()}"
        try:
            return self.get("/_ping").status == 200
        except OSError:
            return False

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the daemon's process; containers go on."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(_START_S)
            self.process = None

    def restart(self, number: int = signal.SIGKILL) -> None:
        """End and start it."""
        self.end(number)
        self.launch()

    def log(self) -> str:
        """What the daemon wrote."""
        return Path(self.log_path).read_text(errors="replace")

    def close(self) -> None:
        """End everything and remove every trace, whatever state it is in."""
        super().close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not self.processes())
        for path in sorted([*self.cgroups(), *self._cgroup_parents()], key=len, reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        for path in reversed(self.mounts()):
            subprocess.run(["umount", "-l", path], check=False)
        self.space.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- what it holds ------------------------------------------------------------------------------

    def processes(self) -> list[int]:
        """Of the daemon, its launcher, its shims and its containers: whoever is in its namespace or its cgroups."""
        found = []
        ours = os.stat(f"/proc/{self.space.pid}/ns/net").st_ino
        for name in filter(str.isdecimal, os.listdir("/proc")):
            pid = int(name)
            try:
                cgroups = Path(f"/proc/{pid}/cgroup").read_text()
                inside = os.stat(f"/proc/{pid}/ns/net").st_ino == ours or f"{self.cgroup_parent}/" in cgroups
            except OSError:  # it has just ended
                continue
            if inside and pid not in (self.space.pid, os.getpid()) and alive(pid):
                found.append(pid)
        return found

    def cgroups(self) -> list[str]:
        """Directories below the cgroup parent, in every hierarchy."""
        return [folder for parent in self._cgroup_parents() for folder, _, _ in os.walk(parent) if folder != parent]

    def _cgroup_parents(self) -> list[str]:
        bases = [_CGROUPS, *(os.path.join(_CGROUPS, name) for name in os.listdir(_CGROUPS))]
        return [base + self.cgroup_parent for base in bases if os.path.isdir(base + self.cgroup_parent)]

    def mounts(self) -> list[str]:
        """Mount points inside the daemon's folder, seen from the host."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        points = [line.split()[4] for line in lines]
        return [point for point in points if point.startswith(self.folder)]

    def descriptors(self) -> dict[str, str]:
        """The daemon's open files by number."""
        found = {}
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):
                found[name] = os.readlink(f"/proc/{self.pid}/fd/{name}")
        return found

    def exec_files(self) -> list[str]:
        """Files of running containers."""
        folder = os.path.join(self.exec_root, "containers")
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def links(self) -> list[str]:
        """Network links of the daemon's namespace, except loopback."""
        names = [entry["ifname"] for entry in json.loads(self.space.sh("ip -j link"))]
        return sorted(set(names) - {"lo"})

    def routes(self) -> list[str]:
        """Routes of the daemon's namespace but for link-local ones, and rules that choose between tables of them."""
        commands = ("ip route", "ip -6 route", "ip rule", "ip -6 rule")
        lines = [line for command in commands for line in self.space.sh(command).splitlines()]
        return sorted(line.replace(" linkdown", "").strip() for line in lines if "fe80:" not in line)

    def rules(self) -> list[str]:
        """Chains of the firewall with the number of their rules."""
        found = Counter(
            f"{rule['family']} {rule['table']} {rule['chain']}"
            for item in json.loads(self.space.sh("nft -j list ruleset"))["nftables"]
            if (rule := item.get("rule"))
        )
        return sorted(f"{chain}: {count}" for chain, count in found.items())

    def elements(self) -> list[str]:
        """What is left in the maps and sets of the firewall."""
        rules = json.loads(self.space.sh("nft -j list ruleset"))["nftables"]
        return [
            str(item[kind]["elem"])
            for item in rules
            for kind in ("map", "set")
            if kind in item and "elem" in item[kind]
        ]


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to notice has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@dataclass(frozen=True)
class Footprint:
    """What a daemon without containers holds."""

    descriptors: Counter[str]
    links: list[str]
    elements: list[str]
    rules: list[str]
    routes: list[str]
    processes: int

    @staticmethod
    def of(daemon: Daemon) -> Footprint:
        kinds = Counter(target.partition(":[")[0] for target in daemon.descriptors().values())
        links, elements, rules, routes = daemon.links(), daemon.elements(), daemon.rules(), daemon.routes()
        return Footprint(kinds, links, elements, rules, routes, len(daemon.processes()))

    def is_within(self, other: Footprint) -> bool:
        """Whether it is no more than another."""
        same = self.links == other.links and self.elements == other.elements
        same = same and self.rules == other.rules and self.routes == other.routes
        return same and self.processes <= other.processes and self.descriptors <= other.descriptors


def check_nothing_left(daemon: Daemon, before: Footprint) -> None:
    """Fail unless a daemon whose containers were all removed holds what it held `before`, and no more."""
    with contextlib.suppress(AssertionError):
        until(lambda: Footprint.of(daemon).is_within(before) and not daemon.cgroups() and not daemon.exec_files(), 10)
    assert daemon.cgroups() == []
    assert daemon.mounts() == []
    assert daemon.exec_files() == []
    now = Footprint.of(daemon)
    assert now.links == before.links
    assert now.elements == before.elements
    assert now.rules == before.rules
    assert now.routes == before.routes
    assert now.processes <= before.processes, [_name(pid) for pid in daemon.processes()]
    assert now.descriptors <= before.descriptors, now.descriptors - before.descriptors
    assert os.listdir(os.path.join(daemon.data_root, "containers")) == []


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "?"


@contextlib.contextmanager
def running_daemon(*flags: str, wrapper: tuple[str, ...] = ()) -> Iterator[Daemon]:
    """A daemon with IMAGE for the length of a block; afterwards nothing of it is left, and nothing was meant to be."""
    daemon = Daemon(*flags, wrapper=wrapper)
    try:
        daemon.launch()
        daemon.load_image()
        yield daemon
    finally:
        daemon.close()


@contextlib.contextmanager
def checked_daemon(*flags: str) -> Iterator[Daemon]:
    """Like `running_daemon`, and at the end everything must have been given back by the daemon itself."""
    with running_daemon(*flags) as daemon:
        assert daemon.docker("run", "--rm", "-p", "127.0.0.1::1", IMAGE, "true").returncode == 0  # everything is warm
        daemon.docker("pull", "127.0.0.1:1/nothing")  # a worker for transfers stays for a minute
        until(lambda: not daemon.exec_files() and not daemon.cgroups() and len(daemon.links()) == 1)
        before = Footprint.of(daemon)
        yield daemon
        Engine.close(daemon)
        daemon.remove_all()
        check_nothing_left(daemon, before)
        daemon.end()
        until(lambda: not daemon.processes())
        assert daemon.processes() == []
        assert "Traceback" not in daemon.log(), daemon.log()
