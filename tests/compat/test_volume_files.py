"""`corral volume clone|rename|export|import`: whole volumes."""

from __future__ import annotations

import io
import os
import signal
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.test_beyond_docker import corral, said
from tests.support.daemon import IMAGE, Daemon
from tests.support.wait import until

FILL = "mkdir -m 2750 /v/d && echo text > /v/d/f && chown -R 7:8 /v/d && ln -s f /v/d/link && chmod 1777 /v"
LOOK = "stat -c '%a %u:%g' /v /v/d/ /v/d/f; readlink /v/d/link; cat /v/d/f"
SEEN = "1777 0:0\n2750 7:8\n644 7:8\nf\ntext"


@pytest.fixture
def filled(daemon: Daemon) -> Iterator[str]:
    """A volume with files; whatever volumes exist after the test are removed."""
    daemon.output("volume", "create", "--label", "a=b", "filled")
    daemon.output("run", "--rm", "-v", "filled:/v", IMAGE, "sh", "-c", FILL)
    yield "filled"
    daemon.remove_all()
    for name in daemon.output("volume", "ls", "-q").split():
        daemon.output("volume", "rm", name)
    assert os.listdir(f"{daemon.data_root}/volumes") == []


def look(daemon: Daemon, name: str) -> str:
    return daemon.output("run", "--rm", "-v", f"{name}:/v:nocopy", IMAGE, "sh", "-c", LOOK)


def test_clone(daemon: Daemon, filled: str) -> None:
    daemon.start("sleep", "1000", HostConfig={"Binds": [f"{filled}:/v"]})
    assert said(daemon, "volume", "clone", filled, "copy") == "copy"
    assert look(daemon, "copy") == SEEN
    assert daemon.get("/volumes/copy").json()["Labels"] == {"a": "b"}
    daemon.output("run", "--rm", "-v", "copy:/v", IMAGE, "rm", "-r", "/v/d")
    assert look(daemon, filled) == SEEN


def test_rename(daemon: Daemon, filled: str) -> None:
    said(daemon, "volume", "rename", filled, "other")
    assert look(daemon, "other") == SEEN
    assert daemon.get(f"/volumes/{filled}").status == 404
    found = daemon.get("/volumes/other").json()
    assert found["Labels"] == {"a": "b"}
    assert found["Mountpoint"] == f"{daemon.data_root}/volumes/other/_data"
    container = daemon.output("create", "-v", "other:/v", IMAGE)
    assert (
        f"rename other: volume is in use - [{container}]"
        in corral(daemon, "volume", "rename", "other", "new-name").stderr
    )


def test_export_and_import(daemon: Daemon, filled: str, tmp_path: Path) -> None:
    archive = tmp_path / "data.tar"
    said(daemon, "volume", "export", "-o", str(archive), filled)
    assert said(daemon, "volume", "import", "imported", str(archive)) == "imported"
    assert look(daemon, "imported") == SEEN
    with tarfile.open(archive) as found:
        assert "./d/f" in found.getnames()


def test_a_volume_that_must_be_mounted(daemon: Daemon, filled: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound\n")
    daemon.output("volume", "create", "-o", "type=none", "-o", "o=bind", "-o", f"device={tmp_path}", "bound")
    said(daemon, "volume", "clone", "bound", "copy")
    assert daemon.output("run", "--rm", "-v", "copy:/v", IMAGE, "cat", "/v/file") == "bound"
    assert daemon.mounts() == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("clone", "absent", "new"), "get absent: no such volume"),
        (("clone", "filled", "filled"), "a volume named filled exists already"),
        (("clone", "filled", "../x"), "includes invalid characters"),
        (("rename", "absent", "new"), "get absent: no such volume"),
        (("rename", "filled", "filled"), "a volume named filled exists already"),
        (("export", "-o", "/dev/null/x", "absent"), "invalid output path"),
        (("import", "new", "/bin/busybox"), ""),
        (("import", "filled", "/dev/null"), "a volume named filled exists already"),
        (("import", "new", "/nonexistent"), "no such file or directory"),
    ],
)
def test_refusals(daemon: Daemon, filled: str, words: tuple[str, ...], text: str) -> None:
    done = corral(daemon, "volume", *words)
    assert done.returncode != 0
    assert text in done.stderr
    assert os.listdir(f"{daemon.data_root}/volumes") == [filled]


def test_an_archive_does_not_write_elsewhere(daemon: Daemon, filled: str, tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        archive.addfile(tarfile.TarInfo("way/out"))
    daemon.request("POST", "/volumes/import?name=hostile", data.getvalue(), {"Content-Type": "application/x-tar"})
    assert os.listdir(tmp_path) == []


def test_a_crash_leaves_nothing_half_filled(own_daemon: Daemon) -> None:
    own_daemon.output("volume", "create", "before")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(own_daemon.socket_path)
        client.sendall(
            b"POST /volumes/import?name=half HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n" + b"x" * 100
        )
        until(lambda: len(os.listdir(f"{own_daemon.data_root}/volumes")) == 2)
        own_daemon.restart(signal.SIGKILL)
    assert os.listdir(f"{own_daemon.data_root}/volumes") == ["before"]
    assert own_daemon.output("volume", "ls", "-q") == "before"


def test_snapshots_are_taken_and_restored(daemon: Daemon, filled: str) -> None:
    container = daemon.start("sleep", "1000", HostConfig={"Binds": [f"{filled}:/v"]})
    since = daemon.get("/info").json()["SystemTime"]
    assert said(daemon, "volume", "snapshot", filled, "s1") == "s1"
    assert daemon.state(container)["Status"] == "running"
    daemon.output("exec", container, "sh", "-c", "rm -r /v/d; echo new > /v/new")
    said(daemon, "volume", "snapshot", filled, "s2")
    refused = corral(daemon, "volume", "restore", filled, "s1")
    assert refused.returncode == 1 and "stop the containers that use it first" in refused.stderr
    daemon.output("stop", "-t0", container)
    said(daemon, "volume", "restore", filled, "s1")
    assert look(daemon, filled) == SEEN
    said(daemon, "volume", "restore", filled, "s2")
    daemon.output("start", container)
    assert daemon.output("exec", container, "sh", "-c", "ls /v; cat /v/new") == "new\nnew"
    assert said(daemon, "volume", "snapshots", "--format", "{{.Name}}", filled).split() == ["s1", "s2"]
    daemon.output("rm", "-f", container)
    said(daemon, "volume", "rename", filled, "renamed")
    said(daemon, "volume", "restore", "renamed", "s1")
    assert look(daemon, "renamed") == SEEN
    said(daemon, "volume", "forget", "renamed", "s1", "s2")
    assert os.listdir(f"{daemon.data_root}/volumes/renamed/snapshots") == []
    now = daemon.get("/info").json()["SystemTime"]
    words = ("events", "--since", since, "--until", now, "--filter", "type=volume")
    form = ("--format", "{{.Action}} {{.Actor.Attributes.snapshot}}")
    events = [line for line in daemon.output(*words, *form).splitlines() if "no value" not in line]
    assert events == [
        "snapshot s1", "snapshot s2", "restore s1", "restore s2", "restore s1", "snapshot_rm s1", "snapshot_rm s2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("snapshot", "filled", "taken"), "snapshot filled@taken already exists"),
        (("snapshot", "filled", ".."), "invalid snapshot name"),
        (("snapshot", "absent", "s"), "get absent: no such volume"),
        (("snapshot", "mounted", "s"), "clone it first"),
        (("restore", "filled", "s9"), "No such snapshot: filled@s9"),
        (("restore", "absent", "s"), "get absent: no such volume"),
        (("forget", "filled", "s9"), "No such snapshot: filled@s9"),
    ],
)
def test_refusals_of_snapshots(daemon: Daemon, filled: str, words: tuple[str, ...], text: str) -> None:
    daemon.output("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "mounted")
    said(daemon, "volume", "snapshot", filled, "taken")
    done = corral(daemon, "volume", *words)
    assert done.returncode == 1 and text in done.stderr
    assert sorted(os.listdir(f"{daemon.data_root}/volumes")) == [filled, "mounted"]
    assert os.listdir(f"{daemon.data_root}/volumes/{filled}/snapshots") == ["taken"]


def test_a_crash_leaves_snapshots_whole(own_daemon: Daemon) -> None:
    """Killed while it copies, or just after: what was told is there, and nothing else."""
    own_daemon.output("run", "--rm", "-v", "big:/v", IMAGE, "dd", "if=/dev/zero", "of=/v/f", "bs=1M", "count=200")
    own_daemon.post("/volumes/big/snapshots", {"Name": "whole"})
    body = b'{"Name":"half"}'
    head = f"POST /volumes/big/snapshots HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with own_daemon.raw() as client:
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        folder = f"{own_daemon.data_root}/volumes"
        until(lambda: len(os.listdir(folder)) == 2 or len(os.listdir(f"{folder}/big/snapshots")) == 2)
        own_daemon.restart(signal.SIGKILL)
    kept = {one["Name"]: one["Size"] for one in own_daemon.get("/volumes/big/snapshots").json()}
    assert kept["whole"] == 200 << 20 and set(kept.values()) == {200 << 20}
    assert set(os.listdir(f"{folder}/big/snapshots")) == set(kept)
    assert os.listdir(folder) == ["big"]
