"""`corral port check`, held against what connections do; and the policy that lets the host's firewall decide."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from tests.compat.test_beyond_docker import corral, said
from tests.support.daemon import IMAGE, Daemon
from tests.support.netns import Space, fetch, inside, spaces
from tests.support.wait import until

HTTPD = (IMAGE, "sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp")


def joined(daemon: Daemon, space: Space) -> None:
    """A machine at 10.9.0.2 on the host's network, where the host is 10.9.0.1."""
    daemon.space.sh(f"ip link add out0 type veth peer name eth0 netns {space.pid}")
    daemon.space.sh("ip addr add 10.9.0.1/24 dev out0")
    daemon.space.sh("ip link set out0 up")
    space.sh("ip link set eth0 up")
    space.sh("ip addr add 10.9.0.2/24 dev eth0")


def reaches(space: Space, port: int = 8080) -> bool:
    try:
        return "hello" in fetch(space, "10.9.0.1", port, timeout_s=0.5)
    except OSError:
        return False


def answers(daemon: Daemon, **query: Any) -> dict[str, str]:
    reply = daemon.get("/ports/check", **query)
    assert reply.status == 200, reply.message
    return {one["Who"].partition(" (")[0]: one["Answer"] for one in reply.json()["Published"][0]["Reach"]}


def test_what_is_said_is_what_happens(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon("--publish-policy", "host-firewall")
    with spaces(1) as (client,):
        joined(daemon, client)
        daemon.space.sh("nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; }'")
        for network in (("app",), ("other",), ("--internal", "closed")):
            daemon.output("network", "create", *network)
        said(
            daemon, "run", "-d", "--name", "web", "-p", "8080:80", "-p", "10.9.0.1:8082:80", "--network", "app", *HTTPD
        )
        until(lambda: reaches(client))
        for network in ("bridge", "app", "other", "closed"):
            said(daemon, "run", "-d", "--name", f"in-{network}", "--network", network, IMAGE, "sleep", "1000")

        def fetched(name: str) -> bool:
            direct = daemon.inspect("web")["NetworkSettings"]["Networks"]["app"]["IPAddress"], 80
            address = direct if name == "in-app" else ("10.9.0.1", 8080)
            with inside(daemon.state(name)["Pid"]), socket.socket() as connection:
                connection.settimeout(0.5)
                return connection.connect_ex(address) == 0

        rules = ("", "tcp dport 8080 drop", "ip saddr 10.9.0.2 drop", "ip saddr 10.9.0.3 drop", "tcp dport 80 drop")
        for rule in rules:
            daemon.space.sh("nft flush chain inet fw in")
            if rule:
                daemon.space.sh(f"nft add rule inet fw in {rule}")
            told = answers(daemon, port="0.0.0.0:8080", **{"from": "10.9.0.2"}, interface="out0")
            assert told["outside"] == ("yes" if reaches(client) else "no"), rule
            for network in ("bridge", "app", "other", "closed"):
                assert told[f"network {network}"] == ("yes" if fetched(f"in-{network}") else "no"), (rule, network)
            assert told["this machine"] == "yes" and reaches(daemon.space)
        daemon.space.sh("nft delete table inet fw")


def test_what_people_read(daemon: Daemon) -> None:
    said(daemon, "run", "-d", "--name", "web", "-p", "8080:80", "-p", "127.0.0.1:9090:90/udp", *HTTPD)
    until(lambda: "nothing listens" not in said(daemon, "port", "check", "8080"))
    shown = said(daemon, "port", "check", "127.0.0.1:9090/udp").splitlines()
    assert shown[0] == "127.0.0.1:9090 leads to port 90/udp of web, where nothing listens"
    assert shown[1].split() == ["WHO", "REACHES", "IT", "WHY"]
    assert shown[2].split(None, 2) == ["outside", "no", "published on 127.0.0.1 only"]
    for words, text in (
        (("1",), "no running container publishes 1/tcp"),
        (("9090",), "no running container publishes 9090/tcp"),
        (("8080-8090",), "invalid port specification: '8080-8090'"),
        (("--from", "fe80::1%eth0; flush ruleset", "8080"), "invalid address of a client"),
    ):
        done = corral(daemon, "port", "check", *words)
        assert done.returncode == 1 and text in done.stderr, done.stderr
    daemon.output("rename", "web", "check")
    assert said(daemon, "port", "check", "80").splitlines() == ["0.0.0.0:8080", "[::]:8080"]  # a container of that name


def test_a_killed_daemon_leaves_the_decision_where_it_is(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon("--publish-policy", "host-firewall")
    with spaces(1) as (client,):
        joined(daemon, client)
        said(daemon, "run", "-d", "--name", "web", "-p", "8080:80", *HTTPD)
        until(lambda: reaches(client))
        daemon.restart()
        assert reaches(client)
        daemon.space.sh("nft 'add table inet fw; add chain inet fw in { type filter hook input priority 0; }'")
        daemon.space.sh("nft add rule inet fw in tcp dport 8080 drop")
        assert not reaches(client)
        daemon.end(9)
        assert not reaches(client)
        daemon.space.sh("nft flush chain inet fw in")
        assert "hello" in fetch(client, "10.9.0.1", 8080, timeout_s=10)  # the client's second try
        daemon.launch()
        daemon.space.sh("nft delete table inet fw")
