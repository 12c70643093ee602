"""Images through the stock CLI: load, save, import, push, pull, tag, remove, commit."""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import IMAGE, Daemon, Engine, busybox_image, docker_cli
from tests.support.images import busybox_layer
from tests.support.registry import PROGRAM, registry


@pytest.fixture(scope="module")
def address(shared_daemon: Daemon) -> Iterator[str]:
    """A registry on the loopback of the daemon's network namespace, which is spoken to over plain HTTP."""
    if PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    with contextlib.ExitStack() as stack:
        with shared_daemon.space.inside():
            found = stack.enter_context(registry())
        yield found


@pytest.fixture
def names(engine: Engine) -> Iterator[list[str]]:
    """Image names that a test makes and that are removed after it."""
    made: list[str] = []
    yield made
    engine.remove_all()
    for name in made:
        engine.docker("rmi", "-f", name)


def ids(engine: Engine) -> set[str]:
    return {image["Id"] for image in engine.get("/images/json").json()}


def image_id(engine: Engine, name: str) -> str:
    return engine.output("image", "inspect", "-f", "{{.Id}}", name)


def raw(engine: Engine, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """A docker command with bytes in and out."""
    return subprocess.run(
        [docker_cli(), *words], env=engine.environment(), input=data, capture_output=True, timeout=30, check=False
    )


# -- archives ---------------------------------------------------------------------------------------------------


def test_load_and_save_keep_the_image(engine: Engine, names: list[str]) -> None:
    names.append("saved:1")
    assert engine.docker("tag", IMAGE, "saved:1").returncode == 0
    before = image_id(engine, "saved:1")
    saved = raw(engine, "save", "saved:1")
    assert saved.returncode == 0, saved.stderr
    with tarfile.open(fileobj=io.BytesIO(saved.stdout)) as tar:
        members = set(tar.getnames())
    assert {"manifest.json", "index.json", "oci-layout"} <= members  # for readers of either kind
    assert b"Untagged: saved:1" in raw(engine, "rmi", "saved:1").stdout
    loaded = raw(engine, "load", data=saved.stdout)
    assert loaded.stdout == b"Loaded image: saved:1\n"
    assert image_id(engine, "saved:1") == before


def test_a_loaded_image_says_what_was_put_in(engine: Engine, names: list[str]) -> None:
    names.append("with/config:2")
    archive = busybox_image("with/config:2", Env=["A=1"], WorkingDir="/tmp", Labels={"k": "v"}, User="7")
    assert raw(engine, "load", "-q", data=archive).returncode == 0
    (found,) = json.loads(engine.output("image", "inspect", "with/config:2"))
    assert found["RepoTags"] == ["with/config:2"]
    assert (found["Os"], found["Config"]["WorkingDir"], found["Config"]["Labels"]) == ("linux", "/tmp", {"k": "v"})
    assert found["Config"]["Env"] == ["A=1"]
    assert found["RootFS"]["Type"] == "layers"
    line = engine.output("images", "--format", "{{.Repository}} {{.Tag}} {{.ID}}", "with/config")
    assert line == f"with/config 2 {found['Id'].removeprefix('sha256:')[:12]}"
    assert engine.output("run", "--rm", "with/config:2", "sh", "-c", "echo $A; pwd; id -u") == "1\n/tmp\n7"


@pytest.mark.parametrize("damage", ["cut", "nothing", "noise", "text"])
def test_an_archive_that_is_none_changes_nothing(engine: Engine, damage: str) -> None:
    whole = busybox_image("never:1")
    data = {"cut": whole[: len(whole) // 2], "nothing": b"", "noise": os.urandom(5000), "text": b"hello\n" * 500}
    before = ids(engine)
    loaded = raw(engine, "load", data=data[damage])
    assert loaded.returncode == 1
    assert b"Error response from daemon" in loaded.stderr
    assert ids(engine) == before
    assert engine.get("/images/never:1/json").status == 404


def test_import_from_a_url(engine: Engine, daemon: Daemon, names: list[str], tmp_path: Path) -> None:
    names.append("fetched:1")
    (tmp_path / "root.tar").write_bytes(busybox_layer())
    with daemon.space.inside():
        listening = socket.create_server(("127.0.0.1", 0))
    with serving(listening, tmp_path) as port:
        shown = engine.output("import", f"http://127.0.0.1:{port}/root.tar", "fetched:1")
        assert shown.startswith(f"Downloading from http://127.0.0.1:{port}/root.tar")
        assert engine.output("run", "--rm", "fetched:1", "/bin/busybox", "echo", "fetched") == "fetched"
        missing = engine.docker("import", f"http://127.0.0.1:{port}/nosuch.tar", "never:1")
        assert missing.returncode == 1 and "404" in missing.stderr
    refused = engine.post("/images/create", fromSrc="ftp://127.0.0.1/x.tar", repo="never:1")
    assert refused.status == 400 and "only http and https" in refused.message
    assert engine.get("/images/never:1/json").status == 404


@contextlib.contextmanager
def serving(listening: socket.socket, folder: Path) -> Iterator[int]:
    """A web server for a folder on a listening socket; its port."""

    def handler(*args: Any) -> http.server.SimpleHTTPRequestHandler:
        return http.server.SimpleHTTPRequestHandler(*args, directory=str(folder))

    server = http.server.ThreadingHTTPServer(listening.getsockname(), handler, bind_and_activate=False)
    server.socket.close()
    server.socket = listening
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_import(engine: Engine, names: list[str], tmp_path: Path) -> None:
    names.append("imported:1")
    container = engine.create("true")
    tree = raw(engine, "export", container)
    assert tree.returncode == 0
    made = raw(engine, "import", "-c", 'CMD ["echo","changed"]', "-m", "a message", "-", "imported:1", data=tree.stdout)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(b"sha256:")
    assert engine.output("run", "--rm", "imported:1") == "changed"
    assert "a message" in engine.output("history", "--no-trunc", "--format", "{{.Comment}}", "imported:1")


def test_commit(engine: Engine, names: list[str]) -> None:
    names.append("committed:1")
    engine.output("run", "--name", "changed", IMAGE, "sh", "-c", "echo kept > /new; rm /bin/stat")
    assert sorted(engine.output("diff", "changed").splitlines()) == ["A /new", "C /bin", "D /bin/stat"]
    made = engine.output("commit", "-m", "why", "-a", "who", "-c", "ENV X=y", "changed", "committed:1")
    assert made == image_id(engine, "committed:1")
    shown = engine.output("run", "--rm", "committed:1", "sh", "-c", "cat /new; echo $X; ls /bin/stat || echo gone")
    assert shown == "kept\ny\ngone"


# -- names ------------------------------------------------------------------------------------------------------


def test_tag_and_rmi(engine: Engine, names: list[str]) -> None:
    names += ["one:1", "two/three:4"]
    engine.output("tag", IMAGE, "one:1")
    engine.output("tag", "one:1", "two/three:4")
    assert image_id(engine, "one:1") == image_id(engine, "two/three:4") == image_id(engine, IMAGE)
    assert engine.output("rmi", "one:1") == "Untagged: one:1"
    assert engine.get("/images/one:1/json").status == 404
    assert engine.get("/images/two/three:4/json").status == 200


def test_an_image_in_use_stays(engine: Engine, names: list[str]) -> None:
    names.append("used:1")
    assert raw(engine, "load", data=busybox_image("used:1", Labels={"own": "image"})).returncode == 0
    container = engine.create("true", Image="used:1")
    refused = engine.docker("rmi", "used:1")
    assert refused.returncode == 1
    assert "conflict" in refused.stderr
    assert container[:12] in refused.stderr
    engine.output("rm", container)
    assert "Deleted: sha256:" in engine.output("rmi", "used:1")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("image", "inspect", "absent:1"), "No such image: absent:1"),
        (("rmi", "absent:1"), "No such image: absent:1"),
        (("tag", "absent:1", "x:1"), "No such image: absent:1"),
        (("tag", IMAGE, "UPPER:1"), "invalid reference format"),
        (("history", "absent:1"), "No such image: absent:1"),
        (("save", "absent:1"), "absent:1"),
        (("create", "Bad::Name"), "invalid reference format"),
    ],
)
def test_images_that_are_not_there(engine: Engine, words: tuple[str, ...], text: str) -> None:
    refused = engine.docker(*words)
    assert refused.returncode != 0
    assert text.lower() in refused.stderr.lower()


def test_filters_and_disk_usage(engine: Engine, names: list[str]) -> None:
    names.append("labelled:1")
    assert raw(engine, "load", data=busybox_image("labelled:1", Labels={"team": "herd"})).returncode == 0
    listed = engine.output("images", "-q", "--no-trunc", "--filter", "label=team=herd")
    assert listed == image_id(engine, "labelled:1")
    assert engine.output("images", "-q", "--filter", "reference=labelled*").count("\n") == 0
    used = engine.get("/v1.51/system/df").json()
    assert used["LayersSize"] > 0
    assert {"Images", "Containers", "Volumes", "BuildCache"} <= set(used)
    assert "Images" in engine.output("system", "df")


def test_prune_takes_what_has_no_name(engine: Engine, names: list[str]) -> None:
    names.append("dangling:1")
    assert raw(engine, "load", data=busybox_image("dangling:1", Labels={"n": "1"})).returncode == 0
    first = image_id(engine, "dangling:1")
    assert raw(engine, "load", data=busybox_image("dangling:1", Labels={"n": "2"})).returncode == 0
    assert first in engine.output("images", "-q", "--no-trunc", "--filter", "dangling=true")
    assert first in engine.output("image", "prune", "-f")
    assert first not in ids(engine)
    assert image_id(engine, "dangling:1") != first


# -- registries -------------------------------------------------------------------------------------------------


def test_push_and_pull(engine: Engine, address: str, names: list[str]) -> None:
    name = f"{address}/herd/busybox:1"
    names.append(name)
    engine.output("tag", IMAGE, name)
    before = image_id(engine, name)
    pushed = engine.output("push", name)
    assert "1: digest: sha256:" in pushed
    engine.output("rmi", name)
    pulled = engine.output("pull", name)
    assert "Status: Downloaded newer image for" in pulled
    assert image_id(engine, name) == before
    (found,) = json.loads(engine.output("image", "inspect", name))
    (by_digest,) = [digest for digest in found["RepoDigests"] if digest.startswith(address)]
    assert "Image is up to date" in engine.output("pull", name)
    assert engine.output("run", "--rm", by_digest, "echo", "ran") == "ran"


def test_run_pulls_what_is_missing(engine: Engine, address: str, names: list[str]) -> None:
    name = f"{address}/herd/missing:1"
    names.append(name)
    assert raw(engine, "load", data=busybox_image(name, Labels={"m": "1"})).returncode == 0
    engine.output("push", name)
    engine.output("rmi", name)
    ran = engine.docker("run", "--rm", name, "echo", "here")
    assert (ran.returncode, ran.stdout) == (0, "here\n")
    assert "Unable to find image" in ran.stderr


def test_pull_progress_is_what_the_cli_draws(engine: Engine, address: str, names: list[str]) -> None:
    name = f"{address}/herd/progress:1"
    names.append(name)
    assert raw(engine, "load", data=busybox_image(name, Labels={"p": "1"})).returncode == 0
    engine.output("push", name)
    engine.output("rmi", name)
    reply = engine.post("/images/create", fromImage=f"{address}/herd/progress", tag="1")
    records = [json.loads(line) for line in reply.body.splitlines()]
    statuses = [record["status"] for record in records]
    assert statuses[0] == "Pulling from herd/progress"
    assert any(status.startswith("Digest: sha256:") for status in statuses)
    assert any(record.get("id") for record in records)


@pytest.mark.parametrize("repository", ["herd/nothing", "nobody/at:all"])
def test_pulling_what_is_not_there(engine: Engine, address: str, repository: str) -> None:
    refused = engine.docker("pull", f"{address}/{repository}")
    assert refused.returncode == 1
    assert "not found" in refused.stderr or "manifest unknown" in refused.stderr
    assert engine.docker("run", "--rm", f"{address}/herd/nothing", "true").returncode == 125


def test_a_registry_that_does_not_answer(engine: Engine) -> None:
    refused = engine.docker("pull", "127.0.0.1:1/x:1")
    assert refused.returncode == 1
    assert "refused" in refused.stderr
