"""The daemon's end is not the containers': kill -9, restarts, and the machine's reboot."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon, Footprint, alive, check_nothing_left
from tests.support.netns import fetch
from tests.support.wait import until


def running_containers(daemon: Daemon) -> int:
    return int(daemon.get("/info").json()["ContainersRunning"])


def test_kill_9_leaves_containers_running_and_logged(own_daemon: Daemon) -> None:
    script = "i=0; while [ ! -e /tmp/go ]; do usleep 10000; done; echo after; exit 11"
    container = own_daemon.output("run", "-d", "--name", "survivor", IMAGE, "sh", "-c", f"echo before; {script}")
    pid = own_daemon.state(container)["Pid"]
    own_daemon.end(signal.SIGKILL)
    assert os.path.exists(f"/proc/{pid}")
    own_daemon.launch()
    assert own_daemon.state(container)["Pid"] == pid
    assert own_daemon.state(container)["Running"] is True
    follower = own_daemon.popen("logs", "-f", "survivor")
    waiting = own_daemon.popen("wait", "survivor")
    assert own_daemon.output("exec", "survivor", "echo", "hello") == "hello"
    assert own_daemon.output("top", "survivor")
    own_daemon.docker("exec", "survivor", "touch", "/tmp/go")  # may end with the container
    assert follower.communicate(timeout=20)[0] == b"before\nafter\n"
    assert waiting.communicate(timeout=20)[0] == b"11\n"
    assert own_daemon.state(container)["ExitCode"] == 11
    own_daemon.output("rm", "survivor")


def test_exit_while_no_daemon_runs(own_daemon: Daemon) -> None:
    script = "while [ ! -e /data/go ]; do usleep 10000; done; echo last words; exit 23"
    shared = Path(own_daemon.folder, "shared")
    shared.mkdir()
    own_daemon.output("run", "-d", "--name", "leaver", "-v", f"{shared}:/data", IMAGE, "sh", "-c", script)
    own_daemon.output("run", "-d", "--rm", "--name", "vanishes", "-v", f"{shared}:/data", IMAGE, "sh", "-c", script)
    pids = [own_daemon.state(name)["Pid"] for name in ("leaver", "vanishes")]
    own_daemon.end(signal.SIGKILL)
    (shared / "go").touch()
    until(lambda: not any(alive(pid) for pid in pids))
    own_daemon.launch()
    assert own_daemon.output("wait", "leaver") == "23"
    assert own_daemon.output("logs", "leaver") == "last words"
    assert own_daemon.state("leaver")["Status"] == "exited"
    until(lambda: own_daemon.get("/containers/vanishes/json").status == 404)


def test_interactive_container_can_be_attached_again(own_daemon: Daemon) -> None:
    own_daemon.output("run", "-di", "--name", "asks", IMAGE, "sh", "-c", "read x; echo got $x; exit 3")
    own_daemon.restart()
    done = own_daemon.docker("attach", "asks", input="word\n")
    assert (done.stdout, done.returncode) == ("got word\n", 3)


def test_network_survives(own_daemon: Daemon) -> None:
    own_daemon.output("run", "-d", "--name", "web", "-p", "18099:80", IMAGE, "httpd", "-f", "-h", "/etc")
    address = own_daemon.inspect("web")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    own_daemon.restart()
    found = own_daemon.inspect("web")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert found == address
    assert "root:" in fetch(own_daemon.space, "127.0.0.1", 18099, "/passwd")
    other = own_daemon.output("run", "-d", IMAGE, "sleep", "60")
    assert own_daemon.inspect(other)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] != address
    refused = own_daemon.docker("run", "--rm", "-p", "18099:80", IMAGE, "true")
    assert refused.returncode == 125
    own_daemon.output("rm", "-f", "web")
    own_daemon.output("run", "--rm", "-p", "18099:80", IMAGE, "true")


def test_paused_and_graceful_restart(own_daemon: Daemon) -> None:
    own_daemon.output("run", "-d", "--name", "frozen", IMAGE, "sleep", "60")
    own_daemon.output("pause", "frozen")
    own_daemon.restart(signal.SIGTERM)
    assert own_daemon.state("frozen")["Status"] == "paused"
    own_daemon.output("unpause", "frozen")
    own_daemon.output("stop", "-t", "0", "frozen")


def test_nothing_leaks_over_a_restart(own_daemon: Daemon) -> None:
    own_daemon.output("run", "--rm", "-p", "127.0.0.1::1", IMAGE, "true")
    until(lambda: not own_daemon.cgroups() and len(own_daemon.links()) == 1)
    before = Footprint.of(own_daemon)
    names = [own_daemon.start("sleep", "60", HostConfig={"PublishAllPorts": True}) for _ in range(3)]
    own_daemon.end(signal.SIGKILL)
    own_daemon.launch()
    assert running_containers(own_daemon) == 3
    own_daemon.output("rm", "-f", *names)
    own_daemon.output("run", "--rm", "-p", "127.0.0.1::1", IMAGE, "true")
    check_nothing_left(own_daemon, before)


def test_restart_policies_of_containers_that_go_on(own_daemon: Daemon) -> None:
    own_daemon.output("run", "-d", "--name", "always", "--restart", "always", IMAGE, "sleep", "60")
    own_daemon.restart()
    pid = own_daemon.state("always")["Pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: own_daemon.state("always")["Pid"] not in (0, pid))
    assert own_daemon.inspect("always")["RestartCount"] == 1
    own_daemon.output("stop", "-t", "0", "always")
    own_daemon.restart()
    assert own_daemon.state("always")["Running"] is True  # always means always, unlike unless-stopped


def reboot(daemon: Daemon) -> None:
    """What a power cut does to a daemon and its containers."""
    daemon.end(signal.SIGKILL)
    for pid in daemon.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not daemon.processes())
    for path in sorted(daemon.cgroups(), key=len, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(path)
    shutil.rmtree(daemon.exec_root)
    for link in daemon.links():
        subprocess.run(["nsenter", "-t", str(daemon.space.pid), "-n", "ip", "link", "del", link], capture_output=True)
    daemon.space.sh("nft flush ruleset")
    daemon.launch()


def test_reboot(own_daemon: Daemon) -> None:
    for name, policy in (("no", "no"), ("always", "always"), ("unless", "unless-stopped"), ("failure", "on-failure"),
                         ("stopped", "unless-stopped")):  # fmt: skip
        own_daemon.output("run", "-d", "--name", name, "--restart", policy, IMAGE, "sleep", "600")
    own_daemon.output("run", "--name", "done", IMAGE, "sh", "-c", "exit 0")
    own_daemon.output("create", "--name", "fresh", "--restart", "always", IMAGE, "sleep", "600")
    own_daemon.output("run", "-d", "--rm", "--name", "temporary", IMAGE, "sleep", "600")
    own_daemon.output("stop", "-t", "0", "stopped")
    own_daemon.output("exec", "always", "sh", "-c", "echo kept > /file")
    reboot(own_daemon)
    until(lambda: own_daemon.state("always")["Running"])
    states = {
        name: own_daemon.state(name)["Status"]
        for name in ("no", "always", "unless", "failure", "stopped", "done", "fresh")
    }
    assert states == {
        "no": "exited", "always": "running", "unless": "running", "failure": "running", "stopped": "exited",
        "done": "exited", "fresh": "created",
    }  # fmt: skip
    assert own_daemon.state("no")["ExitCode"] == 255
    assert own_daemon.state("no")["FinishedAt"] != "0001-01-01T00:00:00Z"
    assert own_daemon.state("done")["ExitCode"] == 0
    assert own_daemon.output("exec", "always", "cat", "/file") == "kept"
    assert own_daemon.get("/containers/temporary/json").status == 404
    own_daemon.output("start", "no")
    assert own_daemon.state("no")["Running"] is True


def test_shim_that_dies_takes_its_container_along(own_daemon: Daemon) -> None:
    own_daemon.output("run", "-d", "--name", "orphan", IMAGE, "sleep", "60")
    pid = own_daemon.state("orphan")["Pid"]
    shims = [
        process
        for process in own_daemon.processes()
        if Path(f"/proc/{process}/comm").read_text().strip() == "corral-shim"
    ]
    for shim in shims:
        os.kill(shim, signal.SIGKILL)
    until(lambda: own_daemon.state("orphan")["Status"] == "exited")
    assert not alive(pid)
    assert own_daemon.state("orphan")["ExitCode"] == 137
    until(lambda: not own_daemon.cgroups())
    own_daemon.output("start", "orphan")
    own_daemon.output("rm", "-f", "orphan")


def test_launcher_that_dies_is_started_again(own_daemon: Daemon) -> None:
    launchers = [
        process
        for process in own_daemon.processes()
        if Path(f"/proc/{process}/comm").read_text().strip() == "corral-launcher"
    ]
    for launcher in launchers:
        os.kill(launcher, signal.SIGKILL)
    assert own_daemon.output("run", "--rm", IMAGE, "echo", "still") == "still"


@pytest.mark.parametrize("moment", range(6))
def test_kill_9_in_the_middle_of_starts(own_daemon: Daemon, moment: int) -> None:
    """Wherever the daemon dies, the next one has no half-started containers and can use every name."""
    starts = [own_daemon.popen("run", "-d", "--name", f"c{n}", IMAGE, "sleep", "600") for n in range(3)]
    until(lambda: len(own_daemon.containers()) >= 1 + moment % 3)
    if moment >= 3:
        until(lambda: running_containers(own_daemon) >= 1)
    own_daemon.end(signal.SIGKILL)
    for process in starts:
        process.communicate(timeout=20)
    own_daemon.launch()
    for container in own_daemon.containers():
        state = own_daemon.state(container)
        assert state["Status"] in ("created", "running", "exited")
        assert state["Running"] == bool(state["Pid"])
        if state["Running"]:
            assert os.path.exists(f"/proc/{state['Pid']}")
    own_daemon.remove_all()
    until(lambda: not own_daemon.cgroups() and not own_daemon.exec_files())
    for n in range(3):
        own_daemon.output("run", "--rm", "--name", f"c{n}", IMAGE, "true")


def test_second_daemon_on_the_same_folders_is_refused(own_daemon: Daemon) -> None:
    done = subprocess.run(
        own_daemon.command(), capture_output=True, text=True, timeout=20, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )  # fmt: skip
    assert done.returncode != 0
    assert own_daemon.get("/_ping").status == 200


def test_two_daemons_side_by_side(new_daemon: Callable[..., Daemon]) -> None:
    first, second = new_daemon(), new_daemon()
    first.output("run", "-d", "--name", "same", IMAGE, "sleep", "60")
    second.output("run", "-d", "--name", "same", IMAGE, "sleep", "60")
    assert first.inspect("same")["Id"] != second.inspect("same")["Id"]
    first.output("rm", "-f", "same")
    assert second.state("same")["Running"] is True


def test_events_outlive_the_daemon(own_daemon: Daemon) -> None:
    container = own_daemon.create("true")
    own_daemon.restart()
    own_daemon.delete(f"/containers/{container}")
    now = str(time.time())
    text = own_daemon.get("/events", since="0", until=now, filters='{"type": ["container"]}').body
    found = [json.loads(line) for line in text.splitlines()]
    assert [(event["Action"], event["id"]) for event in found] == [("create", container), ("destroy", container)]


def test_without_live_restore_containers_end_with_the_daemon(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon("--live-restore=false", "--shutdown-timeout", "2", "--log-format", "json")
    assert not daemon.get("/info").json()["LiveRestoreEnabled"]
    polite = daemon.output(
        "run", "-d", "--restart", "always", IMAGE, "sh", "-c", "trap 'exit 5' TERM; sleep 100 & wait"
    )
    stubborn = daemon.output("run", "-d", IMAGE, "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    asleep = daemon.output("run", "-d", IMAGE, "sleep", "100")
    daemon.output("pause", asleep)
    until(lambda: "sleep" in daemon.output("top", polite))
    pids = [daemon.state(container)["Pid"] for container in (polite, stubborn, asleep)]
    daemon.end()
    assert not any(alive(pid) for pid in pids)
    daemon.launch()
    until(lambda: daemon.state(polite)["Running"])
    assert (daemon.state(stubborn)["Status"], daemon.state(stubborn)["ExitCode"]) == ("exited", 137)
    assert daemon.state(asleep)["Status"] == "exited"
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    assert "stopping, and all containers" in [line["msg"] for line in lines]
    daemon.remove_all()
