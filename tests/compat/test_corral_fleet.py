"""Commands over several daemons at once, and images from one daemon to another."""

from __future__ import annotations

import random
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.corral import corral
from tests.support.daemon import IMAGE, Daemon
from tests.support.images import docker_archive, member, tar_of
from tests.support.recorder import recorder


@pytest.fixture
def fleet(daemon: Daemon, new_daemon: Callable[..., Daemon], tmp_path: Path) -> tuple[Daemon, Daemon, dict[str, str]]:
    """Two daemons as the contexts `far` and `near`, and the environment that knows them."""
    other = new_daemon()
    variables = {"DOCKER_CONFIG": str(tmp_path / "config")}
    for name, host in (("near", daemon.host), ("far", other.host)):
        assert corral(daemon, "context", "create", name, "--docker", f"host={host}", **variables).returncode == 0
    daemon.output("run", "-d", "--name", "here", IMAGE, "sleep", "1000")
    other.output("run", "-d", "--name", "there", IMAGE, "sleep", "1000")
    return daemon, other, variables


def test_lists_of_all_contexts(fleet: tuple[Daemon, Daemon, dict[str, str]]) -> None:
    daemon, other, variables = fleet
    done = corral(daemon, "ps", "--context", "all", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:3] == ["CONTEXT", "CONTAINER", "ID"]
    # the daemon of the environment is the context `near`: it appears once
    assert [(line[0], line[-1]) for line in lines[1:]] == [("far", "there"), ("near", "here")]
    done = corral(daemon, "ps", "--context", "near,far", "--format", "{{.Context}}:{{.Names}}", **variables)
    assert done.stdout == "near:here\nfar:there\n"
    done = corral(daemon, "ps", "--context", "far", "-q", "--no-trunc", **variables)
    assert done.stdout.strip() == other.output("inspect", "-f", "{{.Id}}", "there")
    assert corral(daemon, "-c", "far,near", "ps", "--format", "{{.Names}}", **variables).stdout == "there\nhere\n"
    other.output("volume", "create", "vol-there")
    for words, shown in (
        (("images", "--format", "{{.Context}} {{.Repository}}:{{.Tag}}"), [f"far {IMAGE}", f"near {IMAGE}"]),
        (("network", "ls", "--format", "{{.Context}} {{.Name}}"), ["far bridge", "near bridge"]),
        (("volume", "ls", "--format", "{{.Context}} {{.Name}}"), ["far vol-there"]),
    ):
        found = corral(daemon, *words, "--context", "all", **variables).stdout.splitlines()
        assert [line for line in found if line in shown] == shown, found
    done = corral(daemon, "stats", "--no-stream", "--context", "all", "--format", "{{.Context}} {{.Name}}", **variables)
    assert done.stdout == "far there\nnear here\n"
    done = corral(daemon, "stats", "--no-stream", "--context", "all", "--format", "{{.Name}}", "there", **variables)
    assert done.stdout == "there\n"
    done = corral(daemon, "stats", "--no-stream", "--context", "all", "nosuch", **variables)
    assert (done.returncode, done.stderr) == (1, "Error: No such container: nosuch\n")


def test_one_that_is_down_and_one_that_says_nothing(
    fleet: tuple[Daemon, Daemon, dict[str, str]], tmp_path: Path
) -> None:
    daemon, _, variables = fleet
    mute = str(tmp_path / "mute")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(mute)
        listener.listen()
        for name, path in (("down", "/nosuch"), ("mute", mute)):
            corral(daemon, "context", "create", name, "--docker", f"host=unix://{path}", **variables)
        done = corral(daemon, "ps", "--context", "all", "--format", "{{.Context}}:{{.Names}}", **variables)
    assert done.returncode == 1
    assert done.stdout == "far:there\nnear:here\n"
    down, silent = done.stderr.splitlines()
    assert down.startswith("down: Cannot connect to the Docker daemon at unix:///nosuch.")
    assert silent == "mute: no answer within 10 seconds"
    unknown = corral(daemon, "ps", "--context", "near,nosuch", **variables)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert 'context "nosuch": context not found' in unknown.stderr


def _image(daemon: Daemon, name: str, layers: list[bytes]) -> None:
    daemon.docker("load", input=docker_archive(layers, [name]), check=True)


def _layer(text: bytes) -> bytes:
    """Not to be compressed away, and big enough to be asked for."""
    return tar_of([member(f"file-{text.decode()}", random.Random(text).randbytes(300_000))])


def test_an_image_goes_from_daemon_to_daemon_without_what_is_there(
    fleet: tuple[Daemon, Daemon, dict[str, str]],
) -> None:
    daemon, other, variables = fleet
    _image(daemon, "sent.test/app:1", [_layer(b"base"), _layer(b"one")])
    done = corral(daemon, "push", "sent.test/app:1", "far", **variables)
    assert done.returncode == 0, done.stderr
    assert "Loaded image: sent.test/app:1\n" in done.stdout
    assert re.search(r"^sent 2 of 2 layers, 6\d\dkB of 6\d\dkB$", done.stdout, re.MULTILINE), done.stdout
    _image(daemon, "sent.test/app:2", [_layer(b"base"), _layer(b"two")])
    done = corral(daemon, "image", "push", "sent.test/app:2", other.host, **variables)
    assert done.stdout.count(": Layer already exists\n") == 1 and done.stdout.count(": Sent\n") == 1, done.stdout
    assert re.search(r"^sent 1 of 2 layers, 3\d\dkB of 6\d\dkB$", done.stdout, re.MULTILINE), done.stdout
    for tag in ("1", "2"):
        name = f"sent.test/app:{tag}"
        assert other.inspect_image(name)["Id"] == daemon.inspect_image(name)["Id"]
    done = corral(daemon, "push", "-q", "sent.test/app:2", "far", **variables)
    assert done.stdout == "sent.test/app:2\n"
    made = other.output("create", "sent.test/app:2", "x")
    assert other.docker("cp", f"{made}:/file-base", "-").returncode == 0
    other.output("rm", made)
    daemon.output("rmi", "sent.test/app:1", "sent.test/app:2")


def test_a_daemon_that_is_no_corrald_is_not_asked_what_it_has(daemon: Daemon) -> None:
    with recorder() as other:
        done = corral(daemon, "push", IMAGE, other.host)
    asked = [(method, path) for method, path, _ in other.requests]
    assert asked == [("POST", "/v1.50/images/load?quiet=1")]
    assert (done.returncode, done.stderr) == (1, "Error response from daemon: recorded\n")


def test_what_cannot_be_sent(fleet: tuple[Daemon, Daemon, dict[str, str]]) -> None:
    daemon, _, variables = fleet
    for words, text in (
        (("nosuch:1", "far"), "No such image: nosuch:1"),
        ((IMAGE, "nosuch"), 'context "nosuch": context not found'),
        ((IMAGE, "unix:///nosuch"), "Cannot connect to the Docker daemon at unix:///nosuch"),
        (("-a", "repository", "far"), "--all-tags is for registries"),
    ):
        done = corral(daemon, "push", *words, **variables)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert text in done.stderr.replace("reference does not exist", "No such image: nosuch:1"), done.stderr


def test_blobs_that_are_missing(daemon: Daemon) -> None:
    nothing = "sha256:" + "0" * 64
    here = daemon.inspect_image(IMAGE)["Id"]
    reply = daemon.get(f"/images/missing?digest={here}&digest={nothing}")
    assert (reply.status, reply.json()) == (200, {"Missing": [nothing]})
    assert daemon.get("/images/missing?digest=sha256:../../../etc/passwd").status == 400
