"""What clients are told, in the cases where it was found to differ from Docker's engine."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.wait import until


def test_answers_have_reason_phrases(engine: Engine) -> None:
    """docker-py's messages are made of them."""
    with engine.raw() as raw:
        raw.sendall(b"GET /containers/nobody/json HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.recv(4096).startswith(b"HTTP/1.1 404 Not Found\r\n")


@pytest.mark.parametrize(
    "host",
    [
        {"PidMode": "container:nobody"},
        {"IpcMode": "container:nobody"},
        {"VolumesFrom": ["nobody"]},
    ],
    ids=str,
)
def test_no_image_is_pulled_for_want_of_a_container(engine: Engine, host: dict[str, Any]) -> None:
    """A 404 to a create makes the docker command pull the image."""
    reply = engine.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host})
    assert (reply.status, reply.message) == (400, "No such container: nobody")
    flags = [f"--{name}=nobody" if name == "volumes-from" else f"--{name}=container:nobody" for name in _flag(host)]
    told = engine.docker("run", "--rm", *flags, IMAGE, "true")
    assert told.returncode == 125
    assert "Unable to find image" not in told.stderr


def _flag(host: dict[str, Any]) -> list[str]:
    return [{"PidMode": "pid", "IpcMode": "ipc", "VolumesFrom": "volumes-from"}[name] for name in host]


def test_a_missing_image_is_not_found(engine: Engine) -> None:
    assert engine.post("/containers/create", {"Image": "nothing:here", "Cmd": ["true"]}).status == 404


def test_swap_is_as_much_as_memory(engine: Engine) -> None:
    container = engine.create("true", HostConfig={"Memory": 64 << 20})
    assert engine.inspect(container)["HostConfig"]["MemorySwap"] == 128 << 20


def test_what_was_not_said_is_null(engine: Engine) -> None:
    host = engine.inspect(engine.create("true"))["HostConfig"]
    assert {host[name] for name in ("Dns", "DnsOptions", "DnsSearch", "Devices", "Ulimits", "BlkioWeightDevice")} == {
        None
    }


@pytest.mark.parametrize(
    ("version", "ipc", "cgroup"), [("1.39", "shareable", "host"), ("1.40", "private", "host"), ("1.41", "private", "")]
)
def test_namespaces_of_older_clients(engine: Engine, version: str, ipc: str, cgroup: str) -> None:
    made = engine.post(f"/v{version}/containers/create", {"Image": IMAGE, "Cmd": ["true"]}).json()["Id"]
    host = engine.inspect(made)["HostConfig"]
    assert host["IpcMode"] == ipc
    if cgroup and engine.get("/info").json()["CgroupVersion"] == "1":
        assert host["CgroupnsMode"] == cgroup


def test_a_stopped_container_tells_its_network(engine: Engine) -> None:
    """Compose makes a container anew whose networks are not the ones it should have."""
    network = engine.get("/networks/bridge").json()["Id"]
    container = engine.start("true")
    until(lambda: not engine.state(container)["Running"])
    assert engine.inspect(container)["NetworkSettings"]["Networks"]["bridge"]["NetworkID"] == network


def test_messages_call_a_container_as_the_client_does(engine: Engine) -> None:
    container = engine.output("create", "--name", "callme", IMAGE, "true")
    killed = engine.post("/containers/callme/kill")
    assert killed.status == 409
    assert killed.message.lower() == f"cannot kill container: callme: container {container} is not running"
    for reply in (
        engine.get("/containers/callme/archive", path="/nope"),
        engine.request("PUT", "/containers/callme/archive", path="/nope"),
    ):
        assert (reply.status, reply.message) == (404, "Could not find the file /nope in container callme")


def test_conflicts_and_warnings(engine: Engine) -> None:
    refused = engine.docker("run", "--rm", "--uts", "host", "--hostname", "x", IMAGE, "true")
    assert "conflicting options: hostname and the UTS mode" in refused.stderr
    told = engine.docker("create", "--network", "host", "-p", "80:80", IMAGE, "true")
    assert told.returncode == 0
    assert "Published ports are discarded when using host network mode" in told.stderr
    unhealthy = engine.get("/containers/json", filters='{"health":["sick"]}')
    assert unhealthy.status == 400
    late = engine.get("/events", since="5", until="1")
    assert (late.status, late.message) == (400, "`since` time (5) cannot be after `until` time (1)")


def test_events_of_looking_and_copying(engine: Engine) -> None:
    began = f"{time.time():.9f}"
    container = engine.start("sleep", "60", Tty=True)
    engine.output("top", container)
    engine.output("cp", f"{container}:/etc/passwd", "-")
    assert engine.get(f"/containers/{container}/export").status == 200
    assert engine.post(f"/containers/{container}/resize", h="10", w="20").status == 200
    with engine.raw() as raw:
        raw.sendall(f"POST /containers/{container}/attach?logs=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        while raw.recv(4096):
            pass
    told = engine.output(
        "events", "--since", began, "--until", str(time.time() + 0.1), "--format", "{{.Action}}", "-f",
        f"container={container}", "-f", "type=container",
    )  # fmt: skip
    assert told.split() == ["create", "start", "top", "archive-path", "export", "resize", "attach"]


def test_our_init_is_silent(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--init", IMAGE, "echo", "hello")
    assert (done.stdout, done.stderr) == ("hello\n", "")


def test_a_swarm_that_is_not_there(daemon: Daemon) -> None:
    for kind in ("services", "nodes", "secrets", "configs", "tasks"):
        assert daemon.get(f"/{kind}/x").status == 503
    for words in (("service", "create", IMAGE), ("secret", "rm", "x"), ("swarm", "leave")):
        assert "not a swarm manager" in daemon.docker(*words).stderr
    assert "swarm mode is not supported" in daemon.docker("swarm", "init").stderr


def test_users_that_the_image_does_not_have(engine: Engine) -> None:
    text = "unable to find user nobody-here: no matching entries in passwd file"
    told = engine.docker("run", "--rm", "-u", "nobody-here", IMAGE, "true")
    assert told.returncode == 125
    assert f"daemon: {text}\n" in told.stderr
    container = engine.start("sleep", "60")
    told = engine.docker("exec", "-u", "nobody-here", container, "true")
    assert (told.returncode, told.stdout.strip()) == (126, text)
    assert engine.docker("exec", "-w", "/nowhere", container, "true").returncode == 127


def test_a_network_by_its_id(engine: Engine) -> None:
    network = engine.output("network", "create", "named")
    try:
        container = engine.output("run", "-d", "--network", network, IMAGE, "sleep", "60")
        for value in ("named", network):
            assert engine.output("ps", "-q", "--no-trunc", "--filter", f"network={value}") == container
        assert "already exists in network named" in engine.docker("network", "connect", "named", container).stderr
        engine.output("network", "disconnect", "named", container)
        assert engine.inspect(container)["NetworkSettings"]["Networks"] == {}
        engine.output("network", "connect", network, container)
        assert list(engine.inspect(container)["NetworkSettings"]["Networks"]) == ["named"]
        for version, own in (("1.44", [container[:12]]), ("1.45", [])):
            shown = engine.get(f"/v{version}/containers/{container}/json").json()["NetworkSettings"]["Networks"]
            assert (shown["named"]["Aliases"] or []) == own
        engine.output("rm", "-f", container)
    finally:
        engine.output("network", "rm", "named")


def test_an_exec_shows_its_keys_as_text(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    for said, keys in (({}, ""), ({"DetachKeys": "ctrl-a,b", "User": "bob"}, "AWI=")):
        made = engine.post(f"/containers/{container}/exec", {"Cmd": ["true"], "Tty": True, **said}).json()["Id"]
        shown = engine.get(f"/exec/{made}/json").json()
        assert shown["DetachKeys"] == keys
        assert shown["ProcessConfig"].get("user") == said.get("User")
