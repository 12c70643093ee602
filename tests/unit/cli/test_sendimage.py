"""Archives that lose the layers that are there."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest

from corral.cli.problems import CliError
from corral.cli.sendimage import _Account, without

_KEPT, _GONE = "a" * 64, "b" * 64


def _archive(format_: int, **headers: str) -> tuple[bytes, dict[str, bytes]]:
    members = {
        "manifest.json": b"[]",
        f"blobs/sha256/{_KEPT}": b"k" * 70_001,
        "long/" + "n" * 150: b"long",
        f"blobs/sha256/{_GONE}": b"g" * 90_000,
        "blobs/sha256/" + "c" * 64: b"small",
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_, pax_headers=headers) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if format_ == tarfile.PAX_FORMAT:
                info.pax_headers = {"comment": "x" * 600}
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue(), members


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


@pytest.mark.parametrize("format_", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1000, 512, 65536, 10**7])
def test_only_what_is_there_is_left_out(format_: int, size: int) -> None:
    data, members = _archive(format_)
    account = _Account(None)
    asked: list[str] = []

    def is_there(digest: str) -> bool:
        asked.append(digest)
        return digest.endswith(_GONE)

    result = b"".join(without(_pieces(data, size), is_there, account))
    with tarfile.open(fileobj=io.BytesIO(result)) as tar:
        found = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    del members[f"blobs/sha256/{_GONE}"]
    assert found == members
    assert asked == [f"sha256:{_KEPT}", f"sha256:{_GONE}"]
    assert account.summary() == "sent 1 of 2 layers, 70kB of 160kB"


@pytest.mark.parametrize("length", [100, 512, 700, 71_000])
def test_an_archive_that_ends_too_early(length: int) -> None:
    data, _ = _archive(tarfile.GNU_FORMAT)
    with pytest.raises(CliError, match="ends too early"):
        list(without(_pieces(data[:length], 300), lambda digest: False, _Account(None)))


def test_a_layer_of_more_than_eight_gigabytes() -> None:
    info = tarfile.TarInfo(f"blobs/sha256/{_GONE}")
    info.size = 9 << 30
    header = info.tobuf(tarfile.GNU_FORMAT)
    stream = without(iter([header]), lambda digest: False, _Account(None))
    assert next(stream) == header
    with pytest.raises(CliError, match="ends too early"):
        next(stream)
