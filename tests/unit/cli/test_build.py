"""`corral build`: which files belong to a context, and how its flags are read."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from corral.build.dockerignore import Ignore
from corral.cli import buildfiles, buildoutput
from corral.cli.problems import CliError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_entries(tmp_path: Path) -> None:
    make(tmp_path, "a", "d/b", "d/keep", "x/y/z", "log/1")
    os.symlink("a", tmp_path / "l")
    found = buildfiles.entries(str(tmp_path), Ignore(["d", "!d/keep", "log"]))
    assert sorted(found) == ["a", "d", "d/keep", "l", "x", "x/y", "x/y/z"]
    assert found["a"][:3] == ["f", os.stat(tmp_path / "a").st_mode & 0o7777, 1]
    assert found["l"] == ["l", 0o777, 0, 0, "a"] and found["d"][0] == "d"


def test_archives(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    os.link(tmp_path / "a", tmp_path / "c")
    data = b"".join(buildfiles.archive(str(tmp_path), ["a", "c"], {"Dockerfile": b"FROM x"}))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {info.name: (info.isreg(), info.uid, archive.extractfile(info).read()) for info in archive}  # type: ignore[union-attr]
    assert members == {"a": (True, 0, b"a"), "c": (True, 0, b"a"), "Dockerfile": (True, 0, b"FROM x")}
    with pytest.raises(CliError, match="went away"):
        list(buildfiles.archive(str(tmp_path), ["none"]))


def test_ignore_files(tmp_path: Path) -> None:
    make(tmp_path, "Dockerfile")
    assert not buildfiles.ignore_of(str(tmp_path), str(tmp_path / "Dockerfile"))
    (tmp_path / ".dockerignore").write_text("a")
    assert buildfiles.ignore_of(str(tmp_path), str(tmp_path / "Dockerfile")).ignores("a")
    (tmp_path / "Dockerfile.dockerignore").write_text("b")
    assert not buildfiles.ignore_of(str(tmp_path), str(tmp_path / "Dockerfile")).ignores("a")
    (tmp_path / "Dockerfile.dockerignore").write_text("[")
    with pytest.raises(CliError, match="error checking context"):
        buildfiles.ignore_of(str(tmp_path), str(tmp_path / "Dockerfile"))


@pytest.mark.parametrize(
    ("text", "kind", "dest", "wire"),
    [
        ("out", "local", "out", "tar"), ("-", "tar", "-", "tar"), ("type=local,dest=x", "local", "x", "tar"),
        ("type=oci,dest=o.tar", "oci", "o.tar", "oci"), ("type=docker", "docker", "", ""),
        ("type=image,name=a,push=true", "image", "", ""), ("type=registry", "registry", "", ""),
    ],
)  # fmt: skip
def test_outputs(text: str, kind: str, dest: str, wire: str) -> None:
    found = buildoutput.read(text)
    assert (found.kind, found.dest, found.wire) == (kind, dest, wire)


@pytest.mark.parametrize("text", ["type=nothing", "type=local", "dest=x", "a,b"])
def test_bad_outputs(text: str) -> None:
    with pytest.raises(ValueError):
        buildoutput.read(text)


def test_what_is_unpacked_stays_in_its_folder(tmp_path: Path) -> None:
    def tar(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
        return buffer.getvalue()

    folder = tmp_path / "out"
    for data in (tar("../x"), tar("a/../../x"), tar("..", tarfile.DIRTYPE)):
        with pytest.raises(CliError, match="refused to unpack"):
            buildoutput.unpack(iter([data]), str(folder))
    buildoutput.unpack(iter([tar("l", tarfile.SYMTYPE, str(tmp_path))]), str(folder))
    with pytest.raises(CliError, match="refused to unpack"):
        buildoutput.unpack(iter([tar("l/x")]), str(folder))
    buildoutput.unpack(iter([tar("dev", tarfile.CHRTYPE)]), str(folder))
    assert sorted(os.listdir(folder)) == ["l"] and sorted(os.listdir(tmp_path)) == ["out"]
