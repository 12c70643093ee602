"""Configuration-only networks, and what is refused about networks, in Docker's words."""

from __future__ import annotations

import json

import pytest

from tests.support.daemon import IMAGE, Daemon


def refused(daemon: Daemon, *words: str) -> str:
    done = daemon.docker(*words)
    assert done.returncode != 0, done.stdout
    return done.stderr


def test_networks_from_a_template(daemon: Daemon) -> None:
    template = ("--subnet", "10.77.0.0/24", "--gateway", "10.77.0.9", "-o", "com.docker.network.driver.mtu=1400")
    daemon.output("network", "create", "--config-only", *template, "--label", "a=b", "office")
    links = daemon.links()
    shown = json.loads(daemon.output("network", "inspect", "office"))[0]
    assert (shown["ConfigOnly"], shown["Driver"], shown["Labels"]) == (True, "null", {"a": "b"})
    assert links == daemon.links()  # there is nothing of it on the host
    assert 'configuration network "bridge" does not exist' in refused(
        daemon, "network", "create", "--config-from", "bridge", "x"
    )
    for flags, text in (
        (("--subnet", "10.1.0.0/24"), "user specified configurations are not supported"),
        (("--label", "z=1"), "user specified configurations are not supported"),
        (("--ipv6",), "user specified configurations are not supported"),
        (("-o", "a=b"), "network driver options are not supported"),
        (("--config-only",), "a configuration network cannot depend on another configuration network"),
    ):
        assert text in refused(daemon, "network", "create", "--config-from", "office", *flags, "x")
    assert "network specific fields" in refused(daemon, "network", "create", "--config-only", "--internal", "x")
    assert "cannot create endpoint on configuration-only" in refused(
        daemon, "run", "--network", "office", IMAGE, "true"
    )

    daemon.output("network", "create", "--config-from", "office", "desks")
    shown = json.loads(daemon.output("network", "inspect", "desks"))[0]
    assert (shown["ConfigFrom"], shown["Labels"]) == ({"Network": "office"}, {"a": "b"})
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.77.0.0/24", "Gateway": "10.77.0.9"}]
    link = daemon.output("run", "--rm", "--network", "desks", IMAGE, "ip", "addr", "show", "eth0")
    assert "mtu 1400" in link and "inet 10.77.0.1/24" in link
    assert "overlaps" in refused(daemon, "network", "create", "--config-from", "office", "more")
    assert 'configuration network "office" is in use' in refused(daemon, "network", "rm", "office")
    daemon.output("network", "prune", "-f")
    assert "office" in daemon.output("network", "ls", "--format", "{{.Name}}").split()  # a template is not pruned
    assert "desks" not in daemon.output("network", "ls", "--format", "{{.Name}}").split()
    daemon.output("network", "rm", "office")


def test_a_template_outlives_the_daemon(own_daemon: Daemon) -> None:
    own_daemon.output("network", "create", "--config-only", "--subnet", "10.77.0.0/24", "office")
    own_daemon.restart()
    own_daemon.output("network", "create", "--config-from", "office", "desks")
    own_daemon.restart()
    assert 'configuration network "office" is in use' in refused(own_daemon, "network", "rm", "office")
    own_daemon.output("network", "rm", "desks")
    own_daemon.output("network", "rm", "office")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--subnet", "10.1.0.0"), "invalid subnet 10.1.0.0: invalid CIDR block notation"),
        (("--subnet", "10.1.0.1/24"), "invalid subnet 10.1.0.1/24: it should be 10.1.0.0/24"),
        (("--ipam-driver", "nosuch"), 'plugin "nosuch" not found'),
        (("-o", "com.docker.network.bridge.host_binding_ipv4=nowhere"), "host_binding_ipv4 value: nowhere (nil ip)"),
    ],
)
def test_bad_networks(daemon: Daemon, words: tuple[str, ...], text: str) -> None:
    before = daemon.links()
    assert text in refused(daemon, "network", "create", *words, "x")
    assert daemon.links() == before
    assert "x" not in daemon.output("network", "ls", "--format", "{{.Name}}").split()


def test_several_problems_are_told_together(daemon: Daemon) -> None:
    config = {"Subnet": "10.1.0.0/24", "IPRange": "10.0.0.0/8", "Gateway": "10.2.0.1"}
    config["AuxiliaryAddresses"] = {"x": "fd00::1"}  # type: ignore[assignment]
    reply = daemon.post("/networks/create", {"Name": "x", "IPAM": {"Config": [config]}})
    assert (reply.status, reply.message.splitlines()) == (
        400,
        [
            "invalid network config:",
            "* invalid ip-range 10.0.0.0/8: CIDR block is bigger than its parent subnet 10.1.0.0/24",
            "* invalid gateway 10.2.0.1: parent subnet 10.1.0.0/24 doesn't contain this address",
            "* invalid auxiliary address x: parent subnet is an IPv4 block",
        ],
    )


def test_where_ports_of_a_network_are_published(daemon: Daemon) -> None:
    daemon.output("network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "here")
    daemon.output("run", "-d", "--name", "web", "--network", "here", "-p", "8080:80", IMAGE, "sleep", "1000")
    assert daemon.output("port", "web") == "80/tcp -> 127.0.0.1:8080"
    daemon.output("rm", "-f", "web")
    daemon.output("network", "rm", "here")


def test_containers_that_cannot_have_such_a_network(daemon: Daemon) -> None:
    daemon.output("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    for words, text in (
        (("--network", "container:nosuch"), "No such container: nosuch"),
        (("--network", "container:web", "--dns", "1.1.1.1"), "conflicting options: dns and the network mode"),
        (("--network", "container:web", "--add-host", "a:1.1.1.1"), "custom host-to-IP mapping and the network mode"),
        (("--network", "none", "--ip", "10.1.0.7"), "supported on user defined networks only"),
        (("--link", "nosuch:x"), "could not get container for nosuch: No such container: nosuch"),
    ):
        problem = refused(daemon, "run", "--rm", *words, IMAGE, "true")
        assert text in problem and "Unable to find image" not in problem
    host = daemon.docker("run", "--rm", "--network", "host", "-p", "80:80", IMAGE, "true", check=True)
    assert host.stderr == "WARNING: Published ports are discarded when using host network mode\n"
    assert "endpoint nosuch not found" in refused(daemon, "network", "disconnect", "-f", "bridge", "nosuch")
    assert "invalid filter 'dangling=[maybe]'" in refused(daemon, "network", "ls", "-f", "dangling=maybe")


def test_sctp_where_the_kernel_has_none(daemon: Daemon) -> None:
    with open("/proc/net/protocols") as file:
        if "SCTP" in file.read():
            pytest.skip("this kernel has sctp")
    problem = refused(daemon, "run", "-d", "--name", "telephone", "-p", "9998:80/sctp", IMAGE, "sleep", "1000")
    assert "protocol not supported" in problem
    assert daemon.state("telephone")["Status"] == "created"
