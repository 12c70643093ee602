"""Beside real firewalls, ufw on both iptables and firewalld: what they say holds, and nothing of theirs changes."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.net import reach
from corral.net.networks import Networks, NetworkSettings, PortBinding
from tests.integration.test_net_bridge import BRIDGE, networks, outside
from tests.support.debian import Machine, installed
from tests.support.netns import Space, ask, needs_root, on_new_host, refused, serve_peer_address, sh, spaces, until
from tests.support.wait import until as wait_until

pytestmark = [needs_root, pytest.mark.timeout(300)]

OPEN, SCREENED = NetworkSettings(), NetworkSettings(host_firewall=True)
PORT = [PortBinding("tcp", 80, "", 8080)]


@pytest.fixture(scope="module")
def debian() -> Path:
    """Files of a Debian with both firewalls."""
    return installed("ufw", "firewalld", "dbus")


def machine(folder: Path, files: Path) -> Machine:
    """One in the network namespace of this thread."""
    return Machine(folder / "machine", threading.get_native_id(), files)


def ufw(folder: Path, files: Path, flavour: str) -> Machine:
    """One whose ufw is enabled, on one of the kinds of iptables."""
    found = machine(folder, files)
    for name in ("iptables", "ip6tables"):
        found.sh(f"update-alternatives --set {name} /usr/sbin/{name}-{flavour}")
    found.sh("ufw --force enable && ufw allow 22/tcp")
    return found


def foreign() -> str:
    """All rules that are not ours, without what counters count."""
    tables = [line.split() for line in sh("nft list tables").splitlines()]
    others = [(family, name) for _, family, name in tables if not name.startswith("corral") and family == "inet"]
    texts = [sh(f"nft list table {family} {name}") for family, name in others]
    texts += [sh(f"{ip}-{kind}-save") for ip in ("iptables", "ip6tables") for kind in ("nft", "legacy")]
    kept = re.sub(r"(counter packets \d+ bytes \d+ ?|\[\d+:\d+\])", "", "".join(texts))
    return "".join(line + "\n" for line in kept.splitlines() if not line.startswith("#"))


async def answer(net: Networks, client: reach.Client) -> str:
    """What `corral port check` says of clients outside."""
    ((_, answers), *_) = await net.reach("tcp", 8080, "0.0.0.0", client)
    return answers[0].answer


async def agree(net: Networks, client: Space, *, open_: bool) -> None:
    """The port is open for the client, or closed, and the diagnosis says so."""
    assert await refused(client, "10.9.0.1", 8080) is not open_
    ((_, (answer, *_)), *_) = await net.reach("tcp", 8080, "0.0.0.0", reach.Client("10.9.0.2", "out0"))
    assert answer.answer == ("yes" if open_ else "no"), answer


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
@on_new_host
async def test_ufw_drops_what_is_forwarded_and_containers_go_on(tmp_path: Path, debian: Path, flavour: str) -> None:
    host = ufw(tmp_path, debian, flavour)
    host.sh("ufw reload; ufw --force disable; ufw --force enable")  # some rules of ufw are there twice after that
    before = foreign()
    assert "ufw-before-forward" in before
    with spaces(2) as (web, client):
        outside(client)
        async with networks(tmp_path, OPEN) as net:
            await net.attach("a" * 64, web.pid, BRIDGE, PORT, hostname="h", name="web")
            async with await serve_peer_address(web, 80), await serve_peer_address(client, 81):
                for command in ("true", "ufw reload", "ufw --force disable", "ufw --force enable"):
                    host.sh(command)
                    await until(lambda: not dropped() or marked(), 5.0)
                    assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"
                    assert await ask(web, "10.9.0.2", 81) == "10.9.0.1"
                    assert await refused(client, "172.17.0.2", 80)
                    await agree(net, client, open_=True)
            during = [line for line in foreign().splitlines() if "containers of corral" not in line]
            assert during == before.splitlines()
            await net.detach("a" * 64)
    assert foreign() == before


def dropped() -> bool:
    return ":FORWARD DROP" in foreign()


def marked() -> bool:
    return "containers of corral" in foreign() and "meta mark set" in sh("nft list chain inet corral allow")


@pytest.mark.parametrize("flavour", ["nft", "legacy"])
@on_new_host
async def test_ufw_decides_who_reaches_a_port(tmp_path: Path, debian: Path, flavour: str) -> None:
    host = ufw(tmp_path, debian, flavour)
    with spaces(2) as (web, client):
        outside(client)
        async with networks(tmp_path, SCREENED) as net:
            await net.attach("a" * 64, web.pid, BRIDGE, PORT, hostname="h", name="web")
            async with await serve_peer_address(web, 80):
                await agree(net, client, open_=False)
                host.sh("ufw allow from 10.9.0.2 to any port 8080 proto tcp")
                await agree(net, client, open_=True)
                assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"
                assert await answer(net, reach.Client("10.9.0.3", "out0")) == "no"
                assert await answer(net, reach.Client()) == "depends"
                host.sh("ufw reload")
                await agree(net, client, open_=True)
                host.sh("ufw delete allow from 10.9.0.2 to any port 8080 proto tcp")
                await agree(net, client, open_=False)
                assert await ask(None, "127.0.0.1", 8080) == "172.17.0.1"
                host.sh("ufw --force disable")
                await agree(net, client, open_=True)
            await net.detach("a" * 64)


@contextlib.contextmanager
def firewalld(host: Machine) -> Iterator[None]:
    """firewalld with a bus of its own; both end with the block."""
    start = "mkdir -p /run/dbus; dbus-daemon --system --fork --nopidfile --print-pid=3 3>/pid.dbus; "
    script = f"mount -t tmpfs none /run; {start} exec firewalld --nopid --nofork"
    process = subprocess.Popen(host.command(script), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    host.entered = process.pid
    try:
        wait_until(lambda: host.succeeds("firewall-cmd --state"), 30)
        yield
    finally:
        host.sh("kill $(cat /pid.dbus)")
        process.terminate()
        process.wait(20)


@on_new_host
async def test_firewalld_decides_who_reaches_a_port(tmp_path: Path, debian: Path) -> None:
    host = machine(tmp_path, debian)
    with firewalld(host), spaces(2) as (web, client):
        outside(client)
        before = foreign()
        assert "table inet firewalld" in before
        async with networks(tmp_path, SCREENED) as net:
            await net.attach("a" * 64, web.pid, BRIDGE, PORT, hostname="h", name="web")
            async with await serve_peer_address(web, 80):
                await agree(net, client, open_=False)
                host.sh("firewall-cmd --add-port=8080/tcp")
                await agree(net, client, open_=True)
                assert await ask(client, "10.9.0.1", 8080) == "10.9.0.2"
                host.sh("firewall-cmd --reload")  # which forgets the port
                await agree(net, client, open_=False)
            assert foreign() == before
            await net.detach("a" * 64)
        assert foreign() == before


@on_new_host
async def test_published_ports_beside_firewalld_and_the_way_out_of_containers(tmp_path: Path, debian: Path) -> None:
    host = machine(tmp_path, debian)
    with firewalld(host), spaces(2) as (web, client):
        outside(client)
        async with networks(tmp_path, OPEN) as net:
            await net.attach("a" * 64, web.pid, BRIDGE, PORT, hostname="h", name="web")
            async with await serve_peer_address(web, 80), await serve_peer_address(client, 81):
                await agree(net, client, open_=True)
                assert await refused(web, "10.9.0.2", 81)
                host.sh("firewall-cmd --permanent --zone=trusted --add-interface=corral0; firewall-cmd --reload")
                assert await ask(web, "10.9.0.2", 81) == "10.9.0.1"
                await agree(net, client, open_=True)
                assert await refused(client, "172.17.0.2", 80)
            await net.detach("a" * 64)
