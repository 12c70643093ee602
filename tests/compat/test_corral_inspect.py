"""`corral inspect` for people on a terminal, and docker's JSON everywhere else."""

from __future__ import annotations

import json

from tests.support.corral import CORRAL, corral, environment
from tests.support.daemon import IMAGE, Daemon
from tests.support.terminal import Terminal


def _shown(daemon: Daemon, *words: str, **more: str) -> str:
    with Terminal([CORRAL, *words], environment(daemon, **{"TERM": "xterm", "NO_COLOR": "1"} | more)) as terminal:
        terminal.finish()
        return terminal.seen.decode().replace("\r\n", "\n")


def _fields(shown: str) -> dict[str, str]:
    """The first value of each field of the first object."""
    lines = [line.strip() for line in shown.partition("\n\n")[0].splitlines()[1:] if line[2:3] != " "]
    return {title: value.strip() for title, _, value in (line.partition(" ") for line in lines)}


def test_a_container_for_people(daemon: Daemon) -> None:
    daemon.output(
        "run", "-d", "--name", "seen", "-p", "127.0.0.1:8088:80", "-m", "64m", "--cpus", "1.5", "--restart", "always",
        "-v", "/tmp:/data:ro", "-e", "BELL=a\x1b[31mb", "-l", "team=core", "--cap-add", "NET_ADMIN", "--read-only",
        IMAGE, "sh", "-c", "sleep 1000",
    )  # fmt: skip
    found = daemon.inspect("seen")
    shown = _shown(daemon, "inspect", "seen")
    assert shown.startswith("container seen  running\n")
    assert shown.endswith("everything: --format json\n")
    fields = _fields(shown)
    assert fields["Id"] == found["Id"][:12]
    assert fields["Image"].startswith(f"{IMAGE} (")
    assert fields["Command"] == "sh -c 'sleep 1000'"
    assert fields["Started"].endswith(f", pid {found['State']['Pid']}")
    assert fields["Restart"] == "always"
    assert fields["Ports"] == "127.0.0.1:8088 -> 80/tcp"
    assert fields["Networks"].startswith("bridge 172.17.")
    assert fields["Mounts"] == "bind /tmp -> /data (read-only)"
    assert fields["Limits"] == "memory 64MiB"
    assert fields["Security"] == "read-only root"
    assert fields["Labels"] == "team=core"
    assert "  CPUs 1.5\n" in shown and "  +CAP_NET_ADMIN\n" in shown
    assert "BELL=a\\x1b[31mb" in shown and "\x1b" not in shown  # a terminal obeys nothing that a container says


def test_colours(daemon: Daemon) -> None:
    daemon.docker("run", "--name", "ended", IMAGE, "sh", "-c", "exit 3")
    shown = _shown(daemon, "inspect", "ended", NO_COLOR="")
    assert "\x1b[1mended\x1b[0m  \x1b[31mexited (3)\x1b[0m\n" in shown
    assert "container ended  exited (3)\n" in _shown(daemon, "inspect", "ended", TERM="dumb", NO_COLOR="")


def test_images_networks_and_volumes(daemon: Daemon) -> None:
    shown = _shown(daemon, "image", "inspect", IMAGE)
    assert shown.startswith(f"image {IMAGE}\n")
    assert _fields(shown)["Platform"].startswith("linux/") and _fields(shown)["Size"].endswith(" in 1 layers")
    assert _fields(_shown(daemon, "network", "inspect", "bridge"))["Subnets"] == "172.17.0.0/16, gateway 172.17.0.1"
    daemon.output("volume", "create", "--label", "a=b", "seen")
    both = _shown(daemon, "inspect", "seen", "bridge")
    assert "volume seen\n" in both and "\n\nnetwork bridge\n" in both
    daemon.output("volume", "rm", "seen")


def test_what_is_not_found_is_told_as_ever(daemon: Daemon) -> None:
    shown = _shown(daemon, "inspect", "bridge", "nosuch")
    assert shown.startswith("network bridge\n")
    assert shown.endswith("Error: No such object: nosuch\n")
    assert _shown(daemon, "inspect", "nosuch") == "[]\nError: No such object: nosuch\n"


def test_json_in_a_pipe_and_on_demand(daemon: Daemon) -> None:
    ours = corral(daemon, "inspect", "bridge").stdout
    assert ours == daemon.docker("inspect", "bridge").stdout
    on_terminal = _shown(daemon, "inspect", "--format", "json", "bridge")
    assert json.loads(on_terminal) == json.loads(ours)
    assert _shown(daemon, "inspect", "-f", "{{.Name}}", "bridge") == "bridge\n"
    assert json.loads(_shown(daemon, "context", "inspect"))[0]["Name"] == "default"  # has no summary
