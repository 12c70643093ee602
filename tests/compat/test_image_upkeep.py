"""Platforms, disk use, collection by policy and the store's check, through the clients."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images as made
from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.images import directory, member, tar_of
from tests.support.wait import until

OTHER = "s390x"


def corral(engine: Engine, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "corral.cli", "-H", f"unix://{engine.socket_path}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def layer(name: str, size: int) -> bytes:
    return tar_of([directory("data"), member(f"data/{name}", os.urandom(size))])


def load(engine: Engine, data: bytes) -> None:
    reply = engine.request("POST", "/images/load?quiet=1", data, {"Content-Type": "application/x-tar"})
    assert reply.status == 200 and b"error" not in reply.body, reply.body


@pytest.fixture
def multi(engine: Engine) -> Iterator[str]:
    base = layer("base", 30_000)
    parts = {made.ARCHITECTURE: [base, layer("mine", 10_000)], OTHER: [base, layer("other", 20_000)]}
    load(
        engine, made.multi_archive(parts, "multi:1", b'{"predicateType": "https://spdx.dev/Document", "predicate": {}}')
    )
    yield "multi:1"
    engine.docker("rmi", "-f", "multi:1")


def test_the_tree_of_platforms(engine: Engine, multi: str) -> None:
    shown = engine.output("image", "ls", "--tree", multi)
    assert f"linux/{made.ARCHITECTURE}" in shown and f"linux/{OTHER}" in shown
    (one,) = engine.get("/images/json", filters='{"reference": ["multi:1"]}', manifests=1).json()
    assert [part["Kind"] for part in one["Manifests"]] == ["image", "image", "attestation"]
    assert all(part["Available"] for part in one["Manifests"])
    described = json.loads(engine.output("image", "inspect", "--platform", f"linux/{OTHER}", multi))[0]
    assert (described["Architecture"], described["Id"]) == (OTHER, one["Id"])
    assert engine.get("/images/multi:1/json", manifests=1).json()["Manifests"][0]["ID"] == one["Manifests"][0]["ID"]
    both = engine.get("/images/multi:1/json", manifests=1, platform="linux/amd64")
    assert (both.status, both.message) == (
        400, "conflicting options: manifests and platform options cannot both be set",
    )  # fmt: skip


def test_attestations(engine: Engine, multi: str) -> None:
    (found,) = engine.get("/images/multi:1/attestations", statement=1).json()
    assert found["PredicateType"] == "https://spdx.dev/Document" and found["Statement"]["predicate"] == {}
    assert engine.get("/images/multi:1/attestations", type="https://slsa.dev/provenance/v1").json() == []
    assert engine.get("/images/nosuch/attestations").status == 404
    assert engine.get("/v1.44/images/multi:1/attestations").status == 404


def test_one_platform_is_saved_and_removed(engine: Engine, multi: str, tmp_path: Path) -> None:
    engine.output("save", "--platform", f"linux/{OTHER}", "-o", str(tmp_path / "other.tar"), multi)
    assert (tmp_path / "other.tar").stat().st_size > 50_000
    platform = json.dumps({"os": "linux", "architecture": OTHER})
    (gone,) = engine.delete("/images/multi:1", platforms=platform).json()
    assert gone["Deleted"].startswith("sha256:")
    again = engine.delete("/images/multi:1", platforms=platform)
    assert again.status == 404 and f"no matching manifest for linux/{OTHER}" in again.message
    assert f"linux/{made.ARCHITECTURE}" in engine.output("image", "ls", "--tree", multi)
    engine.output("load", "-i", str(tmp_path / "other.tar"))
    wanted = json.loads(engine.output("image", "inspect", "--platform", f"linux/{OTHER}", multi))[0]
    assert wanted["Architecture"] == OTHER


def test_disk_use_is_exact(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon()
    base = layer("base", 300_000)
    for name in ("a:1", "b:1"):
        load(daemon, made.docker_archive([base, layer(name[0], 100_000)], [name]))
    load(daemon, made.docker_archive([layer("c", 50_000)], ["c:1"]))
    used = daemon.get("/v1.51/system/df").json()
    by_name = {one["RepoTags"][0]: one for one in used["Images"]}
    shared = by_name["a:1"]["SharedSize"]
    assert 600_000 < shared < 630_000  # the blob and the unpacked files of the base
    assert by_name["c:1"]["SharedSize"] == 0 and by_name["b:1"]["SharedSize"] == shared
    unique = sum(one["Size"] - one["SharedSize"] for one in by_name.values())
    assert used["LayersSize"] == unique + shared
    summed = daemon.get("/images/json", **{"shared-size": 1}).json()
    assert {one["SharedSize"] for one in summed} == {0, shared}
    daemon.docker("tag", "a:1", "keep:1")
    new = daemon.get("/system/df").json()
    assert new["ImageUsage"] == {
        "ActiveCount": 0, "TotalCount": 4, "TotalSize": used["LayersSize"], "Reclaimable": used["LayersSize"],
    }  # fmt: skip
    assert len(daemon.get("/system/df", verbose=1, type="image").json()["ImageUsage"]["Items"]) == 4
    assert daemon.get("/system/df", type="nonsense").status == 400
    would = corral(daemon, "image", "prune", "--all", "--dry-run").stdout
    assert "untagged: keep:1" in would and "Would reclaim: " in would
    pruned = daemon.post("/images/prune", filters='{"dangling": ["false"]}').json()
    assert pruned["SpaceReclaimed"] == used["LayersSize"]
    assert daemon.get("/v1.51/system/df").json()["LayersSize"] == 0


def test_the_policy_removes_what_was_unused_longest(new_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    settings = {"image-gc": {"high-water": "50MB", "low-water": "48MB", "keep": ["kept*", IMAGE]}}
    (tmp_path / "daemon.json").write_text(json.dumps(settings))
    daemon = new_daemon("--config-file", str(tmp_path / "daemon.json"))
    load(daemon, made.docker_archive([layer("k", 7_000_000)], ["kept:1"]))
    load(daemon, made.docker_archive([layer("o", 7_000_000)], ["old:1"]))
    daemon.create("true", Image="old:1", name="user")
    for name in ("x:1", "y:1"):
        load(daemon, made.docker_archive([layer(name[0], 7_000_000)], [name]))

    def names() -> list[str]:
        found = (one["RepoTags"] for one in daemon.get("/images/json").json())
        return sorted(name for tags in found for name in tags if name != IMAGE)

    until(lambda: names() == ["kept:1", "old:1", "y:1"])
    nothing = corral(daemon, "image", "gc", "--dry-run")
    assert (nothing.returncode, nothing.stdout) == (0, "Would reclaim: 0B\n")
    daemon.docker("rm", "user")


def test_without_a_policy_there_is_nothing_to_collect(daemon: Daemon) -> None:
    found = corral(daemon, "image", "gc")
    assert found.returncode == 1 and 'set "image-gc" in daemon.json' in found.stderr
    assert daemon.post("/images/gc").status == 400


def test_a_policy_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"image-gc": {"high-water": "much"}}')
    folders = ["--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path / "e"), "-p", str(tmp_path / "p")]
    flags = ["-H", f"unix://{tmp_path}/s", "--config-file", str(tmp_path / "daemon.json"), *folders]
    ended = subprocess.run([sys.executable, "-m", "corral.daemon", *flags], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "image-gc: high-water: 'much' is neither a share" in ended.stderr


def test_the_check_finds_and_repairs(own_daemon: Daemon) -> None:
    daemon = own_daemon
    load(daemon, made.docker_archive([layer("a", 100_000), layer("b", 50_000)], ["a:1"]))
    clean = corral(daemon, "system", "check")
    assert clean.returncode == 0 and clean.stdout.startswith("Checked ") and "no problems" in clean.stdout, clean
    root = Path(daemon.data_root)
    blob = max((root / "image" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
    (file,) = (root / "overlay").glob("*/fs/data/a")
    held = file.read_bytes()
    file.write_bytes(held[:-1] + b"?")
    (root / "overlay" / "stray1").mkdir()
    (root / "image" / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"stray")
    found = corral(daemon, "system", "check")
    assert found.returncode == 1
    assert "data/a: other content (can be repaired: unpack it again from its blob)" in found.stdout
    assert "directory stray1: no layer or snapshot has it" in found.stdout and f"blob sha256:{'0' * 64}" in found.stdout
    assert corral(daemon, "system", "check", "--repair").returncode == 0
    assert corral(daemon, "system", "check").returncode == 0
    (again,) = (root / "overlay").glob("*/fs/data/a")
    assert again.read_bytes() == held
    with blob.open("r+b") as damaged:
        damaged.write(b"damage")
    bad = corral(daemon, "system", "check")
    assert bad.returncode == 1 and "the stored bytes do not match the digest" in bad.stdout
    corral(daemon, "system", "check", "--repair")
    assert not blob.exists()
