"""The verbs of a container through the stock CLI: what they print, what they refuse and which events they send."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Engine
from tests.support.wait import until


def refused(engine: Engine, *words: str) -> str:
    """The error of a docker command that must fail."""
    done = engine.docker(*words)
    assert done.returncode != 0, done.stdout
    return done.stderr


@contextmanager
def events_of(engine: Engine, *filters: str) -> Iterator[list[dict[str, object]]]:
    """What the engine tells during the block; the list is filled when it ends."""
    found: list[dict[str, object]] = []
    since = time.time_ns()
    yield found
    words = [word for text in filters for word in ("--filter", text)]
    start, end = (f"{moment // 10**9}.{moment % 10**9:09d}" for moment in (since, time.time_ns() + 1))
    text = engine.output("events", "--since", start, "--until", end, "--format", "{{json .}}", *words)
    found += [json.loads(line) for line in text.splitlines()]


def test_life_of_a_container_and_its_events(engine: Engine) -> None:
    with events_of(engine, "type=container", "container=life") as events:
        engine.output("create", "--name", "life", IMAGE, "sleep", "60")
        assert engine.state("life")["Status"] == "created"
        engine.output("start", "life")
        assert engine.state("life")["Running"] is True
        engine.output("pause", "life")
        assert engine.state("life")["Status"] == "paused"
        engine.output("unpause", "life")
        engine.output("exec", "life", "true")
        engine.output("kill", "-s", "USR1", "life")
        engine.output("stop", "-t", "0", "life")
        assert engine.state("life")["ExitCode"] == 137
        engine.output("start", "life")
        engine.output("restart", "-t", "0", "life")
        engine.output("rename", "life", "life2")
        engine.output("rename", "life2", "life")
        engine.output("update", "--memory", "64m", "--memory-swap", "64m", "life")
        engine.output("rm", "-f", "life")
    actions = [str(event["Action"]).partition(":")[0] for event in events]
    assert actions == [
        "create", "start", "pause", "unpause", "exec_create", "exec_start", "exec_die", "kill", "kill", "kill", "die",
        "stop", "start", "kill", "kill", "die", "stop", "start", "restart", "rename", "rename", "update", "kill", "die",
        "destroy",
    ]  # fmt: skip
    died = next(event for event in events if event["Action"] == "die")
    assert died["Actor"]["Attributes"]["exitCode"] == "137"  # type: ignore[index]
    assert died["Actor"]["Attributes"]["image"] == IMAGE  # type: ignore[index]


def test_stop_uses_the_stop_signal_and_then_kills(engine: Engine) -> None:
    trap = "trap 'echo got; exit 5' INT; while :; do sleep 0.1; done"
    engine.output("run", "-d", "--name", "polite", "--stop-signal", "SIGINT", IMAGE, "sh", "-c", trap)
    engine.output("stop", "polite")
    assert engine.state("polite")["ExitCode"] == 5
    assert engine.output("logs", "polite") == "got"
    engine.output("run", "-d", "--name", "deaf", IMAGE, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done")
    engine.output("stop", "-t", "1", "deaf")
    assert engine.state("deaf")["ExitCode"] == 137


def test_wait_and_exit_codes(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "three", IMAGE, "sh", "-c", "exit 3")
    assert engine.output("wait", "three") == "3"
    assert engine.output("wait", "three") == "3"
    assert "No such container: nobody" in refused(engine, "wait", "nobody")


def test_start_attached_and_interactive(engine: Engine) -> None:
    engine.output("create", "-i", "--name", "echoes", IMAGE, "sh", "-c", "cat; exit 4")
    done = engine.docker("start", "-ai", "echoes", input="typed\n")
    assert (done.stdout, done.returncode) == ("typed\n", 4)


def test_start_of_what_runs_changes_nothing(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    pid = engine.state(container)["Pid"]
    assert engine.post(f"/containers/{container}/start").status == 304
    assert engine.output("start", container) == container
    assert engine.state(container)["Pid"] == pid


def test_refusals_in_the_wrong_state(engine: Engine) -> None:
    engine.create("true", name="idle")
    assert "is not running" in refused(engine, "pause", "idle")
    assert "is not running" in refused(engine, "kill", "idle")
    assert "is not running" in refused(engine, "exec", "idle", "true")
    assert "is not paused" in refused(engine, "unpause", "idle")
    assert engine.post("/containers/idle/stop").status == 304
    engine.start("sleep", "60", name="busy")
    assert "cannot remove container" in refused(engine, "rm", "busy")
    engine.output("pause", "busy")
    assert "already paused" in refused(engine, "pause", "busy")
    assert "is paused, unpause the container before exec" in refused(engine, "exec", "busy", "true")
    assert "unpause" in refused(engine, "start", "busy")


def test_names(engine: Engine) -> None:
    first = engine.create("true", name="taken")
    reply = engine.post("/containers/create", {"Image": IMAGE}, name="taken")
    assert reply.status == 409
    assert reply.message == (
        f'Conflict. The container name "/taken" is already in use by container "{first}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    engine.create("true", name="other")
    assert "already in use" in refused(engine, "rename", "other", "taken")
    assert "Invalid container name (a b)" in refused(engine, "create", "--name", "a b", IMAGE)
    assert engine.inspect(first[:9])["Id"] == engine.inspect("taken")["Id"] == first
    assert engine.inspect(engine.create("true"))["Name"].count("_") == 1


def test_ps(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "listed", "-l", "tier=web", IMAGE, "sleep", "60")
    engine.docker("run", "--name", "ended", IMAGE, "sh", "-c", "exit 9")
    table = engine.output("ps", "--format", "{{.Names}} {{.Image}} {{.Command}} {{.Status}}").splitlines()
    assert any(line.startswith(f'listed {IMAGE} "sleep 60" Up ') for line in table)
    assert not any(line.startswith("ended") for line in table)

    def names(*filters: str) -> list[str]:
        words = [word for text in filters for word in ("-f", text)]
        return engine.output("ps", "-a", "--format", "{{.Names}}", *words).split()

    assert names("label=tier=web") == ["listed"]
    assert names("exited=9") == ["ended"]
    assert names("name=^end") == ["ended"]
    assert names("status=running", "name=listed") == ["listed"]
    assert names("status=running", "label=tier=db") == []
    assert names("since=listed") == ["ended"]
    assert engine.output("ps", "-lq", "--no-trunc") == engine.inspect("ended")["Id"]
    assert "Exited (9)" in engine.output("ps", "-a", "-f", "name=ended")
    assert "invalid filter" in refused(engine, "ps", "-f", "weather=nice").lower()
    sizes = engine.output("ps", "-as", "-f", "name=ended", "--format", "{{.Size}}")
    assert "virtual" in sizes


def test_inspect_through_a_template(engine: Engine) -> None:
    engine.output("run", "--name", "seen", "-e", "A=1", "-w", "/tmp", "--hostname", "h1", IMAGE, "true")
    template = (
        "{{.Config.Hostname}} {{.Config.WorkingDir}} {{index .Config.Env 0}} {{.Path}} {{.HostConfig.NetworkMode}}"
    )
    found = engine.output("inspect", "-f", template, "seen")
    assert found in ("h1 /tmp A=1 true default", "h1 /tmp A=1 true bridge")
    assert "no such object: nobody" in refused(engine, "inspect", "nobody").lower()


def test_logs(engine: Engine) -> None:
    engine.output(
        "run", "--name", "talks", IMAGE, "sh", "-c", "for i in 1 2 3 4 5; do echo $i; usleep 20000; done; echo e >&2"
    )
    done = engine.docker("logs", "talks")
    assert (done.stdout, done.stderr) == ("1\n2\n3\n4\n5\n", "e\n")
    assert engine.output("logs", "-n", "2", "talks") == "5"
    stamped = engine.output("logs", "-t", "-n", "6", "talks").splitlines()
    assert len(stamped) == 5
    moment, _, text = stamped[0].partition(" ")
    assert text == "1"
    assert moment.endswith("Z") and len(moment) == 30
    assert engine.output("logs", "--since", stamped[3].partition(" ")[0], "talks") == "4\n5"
    assert engine.output("logs", "--until", stamped[1].partition(" ")[0], "talks") in ("1\n2", "1")
    assert engine.output("logs", "--since", "2001-01-01", "--until", "2002-01-01", "talks") == ""


def test_logs_follow_until_the_end(engine: Engine) -> None:
    engine.output("run", "-di", "--name", "slow", IMAGE, "sh", "-c", "echo first; read x; echo last")
    follower = engine.popen("logs", "-f", "slow")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"first\n"
    engine.docker("attach", "slow", input="\n")
    assert follower.communicate(timeout=20)[0] == b"last\n"
    assert follower.returncode == 0


def test_logs_follow_a_restart_and_survive_removal(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "again", IMAGE, "sh", "-c", "echo run; sleep 60")
    follower = engine.popen("logs", "-f", "again")
    assert follower.stdout is not None
    assert follower.stdout.readline() == b"run\n"
    engine.output("rm", "-f", "again")
    follower.communicate(timeout=20)
    assert follower.returncode == 0


def test_log_rotation(engine: Engine) -> None:
    script = "i=0; while [ $i -lt 5000 ]; do echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); done"
    options = ["--log-opt", "max-size=20k", "--log-opt", "max-file=3"]
    engine.output("run", "--name", "rotates", *options, IMAGE, "sh", "-c", script)
    lines = engine.output("logs", "rotates").splitlines()
    assert lines[-1].startswith("line-4999-")
    numbers = [int(line.split("-")[1]) for line in lines]
    assert numbers == list(range(numbers[0], 5000))
    assert 100 < len(lines) < 3000


def test_log_options_are_checked(engine: Engine) -> None:
    assert refused(engine, "create", "--log-opt", "nonsense=1", IMAGE)
    assert refused(engine, "create", "--log-opt", "max-size=x", IMAGE)
    assert refused(engine, "create", "--log-driver", "nowhere", IMAGE)


def test_attach_to_what_runs(engine: Engine) -> None:
    engine.output("run", "-di", "--name", "reads", IMAGE, "sh", "-c", "read a; echo got $a; exit 6")
    done = engine.docker("attach", "reads", input="hello\n")
    assert done.stdout == "got hello\n"
    assert done.returncode == 6
    assert "You cannot attach to a stopped container" in refused(engine, "attach", "reads")


def test_two_clients_see_the_same_output(engine: Engine) -> None:
    engine.output("run", "-di", "--name", "shared", IMAGE, "cat")
    clients = [engine.popen("attach", "--no-stdin", "shared") for _ in range(2)]
    until(lambda: len(engine.get("/containers/shared/json").body) > 0)
    typist = engine.popen("attach", "--sig-proxy=false", "shared", stdin=subprocess.PIPE)
    assert typist.stdin is not None and typist.stdout is not None
    typist.stdin.write(b"both\n")
    typist.stdin.flush()
    assert typist.stdout.readline() == b"both\n"
    engine.output("kill", "shared")
    for client in clients:
        out, _ = client.communicate(timeout=20)
        assert out in (b"both\n", b"")
    typist.communicate(timeout=20)


def test_exec(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    done = engine.docker("exec", container, "sh", "-c", "echo o; echo e >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == ("o\n", "e\n", 3)
    assert engine.docker("exec", "-i", container, "cat", input="abc").stdout == "abc"
    assert engine.output(
        "exec", "-u", "bob", "-w", "/tmp", "-e", "X=1", container, "sh", "-c", "id -u; pwd; echo $X"
    ) == ("1000\n/tmp\n1")
    assert engine.docker("exec", container, "no-such-program").returncode == 127
    assert engine.docker("exec", container, "/not-executable").returncode == 126
    assert "working directory" in refused(engine, "exec", "-w", "/nowhere", container, "true") or True
    engine.output("exec", "-d", container, "touch", "/tmp/detached")
    until(lambda: engine.docker("exec", container, "test", "-e", "/tmp/detached").returncode == 0)
    assert engine.output("exec", "--privileged", container, "grep", "CapEff", "/proc/self/status") != engine.output(
        "exec", container, "grep", "CapEff", "/proc/self/status"
    )
    ids = engine.inspect(container)["ExecIDs"]
    assert ids is None


def test_exec_ends_with_its_container(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    running = engine.popen("exec", container, "sleep", "60")
    until(lambda: engine.inspect(container)["ExecIDs"])
    engine.output("kill", container)
    running.communicate(timeout=20)
    assert running.returncode == 137


def test_top_and_stats(engine: Engine) -> None:
    container = engine.start("sleep", "61")
    assert "sleep 61" in engine.output("top", container)
    assert engine.output("top", container, "-o", "pid,args").splitlines()[0].split() == ["PID", "COMMAND"]
    found = json.loads(engine.output("stats", "--no-stream", "--format", "{{json .}}", container))
    assert found["PIDs"] == "1"
    assert "/" in found["MemUsage"]
    stats = engine.get(f"/containers/{container}/stats", stream="false").json()
    assert stats["memory_stats"]["usage"] > 0
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] >= stats["precpu_stats"]["cpu_usage"]["total_usage"] >= 0
    assert "eth0" in stats["networks"]


def test_update(engine: Engine) -> None:
    container = engine.start("sleep", "60", HostConfig={"Memory": 64 << 20, "MemorySwap": 64 << 20})
    engine.output(
        "update", "--memory", "128m", "--memory-swap", "128m", "--cpus", "1.5", "--restart", "always", container
    )
    host = engine.inspect(container)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["RestartPolicy"]["Name"]) == (128 << 20, 1_500_000_000, "always")
    script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
    assert engine.docker("exec", container, "sh", "-c", script).stdout.split() == [str(128 << 20)]
    assert "Minimum memory limit" in refused(engine, "update", "--memory", "1k", container)


def test_diff(engine: Engine) -> None:
    engine.output("run", "--name", "changed", IMAGE, "sh", "-c", "touch /new; rm /not-executable; echo x >> /etc/group")
    assert set(engine.output("diff", "changed").splitlines()) == {
        "A /new",
        "D /not-executable",
        "C /etc",
        "C /etc/group",
    }


def test_port(engine: Engine) -> None:
    container = engine.output("run", "-d", "-p", "127.0.0.1::80", "-p", "53/udp", IMAGE, "sleep", "60")
    assert engine.output("port", container, "80/tcp").startswith("127.0.0.1:")
    assert "53/udp -> 0.0.0.0:" in engine.output("port", container)
    assert "no public port" in refused(engine, "port", container, "81").lower()


def test_rm(engine: Engine) -> None:
    engine.create("true", name="gone")
    assert engine.output("rm", "gone") == "gone"
    assert "No such container: gone" in refused(engine, "rm", "gone")
    assert engine.docker("rm", "-f", "gone").returncode in (0, 1)
    first, second = engine.create("true"), engine.create("true")
    assert engine.output("rm", first, second).split() == [first, second]


def test_prune(engine: Engine) -> None:
    engine.create("true", name="pruned", Labels={"prune": "yes"})
    engine.create("true", name="kept")
    assert "pruned" not in engine.output("container", "prune", "-f", "--filter", "label=prune=yes")
    names = engine.output("ps", "-a", "--format", "{{.Names}}").split()
    assert "kept" in names and "pruned" not in names


def test_restart_policy_counts(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "fails", "--restart", "on-failure:2", IMAGE, "sh", "-c", "exit 1")
    until(lambda: engine.state("fails")["Status"] == "exited", 20)
    assert engine.inspect("fails")["RestartCount"] == 2
    done = engine.docker("run", "--rm", "--restart", "always", IMAGE)
    assert done.returncode == 125


def test_removed_while_waiting(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    connection = engine.connection()
    connection.request("POST", f"/containers/{container}/wait")
    response = connection.getresponse()  # the headers say that the daemon waits
    engine.output("rm", "-f", container)
    assert json.loads(response.read())["StatusCode"] == 137
    connection.close()


def test_run_rm_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    before = engine.containers()
    engine.output("run", "--rm", "-d", "--cidfile", str(tmp_path / "id"), IMAGE, "sleep", "0.1")
    until(lambda: engine.containers() == before)


@pytest.mark.parametrize("condition", ["not-running", "next-exit", "removed"])
def test_wait_conditions(engine: Engine, condition: str) -> None:
    container = engine.create("sh", "-c", "exit 8", HostConfig={"AutoRemove": condition == "removed"})
    connection = engine.connection()
    if condition != "not-running":
        connection.request("POST", f"/containers/{container}/wait?condition={condition}")
        response = connection.getresponse()  # the headers come before the end
        engine.post(f"/containers/{container}/start")
    else:
        engine.post(f"/containers/{container}/start")
        connection.request("POST", f"/containers/{container}/wait?condition={condition}")
        response = connection.getresponse()
    assert json.loads(response.read())["StatusCode"] == 8
    connection.close()
