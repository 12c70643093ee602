"""The life of a container through the OCI command: states, errors that change nothing, hooks, signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.integration.runtime_fixtures import bundle, busybox_root, needs_root
from tests.support.bundles import Bundle
from tests.support.wait import until

__all__ = ["bundle", "busybox_root"]
pytestmark = needs_root


def _hook(folder: Path, name: str, body: str) -> dict[str, object]:
    path = folder / f"{name}.sh"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return {"path": str(path), "args": [name, "extra"], "env": [f"WHO={name}"]}


def test_create_waits_and_survives_its_command(bundle: Bundle) -> None:
    bundle.shell("echo ran; exec sleep 100")
    assert bundle.create().returncode == 0
    state = bundle.oci_state()
    assert state["status"] == "created"
    assert bundle.written() == ""
    assert os.path.exists(f"/proc/{state['pid']}")
    bundle.command("start", bundle.id, check=True)
    until(lambda: bundle.written() == "ran\n")
    assert bundle.status() == "running"


def test_state_is_the_specifications(bundle: Bundle) -> None:
    bundle.spec["annotations"] = {"a.b": "c"}
    bundle.create()
    state = bundle.oci_state()
    assert state["id"] == bundle.id
    assert state["bundle"] == str(bundle.folder)
    assert state["annotations"] == {"a.b": "c"}
    assert state["ociVersion"].startswith("1.")
    assert state["pid"] > 1


def test_dead_init_reads_as_stopped_even_as_zombie(bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.create()
    bundle.command("start", bundle.id, check=True)
    pid = bundle.oci_state()["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: bundle.status() == "stopped")


def test_pid_file(bundle: Bundle) -> None:
    bundle.create("--pid-file", str(bundle.folder / "pid"))
    assert int((bundle.folder / "pid").read_text()) == bundle.oci_state()["pid"]


def test_missing_id(bundle: Bundle) -> None:
    for verb in (["state"], ["start"], ["kill"], ["delete"], ["pause"], ["resume"], ["ps"]):
        done = bundle.command(*verb, "nobody")
        assert done.returncode != 0
        assert "container does not exist" in done.stderr
    assert bundle.command("delete", "--force", "nobody").returncode == 0


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".", ".."])
def test_malformed_id(bundle: Bundle, name: str) -> None:
    bundle.write()
    done = bundle.command("create", name)
    assert done.returncode != 0
    assert "invalid container ID" in done.stderr


def test_duplicate_id_leaves_the_first_alone(bundle: Bundle) -> None:
    bundle.create()
    before = bundle.oci_state()
    assert bundle.create().returncode != 0
    assert "already exists" in bundle.written()
    assert bundle.oci_state() == before


def test_second_start_and_kill_of_stopped(bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.create()
    bundle.command("start", bundle.id, check=True)
    assert bundle.command("start", bundle.id).returncode != 0
    assert bundle.status() == "running"
    assert bundle.command("delete", bundle.id).returncode != 0
    assert bundle.status() == "running"
    bundle.command("kill", bundle.id, "KILL", check=True)
    until(lambda: bundle.status() == "stopped")
    done = bundle.command("kill", bundle.id, "TERM")
    assert done.returncode != 0
    assert "container not running" in done.stderr
    assert bundle.command("start", bundle.id).returncode != 0
    bundle.command("delete", bundle.id, check=True)


def test_kill_of_a_created_container(bundle: Bundle) -> None:
    bundle.create()
    bundle.command("kill", bundle.id, "9", check=True)
    until(lambda: bundle.status() == "stopped")


def test_without_process_it_can_be_created_but_not_started(bundle: Bundle) -> None:
    del bundle.spec["process"]
    assert bundle.create().returncode == 0, bundle.written()
    done = bundle.command("start", bundle.id)
    assert done.returncode != 0
    assert "process" in done.stderr


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"process": {"args": [], "cwd": "/"}}, "args"),
        ({"process": {"args": ["sh"], "cwd": "relative"}}, "Cwd"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "galaxy"}]}}, "galaxy"),
        ({"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "pid"}]}}, "duplicated"),
    ],
)
def test_bad_specs_leave_nothing(bundle: Bundle, change: dict[str, object], word: str) -> None:
    bundle.spec.update(change)
    assert bundle.create().returncode != 0
    assert word in bundle.written()
    assert not (bundle.state / bundle.id).exists()
    assert bundle.cgroup_directories() == []


def test_config_that_is_no_json(bundle: Bundle) -> None:
    (bundle.folder / "config.json").write_text("{")
    done = bundle.command("create", bundle.id)
    assert done.returncode != 0
    assert "not JSON" in done.stderr


def test_failed_exec_is_told_at_create(bundle: Bundle) -> None:
    bundle.process["args"] = ["no-such-program"]
    assert bundle.create().returncode != 0
    assert 'exec: "no-such-program": executable file not found in $PATH' in bundle.written()
    bundle.process["args"] = ["/etc/passwd"]
    assert bundle.create().returncode != 0
    assert 'exec: "/etc/passwd": permission denied' in bundle.written()
    assert bundle.cgroup_directories() == []


def test_log_as_json(bundle: Bundle) -> None:
    log = bundle.folder / "log.json"
    done = bundle.command("--log", str(log), "--log-format", "json", "state", "nobody")
    assert done.returncode != 0
    entry = json.loads(log.read_text().splitlines()[-1])
    assert entry["level"] == "error"
    assert entry["msg"] == "container does not exist"
    assert entry["time"].endswith("Z")


def test_hooks_in_order_with_state_on_stdin(bundle: Bundle) -> None:
    out = bundle.folder / "hooks"
    out.mkdir()
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    bundle.spec["hooks"] = {
        kind: [_hook(bundle.folder, kind, f"cat > {out}/{kind}.json; echo $0 $1 $WHO >> {out}/order")] for kind in kinds
    }
    bundle.process["args"] = ["sleep", "100"]
    bundle.create()
    pid = bundle.oci_state()["pid"]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["order", "prestart.json", "createRuntime.json", "createContainer.json"]
    )
    for kind in ("prestart", "createRuntime", "createContainer"):
        state = json.loads((out / f"{kind}.json").read_text())
        assert (state["id"], state["pid"], state["bundle"]) == (bundle.id, pid, str(bundle.folder))
        assert state["status"] == "creating"
    bundle.command("start", bundle.id, check=True)
    assert json.loads((out / "poststart.json").read_text())["status"] == "running"
    bundle.command("delete", "--force", bundle.id, check=True)
    assert json.loads((out / "poststop.json").read_text())["status"] == "stopped"
    lines = (out / "order").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == list(kinds)


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_failing_creation_hook_aborts_create(bundle: Bundle, kind: str) -> None:
    bundle.spec["hooks"] = {kind: [_hook(bundle.folder, kind, "echo because >&2; exit 3")]}
    assert bundle.create().returncode != 0
    assert "because" in bundle.written()
    assert not (bundle.state / bundle.id).exists()
    assert bundle.cgroup_directories() == []


def test_failing_poststop_hook_does_not_stop_delete(bundle: Bundle) -> None:
    mark = bundle.folder / "second"
    bundle.spec["hooks"] = {
        "poststop": [_hook(bundle.folder, "one", "exit 1"), _hook(bundle.folder, "two", f"touch {mark}")]
    }
    bundle.create()
    bundle.command("delete", "--force", bundle.id, check=True)
    assert mark.exists()
    assert not (bundle.state / bundle.id).exists()


def test_failing_poststart_hook_stops_the_container(bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.spec["hooks"] = {"poststart": [_hook(bundle.folder, "one", "exit 1")]}
    bundle.create()
    assert bundle.command("start", bundle.id).returncode != 0
    until(lambda: bundle.status() == "stopped")


def test_start_container_hook_runs_inside(bundle: Bundle, busybox_root: Path) -> None:
    bundle.spec["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /tmp/state"]}]}
    bundle.spec["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    state = json.loads(bundle.output("cat /tmp/state"))
    assert state["status"] == "created"
    assert not (busybox_root / "tmp/state").exists()


def test_hook_timeout(bundle: Bundle) -> None:
    bundle.spec["hooks"] = {"createRuntime": [dict(_hook(bundle.folder, "slow", "exec sleep 100"), timeout=1)]}
    assert bundle.create().returncode != 0
    assert "took too long" in bundle.written()


def test_run_returns_the_status(bundle: Bundle) -> None:
    assert bundle.run("exit 7").returncode == 7
    assert bundle.run("kill -TERM $$; sleep 1; exit 9").returncode in (9, 143)
    assert bundle.command("state", bundle.id).returncode != 0


def test_exec(bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.create()
    bundle.command("start", bundle.id, check=True)
    script = "pwd; echo $X; id"
    done = bundle.command("exec", "--cwd", "/etc", "-e", "X=y", "-u", "1000:10", bundle.id, "sh", "-c", script)
    assert done.stdout.startswith("/etc\ny\nuid=1000(bob) gid=10(wheel)"), done.stderr
    assert bundle.command("exec", bundle.id, "sh", "-c", "exit 5").returncode == 5
    assert "executable file not found" in bundle.command("exec", bundle.id, "nothing").stderr
    listed = json.loads(bundle.command("ps", "--format", "json", bundle.id).stdout)
    assert listed == [bundle.oci_state()["pid"]]
    assert "sleep 100" in bundle.command("ps", bundle.id).stdout
    assert bundle.id in bundle.command("list").stdout
    assert bundle.id in bundle.command("list", "--quiet").stdout.split()


def test_exec_joins_the_cgroup_and_namespaces(bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.create()
    bundle.command("start", bundle.id, check=True)
    pid = bundle.oci_state()["pid"]
    script = "cat /proc/self/cgroup; for n in pid net ipc uts mnt; do readlink /proc/self/ns/$n; done"
    lines = bundle.command("exec", bundle.id, "sh", "-c", script, check=True).stdout
    assert Path(f"/proc/{pid}/cgroup").read_text() in lines
    for name in ("pid", "net", "ipc", "uts", "mnt"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") in lines


def test_pause_resume_and_delete_of_a_paused_container(bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.create()
    bundle.command("start", bundle.id, check=True)
    bundle.command("pause", bundle.id, check=True)
    assert bundle.status() == "paused"
    assert "paused" in bundle.command("exec", bundle.id, "true").stderr
    bundle.command("resume", bundle.id, check=True)
    assert bundle.status() == "running"
    assert bundle.command("resume", bundle.id).returncode != 0
    bundle.command("pause", bundle.id, check=True)
    bundle.command("delete", "--force", bundle.id, check=True)


def test_preserved_descriptors_and_no_others(bundle: Bundle) -> None:
    bundle.shell("ls /proc/self/fd | wc -l; cat <&3")
    bundle.write()
    (bundle.folder / "gift").write_text("from outside\n")
    line = f"exec {bundle.runtime} --root {bundle.state} run --preserve-fds 1 {bundle.id} 3<gift"
    done = subprocess.run(["sh", "-c", line], cwd=bundle.folder, capture_output=True, text=True, check=False)
    assert done.stdout == "5\nfrom outside\n", done.stderr  # 0, 1, 2, 3 and ls's own


def test_no_descriptor_leaks(bundle: Bundle) -> None:
    read_end, write_end = os.pipe()
    os.set_inheritable(read_end, True)
    assert bundle.output("ls /proc/self/fd").split() == ["0", "1", "2", "3"]
    os.close(read_end)
    os.close(write_end)


def test_features_and_spec(bundle: Bundle) -> None:
    known = json.loads(bundle.command("features", check=True).stdout)
    assert "createRuntime" in known["hooks"]
    assert known["linux"]["cgroup"]["v2"] is True
    bundle.command("spec", check=True)
    assert json.loads((bundle.folder / "config.json").read_text())["process"]["args"] == ["sh"]
    assert bundle.command("spec").returncode != 0


def test_signals_are_at_their_defaults(bundle: Bundle) -> None:
    bundle.process["args"] = ["cat", "/proc/self/status"]  # busybox's shell would ignore SIGQUIT for its children
    status = bundle.run().stdout
    assert "SigIgn:\t0000000000000000" in status
    assert "SigBlk:\t0000000000000000" in status


def test_no_pivot(bundle: Bundle) -> None:
    bundle.shell("ls /; ls / | wc -l")
    bundle.write()
    done = bundle.command("run", "--no-pivot", bundle.id)
    assert "bin\n" in done.stdout, done.stderr
    assert "work" not in done.stdout.split()


def test_bundle_below_closed_folders(bundle: Bundle) -> None:
    bundle.folder.chmod(0o700)
    assert stat.S_IMODE(bundle.folder.stat().st_mode) == 0o700
    assert bundle.output("echo fine") == "fine\n"


def test_plan_changes_nothing(bundle: Bundle) -> None:
    bundle.write()
    lines = bundle.command("create", "--plan", bundle.id, check=True).stdout.splitlines()
    assert lines[0].startswith("mount proc on /proc")
    assert lines[-1] == "read-only /"
    assert not bundle.state.exists()
    assert bundle.cgroup_directories() == []


def test_run_on_a_terminal(bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.shell("tty; read line; echo got $line; exit 4")
    bundle.write()
    master, slave = pty.openpty()
    words = [bundle.runtime, "--root", str(bundle.state), "run", bundle.id]
    child = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, cwd=bundle.folder)
    os.close(slave)
    seen = b""
    while b"/dev/pts/0" not in seen:
        seen += os.read(master, 1000)
    os.write(master, b"hello\r")
    while b"got hello" not in seen:
        seen += os.read(master, 1000)
    assert child.wait(20) == 4
    os.close(master)


def test_signals_are_passed_on(bundle: Bundle) -> None:
    bundle.shell("trap 'echo caught; exit 6' TERM; echo ready; while :; do sleep 0.05; done")
    bundle.write()
    words = [bundle.runtime, "--root", str(bundle.state), "run", bundle.id]
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=bundle.folder, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "caught\n"
    assert child.wait(20) == 6
    child.stdout.close()


def test_detached_run(bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.write()
    with open(bundle.folder / "output.txt", "wb") as out:
        words = [bundle.runtime, "--root", str(bundle.state), "run", "--detach", bundle.id]
        subprocess.run(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=bundle.folder, check=True)
    assert bundle.status() == "running"


def test_two_creates_at_once(bundle: Bundle) -> None:
    """Exactly one wins, and the loser does not disturb it."""
    bundle.write()
    words = [bundle.runtime, "--root", str(bundle.state), "create", bundle.id]
    with open(bundle.folder / "output.txt", "wb") as out:
        racers = [
            subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=bundle.folder)
            for _ in range(4)
        ]
        results = sorted(racer.wait(20) for racer in racers)
    assert results == [0, 1, 1, 1], bundle.written()
    assert bundle.status() == "created"


def test_a_cgroup_with_somebody_in_it_is_not_taken(bundle: Bundle) -> None:
    folder = f"/sys/fs/cgroup/pids/corral-test/{bundle.id}"
    os.makedirs(folder)
    lodger = subprocess.Popen(["sleep", "100"])
    try:
        Path(folder, "cgroup.procs").write_text(str(lodger.pid))
        assert bundle.create().returncode != 0
        assert "not empty" in bundle.written()
        assert lodger.poll() is None
        for path in ("/", "/.", "../x", "system.slice:corral:x"):
            bundle.linux["cgroupsPath"] = path
            assert bundle.create().returncode != 0
        assert lodger.poll() is None
    finally:
        lodger.kill()
        lodger.wait()
        os.rmdir(folder)
