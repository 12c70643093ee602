"""Archives and registries as images come from them: whole, hostile and spoiled, through the stock CLI."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from tests.support import registry as registries
from tests.support.daemon import Daemon, Engine, busybox_image
from tests.support.images import (
    busybox_layer,
    config_of,
    digest,
    directory,
    docker_archive,
    member,
    oci_archive,
    oci_blobs,
    tar_of,
)

NAME = "corral.test/small:1"
needs_registry = pytest.mark.skipif(registries.PROGRAM is None, reason="docker-registry is not installed")


def loaded(engine: Engine, data: bytes) -> str:
    """What `docker load` says."""
    done = engine.docker("load", input=data)
    return done.stdout + done.stderr


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return tar_of(members)


def test_load_docker_archive_list_inspect_and_remove(engine: Engine) -> None:
    assert f"Loaded image: {NAME}" in loaded(engine, docker_archive([busybox_layer()], [NAME], Env=["A=b"]))
    rows = engine.output("images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}}").splitlines()
    assert any(row.startswith(f"{NAME} ") for row in rows)
    found = json.loads(engine.output("inspect", NAME))[0]
    assert found["RepoTags"] == [NAME]
    assert found["Config"]["Env"] == ["A=b"]
    assert (found["Os"], found["RootFS"]["Type"], len(found["RootFS"]["Layers"])) == ("linux", "layers", 1)
    assert engine.output("run", "--rm", NAME, "sh", "-c", "echo $A") == "b"
    engine.output("tag", NAME, "corral.test/other:2")
    assert f"Untagged: {NAME}" in engine.output("rmi", NAME)
    assert "Deleted: sha256:" in engine.output("rmi", "corral.test/other:2")
    assert engine.docker("inspect", NAME).returncode == 1


def test_load_oci_layout(engine: Engine) -> None:
    assert "Loaded image" in loaded(engine, oci_archive([busybox_layer()], "corral.test/oci:1"))
    assert engine.output("run", "--rm", "corral.test/oci:1", "echo", "from oci") == "from oci"
    engine.output("rmi", "corral.test/oci:1")


def test_load_compressed_archive(engine: Engine) -> None:
    data = gzip.compress(docker_archive([busybox_layer()], [NAME]), 1)
    assert f"Loaded image: {NAME}" in loaded(engine, data)
    engine.output("rmi", NAME)


def test_save_and_load_again(engine: Engine, tmp_path: Path) -> None:
    loaded(engine, docker_archive([busybox_layer()], [NAME]))
    image = engine.output("inspect", "-f", "{{.Id}}", NAME)
    engine.output("save", "-o", str(tmp_path / "saved.tar"), NAME)
    engine.output("rmi", NAME)
    assert NAME in engine.output("load", "-i", str(tmp_path / "saved.tar"))
    assert engine.output("inspect", "-f", "{{.Id}}", NAME) == image
    engine.output("rmi", NAME)


def test_import_with_changes(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(busybox_layer())
    name = "corral.test/imported:1"
    printed = engine.output("import", "-c", "CMD echo default", "-c", "ENV X=y", str(tmp_path / "root.tar"), name)
    assert printed.startswith("sha256:")
    assert engine.output("run", "--rm", name) == "default"
    engine.output("rmi", name)


def test_image_in_use_is_not_removed(engine: Engine) -> None:
    loaded(engine, docker_archive([busybox_layer()], [NAME]))
    container = engine.output("create", NAME, "true")
    done = engine.docker("rmi", NAME)
    assert done.returncode == 1
    assert "conflict: unable to" in done.stderr.lower() and container[:12] in done.stderr
    engine.output("rm", container)
    engine.output("rmi", NAME)


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("Upper", "must be lowercase"),
        ("bad//name", "invalid reference format"),
        ("name:" + "t" * 129, "invalid reference format"),
        ("name@sha256:123", "invalid reference format"),
        ("-dash", ""),
    ],
)
def test_malformed_references(engine: Engine, reference: str, text: str) -> None:
    for words in (["pull", reference], ["run", "--rm", reference], ["tag", reference, "fine:1"]):
        done = engine.docker(*words)
        assert done.returncode != 0
        assert text in done.stderr


def images_of(engine: Engine) -> list[str]:
    return sorted(engine.output("images", "-aq", "--no-trunc").split())


def _without_end(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _other_layer(data: bytes) -> bytes:
    """An archive whose layer is not the one its configuration names."""
    config = config_of([busybox_layer()])
    manifest = [{"Config": "c.json", "RepoTags": [NAME], "Layers": ["l.tar"]}]
    return tar_of(
        [
            member("l.tar", layer(member("different", b"1"))),
            member("c.json", config),
            member("manifest.json", json.dumps(manifest).encode()),
        ]
    )


def _wrong_blob(data: bytes) -> bytes:
    """An OCI layout with a blob whose content is not its name's."""
    descriptor, blobs = oci_blobs([busybox_layer()])
    some = next(key for key in blobs if key != descriptor["digest"])
    members = [member("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')]
    for key, content in blobs.items():
        members.append(member(f"blobs/sha256/{key[7:]}", content + (b"x" if key == some else b"")))
    index = {"schemaVersion": 2, "manifests": [descriptor]}
    members.append(member("index.json", json.dumps(index).encode()))
    return tar_of(members)


@pytest.mark.parametrize(
    "spoil", [_without_end, _other_layer, _wrong_blob, lambda _: b"", lambda _: b"not a tar" * 999]
)
def test_spoiled_archives_change_nothing(daemon: Daemon, spoil: object) -> None:
    before = images_of(daemon)
    assert callable(spoil)
    done = daemon.docker("load", input=spoil(docker_archive([busybox_layer()], [NAME])))
    assert done.returncode != 0 or "Loaded" not in done.stdout
    assert images_of(daemon) == before


def test_layers_that_lead_out(daemon: Daemon, tmp_path: Path) -> None:
    """Whatever a layer says, nothing outside of it is touched; what Docker takes is taken, and stays inside."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    hostile = {
        "dots": [member("../../../../../../../.." + str(victim), b"evil")],
        "absolute": [member(str(victim), b"inside")],
        "through a link": [member("out", kind=tarfile.SYMTYPE, link=str(tmp_path)), member("out/victim", b"evil")],
        "hard link out": [member("hard", kind=tarfile.LNKTYPE, link="../../../../../../.." + str(victim))],
        "hard link absolute": [member("hard", kind=tarfile.LNKTYPE, link=str(victim))],
    }
    for number, members in enumerate(hostile.values()):
        name = f"corral.test/hostile:{number}"
        daemon.docker("load", input=docker_archive([busybox_layer(), layer(*members)], [name]))
        daemon.docker("rmi", "-f", name)
    assert victim.read_text() == "untouched"
    assert victim.stat().st_nlink == 1


def test_layers_with_special_files(daemon: Daemon) -> None:
    fifo = member("fifo", kind=tarfile.FIFOTYPE, mode=0o600)
    setuid = member("bin/suid", b"#!/bin/sh\n", mode=0o4755)
    node = tarfile.TarInfo("null")
    node.type, node.devmajor, node.devminor, node.mode = tarfile.CHRTYPE, 1, 3, 0o666
    links = [member("target", b"same"), member("twin", kind=tarfile.LNKTYPE, link="target")]
    whiteout = [directory("etc"), member("etc/.wh.group", b"")]
    data = docker_archive([busybox_layer(), layer(fifo, setuid, (node, b""), *links, *whiteout)], [NAME])
    assert f"Loaded image: {NAME}" in loaded(daemon, data)
    script = "stat -c '%F %a' /fifo /bin/suid /null; stat -c %h /twin; cat /twin; test -e /etc/group || echo gone"
    assert daemon.output("run", "--rm", NAME, "sh", "-c", script).splitlines() == [
        "fifo 600", "regular file 4755", "character special file 666", "2", "samegone",
    ]  # fmt: skip
    daemon.output("rmi", NAME)


@pytest.fixture(scope="module")
def registry(shared_daemon: Daemon) -> object:
    """A registry on the loopback of the daemon's own network namespace."""
    if registries.PROGRAM is None:
        pytest.skip("docker-registry is not installed")
    with shared_daemon.space.inside(), registries.registry() as address:
        yield address


@needs_registry
def test_pull_run_and_pull_again(daemon: Daemon, registry: str) -> None:
    descriptor, blobs = oci_blobs([busybox_layer()])
    with daemon.space.inside():
        registries.push_image(registry, "small", "1", descriptor, blobs)
    name = f"{registry}/small:1"
    out = daemon.output("pull", name)
    assert f"Digest: {descriptor['digest']}" in out
    assert f"Status: Downloaded newer image for {name}" in out
    assert "Pull complete" in out
    assert f"Status: Image is up to date for {name}" in daemon.output("pull", name)
    assert daemon.output("run", "--rm", name, "echo", "pulled") == "pulled"
    assert (
        daemon.output("inspect", "-f", "{{index .RepoDigests 0}}", name) == f"{registry}/small@{descriptor['digest']}"
    )
    by_digest = f"{registry}/small@{descriptor['digest']}"
    assert daemon.output("run", "--rm", by_digest, "echo", "by digest") == "by digest"
    daemon.output("rmi", "-f", name)
    done = daemon.docker("run", "--rm", name, "echo", "pulled by run")
    assert done.stdout == "pulled by run\n"
    assert "Unable to find image" in done.stderr
    daemon.output("rmi", "-f", name)


@needs_registry
def test_pull_what_does_not_exist(daemon: Daemon, registry: str) -> None:
    done = daemon.docker("pull", f"{registry}/nothing:here")
    assert done.returncode == 1
    assert "not found" in done.stderr or "manifest unknown" in done.stderr
    done = daemon.docker("pull", "127.0.0.1:1/nobody:listens")
    assert done.returncode == 1
    assert "connection refused" in done.stderr


@needs_registry
def test_pull_for_another_platform(daemon: Daemon, registry: str) -> None:
    descriptor, blobs = oci_blobs([busybox_layer()])
    entries = [
        {**descriptor, "platform": {"os": "linux", "architecture": "amd64"}},
        {**descriptor, "platform": {"os": "linux", "architecture": "arm64"}},
    ]
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    with daemon.space.inside():
        registries.push_image(registry, "multi", "one", descriptor, blobs)
        registries.push(registry, "multi", "all", kind, index)
    name = f"{registry}/multi:all"
    assert f"Digest: {digest(index)}" in daemon.output("pull", name)
    assert daemon.output("run", "--rm", name, "echo", "ours") == "ours"
    done = daemon.docker("pull", "--platform", "linux/s390x", name)
    assert done.returncode == 1
    assert "does not match" in done.stderr or "no matching manifest" in done.stderr
    daemon.output("rmi", "-f", name)


@needs_registry
def test_corrupt_layer_in_a_registry(daemon: Daemon, registry: str) -> None:
    """The bytes are right for their digest, but they are no layer; and a layer that is not what the config says."""
    before = images_of(daemon)
    for content in (b"no gzip at all", gzip.compress(b"no tar", mtime=0)):
        config = config_of([b"no tar"])
        described = [
            {"mediaType": media, "digest": digest(blob), "size": len(blob)}
            for media, blob in (
                ("application/vnd.oci.image.config.v1+json", config),
                ("application/vnd.oci.image.layer.v1.tar+gzip", content),
            )
        ]
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = json.dumps(
            {"schemaVersion": 2, "mediaType": kind, "config": described[0], "layers": described[1:]}
        ).encode()
        blobs = {digest(blob): blob for blob in (config, content, manifest)}
        descriptor: dict[str, object] = {"mediaType": kind, "digest": digest(manifest), "size": len(manifest)}
        name = hashlib.sha256(content).hexdigest()[:8]
        with daemon.space.inside():
            registries.push_image(registry, "corrupt", name, descriptor, blobs)
        done = daemon.docker("pull", f"{registry}/corrupt:{name}")
        assert done.returncode == 1, done.stdout
        assert images_of(daemon) == before


def test_prune(daemon: Daemon) -> None:
    loaded(daemon, docker_archive([busybox_layer(), layer(member("one", b"1"))], [NAME]))
    loaded(daemon, docker_archive([busybox_layer(), layer(member("two", b"2"))], [NAME]))
    assert "Total reclaimed space" in daemon.output("image", "prune", "-f")
    assert daemon.output("images", "-q", "--filter", "dangling=true") == ""
    daemon.output("rmi", NAME)


def test_the_suite_has_its_image(engine: Engine) -> None:
    assert engine.docker("load", input=busybox_image()).returncode == 0
