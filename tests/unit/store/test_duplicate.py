"""A copy is what the original is; what needs root to be made is in the tests of snapshots of containers."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from corral.store.duplicate import duplicate


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "from"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "file").write_bytes(os.urandom(300_000))
    (top / "a" / "empty").touch(mode=0o640)
    (top / "a" / "b" / "link").symlink_to("/nowhere")
    os.link(top / "a" / "file", top / "a" / "b" / "same")
    os.mkfifo(top / "pipe", 0o622)
    with open(top / "sparse", "wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
        file.truncate(16 << 20)
    os.chmod(top / "a", 0o1711)
    for path in (top / "a" / "file", top / "a" / "b", top):
        os.utime(path, ns=(1_000_000_001, 2_000_000_002))
    return top


def described(top: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for folder, folders, names in os.walk(top):
        for name in [".", *folders, *names]:
            path = Path(folder, name)
            status = path.lstat()
            data = path.read_bytes() if path.is_file() and not path.is_symlink() else None
            link = os.readlink(path) if path.is_symlink() else None
            key = str(path.relative_to(top))
            found[key] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink, data, link)
    return found


def test_everything_is_as_it_was(tree: Path, tmp_path: Path) -> None:
    duplicate(str(tree), str(tmp_path / "to"))
    assert described(tmp_path / "to") == described(tree)
    assert (tmp_path / "to/a/file").stat().st_ino == (tmp_path / "to/a/b/same").stat().st_ino
    assert (tmp_path / "to/sparse").stat().st_blocks <= (tree / "sparse").stat().st_blocks


def test_the_copy_shares_nothing_that_can_be_written(tree: Path, tmp_path: Path) -> None:
    duplicate(str(tree), str(tmp_path / "to"))
    (tmp_path / "to/a/file").write_bytes(b"other")
    assert len((tree / "a/file").read_bytes()) == 300_000


def test_attributes_travel(tree: Path, tmp_path: Path) -> None:
    os.setxattr(tree / "a" / "file", "user.note", b"n")
    os.setxattr(tree / "a", "user.kind", b"k")
    duplicate(str(tree), str(tmp_path / "to"))
    assert os.getxattr(tmp_path / "to/a/file", "user.note") == b"n"
    assert os.getxattr(tmp_path / "to/a", "user.kind") == b"k"


def test_a_socket_is_left_out(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        duplicate(str(tree), str(tmp_path / "to"))
    assert not (tmp_path / "to/socket").exists()


def test_a_deep_tree(tmp_path: Path) -> None:
    deep = tmp_path / "from"
    deep.mkdir()
    fd = os.open(deep, os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    duplicate(str(deep), str(tmp_path / "to"))
    assert (tmp_path / "to" / "/".join(["d"] * 200)).is_dir()
