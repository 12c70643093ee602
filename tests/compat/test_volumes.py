"""Volumes and mounts, by what a container sees of them."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon, Engine


def run(engine: Engine, *words: str) -> str:
    return engine.output("run", "--rm", *words)


def refused(engine: Engine, *words: str) -> str:
    """What the client prints when a create is refused; nothing may be left of it."""
    before = engine.containers(), engine.output("volume", "ls", "-q")
    done = engine.docker("create", *words)
    assert done.returncode != 0, done.stdout
    assert (engine.containers(), engine.output("volume", "ls", "-q")) == before
    return done.stderr


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    """The name of a volume; it is removed after the test, if it exists."""
    name = f"v-{uuid.uuid4().hex[:8]}"
    yield name
    engine.remove_all()
    engine.docker("volume", "rm", "-f", name)


def test_subpath_of_a_volume(engine: Engine, volume: str) -> None:
    run(
        engine,
        "-v",
        f"{volume}:/v",
        IMAGE,
        "sh",
        "-c",
        "mkdir -p /v/a/b && echo deep > /v/a/b/file && echo top > /v/file",
    )
    mount = f"type=volume,src={volume},dst=/m,volume-subpath=a/b"
    assert run(engine, "--mount", mount, IMAGE, "sh", "-c", "cat /m/file; ls /m; echo new > /m/new") == "deep\nfile"
    assert run(engine, "-v", f"{volume}:/v", IMAGE, "cat", "/v/a/b/new") == "new"
    single = f"type=volume,src={volume},dst=/m,volume-subpath=file"
    assert run(engine, "--mount", single, IMAGE, "cat", "/m") == "top"


def test_subpath_does_not_lead_out(engine: Engine, volume: str) -> None:
    run(engine, "-v", f"{volume}:/v", IMAGE, "ln", "-s", "/etc", "/v/link")
    mount = f"type=volume,src={volume},dst=/m,volume-subpath="
    done = engine.docker("run", "--rm", "--mount", f"{mount}link", IMAGE, "ls", "/m")
    assert done.returncode != 0
    assert "no such file or directory" in done.stderr
    done = engine.docker("run", "--rm", "--mount", f"{mount}absent", IMAGE, "true")
    assert done.returncode != 0
    assert "subpath must be a relative path" in refused(engine, "--mount", f"{mount}../x", IMAGE)


def test_image_mounts(engine: Engine) -> None:
    mount = f"type=image,src={IMAGE},dst=/other"
    script = "cat /other/not-executable; touch /other/x 2>&1; ls /other/bin | grep -c ."
    said = run(engine, "--mount", mount, IMAGE, "sh", "-c", script).splitlines()
    assert said[0] == "plain text"
    assert "Read-only file system" in said[1]
    assert int(said[2]) > 100
    assert run(engine, "--mount", f"{mount},image-subpath=etc", IMAGE, "ls", "/other") == "group\npasswd"
    assert run(engine, "--mount", f"{mount},image-subpath=etc/group", IMAGE, "head", "-n1", "/other") == "root:x:0:"
    absent = {"Type": "image", "Source": "corral.test/nothing", "Target": "/x"}
    reply = engine.post("/containers/create", {"Image": IMAGE, "HostConfig": {"Mounts": [absent]}})
    assert (reply.status, reply.message) == (400, "No such image: corral.test/nothing:latest")


def test_image_mount_keeps_the_image(engine: Engine) -> None:
    engine.output("import", "-", "corral.test/mounted:1", input="")
    container = engine.output("create", "--mount", "type=image,src=corral.test/mounted:1,dst=/other", IMAGE, "true")
    done = engine.docker("rmi", "corral.test/mounted:1")
    assert done.returncode != 0
    [point] = engine.inspect(container)["Mounts"]
    assert (point["Type"], point["Destination"], point["RW"]) == ("image", "/other", False)
    engine.output("rm", container)
    engine.output("rmi", "corral.test/mounted:1")


def test_volumes_from(engine: Engine, volume: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound\n")
    first = engine.output(
        "create", "-v", f"{volume}:/data", "-v", f"{tmp_path}:/bound:ro", "-v", "/anonymous", "--tmpfs", "/t", IMAGE
    )
    run(engine, "-v", f"{volume}:/v", IMAGE, "sh", "-c", "echo named > /v/file")
    script = "cat /data/file /bound/file; touch /bound/x 2>/dev/null || echo ro; touch /anonymous/x && echo rw"
    script += "; mount | grep -c ' /t '"
    done = engine.docker("run", "--rm", "--volumes-from", first, IMAGE, "sh", "-c", script)
    assert done.stdout == "named\nbound\nro\nrw\n0\n"
    script = "touch /data/x 2>/dev/null || echo ro"
    assert run(engine, "--volumes-from", f"{first}:ro", IMAGE, "sh", "-c", script) == "ro"
    assert run(engine, "--volumes-from", first, "--tmpfs", "/data", IMAGE, "ls", "/data") == ""
    second = engine.output("create", "-v", f"{tmp_path}:/data", IMAGE)
    assert run(engine, "--volumes-from", first, "--volumes-from", second, IMAGE, "cat", "/data/file") == "bound"
    assert run(engine, "--volumes-from", second, "--volumes-from", first, IMAGE, "cat", "/data/file") == "named"
    assert "invalid mode: nonsense" in refused(engine, "--volumes-from", f"{first}:nonsense", IMAGE)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("-v", "vol:/x", "-v", "vol2:/x"), "Duplicate mount point: /x"),
        (("-v", "vol:/x", "--tmpfs", "/x"), "Duplicate mount point: /x"),
        (("-v", "vol:/x", "--mount", "type=tmpfs,dst=/x/"), "Duplicate mount point: /x"),
        (("-v", "/etc:/"), "destination can't be '/'"),
        (("-v", "/etc:/x:ro,rw"), "invalid mode: ro,rw"),
        (("-v", "/etc:/x:nocopy"), "invalid mode: nocopy"),
        (("-v", "vol:/x:rshared"), "invalid mode: rshared"),
        (("-v", "a!:/x"), "includes invalid characters for a local volume name"),
        (("--mount", "type=tmpfs,dst=/x,tmpfs-size=-1"), "invalid"),
        (("--tmpfs", "/x:nonsense"), 'invalid tmpfs option "nonsense"'),
        (("--mount", "type=cluster,src=a,dst=/x"), "cluster volumes need a swarm"),
    ],
)  # fmt: skip
def test_refused_mounts(engine: Engine, words: tuple[str, ...], text: str) -> None:
    assert text in refused(engine, *words, IMAGE)


def test_tmpfs_options(engine: Engine) -> None:
    script = "stat -c %a:%u:%g /t; mount | grep ' /t '; cp /bin/busybox /t/busybox; /t/busybox true && echo ran"
    said = run(engine, "--tmpfs", "/t:size=4m,mode=710,uid=7,gid=8,exec", IMAGE, "sh", "-c", script).splitlines()
    assert said[0] == "710:7:8"
    assert "size=4096k" in said[1]
    assert "noexec" not in said[1]
    assert said[2] == "ran"
    mount = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1700"
    said = run(engine, "--mount", mount, IMAGE, "sh", "-c", "stat -c %a /t; mount | grep ' /t '").splitlines()
    assert said[0] == "1700"
    assert "size=1024k" in said[1]
    assert "noexec" in said[1]


def test_tmpfs_hides_what_a_volume_of_the_image_would_show(engine: Engine) -> None:
    container = engine.create("sh", "-c", "mount | grep ' /v '", Volumes={"/v": {}}, HostConfig={"Tmpfs": {"/v": ""}})
    assert engine.inspect(container)["Mounts"] == []
    assert engine.output("start", "-a", container).startswith("tmpfs on /v type tmpfs")


def test_mounts_inside_mounts_whatever_their_order(engine: Engine, volume: str, tmp_path: Path) -> None:
    words = ("-v", f"{tmp_path}:/a/b/c", "--tmpfs", "/a/b", "-v", f"{volume}:/a")
    (tmp_path / "file").write_text("seen\n")
    assert run(engine, *words, IMAGE, "sh", "-c", "cat /a/b/c/file; stat -fc %T /a/b; ls /a") == "seen\ntmpfs\nb"


def test_copy_up_keeps_owners_and_follows_links(engine: Engine, volume: str) -> None:
    script = "mkdir /real && echo x > /real/f && chown -R 7:8 /real && chmod 2750 /real && ln -s /real /link"
    made = engine.start("sh", "-c", script)
    assert engine.wait(made) == 0
    engine.output("commit", made, "corral.test/owned:1")
    try:
        assert run(
            engine, "-v", f"{volume}:/link", "corral.test/owned:1", "stat", "-c", "%a %u:%g", "/link/", "/link/f"
        ) == ("2750 7:8\n644 7:8")
        assert run(engine, "-v", "/link", "corral.test/owned:1", "ls", "/link/") == "f"
        assert (
            run(engine, "--mount", "type=volume,dst=/link,volume-nocopy", "corral.test/owned:1", "ls", "/link/") == ""
        )
    finally:
        engine.remove_all()
        engine.output("rmi", "corral.test/owned:1")


def test_driver_and_labels_in_a_mount(engine: Engine, volume: str) -> None:
    mount = f"type=volume,src={volume},dst=/v,volume-label=a=b"
    mount += ",volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=2m"
    assert "size=2048k" in run(engine, "--mount", mount, IMAGE, "sh", "-c", "mount | grep ' /v '")
    found = engine.get(f"/volumes/{volume}").json()
    assert found["Labels"] == {"a": "b"}
    assert found["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}


def test_a_local_volume_is_mounted_while_it_is_used(daemon: Daemon, volume: str) -> None:
    daemon.output("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=5", volume)
    first = daemon.start("sh", "-c", "echo kept > /v/f; sleep 1000", HostConfig={"Binds": [f"{volume}:/v"]})
    second = daemon.start("sleep", "1000", HostConfig={"Binds": [f"{volume}:/w"]})
    assert daemon.output("exec", second, "sh", "-c", "stat -c %u /w; cat /w/f") == "5\nkept"
    assert daemon.mounts() == [daemon.get(f"/volumes/{volume}").json()["Mountpoint"]]
    daemon.output("rm", "-f", first)
    assert daemon.output("exec", second, "cat", "/w/f") == "kept"
    daemon.output("stop", "-t0", second)
    assert daemon.mounts() == []
    third = daemon.output("create", "-v", f"{volume}:/v", IMAGE)
    daemon.output("cp", third + ":/v", "-")
    assert daemon.mounts() == []


def test_a_bind_as_a_volume(engine: Engine, volume: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    engine.output("volume", "create", "-o", "type=none", "-o", "o=bind,ro", "-o", f"device={tmp_path}", volume)
    script = "cat /v/file; touch /v/x 2>/dev/null || echo ro"
    assert run(engine, "-v", f"{volume}:/v", IMAGE, "sh", "-c", script) == "from the host\nro"
    engine.output("volume", "rm", volume)
    assert os.listdir(tmp_path) == ["file"]


def test_a_volume_that_cannot_be_mounted(engine: Engine, volume: str) -> None:
    engine.output("volume", "create", "-o", "type=ext4", "-o", "device=/nonexistent", volume)
    done = engine.docker("run", "--rm", "-v", f"{volume}:/v", IMAGE, "true")
    assert done.returncode != 0
    assert "failed to mount local volume: mount /nonexistent:" in done.stderr
    assert "no such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["nonsense=1"], 'invalid option: "nonsense"'),
        (["type=nfs"], 'missing required option: "device"'),
        (["device=:/x"], 'missing required option: "type"'),
        (["o=ro"], 'missing required option: "device"'),
        (["size=1g"], "quota size requested but no quota support"),
        (["size=lots"], "size"),
    ],
)
def test_refused_options(engine: Engine, options: list[str], text: str) -> None:
    done = engine.docker("volume", "create", *(word for one in options for word in ("-o", one)), "never-made")
    assert done.returncode != 0
    assert text in done.stderr
    assert engine.get("/volumes/never-made").status == 404


def test_unknown_drivers(engine: Engine) -> None:
    text = 'error looking up volume plugin nothing: plugin "nothing" not found'
    assert text in engine.docker("volume", "create", "-d", "nothing", "never-made").stderr
    body = {"Image": IMAGE, "HostConfig": {"Binds": ["never-made:/x"], "VolumeDriver": "nothing"}}
    reply = engine.post("/containers/create", body)
    assert (reply.status, reply.message) == (400, text)
    assert engine.get("/volumes/never-made").status == 404


def test_filters_and_events(engine: Engine, volume: str) -> None:
    since = engine.get("/info").json()["SystemTime"]
    engine.output("volume", "create", "--label", "one=1", volume)
    container = engine.output("create", "-v", f"{volume}:/v", IMAGE, "true")

    def found(*filters: str) -> bool:
        words = [word for one in filters for word in ("--filter", one)]
        return volume in engine.output("volume", "ls", "-q", *words).split()

    assert found(f"name={volume[:5]}") and not found("name=absent")
    assert found("driver=local", "label=one") and not found("driver=other")
    assert found("label=one=1") and not found("label=one=2") and not found("label=two")
    assert found("dangling=0") and not found("dangling=1")
    assert "unknown" in engine.docker("volume", "ls", "--filter", "unknown=1").stderr
    engine.output("start", "-a", container)
    engine.output("rm", container)
    assert found("dangling=true")
    engine.output("volume", "rm", volume)
    until = engine.get("/info").json()["SystemTime"]
    words = ("--since", since, "--until", until, "--filter", f"volume={volume}")
    words += ("--format", "{{.Action}} {{json .Actor}}")
    lines = engine.output("events", *words).splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["create", "mount", "unmount", "destroy"]
    attributes = json.loads(lines[1].partition(" ")[2])["Attributes"]
    assert attributes == {
        "container": container, "destination": "/v", "driver": "local", "propagation": "", "read/write": "true",
    }  # fmt: skip


def test_copying_through_mounts(engine: Engine, volume: str, tmp_path: Path) -> None:
    run(engine, "-v", f"{volume}:/v", IMAGE, "mkdir", "/v/part")
    mounts = ("--mount", f"type=volume,src={volume},dst=/p,volume-subpath=part")
    mounts += ("--mount", f"type=image,src={IMAGE},dst=/i")
    container = engine.output("create", *mounts, IMAGE, "cat", "/p/file")
    (tmp_path / "file").write_text("copied\n")
    engine.output("cp", f"{tmp_path}/file", f"{container}:/p/")
    assert run(engine, "-v", f"{volume}:/v", IMAGE, "cat", "/v/part/file") == "copied"
    engine.output("cp", f"{container}:/i/not-executable", f"{tmp_path}/out")
    assert (tmp_path / "out").read_text() == "plain text\n"
    assert engine.docker("cp", f"{tmp_path}/file", f"{container}:/i/").returncode != 0
    assert engine.output("start", "-a", container) == "copied"


def test_a_volume_given_by_name_stays_though_nobody_named_it(daemon: Daemon) -> None:
    name = daemon.output("volume", "create")
    try:
        daemon.output("run", "--rm", "-v", f"{name}:/v", IMAGE, "sh", "-c", "echo kept > /v/f")
        assert daemon.output("run", "--rm", "-v", f"{name}:/v", IMAGE, "cat", "/v/f") == "kept"
    finally:
        daemon.output("volume", "rm", name)
