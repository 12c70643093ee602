"""Secrets and configs of plain containers: encrypted at rest, files on a tmpfs, replaced in place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.daemon import IMAGE, Daemon
from tests.support.wait import until


def corral(daemon: Daemon, *words: str, content: str | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corral.cli", "-H", f"unix://{daemon.socket_path}", *words]
    return subprocess.run(command, input=content, capture_output=True, text=True, timeout=60)


def said(daemon: Daemon, *words: str, content: str | None = None) -> str:
    done = corral(daemon, *words, content=content)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_secret_is_a_file_of_its_containers(own_daemon: Daemon, tmp_path: Path) -> None:
    daemon = own_daemon
    (tmp_path / "pw").write_text("hunter2-0xfeed")
    said(daemon, "secret", "create", "-l", "team=a", "db", str(tmp_path / "pw"))
    said(daemon, "config", "create", "app.yaml", "-", content="colour: red\n")
    assert "db" in said(daemon, "secret", "ls") and "app.yaml" not in said(daemon, "secret", "ls")
    assert "hunter2" not in said(daemon, "secret", "inspect", "db")
    assert said(daemon, "secret", "inspect", "-f", "{{.Name}} {{.Labels.team}}", "db") == "db a"
    pretty = said(daemon, "secret", "inspect", "--pretty", "db").splitlines()
    assert pretty[1:4] == ["Name:            db", "Labels:", " - team=a"]
    assert "incompatible" in corral(daemon, "secret", "inspect", "--pretty", "-f", "x", "db").stderr
    words = ("--secret", "db,target=password,uid=65534,mode=0400", "--config", "app.yaml")
    script = (
        "cd /run; stat -c '%u %a' secrets/password; cat secrets/password configs/app.yaml; grep /run/s /proc/mounts"
    )
    shown = said(daemon, "run", "--rm", *words, IMAGE, "sh", "-c", script)
    assert shown.startswith("65534 400\nhunter2-0xfeedcolour: red\n") and "tmpfs /run/secrets tmpfs" in shown
    for path in Path(daemon.data_root).rglob("*"):
        if path.is_file():
            assert b"hunter2-0xfeed" not in path.read_bytes(), path
    container = said(daemon, "run", "-d", "--read-only", *words, IMAGE, "sleep", "100")
    daemon.restart()
    assert daemon.output("exec", container, "cat", "/run/secrets/password") == "hunter2-0xfeed"
    used = corral(daemon, "secret", "rm", "db")
    assert used.returncode == 1 and "is in use by the following containers" in used.stderr
    daemon.output("restart", "-t", "0", container)
    assert daemon.output("exec", container, "cat", "/run/configs/app.yaml") == "colour: red"
    assert "hunter2" not in daemon.output("inspect", container)
    daemon.output("rm", "-f", container)
    said(daemon, "secret", "rm", "db")
    assert corral(daemon, "secret", "inspect", "db").returncode == 1


def test_an_update_replaces_the_file_and_acts(daemon: Daemon) -> None:
    said(daemon, "secret", "create", "rolling", "-", content="one\n")
    script = "trap 'echo again; cat /run/secrets/rolling' HUP; while :; do sleep 0.05; done"
    told = said(daemon, "run", "-d", "--secret", "rolling,on-update=signal:HUP", IMAGE, "sh", "-c", script)
    quiet = said(daemon, "run", "-d", "--secret", "rolling", IMAGE, "sleep", "100")
    restarting = ("--secret", "rolling,on-update=restart", "--stop-timeout", "0")
    again = said(daemon, "run", "-d", *restarting, IMAGE, "sleep", "100")
    before = {container: daemon.state(container)["StartedAt"] for container in (told, quiet, again)}
    assert len(said(daemon, "secret", "update", "rolling", "-", content="two\n").split()) == 3
    until(lambda: "again\ntwo" in daemon.output("logs", told))
    for container in (told, quiet, again):
        assert daemon.output("exec", container, "cat", "/run/secrets/rolling") == "two"
        restarted = daemon.state(container)["StartedAt"] != before[container]
        assert restarted == (container == again)
    daemon.remove_all()
    said(daemon, "secret", "rm", "rolling")


def test_what_cannot_be(daemon: Daemon) -> None:
    for words, why in (
        (("secret", "create", "bad name", "-"), "invalid name"),
        (("secret", "create", "empty", "-"), "must be larger than 0"),
        (("secret", "create", "x", "/nosuch"), "open /nosuch: no such file or directory"),
        (("secret", "update", "nosuch", "-"), "secret nosuch not found"),
        (("create", "--secret", "nosuch", IMAGE), "secret nosuch not found"),
        (("create", "--secret", "a,colour=red", IMAGE), "invalid field 'colour=red'"),
        (("create", "--secret", "a,mode=rw", IMAGE), "invalid mode specified: rw"),
    ):
        done = corral(daemon, *words, content="" if "empty" in words else "x")
        assert done.returncode != 0 and why in done.stderr, done
    said(daemon, "config", "create", "c", "-", content="x")
    taken = corral(daemon, "secret", "create", "c", "-", content="x")
    assert taken.returncode == 1 and "exists" in taken.stderr
    for extra, why in (
        (("c,target=../etc/passwd",), "invalid target"),
        (("c", "c"), "duplicate target /run/configs/c"),
        (("c,on-update=explode",), "invalid action 'explode'"),
        (("c,uid=root",), "numbers are needed"),
    ):
        words = [word for item in extra for word in ("--config", item)]
        refused = corral(daemon, "create", *words, IMAGE)
        assert refused.returncode == 1 and why in refused.stderr, refused.stderr
    big = corral(daemon, "secret", "create", "big", "-", content="x" * 600_000)
    assert big.returncode == 1 and "less than 512000 bytes" in big.stderr
    said(daemon, "config", "rm", "c")


def test_another_key_opens_nothing(own_daemon: Daemon) -> None:
    said(own_daemon, "secret", "create", "s", "-", content="hidden")
    key = Path(own_daemon.data_root, "vault.key")
    assert key.stat().st_mode & 0o777 == 0o600
    own = key.read_bytes()
    key.write_bytes(bytes(32))
    refused = corral(own_daemon, "run", "--secret", "s", IMAGE, "true")
    assert refused.returncode == 125 and "is not its key" in refused.stderr
    key.unlink()
    assert corral(own_daemon, "secret", "create", "t", "-", content="x").returncode == 1
    key.write_bytes(own)
    key.chmod(0o600)
    assert said(own_daemon, "run", "--rm", "--secret", "s", IMAGE, "cat", "/run/secrets/s") == "hidden"
