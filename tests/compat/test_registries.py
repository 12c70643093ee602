"""Registries through the stock clients: logging in, all tags, searching, looking without pulling."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import docker
import pytest

from tests.support import images as made
from tests.support import wait
from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.hostile import Answer, Gate, Hostile, hostile
from tests.support.registry import PROGRAM, registry

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="docker-registry is not installed"),
    # docker-py leaves sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

# `word`, for the user `u`
HTPASSWD = "u:$2y$05$abcdefghijklmnopqrstuuQDoL5Sa/TtfS/XN4AY/jgq.HBbO1BTu\n"


@pytest.fixture(scope="module")
def guarded(shared_daemon: Daemon) -> Iterator[str]:
    """A registry that wants a password, on the loopback of the daemon's network namespace."""
    with tempfile.NamedTemporaryFile("w") as file, contextlib.ExitStack() as stack:
        file.write(HTPASSWD)
        file.flush()
        with shared_daemon.space.inside():
            extra = f"auth:\n  htpasswd: {{realm: test, path: {file.name}}}\n"
            found = stack.enter_context(registry(extra))
        yield found


@pytest.fixture
def names(engine: Engine) -> Iterator[list[str]]:
    """Image names that a test makes and that are removed after it."""
    made: list[str] = []
    yield made
    for name in made:
        engine.docker("rmi", "-f", name)


class Cli:
    """The docker command with a configuration of its own, where it keeps credentials."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = str(folder)

    def __call__(self, *words: str, **more: Any) -> Any:
        return self._engine.docker("--config", self._folder, *words, **more)


@pytest.fixture
def cli(engine: Engine, tmp_path: Path) -> Cli:
    return Cli(engine, tmp_path)


def test_login_push_pull_all_tags(engine: Engine, cli: Cli, guarded: str, names: list[str]) -> None:
    repository = f"{guarded}/herd/tagged"
    names += [f"{repository}:{tag}" for tag in ("1", "2", "latest")]
    for name in names:
        engine.output("tag", IMAGE, name)
    refused = cli("push", names[0])
    assert refused.returncode == 1 and "unauthorized: authentication required" in refused.stderr
    wrong = cli("login", "-u", "u", "--password-stdin", guarded, input="other")
    assert wrong.returncode == 1 and "401 Unauthorized" in wrong.stderr
    done = cli("login", "-u", "u", "--password-stdin", guarded, input="word")
    assert done.returncode == 0 and "Login Succeeded" in done.stdout, done.stderr
    pushed = cli("push", "-a", repository, check=True).stdout
    assert all(f"{tag}: digest: sha256:" in pushed for tag in ("1", "2", "latest"))
    engine.output("rmi", *names)
    pulled = cli("pull", "-a", repository, check=True).stdout
    assert pulled.count("Digest: sha256:") == 3
    assert f"Status: Downloaded newer image for {repository}" in pulled
    listed = engine.output("images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert set(names) <= set(listed)
    denied = engine.docker("pull", names[0])
    assert denied.returncode == 1 and "pull access denied for" in denied.stderr


def test_auth_requests(engine: Engine, guarded: str) -> None:
    body = {"username": "u", "password": "word", "serveraddress": guarded}
    done = engine.post("/auth", body)
    assert done.status == 200 and done.json() == {"Status": "Login Succeeded", "IdentityToken": ""}
    assert engine.post("/auth", {**body, "password": "x"}).status == 401
    assert engine.post("/auth", {**body, "serveraddress": "127.0.0.1:1"}).status in (500, 503)


def test_docker_py_sees_what_a_registry_has(engine: Engine, guarded: str, names: list[str]) -> None:
    client = docker.DockerClient(base_url=engine.host, version="auto", timeout=60)
    try:
        name = f"{guarded}/herd/data:1"
        names.append(name)
        account = {"username": "u", "password": "word"}
        engine.output("tag", IMAGE, name)
        records = client.images.push(f"{guarded}/herd/data", "1", auth_config=account, stream=True, decode=True)
        digests = [record["aux"]["Digest"] for record in records if "aux" in record]
        data = client.images.get_registry_data(name, auth_config=account)
        assert digests == [data.id] and data.has_platform("linux")
        engine.output("rmi", name)
        assert client.images.pull(f"{guarded}/herd/data", "1", auth_config=account).id == data.id
        assert client.login("u", "word", registry=guarded)["Status"] == "Login Succeeded"
    finally:
        client.close()
    assert engine.get(f"/distribution/{guarded}/herd/data:1/json").status == 404  # without the password
    assert engine.get("/distribution/UPPER/json").status == 400


def test_search(daemon: Daemon) -> None:
    results = [
        {"name": "good/thing", "description": "A thing", "star_count": 7, "is_official": False},
        {"name": "thing", "description": "The thing", "star_count": 90, "is_official": True},
    ]

    def answer(request: Hostile) -> Answer:
        body = json.dumps({"results": results}).encode() if request.path.startswith("/v1/search") else b"{}"
        return 200, {"Content-Type": "application/json"}, body, len(body)

    with contextlib.ExitStack() as stack:
        with daemon.space.inside():
            server = stack.enter_context(hostile(answer))
        term = f"{server.address}/thing"
        shown = daemon.output("search", "--format", "{{.Name}} {{.StarCount}} {{.IsOfficial}}", term)
        assert shown.splitlines() == ["good/thing 7 ", "thing 90 [OK]"]
        assert daemon.output("search", "--format", "{{.Name}}", "-f", "is-official=true", term) == "thing"
        assert daemon.output("search", "--format", "{{.Name}}", "-f", "stars=8", term) == "thing"
        reply = daemon.get("/images/search", term=term, limit=101)
        assert reply.status == 400 and "outside the range of [1, 100]" in reply.body.decode()


def test_a_registry_without_a_search(daemon: Daemon, guarded: str) -> None:
    refused = daemon.docker("search", f"{guarded}/x")
    assert refused.returncode == 1 and "does not offer a search" in refused.stderr


def test_settings_of_registries(new_daemon: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "daemon.json")
        settings = {
            "registry-mirrors": ["https://mirror.example"],
            "insecure-registries": ["10.0.0.0/8", "old.example:5000"],
            "registries": {"r.example": {"mirrors": ["http://near.example/r"], "insecure": True}},
            "proxies": {"https-proxy": "http://u:p@proxy.example:3128", "no-proxy": "10.0.0.0/8"},
            "max-concurrent-downloads": 2,
            "max-layer-size": "10g",
        }
        path.write_text(json.dumps(settings))
        info = new_daemon("--config-file", str(path)).get("/info").json()
    found = info["RegistryConfig"]
    assert found["Mirrors"] == ["https://mirror.example/"]
    assert "10.0.0.0/8" in found["InsecureRegistryCIDRs"]
    assert found["IndexConfigs"]["old.example:5000"]["Secure"] is False
    assert found["IndexConfigs"]["r.example"]["Mirrors"] == ["http://near.example/r"]
    assert info["HttpsProxy"] == "http://xxxxx:xxxxx@proxy.example:3128" and info["NoProxy"] == "10.0.0.0/8"


@pytest.fixture(scope="module")
def large() -> tuple[str, dict[str, bytes]]:
    """An image with a layer of some megabytes: manifest digest and blobs."""
    layer = made.tar_of([made.member("big", random.Random(2).randbytes(3_000_000))])
    descriptor, blobs = made.oci_blobs([layer], compress=False)
    return str(descriptor["digest"]), blobs


def test_hanging_up_stops_the_transfer_unless_somebody_waits(daemon: Daemon, large: tuple[str, Any]) -> None:
    digest, blobs = large
    gate = Gate(blobs, digest)
    partial = Path(daemon.data_root, "image/partial", gate.big[7:])
    with contextlib.ExitStack() as stack:
        with daemon.space.inside():
            server = stack.enter_context(hostile(gate))
        stack.callback(gate.opened.set)
        name = f"{server.address}/herd/gate:1"
        stack.callback(daemon.docker, "rmi", "-f", name)
        first = daemon.popen("pull", name)
        assert gate.reached.wait(60)
        wait.until(lambda: partial.exists() and partial.stat().st_size > 0, 60)
        second = stack.enter_context(contextlib.closing(daemon.connection(60)))
        second.request("POST", f"/images/create?fromImage={quote(name, safe='')}")
        told = second.getresponse()
        while b'"Downloading"' not in (line := told.readline()):  # now it has joined
            assert line
        first.terminate()
        first.communicate()
        gate.opened.set()
        rest = told.read()
        assert b"Pull complete" in rest and b"error" not in rest
        assert gate.asked == [""] and image_of(daemon, name) == digest


def test_a_pull_goes_on_after_the_daemon_was_killed(own_daemon: Daemon, large: tuple[str, Any]) -> None:
    digest, blobs = large
    gate = Gate(blobs, digest)
    partial = Path(own_daemon.data_root, "image/partial", gate.big[7:])
    with contextlib.ExitStack() as stack:
        with own_daemon.space.inside():
            server = stack.enter_context(hostile(gate))
        stack.callback(gate.opened.set)
        name = f"{server.address}/herd/gate:1"
        pulling = own_daemon.popen("pull", name)
        assert gate.reached.wait(60)
        wait.until(lambda: partial.exists() and partial.stat().st_size > 0, 60)
        own_daemon.end(signal.SIGKILL)
        pulling.communicate(timeout=60)
        workers = "corral.image.worker"
        wait.until(lambda: not [pid for pid in own_daemon.processes() if workers in command_of(pid)], 30)
        gate.opened.set()
        own_daemon.launch()
        assert "Downloaded newer image" in own_daemon.output("pull", name)
        assert image_of(own_daemon, name) == digest
        assert len(gate.asked) == 2 and gate.asked[1].startswith("bytes=")


def image_of(engine: Engine, name: str) -> str:
    return engine.output("image", "inspect", "-f", "{{.Id}}", name)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_a_daemon_that_is_told_to_stop_does_not_wait_for_registries(own_daemon: Daemon, large: tuple[str, Any]) -> None:
    digest, blobs = large
    gate = Gate(blobs, digest)
    with contextlib.ExitStack() as stack:
        with own_daemon.space.inside():
            server = stack.enter_context(hostile(gate))
        stack.callback(gate.opened.set)
        pulling = own_daemon.popen("pull", f"{server.address}/herd/gate:1")
        assert gate.reached.wait(60)
        own_daemon.end(signal.SIGTERM)  # waits for its end, with a deadline
        pulling.communicate(timeout=60)
        assert "Traceback" not in own_daemon.log()
        own_daemon.launch()
