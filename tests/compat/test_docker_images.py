"""Images through the stock CLI: archives, registries, names, and what clients are told when it goes wrong."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon, busybox_image
from tests.support.registry import registry


@pytest.fixture
def served(daemon: Daemon) -> Iterator[str]:
    """A registry in the daemon's own network, without TLS."""
    with contextlib.ExitStack() as stack:
        with daemon.space.inside():
            address = stack.enter_context(registry())
        yield address


@pytest.fixture
def served_tls(daemon: Daemon, tmp_path: Path) -> Iterator[str]:
    """The same over TLS, with a certificate that nobody signed (Docker trusts loopback all the same)."""
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*words, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with contextlib.ExitStack() as stack:
        with daemon.space.inside():
            address = stack.enter_context(registry(tls=(certificate, key)))
        yield address


def images(daemon: Daemon) -> set[str]:
    return set(daemon.output("images", "--format", "{{.Repository}}:{{.Tag}}").split())


def test_load_list_inspect_tag_remove(daemon: Daemon) -> None:
    archive = busybox_image("loaded:1", Env=["A=1"], Cmd=["echo", "from the image"])
    done = subprocess.run(
        ["docker", "load"], input=archive, env=daemon.environment(), capture_output=True, timeout=20, check=False
    )
    assert done.stdout == b"Loaded image: loaded:1\n", done.stderr
    assert "loaded:1" in images(daemon)
    shown = json.loads(daemon.output("image", "inspect", "loaded:1"))[0]
    assert shown["RepoTags"] == ["loaded:1"]
    assert shown["Config"]["Cmd"] == ["echo", "from the image"]
    assert shown["RootFS"]["Type"] == "layers"
    assert daemon.output("run", "--rm", "loaded:1") == "from the image"
    daemon.output("tag", "loaded:1", "other/name:2")
    assert json.loads(daemon.output("image", "inspect", "other/name:2"))[0]["Id"] == shown["Id"]
    assert daemon.output("rmi", "loaded:1") == "Untagged: loaded:1"
    assert daemon.output("rmi", "other/name:2").splitlines() == ["Untagged: other/name:2", f"Deleted: {shown['Id']}"]
    assert "No such image: loaded:1" in daemon.docker("image", "inspect", "loaded:1").stderr


def test_save_and_load_keep_the_id(daemon: Daemon, tmp_path: Path) -> None:
    path = str(tmp_path / "saved.tar")
    before = json.loads(daemon.output("image", "inspect", IMAGE))[0]["Id"]
    daemon.output("tag", IMAGE, "kept:1")
    daemon.output("save", "-o", path, "kept:1")
    with tarfile.open(path) as tar:
        names = set(tar.getnames())
    assert {"manifest.json", "oci-layout", "index.json"} <= names
    daemon.output("rmi", "kept:1")
    assert daemon.output("load", "-i", path) == "Loaded image: kept:1"
    assert json.loads(daemon.output("image", "inspect", "kept:1"))[0]["Id"] == before
    daemon.output("rmi", "kept:1")


def test_history(daemon: Daemon) -> None:
    lines = daemon.output("history", "--no-trunc", "--format", "{{.ID}}", IMAGE).splitlines()
    assert lines[0] == json.loads(daemon.output("image", "inspect", IMAGE))[0]["Id"]


def test_commit_import_and_disk_usage(daemon: Daemon) -> None:
    daemon.output("run", "--name", "changed", IMAGE, "sh", "-c", "echo new > /file")
    made = daemon.output("commit", "-m", "a change", "-c", "CMD cat /file", "changed", "committed:1")
    assert daemon.output("run", "--rm", "committed:1") == "new"
    rows = {row["Type"]: row for row in map(json.loads, daemon.output("system", "df", "--format", "json").splitlines())}
    assert int(rows["Images"]["TotalCount"]) >= 2
    assert int(rows["Containers"]["TotalCount"]) >= 1
    export = subprocess.run(
        ["docker", "export", "changed"], env=daemon.environment(), capture_output=True, timeout=20, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(export)) as tar:
        assert "file" in {name.removeprefix("./") for name in tar.getnames()}
    done = subprocess.run(
        ["docker", "import", "-c", "CMD cat /file", "-", "imported:1"],
        input=export, env=daemon.environment(), capture_output=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout.startswith(b"sha256:")
    assert daemon.output("run", "--rm", "imported:1") == "new"
    daemon.output("rm", "changed")
    assert made in daemon.output("rmi", "committed:1")
    daemon.output("rmi", "imported:1")


def test_push_and_pull(daemon: Daemon, served: str) -> None:
    name = f"{served}/team/app:1"
    daemon.output("tag", IMAGE, name)
    assert "digest: sha256:" in daemon.output("push", name)
    daemon.output("rmi", name)
    out = daemon.output("pull", name)
    assert f"Status: Downloaded newer image for {name}" in out
    assert f"Status: Image is up to date for {name}" in daemon.output("pull", name)
    assert daemon.output("run", "--rm", name, "echo", "pulled") == "pulled"
    daemon.output("rmi", name)
    missing = daemon.docker("pull", f"{served}/team/app:2")
    assert missing.returncode == 1
    assert "manifest unknown" in missing.stderr


def test_pull_over_tls(daemon: Daemon, served_tls: str) -> None:
    name = f"{served_tls}/team/app:1"
    daemon.output("tag", IMAGE, name)
    daemon.output("push", name)
    daemon.output("rmi", name)
    assert "Downloaded newer image" in daemon.output("pull", name)
    daemon.output("rmi", name)


def test_what_cannot_be(daemon: Daemon) -> None:
    assert "must be lowercase" in daemon.docker("pull", "127.0.0.1:1/UPPER/name").stderr
    assert "invalid reference format" in daemon.docker("tag", IMAGE, "a::b").stderr
    assert "No such image: nothing:latest" in daemon.docker("rmi", "nothing").stderr
    container = daemon.start("sleep", "60")
    refused = daemon.docker("rmi", IMAGE)
    assert refused.returncode == 1
    assert f"container {container[:12]} is using its referenced image" in refused.stderr
    before = images(daemon)
    archive = busybox_image("cut:1")
    done = subprocess.run(
        ["docker", "load"], input=archive[: len(archive) // 2], env=daemon.environment(), capture_output=True,
        timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert images(daemon) == before


def test_prune(daemon: Daemon) -> None:
    daemon.output("run", "--name", "grows", IMAGE, "sh", "-c", "echo 1 > /x")
    made = daemon.output("commit", "grows")
    daemon.output("rm", "grows")
    assert made in daemon.output("image", "prune", "-f")
    assert daemon.docker("image", "inspect", made).returncode == 1
