"""The API on the wire: versions, errors, bad input and clients that go away, each compared with what Docker says."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import pytest

from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.wait import until


def test_ping(engine: Engine) -> None:
    reply = engine.get("/_ping")
    assert (reply.status, reply.body) == (200, b"OK")
    assert reply.headers["Ostype"] == "linux"
    assert reply.headers["Api-Version"].startswith("1.")
    assert "no-cache" in reply.headers["Cache-Control"]
    head = engine.request("HEAD", "/_ping")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Api-Version"] == reply.headers["Api-Version"]


def test_versions_prefixed_and_bare(engine: Engine) -> None:
    newest = engine.get("/version").json()["ApiVersion"]
    for version in ("1.24", "1.30", "1.40", newest):
        reply = engine.get(f"/v{version}/version")
        assert reply.status == 200
        assert reply.json()["MinAPIVersion"] == "1.24" or "MinAPIVersion" in reply.json()
    assert {component["Name"] for component in engine.get("/version").json()["Components"]} >= {"Engine"}


def test_versions_too_new_and_too_old(daemon: Daemon) -> None:
    newest = daemon.get("/version").json()["ApiVersion"]
    reply = daemon.get("/v9.99/version")
    assert reply.status == 400
    assert reply.message == f"client version 9.99 is too new. Maximum supported API version is {newest}"
    reply = daemon.get("/v1.12/info")
    assert reply.status == 400
    assert reply.message == (
        "client version 1.12 is too old. Minimum supported API version is 1.24, "
        "please upgrade your client to a newer version"
    )


def test_cli_negotiates(engine: Engine) -> None:
    versions = engine.output("version", "--format", "{{.Client.APIVersion}} {{.Server.APIVersion}}").split()
    assert versions[0] == min(versions, key=lambda text: [int(part) for part in text.split(".")])


def test_info(engine: Engine) -> None:
    found = engine.get("/info").json()
    assert found["OSType"] == "linux"
    assert found["NCPU"] >= 1
    assert found["ContainersRunning"] + found["ContainersPaused"] + found["ContainersStopped"] == found["Containers"]
    assert found["Images"] >= 1
    assert "Server Version:" in engine.output("info")


def test_unknown_paths_and_methods(engine: Engine) -> None:
    reply = engine.get("/v1.40/nothing/here")
    assert (reply.status, reply.message) == (404, "page not found")
    assert engine.request("PATCH", "/containers/json").status in (404, 405)


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("GET", "/containers/nobody/json", 404, "No such container: nobody"),
        ("POST", "/containers/nobody/start", 404, "No such container: nobody"),
        ("DELETE", "/containers/nobody", 404, "No such container: nobody"),
        ("GET", "/containers/nobody/logs?stdout=1", 404, "No such container: nobody"),
        ("POST", "/containers/nobody/attach?stream=1&stdout=1", 404, "No such container: nobody"),
        ("GET", "/containers/nobody/archive?path=/", 404, "No such container: nobody"),
        ("GET", "/images/nothing:here/json", 404, "No such image: nothing:here"),
        ("DELETE", "/images/nothing:here", 404, "No such image: nothing:here"),
        ("GET", "/exec/0123/json", 404, "No such exec instance: 0123"),
        ("GET", "/networks/nowhere", 404, "network nowhere not found"),
        ("GET", "/volumes/nowhere", 404, "get nowhere: no such volume"),
    ],
)
def test_what_does_not_exist(engine: Engine, method: str, path: str, status: int, message: str) -> None:
    reply = engine.request(method, path)
    assert reply.status == status
    assert message.lower() in reply.message.lower()


def body(**more: object) -> dict[str, object]:
    return {"Image": IMAGE, "Cmd": ["true"], **more}


@pytest.mark.parametrize(
    ("request_body", "status", "message"),
    [
        (b"{", 400, "invalid JSON"),
        (b"[]", 400, "invalid JSON"),
        (b'"text"', 400, "invalid JSON"),
        (b'{"Image": 5}', 400, "invalid JSON"),
        (b'{"Image": "x"} {"more": 1}', 400, "invalid JSON"),
        (b"\xff\xfe", 400, "invalid JSON"),
        (b"[" * 200_000, 400, "invalid JSON"),
        (body(Image="no/such/image:1"), 404, "No such image: no/such/image:1"),
        (body(Image="Upper/CASE:bad:ref"), 400, "invalid reference format"),
        (body(Image=""), 400, ""),
        (body(HostConfig={"Memory": 1024}), 400, "Minimum memory limit allowed is"),
        (body(HostConfig={"Memory": 64 << 20, "MemorySwap": 1 << 20}), 400, "Minimum memoryswap limit"),
        (body(HostConfig={"NanoCpus": 10**12}), 400, "Range of CPUs is from"),
        (body(HostConfig={"CpusetCpus": "0-999"}), 400,
         "Requested CPUs are not available - requested 0-999"),
        (body(HostConfig={"Binds": ["/a"]}), 201, ""),
        (body(HostConfig={"Binds": ["/a:/b:wrong"]}), 400, "invalid mode: wrong"),
        (body(HostConfig={"Binds": ["/a:/"]}), 400, "destination can't be '/'"),
        (body(HostConfig={"Binds": ["/a:/x", "/b:/x"]}), 400, "Duplicate mount point: /x"),
        (body(HostConfig={"Mounts": [{"Type": "bind", "Source": "/no/such", "Target": "/x"}]}), 400,
         "bind source path does not exist: /no/such"),
        (body(HostConfig={"Mounts": [{"Type": "wrong", "Source": "/tmp", "Target": "/x"}]}), 400, "mount type unknown"),
        (body(HostConfig={"NetworkMode": "container:nobody"}), 400, "No such container: nobody"),
        (body(HostConfig={"Runtime": "nothing"}), 400, "unknown or invalid runtime name: nothing"),
        (body(HostConfig={"RestartPolicy": {"Name": "sometimes"}}), 400, "invalid restart policy"),
        (body(HostConfig={"CapAdd": ["FLY"]}), 400, "FLY"),
        (body(HostConfig={"SecurityOpt": ["nonsense"]}), 400, "invalid --security-opt"),
        (body(HostConfig={"LogConfig": {"Type": "nowhere"}}), 400, "nowhere"),
        (body(HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "99999"}]}}), 400, "99999"),
        (body(HostConfig={"PortBindings": {"80/odd": [{"HostPort": "80"}]}}), 400, "odd"),
        (body(HostConfig={"AutoRemove": True, "RestartPolicy": {"Name": "always"}}), 400,
         "can't create 'AutoRemove' container with restart policy"),
        (body(Cmd=None, Entrypoint=[""]), 400, "no command specified"),
        (body(WorkingDir="relative"), 400, "the working directory 'relative' is invalid"),
        (body(StopSignal="NOTASIGNAL"), 400, "Invalid signal: NOTASIGNAL"),
    ],
)  # fmt: skip
def test_create_with_bad_input(daemon: Daemon, request_body: object, status: int, message: str) -> None:
    before = daemon.containers()
    reply = daemon.post("/containers/create", request_body)
    if status == 201:
        assert reply.status == 201, reply.body
        daemon.delete(f"/containers/{reply.json()['Id']}", v="1")
    else:
        assert (reply.status, message.lower() in reply.message.lower()) == (status, True), reply.body
    assert daemon.containers() == before


def test_failed_starts_change_nothing(daemon: Daemon) -> None:
    first = daemon.start("sleep", "60", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "18080"}]}})
    second = daemon.create("sleep", "60", HostConfig={"PortBindings": {"80/tcp": [{"HostPort": "18080"}]}})
    reply = daemon.post(f"/containers/{second}/start")
    assert reply.status == 500
    assert "18080" in reply.message and "already allocated" in reply.message
    assert daemon.state(second)["Status"] == "created"
    assert len(daemon.exec_files()) == 1
    daemon.remove_all()
    assert first not in daemon.containers()


def test_body_of_two_gibibytes_is_refused(daemon: Daemon) -> None:
    with daemon.raw() as raw:
        raw.sendall(
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 2147483648\r\n\r\n{"
        )
        response = http.client.HTTPResponse(raw)
        response.begin()
        assert response.status in (400, 413)
        assert "message" in json.loads(response.read())


def test_client_that_sends_on_regardless_still_reads_the_refusal(daemon: Daemon) -> None:
    reply = daemon.post("/containers/create", b" " * (40 << 20))
    assert reply.status == 400
    assert reply.message == "http: request body too large"


def test_endless_chunked_body_is_refused(daemon: Daemon) -> None:
    with daemon.raw() as raw:
        raw.sendall(b"POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(8):
            raw.sendall(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        response = http.client.HTTPResponse(raw)
        response.begin()
        assert response.status == 400
        assert json.loads(response.read())["message"] == "http: request body too large"
    assert daemon.get("/_ping").status == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS greeting
        b"GET / SMTP\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /_ping HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
    ],
)
def test_what_is_not_http(daemon: Daemon, garbage: bytes) -> None:
    with daemon.raw() as raw:
        try:
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            answer = raw.recv(65536)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 505"))
    assert daemon.get("/_ping").status == 200


def test_pipelined_requests_and_keep_alive(engine: Engine) -> None:
    connection = engine.connection()
    for _ in range(3):
        connection.request("GET", "/_ping")
        assert connection.getresponse().read() == b"OK"
    connection.close()
    with engine.raw() as raw:
        raw.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
        raw.shutdown(socket.SHUT_WR)
        data = b""
        while piece := raw.recv(65536):
            data += piece
        assert data.count(b"\r\n\r\nOK") == 2


def test_http_1_0(engine: Engine) -> None:
    with engine.raw() as raw:
        raw.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        data = b""
        while piece := raw.recv(65536):
            data += piece
        assert data.endswith(b"OK")


def _partial(raw: socket.socket, text: str) -> None:
    raw.sendall(text.encode())


@pytest.mark.parametrize(
    "request_text",
    [
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{",
        "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\nabc",
        "POST /images/load HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabc",
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /containers/{id}/stats HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /containers/{id}/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /containers/{id}/wait HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /containers/{id}/export HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /containers/{id}/archive?path=/bin HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /containers/{id}/archive?path=/tmp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabc",
        "POST /containers/{id}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
        "Upgrade: tcp\r\n\r\n",
        "POST /containers/{id}/stop?t=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHo",
    ],
)
def test_client_that_hangs_up(daemon: Daemon, request_text: str) -> None:
    container = daemon.start("sh", "-c", "trap '' TERM; cat; while :; do sleep 1; done", OpenStdin=True)
    before = len(daemon.descriptors())
    for after_answer in (False, True):
        with daemon.raw() as raw:
            _partial(raw, request_text.replace("{id}", container))
            if after_answer:
                raw.settimeout(0.3)
                try:
                    raw.recv(100)
                except TimeoutError:
                    pass
    until(lambda: len(daemon.descriptors()) <= before)
    assert daemon.get("/_ping").status == 200
    assert daemon.get(f"/containers/{container}/json").status == 200
    daemon.remove_all()


def test_many_connections_at_once(daemon: Daemon) -> None:
    answers: list[int] = []

    def ask() -> None:
        answers.append(daemon.get("/containers/json").status)

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 50


def test_bad_queries(daemon: Daemon) -> None:
    container = daemon.create("true")
    for path in (
        "/containers/json?filters=notjson",
        "/containers/json?filters=%7B%22weather%22%3A%5B%22x%22%5D%7D",
        "/containers/json?limit=x",
        f"/containers/{container}/logs",
        "/events?filters=5",
    ):
        reply = daemon.get(path)
        assert reply.status == 400, (path, reply.body)
    assert daemon.post(f"/containers/{container}/stop", t="x").status == 400
    assert daemon.post(f"/containers/{container}/kill", signal="NOPE").status == 400
    assert daemon.post(f"/containers/{container}/wait", condition="never").status == 400
    daemon.remove_all()


def test_events_of_the_past_and_filters(engine: Engine) -> None:
    container = engine.create("true")
    engine.delete(f"/containers/{container}")
    filters = json.dumps({"container": [container]})
    reply = engine.get("/events", since="0", until="9999999999" if False else _now(), filters=filters)
    found = [json.loads(line) for line in reply.body.splitlines()]
    assert [event["Action"] for event in found] == ["create", "destroy"]
    assert found[0]["Actor"]["ID"] == container
    assert found[0]["timeNano"] // 10**9 == found[0]["time"]


def _now() -> str:
    import time

    return f"{time.time() + 0.01:.9f}"
