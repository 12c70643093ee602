from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.store import tar, tarwriter


def source(data: bytes, piece: int = 700) -> Callable[[], bytes]:
    stream = io.BytesIO(data)
    return lambda: stream.read(piece)


def read(data: bytes, piece: int = 700) -> list[tuple[tar.Entry, bytes]]:
    reader = tar.TarReader(source(data, piece))
    return [(entry, reader.read_all()) for entry in reader]


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as writer:
        for info, data in members:
            info.size = len(data)
            writer.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


names = st.text(st.characters(blacklist_characters="\0/", blacklist_categories=["Cs"]), min_size=1, max_size=150)


@settings(max_examples=60)
@given(
    name=names,
    data=st.binary(max_size=2000),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**31),
    mtime=st.integers(-(10**6), 2**34),
    form=st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)),
    piece=st.sampled_from((1, 511, 512, 513, 100_000)),
)
def test_reads_what_tarfile_writes(
    name: str, data: bytes, mode: int, uid: int, mtime: int, form: int, piece: int
) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.mtime = mode, uid, uid // 2, mtime
    ((entry, found),) = read(archive((info, data), form=form), piece)
    assert (entry.name, found, entry.mode, entry.uid, entry.gid) == (name, data, mode, uid, uid // 2)
    assert entry.mtime_ns == mtime * 10**9


@settings(max_examples=60)
@given(
    name=names,
    link=names,
    data=st.binary(max_size=2000),
    mtime_ns=st.integers(-(10**12), 10**19),
    uid=st.integers(0, 2**31),
    xattr=st.binary(max_size=50),
)
def test_tarfile_and_the_reader_read_what_is_written(
    name: str, link: str, data: bytes, mtime_ns: int, uid: int, xattr: bytes
) -> None:
    file = tar.Entry(name)
    file.mtime_ns, file.uid, file.xattrs = mtime_ns, uid, {"security.capability": xattr}
    symlink = tar.Entry(link, tar.SYMLINK)
    symlink.linkname = name
    written = tarwriter.small_file(file, data) + tarwriter.header(symlink) + tarwriter.END
    (first, found), (second, _) = read(written)
    assert (first.name, first.mtime_ns, first.uid, first.xattrs, found) == (
        name, mtime_ns, uid, {"security.capability": xattr}, data,
    )  # fmt: skip
    assert (second.name, second.linkname, second.type) == (link, name, tar.SYMLINK)
    with tarfile.open(fileobj=io.BytesIO(written)) as reference:
        theirs = reference.getmembers()
        assert [member.linkname for member in theirs] == ["", name]
        assert [member.size for member in theirs] == [len(data), 0]


@settings(max_examples=200)
@given(st.data())
def test_damaged_archives_raise_one_error(data: st.DataObject) -> None:
    info = tarfile.TarInfo("é" * 60)
    good = archive((info, b"x" * 700))
    damaged = bytearray(good)
    for _ in range(data.draw(st.integers(1, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    try:
        read(bytes(damaged[:cut]))
    except tar.InvalidTar:
        pass


@given(st.binary(max_size=1500))
def test_garbage_raises_one_error(data: bytes) -> None:
    try:
        read(data)
    except tar.InvalidTar:
        pass


def test_an_archive_that_ends_inside_a_file_is_an_error() -> None:
    data = archive((tarfile.TarInfo("a"), b"x" * 5000))
    with pytest.raises(tar.InvalidTar, match="unexpected EOF"):
        read(data[:3000])


def test_skipping_data_finds_the_next_member() -> None:
    data = archive((tarfile.TarInfo("a"), b"x" * 5000), (tarfile.TarInfo("b"), b"y"))
    assert [entry.name for entry in tar.TarReader(source(data))] == ["a", "b"]


def test_an_enormous_extended_header_is_refused() -> None:
    entry = tar.Entry("x", b"x", size=1 << 30)
    with pytest.raises(tar.InvalidTar, match="too long"):
        read(tarwriter.header(entry))


@pytest.mark.parametrize(
    ("text", "ns"),
    [(b"1.5", 1_500_000_000), (b"-1.5", -1_500_000_000), (b"0.1234567899", 123_456_789), (b"7", 7 * 10**9)],
)
def test_times(text: bytes, ns: int) -> None:
    assert tar.parse_time_ns(text) == ns


def test_old_gnu_sparse_files() -> None:
    """The layout of GNU tar's old format: four pieces in the header, the real size at 483."""
    block = bytearray(tarwriter.header(tar.Entry("s", size=512)))
    block[156:157] = b"S"
    block[257:265] = b"ustar  \0"
    block[386:410] = b"%011o\0%011o\0" % (1024, 512)
    block[483:495] = b"%011o\0" % 4096
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    ((entry, data),) = read(bytes(block) + b"z" * 512 + tarwriter.END)
    assert (entry.sparse, entry.real_size, data) == ([(1024, 512)], 4096, b"z" * 512)
