from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.oci.digest import InvalidDigest, digest_of
from corral.store.content import Content, CorruptContent, NoSuchContent
from corral.store.gc import Leases


def test_a_document_comes_back(tmp_path: Path) -> None:
    content = Content(str(tmp_path))
    digest = content.put(b"hello")
    assert digest == digest_of(b"hello") and content.has(digest) and content.size(digest) == 5
    assert content.read(digest) == b"hello"
    assert list(content.sizes()) == [digest]
    assert content.remove(digest) == 5 and content.remove(digest) == 0
    with pytest.raises(NoSuchContent):
        content.read(digest)


def test_a_damaged_blob_is_noticed(tmp_path: Path) -> None:
    content = Content(str(tmp_path))
    digest = content.put(b"hello")
    Path(content.path(digest)).write_bytes(b"HELLO")
    with pytest.raises(CorruptContent):
        content.read(digest)


def test_paths_are_made_of_digests_only(tmp_path: Path) -> None:
    content = Content(str(tmp_path))
    for bad in ("../../etc/passwd", "sha256:../x", "sha256:" + "/" * 64):
        with pytest.raises(InvalidDigest):
            content.path(bad)


def test_opening_clears_what_a_crash_left(tmp_path: Path) -> None:
    content = Content(str(tmp_path))
    kept = content.put(b"kept")
    Path(content.ingest_path()).write_bytes(b"half")
    (tmp_path / "partial" / "new").write_bytes(b"half")
    (tmp_path / "partial" / "old").write_bytes(b"half")
    os.utime(tmp_path / "partial" / "old", (1, 1))
    again = Content(str(tmp_path))
    assert os.listdir(tmp_path / "partial") == ["new"]
    assert os.listdir(tmp_path / "ingest") == []
    assert again.has(kept)
    assert (tmp_path / "oci-layout").read_bytes() == b'{"imageLayoutVersion":"1.0.0"}'


def test_leases_count() -> None:
    leases = Leases()
    with leases.hold() as one:
        one.add("a")
        with leases.hold() as two:
            two.add("a", "b")
        assert leases.is_held("a") and not leases.is_held("b")
    assert not leases.is_held("a")
