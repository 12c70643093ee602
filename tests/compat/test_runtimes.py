"""Other OCI runtimes behind the same shim: `--runtime crun` and `runc`."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon, running_daemon
from tests.support.wait import until

RUNTIMES = [
    pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed"))
    for name in ("crun", "runc")
]


# crun refuses a machine that has controllers in a version 2 hierarchy beside those of version 1; its daemon sees none.
WITHOUT_UNIFIED = (
    "unshare", "--mount", "sh", "-c",
    'if [ -d /sys/fs/cgroup/unified ]; then mount -t tmpfs none /sys/fs/cgroup/unified; fi; exec "$@"', "sh",
)  # fmt: skip


@pytest.fixture(scope="module")
def own_space() -> Iterator[Daemon]:
    with running_daemon(wrapper=WITHOUT_UNIFIED) as started:
        yield started


@pytest.fixture
def daemon(own_space: Daemon) -> Iterator[Daemon]:
    yield own_space
    own_space.remove_all()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_run(daemon: Daemon, runtime: str) -> None:
    done = daemon.docker("run", "--rm", "--runtime", runtime, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)
    assert daemon.docker("run", "-i", "--rm", "--runtime", runtime, IMAGE, "cat", input="piped").stdout == "piped"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_command_that_does_not_exist(daemon: Daemon, runtime: str) -> None:
    done = daemon.docker("run", "--rm", "--runtime", runtime, IMAGE, "no-such-program")
    # The CLI knows a missing program by runc's wording only.
    assert done.returncode == (127 if runtime == "runc" else 125)
    assert "no-such-program" in done.stderr and "not found in $PATH" in done.stderr
    assert daemon.containers() == set()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_life(daemon: Daemon, runtime: str) -> None:
    daemon.output(
        "run", "-d", "--name", "other", "--runtime", runtime, "-m", "64m", "-p", "8081:80", IMAGE, "sleep", "60"
    )
    assert daemon.output("exec", "other", "echo", "hello") == "hello"
    assert daemon.docker("exec", "other", "sh", "-c", "exit 4").returncode == 4
    assert "sleep 60" in daemon.output("top", "other")
    daemon.output("pause", "other")
    assert daemon.state("other")["Status"] == "paused"
    daemon.output("unpause", "other")
    daemon.output("update", "-m", "96m", "--memory-swap", "200m", "other")
    assert daemon.output("stats", "--no-stream", "--format", "{{.PIDs}}", "other") == "1"
    daemon.output("stop", "-t", "0", "other")
    assert daemon.state("other")["ExitCode"] == 137
    daemon.output("start", "other")
    daemon.output("rm", "-f", "other")
    until(lambda: not daemon.cgroups() and not daemon.exec_files())


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_terminal(daemon: Daemon, runtime: str) -> None:
    container = daemon.output("run", "-dt", "--runtime", runtime, IMAGE, "sh", "-c", "tty; sleep 60")
    until(lambda: "/dev/pts/0" in daemon.output("logs", container))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_survives_kill_9_of_the_daemon(daemon: Daemon, runtime: str) -> None:
    script = "while [ ! -e /tmp/go ]; do usleep 10000; done; echo after; exit 11"
    daemon.output("run", "-d", "--name", "survivor", "--runtime", runtime, IMAGE, "sh", "-c", script)
    daemon.restart(signal.SIGKILL)
    told = daemon.docker("exec", "survivor", "touch", "/tmp/go")  # the container may end before touch has
    assert told.returncode in (0, 137), told.stderr
    assert daemon.output("wait", "survivor") == "11"
    assert daemon.output("logs", "survivor") == "after"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_mounts_that_other_runtimes_do_not_know(daemon: Daemon, runtime: str, tmp_path: Path) -> None:
    os.chown(tmp_path, 1000, 1000)
    daemon.output("run", "--rm", "-v", "parts:/v", IMAGE, "sh", "-c", "mkdir /v/part && echo inside > /v/part/file")
    ranges = [{"ContainerID": 0, "HostID": 1000, "Size": 1}]
    mounts = [
        {"Type": "volume", "Source": "parts", "Target": "/part", "VolumeOptions": {"Subpath": "part"}},
        {"Type": "image", "Source": IMAGE, "Target": "/other", "ImageOptions": {"Subpath": "etc"}},
        {
            "Type": "bind", "Source": str(tmp_path), "Target": "/mapped",
            "BindOptions": {"IDMapping": {"UIDMappings": ranges, "GIDMappings": ranges}},
        },
    ]  # fmt: skip
    script = "cat /part/file; ls /other; touch /other/x 2>/dev/null || echo ro; stat -c %u:%g /mapped"
    container = daemon.create("sh", "-c", script, Tty=True, HostConfig={"Mounts": mounts, "Runtime": runtime})
    said = daemon.output("start", "-a", container).split()
    assert said == ["inside", "group", "passwd", "ro", "0:0"]
    daemon.output("rm", container)
    daemon.output("volume", "rm", "parts")
    assert daemon.mounts() == []


def test_unknown_runtime(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "--runtime", "nothing", IMAGE, "true")
    assert done.returncode == 125
    assert "unknown or invalid runtime name: nothing" in done.stderr
