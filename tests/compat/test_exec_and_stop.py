"""Execs, stops, restarts, statistics and health checks: every parameter, seen by what it does."""

from __future__ import annotations

import json

import pytest

from tests.compat.test_beyond_docker import corral
from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.wait import until


def made_exec(engine: Engine, container: str, **body: object) -> str:
    reply = engine.post(f"/containers/{container}/exec", {"Cmd": ["true"], **body})
    assert reply.status == 201, reply.body
    return str(reply.json()["Id"])


def test_an_exec_runs_once(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    ended, running = made_exec(engine, container), made_exec(engine, container, Cmd=["sleep", "60"])
    for one in (ended, running):
        assert engine.post(f"/exec/{one}/start", {"Detach": True}).status == 200
    until(lambda: not engine.get(f"/exec/{ended}/json").json()["Running"])
    for one, message in ((ended, "has already run"), (running, "is already running")):
        again = engine.post(f"/exec/{one}/start", {"Detach": True})
        assert again.status == 409
        assert message in again.message
    assert engine.post("/exec/nobody/start", {}).message == "No such exec instance: nobody"


def test_resize_of_an_exec(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    waiting = made_exec(engine, container, Tty=True, Cmd=["sleep", "60"])
    assert engine.post(f"/exec/{waiting}/resize", h="10", w="20").status == 409
    assert engine.post(f"/exec/{waiting}/start", {"Detach": True, "Tty": True}).status == 200
    assert engine.post(f"/exec/{waiting}/resize", h="10", w="20").status == 200
    for query in ({"h": "ten", "w": "20"}, {"h": "10"}, {}):
        assert engine.post(f"/exec/{waiting}/resize", **query).status == 400
    shown = engine.output("exec", container, "sh", "-c", "for t in /dev/pts/[0-9]*; do stty size < $t; done")
    assert "10 20" in shown


def test_exec_console_size(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    script = ["sh", "-c", "stty size > /tmp/size 2>&1"]
    for place in ("create", "start"):
        size = {"ConsoleSize": [11, 22] if place == "create" else [33, 44]}
        made = made_exec(engine, container, Tty=True, Cmd=script, **(size if place == "create" else {}))
        body = {"Detach": True, "Tty": True, **(size if place == "start" else {})}
        assert engine.post(f"/exec/{made}/start", body).status == 200
        until(lambda: not engine.get(f"/exec/{made}/json").json()["Running"])  # noqa: B023  used at once
        assert engine.output("exec", container, "cat", "/tmp/size") == ("11 22" if place == "create" else "33 44")


def test_execs_need_a_container_that_runs(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    ready = made_exec(engine, container)

    def refused(message: str) -> None:
        made = engine.post(f"/containers/{container}/exec", {"Cmd": ["true"]})
        assert made.status == 409
        assert message in made.message

    engine.output("pause", container)
    refused("is paused, unpause the container before exec")
    assert engine.post(f"/exec/{ready}/start", {"Detach": True}).status == 409
    engine.output("unpause", container)
    engine.output("kill", container)
    refused("is not running")
    assert engine.post(f"/exec/{ready}/start", {"Detach": True}).status in (404, 409)
    assert engine.post(f"/containers/{container}/exec", {"Cmd": []}).status in (400, 409)


def test_no_exec_between_two_runs(daemon: Daemon) -> None:
    container = daemon.output("run", "-d", "--restart", "always", IMAGE, "false")
    until(lambda: daemon.state(container)["Restarting"])
    refused = daemon.docker("exec", container, "true")
    assert refused.returncode != 0
    assert "is restarting" in refused.stderr or "is not running" in refused.stderr


def test_stop_without_mercy_and_without_end(engine: Engine) -> None:
    deaf = ["sh", "-c", "trap 'echo heard' TERM; trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"]
    first = engine.start(*deaf)
    assert engine.post(f"/containers/{first}/stop", t="0").status == 204
    assert engine.state(first)["ExitCode"] == 137
    second = engine.start(*deaf)
    until(lambda: "ready" in engine.output("logs", second))
    stopping = engine.popen("stop", "-t", "-1", second)
    until(lambda: "heard" in engine.output("logs", second))
    assert engine.state(second)["Running"]
    engine.output("kill", "-s", "USR1", second)
    stopping.communicate(timeout=20)
    assert engine.state(second)["ExitCode"] == 7


def test_signals_of_stop_and_restart(engine: Engine) -> None:
    script = "echo run; trap 'echo usr1; exit 3' USR1; while :; do sleep 0.05; done"
    container = engine.start("sh", "-c", script, StopTimeout=60)
    until(lambda: "run" in engine.output("logs", container))
    assert engine.post(f"/containers/{container}/restart", signal="SIGUSR1", t="60").status == 204
    until(lambda: engine.output("logs", container).split() == ["run", "usr1", "run"])
    assert engine.post(f"/containers/{container}/stop", signal="SIGUSR1").status == 204
    assert engine.state(container)["ExitCode"] == 3
    assert engine.post(f"/containers/{container}/restart", signal="NONSENSE").status == 400


def test_stop_of_a_paused_container(engine: Engine) -> None:
    container = engine.start("sleep", "60", StopTimeout=0)
    engine.output("pause", container)
    engine.output("stop", container)
    assert engine.state(container)["Status"] == "exited"


def test_stats_where_there_is_little_to_tell(engine: Engine) -> None:
    stopped = engine.create("true")
    for query in ({"stream": "false"}, {"stream": "false", "one-shot": "true"}):
        reply = engine.get(f"/containers/{stopped}/stats", **query)
        assert reply.status == 200
        assert (reply.json()["pids_stats"], reply.json()["memory_stats"]) == ({}, {})
    lonely = engine.start("sleep", "60", HostConfig={"NetworkMode": "none"})
    sample = engine.get(f"/containers/{lonely}/stats", **{"stream": "false", "one-shot": "true"}).json()
    assert not sample.get("networks")
    assert sample["pids_stats"]["current"] == 1
    assert sample["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    both = engine.get(f"/containers/{lonely}/stats", **{"one-shot": "true"})
    assert (both.status, both.message) == (400, "cannot have stream=true and one-shot=true")


def _health(engine: Engine, container: str) -> dict[str, object]:
    found: dict[str, object] = engine.state(container)["Health"]
    return found


@pytest.mark.parametrize(
    ("check", "status"),
    [
        ({"Test": ["CMD", "true"], "Interval": 50_000_000}, "healthy"),
        ({"Test": ["CMD-SHELL", "exit 1"], "Interval": 50_000_000, "Retries": 2}, "unhealthy"),
        ({"Test": ["CMD", "sleep", "60"], "Interval": 50_000_000, "Timeout": 50_000_000, "Retries": 1}, "unhealthy"),
    ],
)
def test_health(engine: Engine, check: dict[str, object], status: str) -> None:
    container = engine.start("sleep", "60", Healthcheck=check)
    until(lambda: _health(engine, container)["Status"] == status, 30)


def test_failures_while_it_starts_do_not_count(engine: Engine) -> None:
    check = {"Test": ["CMD", "false"], "Interval": 3600 * 10**9, "StartPeriod": 3600 * 10**9,
             "StartInterval": 50_000_000, "Retries": 1}  # fmt: skip
    container = engine.start("sleep", "60", Healthcheck=check)
    until(lambda: len(json.loads(json.dumps(_health(engine, container)["Log"]))) >= 3, 30)
    assert _health(engine, container)["Status"] == "starting"
    assert _health(engine, container)["FailingStreak"] == 0


def test_the_shell_of_a_check(engine: Engine) -> None:
    check = {"Test": ["CMD-SHELL", "said"], "Interval": 50_000_000}
    container = engine.start("sleep", "60", Healthcheck=check, Shell=["/bin/echo", "shell"])
    until(lambda: _health(engine, container)["Status"] == "healthy", 30)
    assert "shell said" in engine.output("inspect", "-f", "{{json .State.Health.Log}}", container)


def test_an_exec_ends_with_its_time(daemon: Daemon) -> None:
    """Also when nobody waits for it, and when the daemon has been killed meanwhile; with what it started."""
    container = daemon.start("sleep", "600")
    assert daemon.post(f"/containers/{container}/exec", {"Cmd": ["true"], "Timeout": -1}).status == 400
    script = "sleep 500 & sleep 500; echo never"
    made = made_exec(daemon, container, Cmd=["sh", "-c", script], Timeout=300_000_000)
    assert daemon.post(f"/exec/{made}/start", {"Detach": True}).status == 200
    until(lambda: not daemon.get(f"/exec/{made}/json").json()["Running"])
    ended = daemon.get(f"/exec/{made}/json").json()
    assert (ended["ExitCode"], ended["TimedOut"], "OOMKilled" in ended) == (137, True, False)
    assert "sleep 500" not in str(daemon.get(f"/containers/{container}/top").json())
    in_time = made_exec(daemon, container, Timeout=60_000_000_000)
    daemon.post(f"/exec/{in_time}/start", {"Detach": True})
    until(lambda: not daemon.get(f"/exec/{in_time}/json").json()["Running"])
    assert "TimedOut" not in daemon.get(f"/exec/{in_time}/json").json()
    late = made_exec(daemon, container, Cmd=["sleep", "500"], Timeout=1_000_000_000)
    assert daemon.post(f"/exec/{late}/start", {"Detach": True}).status == 200
    daemon.restart()
    until(lambda: "sleep 500" not in str(daemon.get(f"/containers/{container}/top").json()))
    done = corral(daemon, "exec", "--timeout", "300ms", container, "sleep", "500")
    assert (done.returncode, done.stderr) == (137, "the command did not end within 0.3s and was killed\n")
    assert corral(daemon, "exec", "--timeout", "60s", container, "echo", "in time").stdout == "in time\n"


def test_an_exec_tells_of_want_of_memory(daemon: Daemon) -> None:
    container = daemon.start("sleep", "600", HostConfig={"Memory": 16 << 20, "MemorySwap": 16 << 20})
    for script, killed in (("a=x; while true; do a=$a$a$a$a; done", True), ("kill -9 $$", False)):
        made = made_exec(daemon, container, Cmd=["sh", "-c", script])
        daemon.post(f"/exec/{made}/start", {"Detach": True})
        until(lambda: not daemon.get(f"/exec/{made}/json").json()["Running"], 60)  # noqa: B023  used at once
        ended = daemon.get(f"/exec/{made}/json").json()
        assert (ended["ExitCode"], ended.get("OOMKilled", False)) == (137, killed)
