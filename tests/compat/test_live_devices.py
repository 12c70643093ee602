"""`corral device`: devices that come and go while a container runs."""

from __future__ import annotations

import shutil
import signal

import pytest

from tests.compat.test_beyond_docker import corral, said
from tests.support.daemon import Daemon


def usable(daemon: Daemon, container: str, path: str) -> bool:
    return daemon.docker("exec", container, "sh", "-c", f": < {path}").returncode == 0


def test_a_device_comes_and_goes(daemon: Daemon) -> None:
    container = daemon.start("sleep", "1000")
    before = daemon.state(container)
    assert not usable(daemon, container, "/dev/fuse")
    said(daemon, "device", "add", container, "/dev/fuse", "/dev/fuse:/dev/other/name:r")
    assert usable(daemon, container, "/dev/fuse") and usable(daemon, container, "/dev/other/name")
    assert (
        daemon.output("exec", container, "stat", "-c", "%F %t:%T", "/dev/other/name") == "character special file a:e5"
    )
    assert usable(daemon, container, "/dev/null")  # what was allowed stays allowed
    shown = daemon.inspect(container)["HostConfig"]["Devices"]
    assert [one["PathInContainer"] for one in shown] == ["/dev/fuse", "/dev/other/name"]
    said(daemon, "device", "rm", container, "/dev/fuse")
    assert daemon.docker("exec", container, "test", "-e", "/dev/fuse").returncode == 1
    assert usable(daemon, container, "/dev/other/name")  # the other name gives the right still
    said(daemon, "device", "rm", container, "/dev/other/name")
    daemon.output("exec", container, "mknod", "/dev/again", "c", "10", "229")
    assert not usable(daemon, container, "/dev/again")  # the right has gone with the last name
    assert daemon.state(container) == before


def test_it_is_there_after_a_restart(own_daemon: Daemon) -> None:
    container = own_daemon.start("sleep", "1000")
    said(own_daemon, "device", "add", container, "/dev/fuse")
    own_daemon.restart(signal.SIGKILL)
    assert usable(own_daemon, container, "/dev/fuse")
    own_daemon.output("restart", "-t0", container)
    assert usable(own_daemon, container, "/dev/fuse")
    own_daemon.output("stop", "-t0", container)
    said(own_daemon, "device", "rm", container, "/dev/fuse")
    own_daemon.output("start", container)
    assert not usable(own_daemon, container, "/dev/fuse")


def test_one_given_at_create_goes(daemon: Daemon) -> None:
    container = daemon.output("run", "-d", "--device", "/dev/fuse:/dev/f", "corral.test/busybox:1", "sleep", "1000")
    assert usable(daemon, container, "/dev/f")
    since = daemon.get("/info").json()["SystemTime"]
    said(daemon, "device", "rm", container, "/dev/f")
    assert not usable(daemon, container, "/dev/f")
    said(daemon, "device", "add", container, "/dev/fuse:/dev/f")
    now = daemon.get("/info").json()["SystemTime"]
    words = ("events", "--since", since, "--until", now, "--filter", f"container={container}")
    form = ("--format", "{{.Action}} {{.Actor.Attributes.device}}")
    lines = [line for line in daemon.output(*words, *form).splitlines() if line.startswith("device")]
    assert lines == ["device_rm /dev/f", "device_add /dev/f"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("add", "{c}", "/dev/absent"), "error gathering device information"),
        (("add", "{c}", "/etc/passwd"), "not a device node"),
        (("add", "{c}", "/dev/fuse:/dev/null"), "has something at /dev/null already"),
        (("add", "{c}", "/dev/fuse:relative"), "must be absolute"),
        (("add", "{c}", "/dev/fuse:/x:z"), "bad mode specified: z"),
        (("add", "{c}", "/dev"), "name one device in it"),
        (("add", "absent", "/dev/fuse"), "No such container: absent"),
        (("rm", "{c}", "/dev/null"), "has no device at /dev/null"),
    ],
)
def test_refusals(daemon: Daemon, words: tuple[str, ...], text: str) -> None:
    container = daemon.start("sleep", "1000")
    before = daemon.inspect(container)
    done = corral(daemon, "device", *(word.format(c=container) for word in words))
    assert done.returncode != 0
    assert text in done.stderr
    assert daemon.inspect(container) == before
    assert not usable(daemon, container, "/dev/fuse")


@pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed")
def test_not_with_another_runtime(daemon: Daemon) -> None:
    container = daemon.start("sleep", "1000", HostConfig={"Runtime": "runc"})
    done = corral(daemon, "device", "add", container, "/dev/fuse")
    assert done.returncode == 1 and "another OCI runtime has made the container" in done.stderr
    assert not daemon.inspect(container)["HostConfig"]["Devices"]
