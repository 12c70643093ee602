"""docker-py, unchanged, as its users write it."""

from __future__ import annotations

import gc
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.types import LogConfig, Mount, Ulimit

from tests.support.daemon import IMAGE, Engine, busybox_image

# docker-py leaves sockets to the garbage collector when a hijacked connection or a stream is closed
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Such sockets are found here, not in somebody else's test."""
    yield
    gc.collect()


def test_system(engine: Engine) -> None:
    assert engine.py.ping() is True
    assert engine.py.version()["Os"] == "linux"
    assert engine.py.info()["OSType"] == "linux"


def test_run_returns_output_and_raises_on_failure(engine: Engine) -> None:
    assert engine.py.containers.run(IMAGE, ["echo", "hello"], remove=True) == b"hello\n"
    assert engine.py.containers.run(IMAGE, "sh -c 'echo err >&2'", stderr=True, remove=True) == b"err\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        engine.py.containers.run(IMAGE, "sh -c 'echo why >&2; exit 3'", remove=True)
    assert failed.value.exit_status == 3
    with pytest.raises(docker.errors.ImageNotFound):
        engine.py.api.create_container("no/such:image", "true")
    with pytest.raises(docker.errors.APIError) as refused:
        engine.py.containers.run(IMAGE, ["no-such-program"], remove=True)
    assert refused.value.status_code == 400 or refused.value.status_code == 404
    assert "executable file not found in $PATH" in refused.value.explanation


def test_life(engine: Engine) -> None:
    container = engine.py.containers.run(IMAGE, ["sleep", "60"], detach=True, name="py", labels={"a": "b"})
    assert container.status == "created"
    container.reload()
    assert (container.status, container.labels, container.name) == ("running", {"a": "b"}, "py")
    assert engine.py.containers.list(filters={"label": "a=b"}) == [container]
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("py2")
    container.restart(timeout=0)
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.remove()
    with pytest.raises(docker.errors.NotFound):
        engine.py.containers.get("py2")


def test_exec(engine: Engine) -> None:
    container = engine.py.containers.run(IMAGE, ["sleep", "60"], detach=True)
    code, output = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 5"], demux=True)
    assert (code, output) == (5, (b"out\n", b"err\n"))
    assert container.exec_run("pwd", workdir="/tmp", user="bob").output == b"/tmp\n"
    _, stream = container.exec_run(["seq", "1", "1000"], stream=True)
    assert b"".join(stream).split()[-1] == b"1000"
    _, sock = container.exec_run("cat", stdin=True, socket=True)
    raw = sock._sock
    raw.sendall(b"through a socket\n")
    header, data = raw.recv(8), raw.recv(100)
    assert (header[0], data) == (1, b"through a socket\n")
    sock.close()


def test_logs_stream_and_attach(engine: Engine) -> None:
    container = engine.py.containers.run(
        IMAGE, ["sh", "-c", "echo 1; echo 2; read x; echo $x"], detach=True, stdin_open=True
    )
    lines = container.logs(stream=True, follow=True)
    assert [next(lines), next(lines)] == [b"1\n", b"2\n"]
    lines.close()
    sock = container.attach_socket(params={"stdin": 1, "stream": 1})
    sock._sock.sendall(b"typed\n")
    assert container.wait()["StatusCode"] == 0
    sock.close()
    assert container.logs() == b"1\n2\ntyped\n"
    assert container.logs(tail=1) == b"typed\n"
    assert container.logs(stdout=False, stderr=True) == b""


def test_archives(engine: Engine) -> None:
    container = engine.py.containers.create(IMAGE, ["true"])
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo("file")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    assert container.put_archive("/tmp", data.getvalue()) is True
    pieces, status = container.get_archive("/tmp/file")
    assert (status["name"], status["size"]) == ("file", 4)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        member = tar.extractfile("file")
        assert member is not None and member.read() == b"data"
    assert {"Path": "/tmp/file", "Kind": 1} in container.diff()
    assert sum(map(len, container.export())) > 500_000


def test_host_config(engine: Engine, tmp_path: Path) -> None:
    container = engine.py.containers.run(
        IMAGE, ["sleep", "60"], detach=True, mem_limit="64m", nano_cpus=500_000_000, pids_limit=50,
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)], cap_drop=["ALL"], cap_add=["NET_ADMIN"],
        mounts=[Mount("/data", str(tmp_path), type="bind", read_only=True)], tmpfs={"/scratch": "size=1m"},
        environment={"A": "b"}, extra_hosts={"db": "10.1.1.1"},
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        log_config=LogConfig(type="json-file", config={"max-size": "1m"}), sysctls={"net.core.somaxconn": "99"},
        hostname="named", init=True, dns=["9.9.9.9"], working_dir="/tmp", user="0", shm_size="8m",
    )  # fmt: skip
    host = engine.py.api.inspect_container(container.id)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 50)
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    script = (
        "ulimit -n; hostname; cat /proc/sys/net/core/somaxconn; echo $A; grep -c db /etc/hosts;"
        " grep -o 9.9.9.9 /etc/resolv.conf"
    )
    assert container.exec_run(["sh", "-c", script]).output.split() == [b"100", b"named", b"99", b"b", b"1", b"9.9.9.9"]
    assert container.update(mem_limit="96m", memswap_limit="192m")["Warnings"] in (None, [])


def test_stats_and_top(engine: Engine) -> None:
    container = engine.py.containers.run(IMAGE, ["sleep", "61"], detach=True)
    assert container.stats(stream=False)["pids_stats"]["current"] == 1
    stream = container.stats(stream=True, decode=True)
    assert next(stream)["memory_stats"]["usage"] > 0
    stream.close()
    assert any("sleep 61" in " ".join(row) for row in container.top()["Processes"])


def test_events(engine: Engine) -> None:
    seen: list[Any] = []
    stream = engine.py.events(
        decode=True, filters={"type": "container", "event": ["create", "start", "die", "destroy"]}
    )

    def collect() -> None:
        for event in stream:
            seen.append(event["Action"])
            if event["Action"] == "destroy":
                return

    thread = threading.Thread(target=collect)
    thread.start()
    engine.py.containers.run(IMAGE, ["true"], remove=True)
    thread.join(20)
    stream.close()
    assert seen == ["create", "start", "die", "destroy"]


def test_images(engine: Engine) -> None:
    loaded = engine.py.images.load(busybox_image("corral.test/py:1"))
    assert loaded[0].tags == ["corral.test/py:1"] or "corral.test/py:1" in loaded[0].tags
    image = engine.py.images.get("corral.test/py:1")
    assert image.tag("corral.test/py", "2") is True
    image.reload()
    assert set(image.tags) >= {"corral.test/py:1", "corral.test/py:2"}
    assert image.history()
    assert b"".join(image.save()).count(b"manifest.json") >= 1
    for tag in ("1", "2"):
        engine.py.images.remove(f"corral.test/py:{tag}")
    with pytest.raises(docker.errors.ImageNotFound):
        engine.py.images.get("corral.test/py:1")


def test_networks_and_volumes(engine: Engine) -> None:
    network = engine.py.networks.create("py-net", driver="bridge", labels={"x": "y"})
    volume = engine.py.volumes.create("py-data", labels={"x": "y"})
    try:
        container = engine.py.containers.run(
            IMAGE, ["sleep", "60"], detach=True, network="py-net", volumes={"py-data": {"bind": "/data", "mode": "rw"}}
        )
        network.reload()
        assert network.containers == [container]
        assert [found.name for found in engine.py.volumes.list(filters={"label": "x=y"})] == ["py-data"]
        with pytest.raises(docker.errors.APIError) as in_use:
            volume.remove()
        assert in_use.value.status_code == 409
        container.remove(force=True)
    finally:
        network.remove()
        volume.remove()


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.41", "auto"])
def test_older_versions_of_the_api(engine: Engine, version: str) -> None:
    client = docker.DockerClient(base_url=engine.host, version=version, timeout=20)
    try:
        assert client.containers.run(IMAGE, ["echo", version], remove=True) == f"{version}\n".encode()
        container = client.containers.run(IMAGE, ["sh", "-c", "exit 4"], detach=True)
        assert container.wait()["StatusCode"] == 4
        assert client.api.inspect_container(container.id)["State"]["ExitCode"] == 4
        assert container.id in [found.id for found in client.containers.list(all=True)]
        container.remove()
    finally:
        client.close()
