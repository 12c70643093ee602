"""`kill -9` of the daemon while images come and go: nothing acknowledged is lost, and the store checks clean.

Several clients, each with names of its own, load, tag, commit, save, pull and remove at random; the daemon is killed
at a random moment and started again.  CORRAL_CHAOS_ROUNDS sets the number of kills, CORRAL_CHAOS_SEED replays a run.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images as made
from tests.support.daemon import IMAGE, Daemon, Reply
from tests.support.images import directory, member, tar_of
from tests.support.registry import PROGRAM, push_image, registry

ROUNDS = int(os.environ.get("CORRAL_CHAOS_ROUNDS", "12"))
SEED = int(os.environ.get("CORRAL_CHAOS_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
CLIENTS = 4
ROUND_S = (0.05, 0.6)
TAR = {"Content-Type": "application/x-tar"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="corrald needs root")


def layer(rng: random.Random) -> bytes:
    members = [directory("d")]
    members += [member(f"d/{n}", rng.randbytes(rng.randrange(1, 60_000))) for n in range(rng.randrange(1, 12))]
    return tar_of(members)


class Client(threading.Thread):
    """One client's names, and what it was told of them: `certain` is None while an operation's end is unknown."""

    def __init__(self, daemon: Daemon, number: int, rng: random.Random, address: str) -> None:
        super().__init__(daemon=True)
        self.engine = daemon
        self.rng = rng
        self.address = address
        self.names = [f"client{number}/image{n}:1" for n in range(4)]
        self.certain: dict[str, str | None] = {}  # name -> id, or None when it may or may not be there
        self.shared = [layer(rng) for _ in range(2)]
        self.done = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Work until the daemon is gone."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                getattr(self, self.rng.choice(("load", "load", "tag", "commit", "save", "pull", "remove", "prune")))()
                self.done += 1

    def _changes(self, name: str, reply: Reply, *, gone: bool = False) -> None:
        """What is certain once an operation on `name` was answered."""
        if reply.status >= 400 or b'"error"' in reply.body:
            self.wrong.append(f"{name}: {reply.status} {reply.body[-300:]!r}")
            return
        if gone:
            del self.certain[name]
        else:
            self.certain[name] = str(self.engine.get(f"/images/{name}/json").json()["Id"])

    def _held(self) -> str | None:
        found = [name for name, ident in self.certain.items() if ident]
        return self.rng.choice(found) if found else None

    def load(self) -> None:
        name = self.rng.choice(self.names)
        data = made.docker_archive([*self.shared[: self.rng.randrange(3)], layer(self.rng)], [name])
        if self.rng.random() < 0.3:
            data = gzip.compress(data, 1)
        self.certain[name] = None
        self._changes(name, self.engine.request("POST", "/images/load?quiet=1", data, TAR))

    def tag(self) -> None:
        held, name = self._held(), self.rng.choice(self.names)
        if held and held != name:
            self.certain[name] = None
            repo, _, tag = name.partition(":")
            self._changes(name, self.engine.post(f"/images/{held}/tag", repo=repo, tag=tag))

    def commit(self) -> None:
        held, name = self._held(), self.rng.choice(self.names)
        if not held:
            return
        container = self.engine.post("/containers/create", {"Image": held, "Cmd": ["true"]}).json()["Id"]
        self.certain[name] = None
        repo, _, tag = name.partition(":")
        self._changes(name, self.engine.post("/commit", {}, container=container, repo=repo, tag=tag))
        self.engine.delete(f"/containers/{container}")

    def save(self) -> None:
        held = self._held()
        if held:
            assert self.engine.get(f"/images/{held}/get").status == 200

    def pull(self) -> None:
        name = self.rng.choice(("one:1", "two:1"))
        full = f"{self.address}/{name}"
        reply = self.engine.request("POST", f"/images/create?fromImage={full}", b"")
        if b'"error"' in reply.body:
            self.wrong.append(f"pull {name}: {reply.body[-300:]!r}")

    def remove(self) -> None:
        held = self._held()
        if held:
            self.certain[held] = None
            self._changes(held, self.engine.delete(f"/images/{held}", force=1), gone=True)

    def prune(self) -> None:
        self.engine.post("/images/prune", filters='{"dangling": ["true"]}')

    def check(self) -> None:
        """What was certain must be so, after the daemon came back."""
        here = {tag: one["Id"] for one in self.engine.get("/images/json").json() for tag in one["RepoTags"]}
        for name in self.names:
            if name not in self.certain:
                assert name not in here, f"{name} was removed, and is back"
            elif self.certain[name] is None:  # the client was not told: either is right
                if name in here:
                    self.certain[name] = here[name]
                else:
                    del self.certain[name]
            else:
                assert here.get(name) == self.certain[name], f"{name} was acknowledged, and is lost"


@pytest.fixture
def address(own_daemon: Daemon) -> Iterator[str]:
    """A registry on the daemon's loopback with two images."""
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    with contextlib.ExitStack() as stack:
        with own_daemon.space.inside():
            found = stack.enter_context(registry())
            for name in ("one", "two"):
                descriptor, blobs = made.oci_blobs([layer(random.Random(name)) for _ in range(3)])
                push_image(found, name, "1", descriptor, blobs)
        yield found


def test_kills_lose_nothing_and_leave_nothing(own_daemon: Daemon, address: str) -> None:
    daemon, rng = own_daemon, random.Random(SEED)
    print(f"CORRAL_CHAOS_SEED={SEED}")
    clients: list[Client] = []
    done = 0
    for _ in range(ROUNDS):
        before, clients = clients, []
        for number in range(CLIENTS):
            client = Client(daemon, number, random.Random(rng.random()), address)
            if before:
                client.certain = before[number].certain
            clients.append(client)
        for client in clients:
            client.start()
        threading.Event().wait(rng.uniform(*ROUND_S))  # until the moment that chance chose
        daemon.restart()
        for client in clients:
            client.join(60)
            assert client.wrong == [], f"seed {SEED}"
            done += client.done
            client.check()
        found = daemon.post("/system/check").json()
        assert found["Problems"] == [], f"seed {SEED}"
    print(f"{done} operations, {ROUNDS} kills")
    assert done > ROUNDS
    _empty(daemon)


def _empty(daemon: Daemon) -> None:
    """Remove everything; then nothing may be left on the disk."""
    daemon.remove_all()
    pruned = daemon.post("/images/prune", filters=json.dumps({"dangling": ["false"]}))
    assert pruned.status == 200
    assert daemon.get("/images/json").json() == []
    daemon.restart()  # its start waits for what an earlier one left to be deleted
    root = Path(daemon.data_root)
    for folder in ("image/blobs/sha256", "image/ingest"):
        assert os.listdir(root / folder) == [], IMAGE
    assert set(os.listdir(root / "overlay")) <= {"trash"}
