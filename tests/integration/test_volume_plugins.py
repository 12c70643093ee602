"""Volume plugins, with a real one."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import volume_plugin
from tests.support.daemon import IMAGE, Daemon

_SOCKETS = Path("/run/docker/plugins")
_SPECS = Path("/etc/docker/plugins")


class Plugin:
    """A running plugin and what it was asked."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def calls(self, verb: str) -> list[dict[str, Any]]:
        """The bodies of the calls of `VolumeDriver.VERB`, oldest first."""
        lines = (self.folder / "log").read_text().splitlines()
        return [body for path, body in map(json.loads, lines) if path == f"/VolumeDriver.{verb}"]


@contextlib.contextmanager
def running_plugin(socket_path: str, name: str) -> Iterator[Plugin]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, volume_plugin.__file__, socket_path, folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield Plugin(name, Path(folder))
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(socket_path)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """`path` exists; those of its parents that had to be made are gone afterwards."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    yield
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


@pytest.fixture
def plugin(daemon: Daemon) -> Iterator[Plugin]:
    name = f"corral-test-{uuid.uuid4().hex[:8]}"
    with _folder(_SOCKETS), running_plugin(str(_SOCKETS / f"{name}.sock"), name) as found:
        yield found
        daemon.remove_all()
        for volume in daemon.get("/volumes").json()["Volumes"]:
            if volume["Driver"] == name:
                daemon.delete(f"/volumes/{volume['Name']}", force="1")


def test_life_of_a_volume(daemon: Daemon, plugin: Plugin) -> None:
    daemon.output("volume", "create", "-d", plugin.name, "-o", "a=b", "--label", "l=1", "ours")
    assert plugin.calls("Create") == [{"Name": "ours", "Opts": {"a": "b"}}]
    found = daemon.get("/volumes/ours").json()
    assert found["Mountpoint"] == str(plugin.folder / "volumes/ours")
    assert (found["Driver"], found["Scope"], found["Status"]) == (plugin.name, "global", {"files": 0})
    assert (found["Labels"], found["Options"]) == ({"l": "1"}, {"a": "b"})
    container = daemon.start("sh", "-c", "echo kept > /v/f; sleep 1000", HostConfig={"Binds": ["ours:/v"]})
    assert plugin.calls("Mount")[-1] == {"Name": "ours", "ID": container}
    assert daemon.docker("volume", "rm", "ours").returncode != 0
    daemon.output("exec", container, "cat", "/v/f")
    daemon.output("stop", "-t0", container)
    assert plugin.calls("Unmount")[-1] == {"Name": "ours", "ID": container}
    assert (plugin.folder / "volumes/ours/f").read_text() == "kept\n"
    daemon.output("rm", container)
    assert daemon.output("volume", "prune", "-af").endswith("Total reclaimed space: 0B")
    daemon.output("volume", "rm", "ours")
    assert plugin.calls("Remove") == [{"Name": "ours"}]
    assert daemon.get("/volumes/ours").status == 404
    assert len(plugin.calls("Mount")) == len(plugin.calls("Unmount"))


def test_volume_driver_flag_fills_and_mounts(daemon: Daemon, plugin: Plugin) -> None:
    daemon.output("run", "--rm", "--volume-driver", plugin.name, "-v", "byflag:/etc", IMAGE, "true")
    assert sorted(os.listdir(plugin.folder / "volumes/byflag"))[:2] == ["group", "passwd"]
    daemon.output("run", "--rm", "--mount", f"type=volume,volume-driver={plugin.name},dst=/m", IMAGE, "touch", "/m/x")
    assert [body["Name"] for body in plugin.calls("Remove")] == [plugin.calls("Create")[-1]["Name"]]
    assert len(plugin.calls("Mount")) == len(plugin.calls("Unmount"))


def test_volumes_that_only_the_plugin_knows(daemon: Daemon, plugin: Plugin) -> None:
    (plugin.folder / "volumes/elsewhere").mkdir()
    assert f"{plugin.name}   elsewhere" in daemon.output("volume", "ls")
    assert daemon.get("/volumes/elsewhere").json()["Driver"] == plugin.name
    daemon.output("run", "--rm", "-v", "elsewhere:/v", IMAGE, "touch", "/v/found")
    assert os.listdir(plugin.folder / "volumes/elsewhere") == ["found"]
    daemon.output("volume", "rm", "elsewhere")
    assert plugin.calls("Remove") == [{"Name": "elsewhere"}]


def test_a_plugin_that_refuses(daemon: Daemon, plugin: Plugin) -> None:
    daemon.output("volume", "create", "-d", plugin.name, "refused")
    (plugin.folder / "broken").write_text("the array is on fire")
    container = daemon.output("create", "--mount", "type=volume,src=refused,dst=/v,volume-nocopy", IMAGE)
    done = daemon.docker("start", container)
    assert "VolumeDriver.Mount: the array is on fire" in done.stderr
    assert daemon.state(container)["Status"] == "created"
    reply = daemon.post("/containers/create", {"Image": IMAGE, "HostConfig": {"Binds": ["refused:/v"]}})
    assert reply.status == 500
    assert "the array is on fire" in reply.message
    (plugin.folder / "broken").unlink()
    daemon.output("start", container)
    assert "must be unique" in daemon.docker("volume", "create", "-d", "local", "refused").stderr


def test_a_plugin_that_is_gone(daemon: Daemon) -> None:
    name = f"corral-test-{uuid.uuid4().hex[:8]}"
    with _folder(_SOCKETS), running_plugin(str(_SOCKETS / f"{name}.sock"), name):
        daemon.output("volume", "create", "-d", name, "orphan")
    assert daemon.get("/volumes/orphan").json()["Mountpoint"] == ""
    assert daemon.docker("volume", "rm", "orphan").returncode != 0
    daemon.output("volume", "rm", "-f", "orphan")
    assert daemon.get("/volumes/orphan").status == 404


def test_a_plugin_named_by_a_spec_file(daemon: Daemon, tmp_path: Path) -> None:
    name = f"corral-test-{uuid.uuid4().hex[:8]}"
    spec, config = _SPECS / f"{name}.spec", _SPECS / f"{name}2.json"
    with _folder(_SPECS), running_plugin(f"{tmp_path}/s", name) as plugin:
        try:
            spec.write_text(f"unix://{tmp_path}/s\n")
            daemon.output("run", "--rm", "--volume-driver", name, "-v", "byspec:/v", IMAGE, "touch", "/v/x")
            config.write_text(json.dumps({"Name": f"{name}2", "Addr": f"unix://{tmp_path}/s"}))
            daemon.output("volume", "create", "-d", f"{name}2", "byjson")
            assert [body["Name"] for body in plugin.calls("Create")] == ["byspec", "byjson"]
            daemon.output("volume", "rm", "byspec", "byjson")
        finally:
            spec.unlink(missing_ok=True)
            config.unlink(missing_ok=True)


def test_a_plugin_gets_every_volume_back_after_a_crash(own_daemon: Daemon) -> None:
    name = f"corral-test-{uuid.uuid4().hex[:8]}"
    with _folder(_SOCKETS), running_plugin(str(_SOCKETS / f"{name}.sock"), name) as plugin:
        own_daemon.output("volume", "create", "-d", name, "lasting")
        own_daemon.output("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mounted")
        binds = {"Binds": ["lasting:/v", "mounted:/m"]}
        lives = own_daemon.start("sleep", "1000", HostConfig=binds)
        script = "while ! test -e /v/go; do usleep 50000; done"
        ends = own_daemon.start("sh", "-c", script, HostConfig=binds)
        handle = os.pidfd_open(own_daemon.state(ends)["Pid"])
        own_daemon.end(signal.SIGKILL)
        (plugin.folder / "volumes/lasting/go").touch()
        assert select.select([handle], [], [], 20)[0]
        os.close(handle)
        own_daemon.launch()
        assert own_daemon.wait(ends) == 0
        own_daemon.output("exec", lives, "touch", "/m/x")
        assert [body["ID"] for body in plugin.calls("Unmount") if body["ID"] == ends] == [ends]
        assert len(own_daemon.mounts()) == 1
        own_daemon.output("rm", "-f", lives)
        assert plugin.calls("Unmount")[-1]["ID"] == lives
        assert own_daemon.mounts() == []
