"""`corral container snapshot|snapshots|rewind|forget` and `run --from-snapshot`."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.compat.test_beyond_docker import corral, said
from tests.support.daemon import IMAGE, Daemon
from tests.support.wait import until

_FILL = (
    "echo one > /data; mkdir /kept; echo k > /kept/file; rm /not-executable; ln -s /data /link; chmod 4755 /kept/file"
)


@pytest.fixture
def filled(daemon: Daemon) -> str:
    """A stopped container that has written, and its snapshot `s1`."""
    container = daemon.create("sh", "-c", _FILL, name="filled", Env=["FROM=filled"], WorkingDir="/kept")
    daemon.post(f"/containers/{container}/start")
    assert daemon.wait(container) == 0
    assert said(daemon, "container", "snapshot", "filled", "s1") == "s1"
    return container


def run(daemon: Daemon, *words: str) -> str:
    done = corral(daemon, "run", "--rm", *words)
    assert done.returncode == 0, done.stderr
    return str(done.stdout).rstrip("\n")


def test_a_fork_starts_as_the_snapshot(daemon: Daemon, filled: str) -> None:
    script = "cat /data /link file; pwd; echo $FROM; stat -c %a /kept/file; ls /not-executable"
    out = run(daemon, "--from-snapshot", "filled@s1", "sh", "-c", f"{script} 2>&1 || true")
    assert out.splitlines()[:6] == ["one", "one", "k", "/kept", "filled", "4755"]
    assert "No such file" in out.splitlines()[6]
    # What forks write is theirs.
    for number in "12":
        assert run(daemon, "--from-snapshot", "filled@s1", "sh", "-c", f"echo {number} >> /data; cat /data") == (
            f"one\n{number}"
        )


def test_the_docker_client_forks_by_a_label(daemon: Daemon, filled: str) -> None:
    label = "corral.from-snapshot=filled@s1"
    assert daemon.output("run", "--rm", "--label", label, IMAGE, "cat", "/data") == "one"
    daemon.output("import", "-", "corral.test/other:1", input="")
    wrong = daemon.docker("run", "--rm", "--label", label, "corral.test/other:1", "cat", "/data")
    assert wrong.returncode == 125 and "not corral.test/other:1" in wrong.stderr
    daemon.output("rmi", "corral.test/other:1")


def test_the_container_goes_on_and_comes_back(daemon: Daemon, filled: str) -> None:
    diff = set(daemon.output("diff", "filled").splitlines())
    assert diff == {"A /data", "A /kept", "A /kept/file", "D /not-executable", "A /link"}
    since = daemon.get("/info").json()["SystemTime"]
    daemon.output("cp", "-", "filled:/", input=_tar({"data": b"two\n", "more": b"m"}))
    said(daemon, "container", "snapshot", "filled", "s2")
    daemon.output("cp", "-", "filled:/", input=_tar({"third": b"3"}))
    assert set(daemon.output("diff", "filled").splitlines()) == diff | {"A /more", "A /third"}
    listed = json.loads(
        f"[{said(daemon, 'container', 'snapshots', '--format', 'json', 'filled').replace(chr(10), ',')}]"
    )
    assert [one["Name"] for one in listed] == ["s1", "s2"]
    said(daemon, "container", "rewind", "filled", "s1")
    assert set(daemon.output("diff", "filled").splitlines()) == diff
    said(daemon, "container", "rewind", "filled", "s2")
    assert set(daemon.output("diff", "filled").splitlines()) == diff | {"A /more"}
    now = daemon.get("/info").json()["SystemTime"]
    words = ("events", "--since", since, "--until", now, "--filter", "container=filled")
    form = ("--format", "{{.Action}} {{.Actor.Attributes.snapshot}}")
    events = [line for line in daemon.output(*words, *form).splitlines() if "no value" not in line]
    assert events == ["snapshot s2", "rewind s1", "rewind s2"]


def test_commit_and_export_have_all_of_it(daemon: Daemon, filled: str) -> None:
    daemon.output("cp", "-", "filled:/", input=_tar({"later": b"l"}))
    daemon.output("commit", "filled", "corral.test/committed:1")
    words = ("run", "--rm", "corral.test/committed:1", "sh", "-c", "cat /data /later; test ! -e /not-executable")
    assert daemon.output(*words) == "one\nl"
    names = daemon.output("history", "-q", "corral.test/committed:1").splitlines()
    assert len(names) == len(daemon.output("history", "-q", IMAGE).splitlines()) + 2
    daemon.output("rmi", "corral.test/committed:1")


def test_a_running_container_is_still_meanwhile(daemon: Daemon) -> None:
    """Two files that are always written one after the other never differ by more than that in a snapshot."""
    writer = "i=0; while true; do i=$((i+1)); echo $i > /t; mv /t /a; echo $i > /t; mv /t /b; done"
    container = daemon.start("sh", "-c", writer, name="busy")
    until(lambda: daemon.docker("exec", "busy", "test", "-s", "/b").returncode == 0)
    for number in range(3):
        said(daemon, "container", "snapshot", "busy", f"s{number}")
    assert daemon.state(container)["Status"] == "running"
    first = daemon.output("exec", "busy", "cat", "/a")
    until(lambda: daemon.output("exec", "busy", "cat", "/a") != first)
    for number in range(3):
        out = run(daemon, "--from-snapshot", f"busy@s{number}", "sh", "-c", "cat /a /b")
        ahead, behind = out.splitlines()
        assert int(ahead) - int(behind) in (0, 1)


def test_a_running_container_is_put_back_and_started(daemon: Daemon) -> None:
    """Also one with --rm, which stays; a snapshot that is not there changes nothing."""
    daemon.output("run", "-d", "--rm", "--name", "box", IMAGE, "sh", "-c", "echo run >> /runs; exec sleep 600")
    until(lambda: daemon.docker("exec", "box", "test", "-s", "/runs").returncode == 0)
    said(daemon, "container", "snapshot", "box", "s1")
    daemon.output("exec", "-d", "box", "sh", "-c", "echo later > /later; exec sleep 700")
    until(lambda: daemon.docker("exec", "box", "test", "-s", "/later").returncode == 0)
    pid = daemon.state("box")["Pid"]
    assert corral(daemon, "container", "rewind", "--restart", "box", "nothing").returncode == 1
    assert daemon.state("box")["Pid"] == pid
    said(daemon, "container", "rewind", "--restart", "box", "s1")
    until(lambda: daemon.output("exec", "box", "cat", "/runs") == "run\nrun")
    assert daemon.docker("exec", "box", "test", "-e", "/later").returncode == 1
    assert "700" not in daemon.output("top", "box")
    said(daemon, "container", "rewind", "--restart", "box", "s1")  # as often as wanted
    daemon.output("kill", "box")
    until(lambda: not daemon.containers())


def test_forks_outlive_the_container_and_nothing_else_does(daemon: Daemon) -> None:
    before = _directories(daemon)
    daemon.output("run", "--name", "origin", IMAGE, "sh", "-c", "echo o > /o")
    said(daemon, "container", "snapshot", "origin", "s1")
    daemon.output("start", "-a", "origin")
    said(daemon, "container", "snapshot", "origin", "s2")
    said(daemon, "container", "rewind", "origin", "s1")
    said(daemon, "run", "-d", "--name", "fork", "--from-snapshot", "origin@s2", "sleep", "1000")
    daemon.output("rm", "origin")
    daemon.restart(signal.SIGKILL)
    assert daemon.output("exec", "fork", "cat", "/o") == "o"
    daemon.output("restart", "-t0", "fork")
    assert daemon.output("exec", "fork", "cat", "/o") == "o"
    daemon.output("rm", "-f", "fork")
    until(lambda: _directories(daemon) == before)


def test_a_forgotten_snapshot_is_kept_while_it_is_used(daemon: Daemon, filled: str) -> None:
    said(daemon, "container", "forget", "filled", "s1")
    assert daemon.output("cp", "filled:/data", "-")  # the container itself stands on it
    gone = corral(daemon, "run", "--rm", "--from-snapshot", "filled@s1", "true")
    assert gone.returncode == 125 and "No such snapshot: filled@s1" in gone.stderr
    said(daemon, "container", "snapshot", "filled", "s1")
    assert run(daemon, "--from-snapshot", "filled@s1", "cat", "/data") == "one"


def test_after_a_crash_in_the_middle_it_runs_on(own_daemon: Daemon) -> None:
    """The daemon dies while it copies a large file, or just after."""
    container = own_daemon.start(
        "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=300 2>/dev/null; touch /done; sleep 1000"
    )
    until(lambda: own_daemon.docker("exec", container, "test", "-e", "/done").returncode == 0)
    before = _directories(own_daemon)
    sender = own_daemon.raw()
    body = b'{"Name":"s1"}'
    head = f"POST /containers/{container}/snapshots HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    sender.sendall(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    until(lambda: own_daemon.state(container)["Status"] == "paused" or _has_snapshot(own_daemon, container))
    own_daemon.restart(signal.SIGKILL)
    sender.close()
    assert own_daemon.state(container)["Status"] == "running"
    assert own_daemon.output("exec", container, "echo", "alive") == "alive"
    if not _has_snapshot(own_daemon, container):
        until(lambda: _directories(own_daemon) == before)


def _has_snapshot(daemon: Daemon, container: str) -> bool:
    return bool(daemon.get(f"/containers/{container}/snapshots").json())


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("container", "snapshot", "filled", "s1"), "snapshot filled@s1 already exists"),
        (("container", "snapshot", "filled", "a/b"), "invalid snapshot name"),
        (("container", "snapshot", "absent", "s1"), "No such container: absent"),
        (("container", "rewind", "filled", "s9"), "No such snapshot: filled@s9"),
        (("container", "forget", "filled", "s9"), "No such snapshot: filled@s9"),
        (("run", "--from-snapshot", "filled", "true"), "it must be CONTAINER@SNAPSHOT"),
        (("run", "--from-snapshot", "absent@s1", "true"), "No such container: absent"),
        (("container", "rewind", "runs", "s1"), "stop the container before rewinding"),
    ],
)
def test_refusals(daemon: Daemon, filled: str, words: tuple[str, ...], text: str) -> None:
    daemon.start("sleep", "1000", name="runs")
    said(daemon, "container", "snapshot", "runs", "s1")
    before = daemon.containers()
    done = corral(daemon, *words)
    assert done.returncode != 0 and text in done.stderr
    assert daemon.containers() == before


def _directories(daemon: Daemon) -> set[str]:
    return set(os.listdir(os.path.join(daemon.data_root, "overlay"))) - {"trash"}


def _tar(files: dict[str, bytes]) -> bytes:
    from tests.support.images import member, tar_of

    return tar_of([member(name, data) for name, data in files.items()])
