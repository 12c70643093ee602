"""Egress lists through the clients: flags, label, API, live changes, the log."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from corral.net import dnswire
from tests.compat.test_beyond_docker import corral, said
from tests.support.daemon import IMAGE, Daemon
from tests.support.wait import until

UPSTREAM = "127.0.0.53"


@contextlib.contextmanager
def name_server(daemon: Daemon, **names: str) -> Iterator[None]:
    """A DNS server beside the daemon that knows some names below `.example`, over UDP and TCP."""

    def answer(message: bytes) -> bytes:
        parsed = dnswire.parse(message)
        found = names.get(parsed.name.removesuffix(".example"))
        return dnswire.answer(parsed, [dnswire.IPv4Address(found)] if found and parsed.type == dnswire.A else [])

    def datagrams() -> None:
        while True:
            message, client = udp.recvfrom(4096)
            if message == b"end":
                return
            udp.sendto(answer(message), client)

    def streams() -> None:
        while True:
            client, _ = tcp.accept()
            with client:
                message = client.recv(4096)[2:]
                if not message:
                    return
                reply = answer(message)
                client.sendall(len(reply).to_bytes(2, "big") + reply)

    with daemon.space.socket(socket.SOCK_DGRAM) as udp, daemon.space.socket() as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for one in (udp, tcp):
            one.bind((UPSTREAM, 53))
            one.setblocking(True)
        tcp.listen()
        serving = [threading.Thread(target=work) for work in (datagrams, streams)]
        for thread in serving:
            thread.start()
        try:
            yield
        finally:
            with daemon.space.socket(socket.SOCK_DGRAM) as last, daemon.space.socket() as final:
                last.sendto(b"end", (UPSTREAM, 53))
                final.setblocking(True)
                final.connect((UPSTREAM, 53))
            for thread in serving:
                thread.join()


def fetched(daemon: Daemon, container: str, host: str) -> bool:
    done = daemon.docker("exec", container, "wget", "-q", "-O", "/dev/null", f"http://{host}/passwd")
    return done.returncode == 0


def web(daemon: Daemon, name: str, *words: str) -> str:
    """A neighbour that serves; its address."""
    daemon.output("run", "-d", "--name", name, *words, IMAGE, "httpd", "-f", "-h", "/etc")
    (network,) = daemon.inspect(name)["NetworkSettings"]["Networks"].values()
    until(
        lambda: daemon.docker("exec", name, "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/passwd").returncode == 0
    )
    return str(network["IPAddress"])


def log(daemon: Daemon, container: str) -> list[dict[str, object]]:
    reply = daemon.get(f"/containers/{container}/egress/log")
    return [json.loads(line) for line in reply.body.splitlines()]


@contextlib.contextmanager
def outside_addresses(daemon: Daemon, *addresses: str) -> Iterator[None]:
    """Addresses of no network of containers, at which ports are published."""
    for address in addresses:
        daemon.space.sh(f"ip addr add {address}/32 dev lo")
    try:
        yield
    finally:
        for address in addresses:
            daemon.space.sh(f"ip addr del {address}/32 dev lo")


def test_an_egress_list(daemon: Daemon) -> None:
    address, other = "192.0.2.1", "192.0.2.2"
    with outside_addresses(daemon, address, other), name_server(daemon, web=address, other=other):
        for name, at in (("web", address), ("other", other)):
            web(daemon, name, "-p", f"{at}:80:80")
        client = said(
            daemon, "run", "-d", "--name", "client", "--dns", UPSTREAM, "--egress", "allow=WEB.example:80", "--egress",
            f"allow={other}:81,10.0.0.0/8", IMAGE, "sleep", "1000",
        )  # fmt: skip
        found = daemon.inspect(client)["HostConfig"]
        assert found["Egress"] == ["allow=web.example:80", f"allow={other}:81", "allow=10.0.0.0/8"]
        assert not fetched(daemon, client, address)
        assert fetched(daemon, client, "web.example")  # the first connection: the answer came after the rule
        assert fetched(daemon, client, address)
        assert not fetched(daemon, client, "other.example") and not fetched(daemon, client, other)
        refused = {("tcp", address, ""), ("dns", None, "other.example"), ("tcp", other, "")}
        until(lambda: {(one["Protocol"], one.get("Address"), one["Name"]) for one in log(daemon, client)} == refused)
        assert f"tcp {other} 80" in said(daemon, "egress", "log", client)
        shown = said(daemon, "egress", "ls", client)
        assert shown.splitlines()[-1].strip() == "others refused"
        assert ["web.example:80", address] in [line.split()[:2] for line in shown.splitlines()]
        assert "--egress allow=web.example:80" in said(daemon, "inspect", "--as", "run", client)
        said(daemon, "update", "--egress", f"allow={other}", client)
        assert fetched(daemon, client, other) and not fetched(daemon, client, "web.example")
        daemon.restart()
        assert fetched(daemon, client, other) and not fetched(daemon, client, "web.example")
        assert daemon.post(f"/containers/{client}/update", {"Egress": []}).status == 200
        assert fetched(daemon, client, "web.example") and "Egress" not in daemon.inspect(client)["HostConfig"]
        assert "egress" not in daemon.space.sh("nft list tables")


def test_a_list_by_label_and_for_one_that_runs(daemon: Daemon) -> None:
    daemon.output("network", "create", "app")
    address = web(daemon, "web", "--network", "app")
    web(daemon, "other", "--network", "app")
    closed = daemon.output(
        "run", "-d", "--network", "app", "--label", "corral.egress=allow=web:80,deny=10.0.0.1", IMAGE, "sleep", "1000"
    )
    assert daemon.inspect(closed)["HostConfig"]["Egress"] == ["allow=web:80", "deny=10.0.0.1"]
    assert fetched(daemon, closed, "web") and fetched(daemon, closed, address)
    assert not fetched(daemon, closed, "other")
    plain = daemon.output("run", "-d", "--cap-add", "NET_ADMIN", IMAGE, "sleep", "1000")
    with name_server(daemon), following(daemon, "corral.cli", "events", "--filter", "event=egress") as events:
        said(daemon, "update", "--egress", "none", plain)
        until(lambda: "egress=none" in "".join(events))
    assert not fetched(daemon, plain, "172.17.0.1:1")
    assert "127.0.0.11" in daemon.output("exec", plain, "cat", "/etc/resolv.conf")
    daemon.output("stop", "-t", "0", plain)
    said(daemon, "update", "--egress", "any", plain)
    daemon.output("start", plain)
    assert "127.0.0.11" not in daemon.output("exec", plain, "cat", "/etc/resolv.conf")
    daemon.output("rm", "-f", closed, "web", "other")
    daemon.output("network", "rm", "app")


@contextlib.contextmanager
def following(daemon: Daemon, *words: str) -> Iterator[list[str]]:
    """What a command prints while a block runs."""
    module, *rest = words
    command = [sys.executable, "-m", module, "-H", daemon.host, *rest]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        reading = threading.Thread(target=lines.extend, args=(iter(process.stdout.readline, ""),))
        reading.start()
        try:
            yield lines
        finally:
            process.terminate()
            reading.join()


def test_the_log_is_followed(daemon: Daemon) -> None:
    client = said(daemon, "run", "-d", "--egress", "none", IMAGE, "sleep", "1000")
    with following(daemon, "corral.cli", "egress", "log", "-f", client) as lines:
        assert not fetched(daemon, client, "192.0.2.1")
        until(lambda: any("tcp 192.0.2.1 80" in line for line in lines))
        assert not fetched(daemon, client, "192.0.2.2")
        until(lambda: any("tcp 192.0.2.2 80" in line for line in lines))


def test_lists_that_cannot_be(daemon: Daemon) -> None:
    for words, reason in (
        (("--egress", "allow=a b"), "invalid egress rule"),
        (("--egress", "allow=a:99999"), "a port is a number from 1 to 65535"),
        (("--egress", "web"), "it must be allow=..., deny=..., none or any"),
        (("--egress", "none", "--egress", "allow=a"), "none and any stand alone"),
        (("--egress", "none", "--network", "host"), "cannot limit egress of a container with network host"),
        (("--egress", "none", "--network", "none"), "cannot limit egress of a container with network none"),
    ):
        refused = corral(daemon, "create", *words, IMAGE, "true")
        assert refused.returncode and reason in refused.stderr, refused.stderr
    daemon.output("network", "create", "-d", "macvlan", "wire")
    refused = corral(daemon, "create", "--egress", "none", "--network", "wire", IMAGE, "true")
    assert "cannot limit egress on network wire: the host does not route for it" in refused.stderr
    container = said(daemon, "run", "-d", "--egress", "none", IMAGE, "sleep", "1000")
    assert "cannot limit egress" in daemon.docker("network", "connect", "wire", container).stderr
    bad = corral(daemon, "update", "--egress", "allow=", container)
    assert bad.returncode and "invalid egress rule" in bad.stderr
    assert daemon.inspect(container)["HostConfig"]["Egress"] == ["none"]
    daemon.output("network", "rm", "wire")


def test_names_on_the_default_bridge(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon("--bridge-names")
    address = web(daemon, "web")
    web(daemon, "other")
    client = said(daemon, "run", "-d", "--name", "client", "--egress", "allow=web:80", IMAGE, "sleep", "1000")
    assert address in daemon.output("exec", "other", "nslookup", "web")
    assert address in daemon.output("exec", "other", "nslookup", "web.bridge")
    assert fetched(daemon, client, "web") and not fetched(daemon, client, "other")
    daemon.restart()
    assert fetched(daemon, client, "web") and not fetched(daemon, client, "other")
    daemon.output("rename", "web", "site")
    assert address in daemon.output("exec", "other", "nslookup", "site")
    assert not fetched(daemon, client, "site") and not fetched(daemon, client, "web")
    daemon.output("run", "--rm", "--link", "site:linked", IMAGE, "ping", "-c", "1", "linked")
    daemon.remove_all()


def test_dig_and_curl(daemon: Daemon, tmp_path: Path) -> None:
    with outside_addresses(daemon, "192.0.2.1"), name_server(daemon, web="192.0.2.1", other="192.0.2.1"):
        web(daemon, "web", "-p", "192.0.2.1:80:80")
        words = ("--dns", UPSTREAM, "--egress", "allow=web.example:80", IMAGE, "sleep", "1000")
        client = daemon.state(said(daemon, "run", "-d", *words))["Pid"]
        (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.11\n")

        def run(command: str) -> str:
            """With the container's network and its resolver, and this machine's programs."""
            command = f"mount --bind {tmp_path}/resolv.conf /etc/resolv.conf; nsenter -t {client} -n {command} || true"
            return daemon.space.sh(f'unshare -m sh -c "{command}"')

        assert run("curl -s http://web.example/passwd").startswith("root:")
        assert run("curl -s -w %{exitcode} http://other.example/passwd") == "6"  # could not resolve
        assert run("curl -s -w %{exitcode} http://192.0.2.1:81/") == "7"  # could not connect
        for more in ("", "+tcp", "+noedns", "+bufsize=4096"):
            assert run(f"dig +short {more} web.example") == "192.0.2.1\n"
            assert "status: NXDOMAIN" in run(f"dig {more} other.example")
        assert "EDE: 17 (Filtered)" in run("dig other.example")
        assert "status: NXDOMAIN" in run("dig -x 192.0.2.77")
        assert "status: NOERROR" in run("dig -x 192.0.2.1")  # an address that it may reach
        assert "refused" in run("dig +tcp +tries=1 +time=3 @172.17.0.1 web.example")
