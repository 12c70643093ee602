"""Contexts and layers on disk: what workers do, called as they call it."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

import pytest

from corral.build import copying, layering, trees, worker
from corral.build.dockerignore import Ignore
from corral.store import tree
from tests.support.images import directory, member, tar_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners are set as root")


def unpack(folder: Path, members: list[tuple[tarfile.TarInfo, bytes]], **limits: int) -> trees.Index:
    folder.mkdir()
    pieces = iter([tar_of(members)])
    bounds = {"bytes_max": 1 << 20, "files_max": 100} | limits
    return trees.unpack_context(lambda: next(pieces, b""), str(folder), **bounds)


def test_the_index_knows_content_mode_and_links_only(tmp_path: Path) -> None:
    one = unpack(
        tmp_path / "1", [directory("d"), member("d/f", b"x", mtime=1, uid=5), member("l", kind=b"2", link="d")]
    )
    two = unpack(tmp_path / "2", [member("l", kind=b"2", link="d"), directory("d"), member("d/f", b"x", mtime=2)])
    assert one == two and set(one) == {"d", "d/f", "l"}
    three = unpack(tmp_path / "3", [directory("d"), member("d/f", b"x", mode=0o755), member("l", kind=b"2", link="d")])
    assert three["d/f"] != one["d/f"]
    assert os.stat(tmp_path / "1/d/f").st_uid == 0


def test_an_index_read_from_disk_is_the_same(tmp_path: Path) -> None:
    made = unpack(tmp_path / "c", [directory("d"), member("d/f", b"x"), member("implied/g", b"y"), member("h", b"")])
    worker.index({"directory": str(tmp_path / "c"), "index": str(tmp_path / "i")})
    assert worker._index({"index": str(tmp_path / "i")}) == made


@pytest.mark.parametrize(("limits", "message"), [({"bytes_max": 10}, "10 bytes"), ({"files_max": 2}, "2 files")])
def test_a_context_may_be_too_large(tmp_path: Path, limits: dict[str, int], message: str) -> None:
    members = [member(f"f{number}", b"12345") for number in range(3)]
    with pytest.raises(trees.ContextTooLarge, match=message):
        unpack(tmp_path / "c", members, **limits)


def test_a_context_cannot_leave_its_folder(tmp_path: Path) -> None:
    with pytest.raises(tree.OutsideTree):
        unpack(tmp_path / "a", [member("../x", b"")])
    unpack(tmp_path / "b", [member("l", kind=b"2", link=str(tmp_path)), member("l/x", b"inside")])
    assert not (tmp_path / "x").exists()


def test_devices_are_left_out(tmp_path: Path) -> None:
    assert unpack(tmp_path / "c", [member("dev", kind=tarfile.CHRTYPE), member("fifo", kind=tarfile.FIFOTYPE)]) == {}


def test_what_is_ignored_goes(tmp_path: Path) -> None:
    members = [member("a/x", b""), member("a/keep", b""), member("b", b""), member("c/d", b"")]
    unpack(tmp_path / "c", members)
    source = {"directory": str(tmp_path / "c"), "index": str(tmp_path / "i")}
    worker.index(source)
    worker.prune_context({**source, "source": source, "patterns": ["a", "!a/keep", "c"]})
    found = sorted(str(path.relative_to(tmp_path / "c")) for path in (tmp_path / "c").rglob("*"))
    assert found == ["a", "a/keep", "b"] == sorted(worker._index(source) or {})


def test_copies_follow_links_of_the_image_inside_it(tmp_path: Path) -> None:
    for name in ("root/real", "source"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "source/f").write_text("x")
    os.symlink("/real", tmp_path / "root/link")
    os.symlink("../../../../..", tmp_path / "root/up")
    root, source = (os.open(tmp_path / name, os.O_RDONLY) for name in ("root", "source"))
    try:
        into = copying.Into(root, default_owner=(7, 8))
        for target in ("/link/", "/up/made/"):
            chosen = trees.choose(source, ["f"], list)
            copying.copy(into, target, source, chosen, exclude=Ignore([]))
    finally:
        os.close(root)
        os.close(source)
    assert (tmp_path / "root/real/f").read_text() == "x" == (tmp_path / "root/made/f").read_text()
    status = os.stat(tmp_path / "root/made")
    assert (status.st_uid, status.st_gid) == (7, 8)


def test_a_layer_has_no_mount_points(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    (lower / "etc").mkdir(parents=True)
    (upper / "etc").mkdir(parents=True)
    (upper / "cache/deep").mkdir(parents=True)
    (upper / "etc/hosts").touch()
    stubs = ["/etc/hosts", "/cache/deep"]
    found = layering.pack_upper(str(upper), str(tmp_path / "b"), stubs=stubs, lower=[str(lower)], epoch_ns=None)
    assert found == {"empty": True} and os.listdir(upper) == []
    (upper / "etc").mkdir()
    (upper / "etc/hosts").write_text("mine")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(upper / "etc/socket"))
    os.utime(upper / "etc/hosts", (2_000_000_000, 2_000_000_000))
    found = layering.pack_upper(str(upper), str(tmp_path / "b"), stubs=stubs, lower=[str(lower)], epoch_ns=10**18)
    assert not found["empty"]
    with tarfile.open(tmp_path / "b") as layer:
        assert os.listdir(upper / "etc") == ["hosts"]
        assert {info.name.removeprefix("./"): info.mtime for info in layer if info.isfile()} == {"etc/hosts": 10**9}


def test_replaying_layers(tmp_path: Path) -> None:
    root, layer = tmp_path / "root", tmp_path / "layer"
    (root / "gone/x").mkdir(parents=True)
    (root / "opaque").mkdir()
    (root / "opaque/old").touch()
    (layer / "opaque").mkdir(parents=True)
    (layer / "opaque/new").touch()
    os.setxattr(layer / "opaque", "trusted.overlay.opaque", b"y")
    os.mknod(layer / "gone", 0o020000, 0)
    fd = os.open(root, os.O_RDONLY)
    try:
        with layering.Replay(fd) as replay:
            replay.replay(str(layer))
    finally:
        os.close(fd)
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["opaque", "opaque/new"]


def test_archives_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(tar_of([member("f", b"")]))
    (tmp_path / "x").write_bytes(b"\x1f\x8b not really")
    (tmp_path / "e").write_bytes(b"")
    for name, expected in (("t", True), ("x", False), ("e", False)):
        with open(tmp_path / name, "rb") as file:
            assert copying.is_archive(file.fileno()) is expected
