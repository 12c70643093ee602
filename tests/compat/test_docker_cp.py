"""`docker cp` and `export`: into and out of running, stopped and never started containers."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon, Engine


@pytest.fixture(params=["created", "running", "exited"])
def container(request: pytest.FixtureRequest, engine: Engine) -> str:
    made = engine.create("sleep", "60") if request.param != "exited" else engine.create("true")
    if request.param != "created":
        engine.post(f"/containers/{made}/start")
    if request.param == "exited":
        engine.wait(made)
    return made


def test_file_in_and_out(engine: Engine, container: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("content")
    (tmp_path / "in").chmod(0o640)
    engine.output("cp", str(tmp_path / "in"), f"{container}:/tmp/renamed")
    engine.output("cp", f"{container}:/tmp/renamed", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "content"
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o640


def test_tree_in_and_out(engine: Engine, container: str, tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_text("deep")
    (source / "link").symlink_to("a/b/file")
    engine.output("cp", str(source), f"{container}:/home")
    engine.output("cp", f"{container}:/home/tree", str(tmp_path / "back"))
    assert (tmp_path / "back/a/b/file").read_text() == "deep"
    assert os.readlink(tmp_path / "back/link") == "a/b/file"
    engine.output("cp", f"{source}/.", f"{container}:/mnt")
    engine.output("cp", f"{container}:/mnt/.", str(tmp_path / "contents"))
    assert (tmp_path / "contents/a/b/file").read_text() == "deep"


def test_a_file_over_a_link_follows_it_inside_the_container(engine: Engine, tmp_path: Path) -> None:
    container = engine.create("sh", "-c", "ln -s /etc/passwd /tmp/link; ln -s ../../../../../../etc /tmp/up")
    engine.post(f"/containers/{container}/start")
    engine.wait(container)
    engine.output("cp", "-L", f"{container}:/tmp/link", str(tmp_path / "passwd"))
    assert (tmp_path / "passwd").read_text().startswith("root:x:0:0:root:/root:/bin/sh\nbob")
    (tmp_path / "new").write_text("x")
    engine.output("cp", str(tmp_path / "new"), f"{container}:/tmp/up/new-file")
    assert not os.path.exists("/etc/new-file")
    engine.output("cp", f"{container}:/etc/new-file", str(tmp_path / "again"))
    assert (tmp_path / "again").read_text() == "x"


def test_what_cannot_be_copied(engine: Engine, container: str, tmp_path: Path) -> None:
    done = engine.docker("cp", f"{container}:/no/such", str(tmp_path))
    assert done.returncode == 1
    assert "Could not find the file /no/such in container" in done.stderr
    (tmp_path / "file").write_text("x")
    done = engine.docker("cp", str(tmp_path / "file"), f"{container}:/no/such/folder/")
    assert done.returncode == 1
    done = engine.docker("cp", str(tmp_path / "missing"), f"{container}:/tmp")
    assert done.returncode == 1
    done = engine.docker("cp", str(tmp_path), f"{container}:/etc/passwd")
    assert done.returncode == 1


def test_through_pipes(engine: Engine, container: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        info = tarfile.TarInfo("piped")
        info.size, info.uid, info.gid = 3, 1000, 1000
        tar.addfile(info, io.BytesIO(b"abc"))
    reply = engine.request(
        "PUT", f"/containers/{container}/archive", data.getvalue(), {"Content-Type": "application/x-tar"}, path="/tmp"
    )
    assert reply.status == 200, reply.body
    out = engine.get(f"/containers/{container}/archive", path="/tmp/piped")
    with tarfile.open(fileobj=io.BytesIO(out.body)) as tar:
        member = tar.getmember("piped")
        assert (member.uid, member.gid, member.size) == (1000, 1000, 3)


def test_archive_with_paths_that_lead_out(daemon: Daemon, tmp_path: Path) -> None:
    container = daemon.create("true")
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for name, kind, link in (
        ("../../../../../../.." + str(victim), tarfile.REGTYPE, ""),
        (str(victim), tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, str(tmp_path)),
        ("hard", tarfile.LNKTYPE, "../../../../../.." + str(victim)),
    ):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w") as tar:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info, io.BytesIO(b""))
            if name == "link":
                inner = tarfile.TarInfo("link/victim")
                inner.size = 4
                tar.addfile(inner, io.BytesIO(b"evil"))
        daemon.request(
            "PUT",
            f"/containers/{container}/archive",
            data.getvalue(),
            {"Content-Type": "application/x-tar"},
            path="/tmp",
        )
    assert victim.read_text() == "untouched"
    assert victim.stat().st_nlink == 1


def test_binds_and_read_only_roots(engine: Engine, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (tmp_path / "file").write_text("bound")
    container = engine.create("sleep", "9", HostConfig={"Binds": [f"{shared}:/data"], "ReadonlyRootfs": True})
    engine.output("cp", str(tmp_path / "file"), f"{container}:/data/")
    assert (shared / "file").read_text() == "bound"
    done = engine.docker("cp", str(tmp_path / "file"), f"{container}:/tmp/")
    assert "marked read-only" in done.stderr
    locked = engine.create("sleep", "9", HostConfig={"Binds": [f"{shared}:/data:ro"]})
    assert engine.docker("cp", str(tmp_path / "file"), f"{locked}:/data/").returncode == 1


def test_export(engine: Engine, container: str, tmp_path: Path) -> None:
    engine.output("export", "-o", str(tmp_path / "root.tar"), container)
    with tarfile.open(tmp_path / "root.tar") as tar:
        names = {name.strip("/") for name in tar.getnames()}
    assert {"bin/busybox", "etc/passwd", "bin/sh"} <= names


def test_export_import_run(engine: Engine, tmp_path: Path) -> None:
    container = engine.create("sh", "-c", "echo made > /made")
    engine.post(f"/containers/{container}/start")
    engine.wait(container)
    engine.output("export", "-o", str(tmp_path / "root.tar"), container)
    engine.output("import", str(tmp_path / "root.tar"), "corral.test/imported:1")
    try:
        assert engine.output("run", "--rm", "corral.test/imported:1", "cat", "/made") == "made"
    finally:
        engine.output("rmi", "corral.test/imported:1")


def test_stopped_container_keeps_owners_and_large_files(engine: Engine, tmp_path: Path) -> None:
    container = engine.create("sh", "-c", "dd if=/dev/zero of=/tmp/large bs=1M count=20; chown bob /tmp/large")
    engine.post(f"/containers/{container}/start")
    assert engine.wait(container) == 0
    engine.output("cp", "-a", f"{container}:/tmp/large", str(tmp_path / "large"))
    assert (tmp_path / "large").stat().st_size == 20 << 20
    reply = engine.get(f"/containers/{container}/archive", path="/tmp/large")
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as tar:
        assert tar.getmember("large").uid == 1000


def test_kinds_of_images_remain_after_cp(engine: Engine) -> None:
    assert IMAGE in engine.output("images", "--format", "{{.Repository}}:{{.Tag}}").split()


def test_archive_mode_gives_files_to_the_user_of_the_container(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    engine.output("run", "-d", "--name", "owned", "-u", "12:34", IMAGE, "sleep", "60")
    engine.output("cp", str(tmp_path / "file"), "owned:/tmp/plain")
    engine.output("cp", "-a", str(tmp_path / "file"), "owned:/tmp/archived")
    out = engine.output("exec", "owned", "stat", "-c", "%u:%g", "/tmp/plain", "/tmp/archived")
    assert out.split() == ["0:0", "12:34"]
