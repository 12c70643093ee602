"""Layers and trees on a real file system: what comes out, and what a hostile archive gets."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from corral.errors import CorralError, InvalidParameter
from corral.image import diff, layers
from corral.store import pack, tar, tree
from tests.support.images import digest, directory, member, tar_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")


def source(data: bytes, piece: int = 5000) -> Callable[[], bytes]:
    stream = io.BytesIO(data)
    return lambda: stream.read(piece)


def apply(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> layers.Unpacked:
    path.mkdir(exist_ok=True)
    return layers.apply(source(tar_of(members)), str(path))


def unpack(path: Path, data: bytes, options: tree.UnpackOptions | None = None, base: str = "") -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        with tree.Unpacker(fd, options, base) as unpacker:
            unpacker.unpack(tar.TarReader(source(data)))
    finally:
        os.close(fd)


def packed(path: Path, inside: str = "", name: str = "") -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return b"".join(pack.pack(fd, inside, name))
    finally:
        os.close(fd)


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a round trip has to keep."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        content: object = ""
        if stat.S_ISREG(status.st_mode):
            content = path.read_bytes()
        elif stat.S_ISLNK(status.st_mode):
            content = os.readlink(path)
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        }
        key = str(path.relative_to(root))
        links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
        found[key] = (
            status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, links, content,
            str(xattrs),
        )  # fmt: skip
    return found


def make_everything(root: Path) -> None:
    root.mkdir()
    (root / "d").mkdir()
    (root / "d" / ("n" * 120)).write_bytes(b"long name")
    (root / "big").write_bytes(os.urandom(300_000))
    (root / "empty").touch()
    os.link(root / "big", root / "d" / "again")
    os.symlink("/etc/passwd", root / "absolute")
    os.symlink("../../../../up", root / "relative")
    os.mkfifo(root / "fifo")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "block", stat.S_IFBLK | 0o600, os.makedev(7, 99))
    os.chown(root / "empty", 3_000_000, 1234)
    os.chmod(root / "empty", 0o6711)
    os.chown(root / "absolute", 5, 6, follow_symlinks=False)
    os.setxattr(root / "big", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    os.setxattr(root / "d", "user.note", b"a=b\nc")
    os.chmod(root / "d", 0o1777)
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(1, 1_700_000_000_123_456_789), follow_symlinks=False)


def test_a_tree_survives_a_round_trip(tmp_path: Path) -> None:
    make_everything(tmp_path / "a")
    (tmp_path / "b").mkdir()
    unpack(tmp_path / "b", packed(tmp_path / "a", "", "."))
    assert listing(tmp_path / "b") == listing(tmp_path / "a")


def test_gnu_tar_reads_what_is_packed_and_packs_what_is_read(tmp_path: Path) -> None:
    make_everything(tmp_path / "a")
    (tmp_path / "b").mkdir()
    command = ["tar", "--xattrs", "--xattrs-include=*", "-C", str(tmp_path / "b"), "-xpf", "-"]
    subprocess.run(command, input=packed(tmp_path / "a", "", "."), check=True)
    assert listing(tmp_path / "b") == listing(tmp_path / "a")
    (tmp_path / "c").mkdir()
    command = ["tar", "--xattrs", "--xattrs-include=*", "--format=pax", "-C", str(tmp_path / "a"), "-cf", "-", "."]
    unpack(tmp_path / "c", subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert listing(tmp_path / "c") == listing(tmp_path / "a")


@pytest.mark.parametrize(
    "form", ["gnu", "pax --sparse-version=0.1", "pax --sparse-version=1.0", "pax --sparse-version=0.0"]
)
def test_sparse_files_stay_sparse(tmp_path: Path, form: str) -> None:
    with open(tmp_path / "s", "wb") as file:
        for n in range(30):
            file.seek(n * 1_000_000)
            file.write(b"%d" % n * 100)
        file.truncate(50_000_000)
    command = ["tar", "-S", *f"--format={form}".split(), "-C", str(tmp_path), "-cf", "-", "s"]
    data = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "out", data)
    assert (tmp_path / "out" / "s").read_bytes() == (tmp_path / "s").read_bytes()
    assert os.stat(tmp_path / "out" / "s").st_blocks * 512 < 2_000_000


def two_members(data: bytes) -> bytes:
    return gzip.compress(data[:700]) + gzip.compress(data[700:])


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.compress, two_members])
def test_digest_and_diff_id(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    plain = tar_of([member("f", b"x" * 100_000)]) + bytes(5000)
    data = compress(plain)
    result = layers.apply(source(data), str(tmp_path))
    assert (result.digest, result.diff_id, result.blob_size) == (digest(data), digest(plain), len(data))
    assert result.size == 100_000


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_a_truncated_or_damaged_stream_is_an_error(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    data = compress(tar_of([member("f", os.urandom(100_000))]))
    damaged = data[:50_000] + bytes(100) + data[50_100:]
    for number, bad in enumerate((data[:60_000], damaged)):
        path = tmp_path / str(number)
        path.mkdir()
        with pytest.raises(InvalidParameter):
            result = layers.apply(source(bad), str(path))
            assert result.digest != digest(data)
            raise tar.InvalidTar("zstd without checksums leaves it to the digest")


def test_a_decompression_bomb_is_stopped(tmp_path: Path) -> None:
    data = gzip.compress(tar_of([member("f", bytes(8 << 20))]))
    with pytest.raises(layers.CorruptLayer, match="larger than"):
        layers.apply(source(data), str(tmp_path), limit=1 << 20)


def test_paths_out_of_the_tree_are_refused(tmp_path: Path) -> None:
    for name in ("../evil", "a/../../evil", ".."):
        with pytest.raises(tree.OutsideTree):
            apply(tmp_path / "root", member(name, b"x"))
    assert not (tmp_path / "evil").exists()


def test_absolute_names_are_below_the_root(tmp_path: Path) -> None:
    apply(tmp_path / "root", member("/etc/x", b"1"), member("./etc/./y", b"2"), member("etc/z/../w", b"3"))
    assert sorted(os.listdir(tmp_path / "root" / "etc")) == ["w", "x", "y"]


def test_symlinks_are_kept_and_never_followed_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    apply(
        tmp_path / "root",
        member("abs", kind=tarfile.SYMTYPE, link=str(outside)),
        member("rel", kind=tarfile.SYMTYPE, link="../outside"),
        member("abs/one", b"1"),
        member("rel/two", b"2"),
        member("file", kind=tarfile.SYMTYPE, link=str(outside / "three")),
        member("file", b"3"),
        directory("dir"),
    )
    assert os.listdir(outside) == []
    assert os.readlink(tmp_path / "root" / "abs") == str(outside)
    assert (tmp_path / "root" / str(outside).lstrip("/") / "one").read_bytes() == b"1"
    assert (tmp_path / "root" / "outside" / "two").read_bytes() == b"2"
    assert (tmp_path / "root" / "file").read_bytes() == b"3"


def test_hard_links_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    with pytest.raises(tree.OutsideTree):
        apply(tmp_path / "r1", member("x", kind=tarfile.LNKTYPE, link="../secret"))
    linked = apply(
        tmp_path / "r2",
        member("s", kind=tarfile.SYMTYPE, link=str(tmp_path)),
        member("y", kind=tarfile.LNKTYPE, link="s/secret"),
        member("z", kind=tarfile.LNKTYPE, link=str(tmp_path / "secret")),
    )
    assert [path for path, _ in linked.links] == ["y", "z"]
    with pytest.raises(tree.BadMember, match="which does not exist"):
        layers.settle(linked, str(tmp_path / "r2"), [])
    assert os.stat(tmp_path / "secret").st_nlink == 1


def test_symlink_loops_and_files_in_the_way_are_errors(tmp_path: Path) -> None:
    with pytest.raises(tree.BadMember):
        apply(
            tmp_path / "a",
            member("x", kind=tarfile.SYMTYPE, link="y"),
            member("y", kind=tarfile.SYMTYPE, link="x"),
            member("x/f", b""),
        )
    with pytest.raises(tree.BadMember):
        apply(tmp_path / "b", member("f", b"1"), member("f/g", b"2"))


def test_later_members_replace_earlier_ones(tmp_path: Path) -> None:
    apply(
        tmp_path / "r",
        member("a/b", b"1"),
        member("a", b"now a file"),
        member("c", b"2"),
        directory("c"),
        member("c/d", b"3"),
        member("c/d", b"4"),
    )
    assert (tmp_path / "r" / "a").read_bytes() == b"now a file"
    assert (tmp_path / "r" / "c" / "d").read_bytes() == b"4"


def test_an_archive_cannot_give_overlayfs_orders(tmp_path: Path) -> None:
    info, data = member("d/", kind=tarfile.DIRTYPE, mode=0o755)
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.ok": "1"}
    apply(tmp_path / "r", (info, data))
    assert os.listxattr(tmp_path / "r" / "d") == ["user.ok"]


def is_whiteout(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(path: Path) -> bool:
    return "trusted.overlay.opaque" in os.listxattr(path)


def test_whiteouts_become_overlayfs_marks(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    apply(low, member("a", b"1"), member("d/old", b"2"), member("e/old", b"3"), member("g", b"4"))
    result = apply(
        high,
        member(".wh.a"),
        directory("d"),
        member("d/.wh..wh..opq"),
        member(".wh.e"),
        directory("e"),
        member(".wh..wh.plnk", b""),
        member(".wh.ghost"),
    )
    layers.settle(result, str(high), [str(low)])
    assert sorted(os.listdir(high)) == ["a", "d", "e"]
    assert is_whiteout(high / "a") and is_opaque(high / "d") and is_opaque(high / "e")


def test_directories_nobody_described_look_like_those_below(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    apply(low, directory("tmp", 0o1777), member(".", kind=tarfile.DIRTYPE, mode=0o700))
    result = apply(high, member("tmp/x", b"1"), member("new/x", b"2"))
    layers.settle(result, str(high), [str(low)])
    assert stat.S_IMODE(os.stat(high / "tmp").st_mode) == 0o1777
    assert stat.S_IMODE(os.stat(high / "new").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(high).st_mode) == 0o700


def test_a_hard_link_to_a_lower_file_copies_it_up(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    apply(low, directory("d", 0o711), member("d/f", b"hello", mode=0o4755, uid=7))
    result = apply(high, member("link", kind=tarfile.LNKTYPE, link="d/f"))
    layers.settle(result, str(high), [str(low)])
    status = os.stat(high / "link")
    assert (high / "link").read_bytes() == b"hello" and status.st_nlink == 2
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o4755, 7)
    assert stat.S_IMODE(os.stat(high / "d").st_mode) == 0o711


def test_copying_in_keeps_docker_s_rules(tmp_path: Path) -> None:
    (tmp_path / "dest" / "d").mkdir(parents=True)
    (tmp_path / "dest" / "f").write_text("x")
    careful = tree.UnpackOptions(keep_kind=True)
    with pytest.raises(tree.DirectoryInTheWay, match='cannot overwrite directory "dest/d" with non-directory'):
        unpack(tmp_path, tar_of([member("d", b"")]), careful, "dest")
    with pytest.raises(tree.DirectoryInTheWay, match='cannot overwrite non-directory "dest/f" with directory'):
        unpack(tmp_path, tar_of([directory("f")]), careful, "dest")
    unpack(tmp_path, tar_of([member("d/new", b"1", uid=5)]), tree.UnpackOptions(owner=(8, 9)), "/dest/")
    status = os.stat(tmp_path / "dest" / "d" / "new")
    assert (status.st_uid, status.st_gid) == (8, 9)


def test_packing_one_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, "d/f", "renamed"))) as archive:
        assert archive.getnames() == ["renamed"]
    with tarfile.open(fileobj=io.BytesIO(packed(tmp_path, "d", "e"))) as archive:
        assert archive.getnames() == ["e", "e/f"]
    with pytest.raises(FileNotFoundError):
        packed(tmp_path, "nothing", "x")


def test_diff_and_changes_of_a_real_overlay(tmp_path: Path) -> None:
    low, again = tmp_path / "low", tmp_path / "again"
    apply(
        low,
        member("keep", b"1"),
        member("gone", b"2"),
        member("d/in", b"3"),
        member("same/x", b"4"),
        member("swap/y", b"5"),
    )
    for name in ("up", "work", "mnt", "again", "mnt2"):
        (tmp_path / name).mkdir(exist_ok=True)
    upper, mount = tmp_path / "up", tmp_path / "mnt"
    options = f"lowerdir={low},upperdir={upper},workdir={tmp_path}/work,redirect_dir=off"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(mount)], check=True)
    try:
        (mount / "gone").unlink()
        (mount / "keep").write_text("changed")
        (mount / "swap" / "y").unlink()
        (mount / "swap").rmdir()
        (mount / "swap").mkdir()
        (mount / "new").mkdir()
        (mount / "new" / "f").write_text("x")
        seen = listing(mount)
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    found = {(change.path, change.kind) for change in diff.changes(str(upper), [str(low)])}
    assert found == {("/gone", 2), ("/keep", 0), ("/swap", 0), ("/swap/y", 2), ("/new", 1), ("/new/f", 1)}
    data = b"".join(diff.pack_diff(str(upper)))
    result = layers.apply(source(data), str(again))
    layers.settle(result, str(again), [str(low)])
    options = f"lowerdir={again}:{low}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "mnt2")], check=True)
    try:
        replayed = listing(tmp_path / "mnt2")
    finally:
        subprocess.run(["umount", str(tmp_path / "mnt2")], check=True)
    seen.pop("."), replayed.pop(".")
    assert replayed == seen


def test_every_error_is_of_a_kind(tmp_path: Path) -> None:
    members = [member("a" * 300, b""), member("f\0g", b""), member("x/" * 3000, b"")]
    for number, one in enumerate(members):
        try:
            apply(tmp_path / str(number), one)
        except CorralError:
            pass
