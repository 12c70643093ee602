"""Random operations from eight clients while the daemon and shims are killed: nothing acknowledged is lost.

Each client has containers of its own, whose state it knows from what it was told, and meddles with those that all
share.  CORRAL_CHAOS_OPERATIONS sets how many operations there are, CORRAL_CHAOS_SEED replays a run.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon, Footprint, Reply, check_nothing_left
from tests.support.wait import until

OPERATIONS = int(os.environ.get("CORRAL_CHAOS_OPERATIONS", "600"))
SEED = int(os.environ.get("CORRAL_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
CLIENTS = 8
SHARED = tuple(f"shared{number}" for number in range(4))
COMMANDS = (["sleep", "1000"], ["sh", "-c", "echo hi; sleep 0.1"], ["true"], ["nosuchprogram"])
FINE = frozenset((200, 201, 204, 304, 400, 404, 409))

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="corrald needs root")


@dataclass
class Known:
    """What a client was told of a container; None for what it cannot know."""

    id: str | None
    exists: bool | None = True
    running: bool | None = False
    label: str | None = None
    snapshots: set[str] = field(default_factory=set)


@dataclass
class Count:
    """Operations so far, of all clients."""

    done: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def one(self) -> bool:
        """Count an operation; False once there are enough."""
        with self.lock:
            self.done += 1
            return self.done <= OPERATIONS


class Client:
    """A client and its three containers."""

    def __init__(self, daemon: Daemon, number: int, rng: random.Random, count: Count) -> None:
        self.daemon = daemon
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.rng = rng
        self.count = count
        self.names = [f"own{number}-{n}" for n in range(3)]
        self.known: dict[str, Known] = {}
        self.wrong: list[str] = []

    def run(self) -> None:
        """Until there were enough operations."""
        while self.count.one():
            own = self.rng.random() < 0.6
            try:
                self._own() if own else self._shared()
            except (OSError, http.client.HTTPException):  # the daemon was killed: the next try waits for a new one
                with contextlib.suppress(AssertionError):
                    until(self.daemon._answers, 30)

    def _check(self, what: str, reply: Reply, allowed: frozenset[int] = FINE) -> int:
        expected = (b"executable file not found", b"cannot reach the shim: it has ended")  # the program; a killed shim
        if reply.status not in allowed and not any(text in reply.body for text in expected):
            self.wrong.append(f"{what}: {reply.status} {reply.body[-300:]!r}")
        return reply.status

    # --- containers of one's own: every answer is remembered ---------------------------------------------------

    def _own(self) -> None:
        name = self.rng.choice(self.names)
        known = self.known.get(name)
        if known is None or known.exists is not True:
            self._create(name)
            return
        verbs = ("_start", "_start", "_stop", "_kill", "_remove", "_look", "_edit", "_snapshot")
        getattr(self, self.rng.choice(verbs))(name, known)

    def _create(self, name: str) -> None:
        self.known[name] = Known(None, exists=None, running=None)
        networks: tuple[dict[str, object], ...] = (
            {"NetworkMode": "none"},
            {"NetworkMode": "bridge"},
            {"NetworkMode": "bridge", "Egress": ["allow=10.0.0.0/8,good.example"]},
        )
        body = {"Image": IMAGE, "Cmd": COMMANDS[0], "HostConfig": self.rng.choice(networks)}
        reply = self.daemon.post("/containers/create", body, name=name)
        if self._check(f"create {name}", reply, frozenset((201, 409))) == 201:
            self.known[name] = Known(reply.json()["Id"])
        else:  # an earlier try, whose answer never came, has made it
            found = self.daemon.get(f"/containers/{name}/json")
            self.known[name] = (
                Known(found.json()["Id"], running=None) if found.status == 200 else Known(None, None, None)
            )

    def _start(self, name: str, known: Known) -> None:
        known.running = None
        if self._check(f"start {name}", self.daemon.post(f"/containers/{name}/start"), frozenset((204, 304))) < 400:
            known.running = True

    def _stop(self, name: str, known: Known) -> None:
        known.running = None
        if self._check(f"stop {name}", self.daemon.post(f"/containers/{name}/stop", t=0), frozenset((204, 304))) < 400:
            known.running = False

    def _kill(self, name: str, known: Known) -> None:
        known.running = None
        if self._check(f"kill {name}", self.daemon.post(f"/containers/{name}/kill"), frozenset((204, 409))) == 204:
            known.running = False

    def _remove(self, name: str, known: Known) -> None:
        known.exists = None
        reply = self.daemon.delete(f"/containers/{name}", force=1)
        if self._check(f"remove {name}", reply, frozenset((204, 404))) < 400:
            known.exists = False

    def _look(self, name: str, known: Known) -> None:
        reply = self.daemon.get(f"/containers/{name}/json")
        if self._check(f"inspect {name}", reply, frozenset((200,))) == 200 and known.running is not None:
            running = reply.json()["State"]["Running"]
            if running != known.running and not self._was_killed(reply):
                self.wrong.append(f"{name} should be {'running' if known.running else 'stopped'}: {reply.body[:600]!r}")

    @staticmethod
    def _was_killed(reply: Reply) -> bool:
        return bool(reply.json()["State"]["ExitCode"] == 137)  # by the death of its shim

    def _edit(self, name: str, known: Known) -> None:
        known.label = None
        value = str(self.rng.random())
        more = self.rng.choice(({}, {}, {"Egress": []}))
        reply = self.daemon.post(f"/containers/{name}/update", {"LabelAdd": {"mark": value}, **more})
        if self._check(f"update {name}", reply, frozenset((200, 409))) == 200:
            known.label = value

    def _snapshot(self, name: str, known: Known) -> None:
        snapshot = f"s{self.rng.randrange(10**9)}"
        reply = self.daemon.post(f"/containers/{name}/snapshots", {"Name": snapshot})
        if self._check(f"snapshot {name}", reply, frozenset((201,))) == 201:
            known.snapshots.add(snapshot)

    def verify(self) -> None:
        """After everything: what was acknowledged is so."""
        for name, known in self.known.items():
            reply = self.daemon.get(f"/containers/{name}/json")
            if known.exists is None:
                continue
            assert (reply.status == 200) == known.exists, f"{name}: {known} but {reply.status}"
            if not known.exists:
                continue
            found = reply.json()
            assert known.id in (None, found["Id"])
            kept = {one["Name"] for one in self.daemon.get(f"/containers/{name}/snapshots").json()}
            assert known.snapshots <= kept
            if known.label is not None:
                assert found["Config"]["Labels"]["mark"] == known.label
            if known.running is not None:
                assert found["State"]["Running"] == known.running or self._was_killed(reply), f"{name}: {known}"

    # --- containers that all share: any answer will do that is one ---------------------------------------------

    def _shared(self) -> None:
        name = self.rng.choice(SHARED)
        daemon, pick = self.daemon, self.rng.choice
        operation = pick(
            "create create start start stop kill rm pause unpause exec logs rename restart list cp stats "
            "snapshot rewind fork forget".split()
        )
        if operation == "create":
            host = {"NetworkMode": pick(("none", "bridge")), "AutoRemove": self.rng.random() < 0.2}
            body = {"Image": IMAGE, "Cmd": pick(COMMANDS), "HostConfig": host}
            reply = daemon.post("/containers/create", body, name=name)
        elif operation == "fork":
            host = {"NetworkMode": "none", "FromSnapshot": f"{name}@{pick('ab')}"}
            reply = daemon.post("/containers/create", {"Cmd": pick(COMMANDS), "HostConfig": host}, name=pick(SHARED))
        elif operation == "snapshot":
            reply = daemon.post(f"/containers/{name}/snapshots", {"Name": pick("ab")})
        elif operation == "rewind":
            reply = daemon.post(f"/containers/{name}/rewind", snapshot=pick("ab"))
        elif operation == "forget":
            reply = daemon.delete(f"/containers/{name}/snapshots/{pick('ab')}")
        elif operation == "rm":
            reply = daemon.delete(f"/containers/{name}", force=pick((0, 1)))
        elif operation == "exec":
            reply = daemon.post(f"/containers/{name}/exec", {"Cmd": ["true"], "AttachStdout": True})
            if reply.status == 201:
                reply = daemon.post(f"/exec/{reply.json()['Id']}/start", {"Detach": True})
        elif operation == "rename":
            reply = daemon.post(f"/containers/{name}/rename", name=pick(SHARED))
        elif operation == "list":
            reply = daemon.get("/containers/json", all=1)
        elif operation == "logs":
            reply = daemon.get(f"/containers/{name}/logs", stdout=1)
        elif operation == "cp":
            reply = daemon.get(f"/containers/{name}/archive", path="/etc")
        elif operation == "stats":
            reply = daemon.get(f"/containers/{name}/stats", **{"stream": 0, "one-shot": 1})
        else:
            reply = daemon.post(
                f"/containers/{name}/{operation}", **({"t": 0} if operation in ("stop", "restart") else {})
            )
        self._check(f"{operation} {name}", reply)


def shim_of(daemon: Daemon, rng: random.Random) -> int:
    """The process id of some running container's shim; 0 when there is none."""
    with contextlib.suppress(OSError, http.client.HTTPException, LookupError, ValueError):
        found = daemon.get("/containers/json").json()
        pid = daemon.get(f"/containers/{rng.choice(found)['Id']}/json").json()["State"]["Pid"]
        status = Path(f"/proc/{pid}/status").read_text() if pid else ""
        for line in status.splitlines():
            if line.startswith("PPid:"):
                return int(line.split()[1])
    return 0


def test_chaos(own_daemon: Daemon) -> None:
    daemon, rng, count = own_daemon, random.Random(SEED), Count()
    print(f"CORRAL_CHAOS_SEED={SEED}")
    before = Footprint.of(daemon)
    clients = [Client(daemon, number, random.Random(rng.random()), count) for number in range(CLIENTS)]
    for client in clients:
        client.thread.start()
    pause, kills, shims = threading.Event(), 0, 0
    while any(client.thread.is_alive() for client in clients):
        pause.wait(rng.uniform(0.1, 0.8))  # until the moment that chance chose
        if rng.random() < 0.5:
            daemon.restart()
            kills += 1
        elif shim := shim_of(daemon, rng):
            with contextlib.suppress(ProcessLookupError):
                os.kill(shim, signal.SIGKILL)
                shims += 1
    for client in clients:
        client.thread.join(60)
    print(f"{count.done} operations, {kills} kills of the daemon, {shims} of shims")
    assert [text for client in clients for text in client.wrong] == [], f"seed {SEED}"
    for client in clients:
        client.verify()
    assert daemon.post("/system/check").json()["Problems"] == [], f"seed {SEED}"
    daemon.remove_all()
    check_nothing_left(daemon, before)
