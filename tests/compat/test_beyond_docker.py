"""What Corral adds: restart timing, start order, edits of what exists, and how to make it again."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import yaml

from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.netns import fetch
from tests.support.wait import until


def corral(engine: Engine, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corral.cli", "-H", f"unix://{engine.socket_path}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def said(engine: Engine, *words: str) -> str:
    done = corral(engine, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_restart_options(daemon: Daemon) -> None:
    said(daemon, "run", "-d", "--name", "quick", "--restart", "on-failure:4,delay=10ms,factor=1", IMAGE, "false")
    until(lambda: daemon.state("quick")["Status"] == "exited")
    found = daemon.inspect("quick")
    assert found["RestartCount"] == 4 and found["HostConfig"]["RestartPolicy"]["Name"] == "on-failure"
    assert found["HostConfig"]["RestartOptions"]["Delay"] == 10_000_000
    said(daemon, "update", "--restart", "on-failure:1,delay=20ms", "quick")
    assert daemon.inspect("quick")["HostConfig"]["RestartOptions"]["Delay"] == 20_000_000
    refused = corral(daemon, "run", "--restart", "always,speed=3", IMAGE, "true")
    assert refused.returncode == 125 and "unknown option speed=3" in refused.stderr
    bad = daemon.docker("create", "--label", "corral.restart=delay=x", IMAGE, "true")
    assert bad.returncode == 1 and "invalid restart options" in bad.stderr
    assert "RestartOptions" not in daemon.inspect(daemon.create("true"))["HostConfig"]


def test_an_unhealthy_container_is_restarted(daemon: Daemon) -> None:
    container = daemon.output(
        "run", "-d", "--label", "corral.restart=on-unhealthy", "--health-cmd", "test ! -e /sick", "--health-interval",
        "50ms", "--health-retries", "1", "--stop-timeout", "0", "--tmpfs", "/run", IMAGE, "sh", "-c",
        "rm -f /sick; sleep 100",
    )  # fmt: skip
    until(lambda: daemon.state(container)["Health"]["Status"] == "healthy")
    first = daemon.state(container)["StartedAt"]
    daemon.output("exec", container, "touch", "/sick")
    until(lambda: daemon.state(container)["StartedAt"] != first and daemon.state(container)["Running"], 20)
    until(lambda: daemon.state(container)["Health"]["Status"] == "healthy", 20)


def database(daemon: Daemon, name: str, ready: str = "test -e /ready") -> None:
    daemon.output(
        "create", "--name", name, "--health-cmd", ready, "--health-interval", "50ms", "--health-retries", "3",
        "--health-start-period", "1s", IMAGE, "sh", "-c",
        "until test -e /go; do sleep 0.02; done; touch /ready; sleep 100",
    )  # fmt: skip


def test_a_start_waits_for_what_it_depends_on(daemon: Daemon) -> None:
    database(daemon, "db")
    said(daemon, "create", "--name", "job", IMAGE, "true")
    said(
        daemon,
        "create",
        "--name",
        "web",
        "--depends-on",
        "db:healthy",
        "--depends-on",
        "job:completed",
        IMAGE,
        "sleep",
        "100",
    )
    with daemon.popen("start", "web") as starting:
        until(lambda: daemon.state("db")["Running"])
        assert daemon.state("web")["Status"] == "created"
        daemon.output("exec", "db", "touch", "/go")
        assert starting.wait(20) == 0
    assert daemon.state("web")["Running"] and daemon.state("job")["Status"] == "exited"
    assert daemon.state("db")["Health"]["Status"] == "healthy"


def test_dependencies_that_fail(daemon: Daemon) -> None:
    said(daemon, "create", "--name", "broken", IMAGE, "false")
    for wanted, why in (
        ("nosuch", "dependency of needy not found: No such container: nosuch"),
        ("broken:completed", "dependency failed to start: container broken exited (1)"),
        ("broken:healthy", "dependency failed to start: container broken"),
    ):
        said(daemon, "create", "--name", "needy", "--depends-on", wanted, IMAGE, "true")
        refused = daemon.docker("start", "needy")
        assert refused.returncode == 1 and why in refused.stderr, refused.stderr
        assert daemon.state("needy")["Status"] == "created"
        daemon.output("rm", "needy")
    said(daemon, "create", "--name", "one", "--depends-on", "two", IMAGE, "sleep", "100")
    said(daemon, "create", "--name", "two", "--depends-on", "one", IMAGE, "sleep", "100")
    assert "dependency cycle" in daemon.docker("start", "one").stderr


def test_the_order_at_boot(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    database(daemon, "db", "true")
    for name in ("db", "web"):
        if name == "web":
            daemon.output(
                "create", "--name", "web", "--label", "com.docker.compose.project=p", "--label",
                "com.docker.compose.depends_on=db:service_healthy:true", "--restart", "always", IMAGE, "sleep", "100",
            )  # fmt: skip
    daemon.output("rm", "db")
    daemon.output(
        "create", "--name", "db", "--label", "com.docker.compose.project=p", "--label", "com.docker.compose.service=db",
        "--health-cmd", "true", "--health-interval", "50ms", "--restart", "always", IMAGE, "sleep", "100",
    )  # fmt: skip
    daemon.output("start", "web")
    for name in ("web", "db"):
        daemon.output("stop", "-t", "0", name)
    daemon.restart()
    until(lambda: daemon.state("web")["Running"], 20)
    assert daemon.state("db")["Running"] and daemon.state("web")["StartedAt"] > daemon.state("db")["StartedAt"]
    daemon.remove_all()


def test_environment_and_labels_are_edited(daemon: Daemon) -> None:
    container = daemon.output("run", "-d", "-e", "A=1", "-l", "old=1", IMAGE, "sh", "-c", "env; sleep 100")
    warned = corral(
        daemon, "update", "--env-add", "B=2", "--env-rm", "A", "--label-add", "new=1", "--label-rm", "old", container
    )
    assert warned.returncode == 0 and "when the container is started the next time" in warned.stderr
    found = daemon.inspect(container)["Config"]
    assert "B=2" in found["Env"] and "A=1" not in found["Env"] and found["Labels"] == {"new": "1"}
    daemon.output("restart", "-t", "0", container)
    until(lambda: "B=2" in daemon.output("logs", container))
    refused = corral(daemon, "update", "--env-add", "novalue", container)
    assert refused.returncode == 1 and "must be NAME=VALUE" in refused.stderr


def test_a_container_says_how_to_make_it_again(daemon: Daemon) -> None:
    words = (
        "--name", "first", "-e", "GREETING=good day", "-l", "rack=7", "-p", "127.0.0.1:8099:80", "-m", "64m", "--cpus",
        "0.5", "--restart", "on-failure:2", "-w", "/tmp", "-v", "data:/data:ro", "--cap-drop", "NET_RAW", "--read-only",
    )  # fmt: skip
    daemon.output("create", *words, IMAGE, "sh", "-c", "echo $GREETING")
    text = said(daemon, "inspect", "--as", "run", "first")
    made: dict[str, Any] = daemon.inspect("first")
    daemon.output("rm", "first")
    again = text.replace("corral run -d", f"{sys.executable} -m corral.cli -H unix://{daemon.socket_path} create")
    subprocess.run(["sh", "-c", again], check=True, capture_output=True)
    remade = daemon.inspect("first")
    for part, keys in (
        ("Config", ("Env", "Labels", "Cmd", "WorkingDir", "Image")),
        ("HostConfig", tuple(made["HostConfig"])),
    ):
        for key in keys:
            assert remade[part][key] == made[part][key] or key == "ContainerIDFile", key
    fragment = said(daemon, "container", "inspect", "--as", "compose", "first")
    service = yaml.safe_load(fragment)["services"]["first"]
    assert (
        service["image"] == IMAGE
        and service["ports"] == ["127.0.0.1:8099:80"]
        and service["volumes"] == ["data:/data:ro"]
    )
    assert service["environment"] == ["GREETING=good day"] and service["command"] == ["sh", "-c", "echo $GREETING"]
    assert json.loads(json.dumps(service))["read_only"] is True
    assert corral(daemon, "inspect", "--as", "poem", "first").returncode == 125
    daemon.output("rm", "first")
    daemon.output("volume", "rm", "data")


def published(daemon: Daemon, container: str) -> set[str]:
    return set(daemon.output("port", container).splitlines())


def fetched(daemon: Daemon, port: int, host: str = "127.0.0.1") -> bool:
    """Whether a container's web server answers at a port of the host."""
    try:
        return "root:" in fetch(daemon.space, host, port, "/passwd")
    except OSError:
        return False


def test_ports_of_a_running_container(own_daemon: Daemon) -> None:
    daemon = own_daemon
    daemon.space.sh("ip link set lo up")
    daemon.output("run", "-d", "--name", "web", "-p", "8000:80", IMAGE, "httpd", "-f", "-h", "/etc")
    until(lambda: fetched(daemon, 8000))
    pid = daemon.state("web")["Pid"]
    with daemon.popen(
        "events", "--format", "{{.Action}} {{.Actor.Attributes.ports}}", stdout=subprocess.PIPE
    ) as events:
        assert said(daemon, "port", "add", "web", "8080:80", "127.0.0.1:5353:53/udp", "81") == "web"
        assert events.stdout is not None
        assert events.stdout.readline() == b"port_add 8080:80/tcp,127.0.0.1:5353:53/udp,81/tcp\n"
        until(lambda: fetched(daemon, 8080))
        lines = published(daemon, "web")
        assert {"80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080", "53/udp -> 127.0.0.1:5353"} <= lines
        chosen = next(line.rpartition(":")[2] for line in lines if line.startswith("81/tcp -> 0.0.0.0"))
        assert said(daemon, "port", "rm", "web", "8000", chosen, "5353/udp") == "web"
        assert events.stdout.readline() == b"update <no value>\n"
        assert events.stdout.readline() == f"port_rm 8000,{chosen},5353/udp\n".encode()
        events.terminate()
    assert published(daemon, "web") == {"80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"}
    assert not fetched(daemon, 8000)
    assert daemon.inspect("web")["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}
    daemon.restart()
    until(lambda: fetched(daemon, 8080))
    assert daemon.state("web")["Pid"] == pid
    daemon.output("restart", "-t", "0", "web")
    until(lambda: fetched(daemon, 8080))
    assert published(daemon, "web") == {"80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080"}
    said(daemon, "port", "rm", "web", "8080")
    assert published(daemon, "web") == set() and not [e for e in daemon.elements() if "8080" in e]


def test_a_refused_change_of_ports_changes_nothing(daemon: Daemon) -> None:
    for name, port in (("one", "8101:80"), ("two", "8102:80")):
        daemon.output("run", "-d", "--name", name, "-p", port, IMAGE, "sleep", "100")
    before, rules = daemon.inspect("one"), daemon.elements()
    taken = corral(daemon, "port", "add", "one", "8103:81", "8102:82")
    assert taken.returncode == 1 and "Bind for 0.0.0.0:8102 failed: port is already allocated" in taken.stderr
    again = corral(daemon, "port", "add", "one", "8101:80")
    assert again.returncode == 1 and "port 8101:80/tcp is already published for one" in again.stderr
    absent = corral(daemon, "port", "rm", "one", "8101", "8102")
    assert absent.returncode == 1 and "No public port '8102' published for one" in absent.stderr
    for bad in ("x", "0", "70000", "80/icmp", "9:9:9", "9-8"):
        refused = daemon.post("/containers/one/update", {"PortRemove": [bad]})
        assert refused.status == 400 and f"invalid port specification: '{bad}'" in refused.message
    limit = {
        "Memory": 1 << 30,
        "MemorySwap": 1 << 30,
        "PortRemove": ["8101"],
        "PortAdd": {"80/tcp": [{"HostPort": "8102"}]},
    }
    assert daemon.post("/containers/one/update", limit).status == 500
    after = daemon.inspect("one")
    assert after["HostConfig"] == before["HostConfig"]
    assert after["NetworkSettings"] == before["NetworkSettings"] and daemon.elements() == rules
    daemon.output("run", "-d", "--name", "three", "--network", "host", IMAGE, "sleep", "100")
    host = corral(daemon, "port", "add", "three", "8104:80")
    assert host.returncode == 1 and "it uses the network of another" in host.stderr


def test_a_port_moves_within_a_container_and_waits_for_a_start(daemon: Daemon) -> None:
    daemon.output("create", "--name", "web", "-P", "--expose", "90", IMAGE, "httpd", "-f", "-p", "81", "-h", "/etc")
    said(daemon, "port", "add", "web", "8111:80")
    daemon.output("start", "web")
    assert {"80/tcp -> 0.0.0.0:8111"} <= published(daemon, "web")
    move = {"PortRemove": ["8111"], "PortAdd": {"81/tcp": [{"HostPort": "8111"}]}}
    assert daemon.post("/containers/web/update", move).status == 200
    until(lambda: fetched(daemon, 8111))
    chosen = next(line.rpartition(":")[2] for line in published(daemon, "web") if line.startswith("90/tcp"))
    said(daemon, "port", "rm", "web", chosen)
    assert not [line for line in published(daemon, "web") if line.startswith("90/")]
    daemon.output("kill", "web")
    said(daemon, "port", "rm", "web", "8111")
    assert daemon.inspect("web")["HostConfig"]["PortBindings"] == {}


def test_two_thousand_ports_are_elements(daemon: Daemon) -> None:
    daemon.output("run", "-d", "--name", "many", IMAGE, "httpd", "-f", "-p", "12999", "-h", "/etc")
    processes = len(daemon.processes())
    rules = daemon.space.sh("nft -t list ruleset")
    said(daemon, "port", "add", "many", "11000-12999:11000-12999")
    until(lambda: fetched(daemon, 12999))
    assert len(daemon.processes()) < processes + 5  # a server's child for a request, not one for each port
    assert daemon.space.sh("nft -t list ruleset") == rules
    assert len(published(daemon, "many")) == 4000
    said(daemon, "port", "rm", "many", "11000-12999")
    assert published(daemon, "many") == set() and not fetched(daemon, 12999)


def test_what_a_container_sends_and_receives_is_limited(daemon: Daemon) -> None:
    file = "head -c 700000 /dev/zero > /tmp/big; exec httpd -f -h /tmp"
    slow = said(daemon, "run", "-d", "--net-rate", "out=8mbit,in=4mbit", IMAGE, "sh", "-c", file)
    fast = daemon.output("run", "-d", "--name", "fast", IMAGE, "sh", "-c", file)
    assert daemon.inspect(slow)["HostConfig"]["NetRate"] == "out=8mbit,in=4mbit"
    assert "NetRate" not in daemon.inspect(fast)["HostConfig"]
    pid = daemon.state(slow)["Pid"]
    assert "tbf" in daemon.space.sh(f"nsenter -t {pid} -n tc qdisc show dev eth0") and "rate 8Mbit" in daemon.space.sh(
        f"nsenter -t {pid} -n tc qdisc show dev eth0"
    )
    assert "rate 4Mbit" in daemon.space.sh("tc qdisc show")

    def taken_s(where: str, of: str) -> float:
        address = daemon.inspect(of)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
        word = ("exec", where, "wget", "-q", "-O", "/dev/null", f"http://{address}/big")
        until(lambda: daemon.docker(*word[:-1], f"http://{address}/").returncode in (0, 1))
        begun = time.monotonic()
        daemon.output(*word)
        return time.monotonic() - begun

    assert taken_s(fast, slow) > 0.55  # 700 kB at 1 MB/s, but for the bucket's 64 KiB
    assert taken_s(slow, fast) > 1.1
    refused = corral(daemon, "run", "--net-rate", "out=fast", IMAGE, "true")
    assert refused.returncode == 125 and "invalid network rate 'out=fast'" in refused.stderr
    assert "--net-rate out=8mbit,in=4mbit" in said(daemon, "inspect", "--as", "run", slow)


def test_traffic_is_counted_by_port_and_network(daemon: Daemon) -> None:
    daemon.output("network", "create", "--ipv6", "counted")
    file = "head -c 300000 /dev/zero > /etc/big; exec httpd -f -h /etc"
    words = ("-p", "127.0.0.1:8080:80", "-p", "[::]:8081:80", "-p", "8082:81/udp", IMAGE, "sh", "-c", file)
    daemon.output("run", "-d", "--name", "web", "--network", "counted", *words)
    until(lambda: fetched(daemon, 8080))

    def ports() -> dict[int, dict[str, int]]:
        return {one["HostPort"]: one for one in daemon.get("/containers/web/traffic").json()["Ports"]}

    before = ports()
    assert len(fetch(daemon.space, "127.0.0.1", 8080, "/big")) > 300_000
    now = ports()
    assert 300_000 < now[8080]["BytesOut"] - before[8080]["BytesOut"] < 330_000
    assert 0 < now[8080]["BytesIn"] - before[8080]["BytesIn"] < 30_000
    assert now[8081]["BytesOut"] == now[8082]["BytesOut"] == 0
    daemon.space.sh("ip -6 addr add 2001:db8::1/128 dev lo")
    with daemon.space.socket(family=socket.AF_INET6) as client:
        client.settimeout(5)
        client.connect(("2001:db8::1", 8081))
        client.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        while client.recv(65536):
            pass
    daemon.space.sh("ip -6 addr del 2001:db8::1/128 dev lo")
    assert ports()[8081]["BytesOut"] > 300_000
    (network,) = daemon.get("/containers/web/traffic").json()["Networks"].items()
    assert network[0] == "counted" and network[1]["BytesOut"] > 600_000
    daemon.restart()
    assert ports()[8080]["BytesOut"] >= now[8080]["BytesOut"]
    shown = said(daemon, "traffic", "web").splitlines()
    assert shown[0].split()[:3] == ["CONTAINER", "WHERE", "IN"]
    assert {line.split()[1] for line in shown[1:]} == {"counted", "8080->80/tcp", "8081->80/tcp", "8082->81/udp"}
    assert str(ports()[8080]["BytesOut"]) in said(daemon, "traffic", "--bytes", "web")
    assert corral(daemon, "traffic", "nosuch").returncode == 1
    daemon.output("stop", "-t", "0", "web")
    assert daemon.get("/containers/web/traffic").json() == {"Networks": {}, "Ports": []}
    daemon.output("rm", "web")
    daemon.output("network", "rm", "counted")
