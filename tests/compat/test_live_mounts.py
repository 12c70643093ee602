"""`corral mount`: mounts that come and go while a container runs."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest

from tests.compat.test_beyond_docker import corral, said
from tests.support.daemon import IMAGE, Daemon
from tests.support.wait import until


def test_a_bind_comes_and_goes(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("seen\n")
    container = daemon.start("sleep", "1000")
    before = daemon.state(container)
    said(daemon, "mount", "add", container, f"type=bind,src={tmp_path},dst=/new/place,readonly")
    assert daemon.output("exec", container, "cat", "/new/place/file") == "seen"
    assert "Read-only file system" in daemon.docker("exec", container, "touch", "/new/place/x").stderr
    [point] = daemon.inspect(container)["Mounts"]
    assert (point["Type"], point["Source"], point["Destination"], point["RW"]) == (
        "bind", str(tmp_path), "/new/place", False,
    )  # fmt: skip
    assert (
        "Duplicate mount point"
        in corral(daemon, "mount", "add", container, f"type=bind,src={tmp_path},dst=/new/place/").stderr
    )
    said(daemon, "mount", "rm", container, "/new/place")
    assert daemon.output("exec", container, "ls", "/new/place") == ""
    assert daemon.inspect(container)["Mounts"] == []
    assert daemon.state(container) == before
    assert daemon.mounts() == []


def test_it_is_there_after_a_restart(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("seen\n")
    container = daemon.start("sleep", "1000")
    said(daemon, "mount", "add", container, f"type=bind,src={tmp_path},dst=/m")
    said(daemon, "mount", "add", container, "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700")
    assert "size=1024k" in daemon.output("exec", container, "sh", "-c", "mount | grep ' /t '")
    daemon.output("restart", "-t0", container)
    assert daemon.output("exec", container, "sh", "-c", "cat /m/file; stat -c %a /t") == "seen\n700"
    daemon.output("stop", "-t0", container)
    said(daemon, "mount", "rm", container, "/m", "/t")
    said(daemon, "mount", "add", container, f"type=bind,src={tmp_path},dst=/other")
    daemon.output("start", container)
    assert daemon.output("exec", container, "sh", "-c", "ls /m /t; cat /other/file") == "/m:\n\n/t:\nseen"


def test_a_mount_given_at_create_is_removed(daemon: Daemon, tmp_path: Path) -> None:
    container = daemon.start("sleep", "1000", HostConfig={"Binds": [f"{tmp_path}:/a"], "Tmpfs": {"/b": "size=1m"}})
    said(daemon, "mount", "rm", container, "/a", "/b")
    daemon.output("restart", "-t0", container)
    assert daemon.output("exec", container, "sh", "-c", "mount | grep -c -e ' /a ' -e ' /b ' || true") == "0"
    assert not daemon.inspect(container)["HostConfig"]["Binds"]


def test_an_image_mount_goes(daemon: Daemon) -> None:
    daemon.output("import", "-", "corral.test/mounted:1", input="")
    mount = "type=image,src=corral.test/mounted:1,dst=/i"
    container = daemon.output("run", "-d", "--mount", mount, IMAGE, "sleep", "1000")
    said(daemon, "mount", "rm", container, "/i")
    daemon.output("restart", "-t0", container)
    daemon.output("rmi", "corral.test/mounted:1")


def test_a_volume_comes_and_goes(daemon: Daemon) -> None:
    since = daemon.get("/info").json()["SystemTime"]
    container = daemon.start("sleep", "1000")
    options = "volume-opt=type=tmpfs,volume-opt=device=tmpfs"
    said(daemon, "mount", "add", container, f"type=volume,src=live-data,dst=/v,{options}")
    daemon.output("exec", container, "touch", "/v/x")
    assert len(daemon.mounts()) == 1
    assert daemon.docker("volume", "rm", "live-data").returncode != 0
    said(daemon, "mount", "rm", container, "/v")
    assert daemon.mounts() == []
    daemon.output("volume", "rm", "live-data")
    now = daemon.get("/info").json()["SystemTime"]
    words = ("events", "--since", since, "--until", now, "--format", "{{.Type}} {{.Action}}")
    lines = [line for line in daemon.output(*words).splitlines() if "mount" in line]
    assert lines == ["volume mount", "container mount", "volume unmount", "container unmount"]


def test_it_survives_a_crash_of_the_daemon(own_daemon: Daemon, tmp_path: Path) -> None:
    container = own_daemon.start("sleep", "1000")
    said(own_daemon, "mount", "add", container, f"type=bind,src={tmp_path},dst=/m")
    own_daemon.restart(signal.SIGKILL)
    own_daemon.output("exec", container, "touch", "/m/x")
    said(own_daemon, "mount", "rm", container, "/m")
    assert own_daemon.output("exec", container, "ls", "/m") == ""


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("add", "{c}", "type=bind,src=/nonexistent/x,dst=/m"), "bind source path does not exist"),
        (("add", "{c}", f"type=image,src={IMAGE},dst=/m"), "can only be given when the container is created"),
        (("add", "{c}", "type=tmpfs,dst=relative"), "mount path must be absolute"),
        (("add", "{c}", "type=tmpfs,dst=/etc/passwd/x"), "ot a directory"),
        (("add", "{c}", "nonsense"), "must be a key=value pair"),
        (("add", "absent", "type=tmpfs,dst=/m"), "No such container: absent"),
        (("rm", "{c}", "/m"), "has no mount at /m"),
        (("rm", "{c}", "/proc"), "has no mount at /proc"),
        (("rm", "{c}", "/outer"), "/outer/inner is mounted inside of it"),
        (("add", "{c}", "type=volume,src=never-made,dst=/etc/passwd/x"), "ot a directory"),
    ],
)
def test_refusals(daemon: Daemon, words: tuple[str, ...], text: str) -> None:
    container = daemon.start("sleep", "1000", HostConfig={"Tmpfs": {"/outer": "", "/outer/inner": ""}})
    before = daemon.inspect(container)
    done = corral(daemon, "mount", *(word.format(c=container) for word in words))
    assert done.returncode != 0
    assert text in done.stderr
    assert daemon.inspect(container) == before
    assert daemon.get("/volumes/never-made").status == 404


def test_a_link_of_the_container_leads_nowhere_else(daemon: Daemon, tmp_path: Path) -> None:
    container = daemon.start("sh", "-c", f"mkdir -p {tmp_path.parent} && ln -s / /link && sleep 1000")
    until(lambda: daemon.docker("exec", container, "test", "-L", "/link").returncode == 0)
    said(daemon, "mount", "add", container, f"type=bind,src={tmp_path},dst=/link/inside")
    daemon.output("exec", container, "touch", "/inside/x")
    assert (tmp_path / "x").exists()
    assert not Path("/inside").exists()


@pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed")
def test_with_another_runtime(daemon: Daemon, tmp_path: Path) -> None:
    container = daemon.start("sleep", "1000", HostConfig={"Runtime": "runc"})
    said(daemon, "mount", "add", container, f"type=bind,src={tmp_path},dst=/m")
    daemon.output("exec", container, "touch", "/m/x")
    said(daemon, "mount", "rm", container, "/m")
    assert daemon.output("exec", container, "ls", "/m") == ""
