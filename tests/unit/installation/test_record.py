"""What is placed can be taken away, whatever was there before and whenever it was interrupted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral.installation.pieces import Piece
from corral.installation.record import Record

PIECES = [
    Piece("/usr/bin/corral", target="/opt/corral"),
    Piece("/etc/a/b/unit", "new\n"),
    Piece("/etc/there", "ours\n"),
]


def tree(folder: Path) -> dict[str, str]:
    """Every file, link and folder, with what is in it."""
    return {str(path.relative_to(folder)): shown(path) for path in folder.rglob("*")}


def shown(path: Path) -> str:
    if path.is_symlink():
        return os.readlink(path)
    return path.read_text() if path.is_file() else "/"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "var" / "lib").mkdir(parents=True)
    (tmp_path / "etc" / "there").write_text("theirs\n")
    return tmp_path


def test_placed_and_removed(root: Path) -> None:
    before = tree(root)
    Record(str(root)).place(PIECES)
    now = tree(root)
    assert now["usr/bin/corral"] == "/opt/corral"
    assert now["etc/a/b/unit"] == "new\n" and now["etc/there"] == "ours\n"
    assert Record(str(root)).remove() == [piece.path for piece in PIECES]
    assert tree(root) == before
    assert not Record(str(root)).exists


def test_placed_again_with_other_files(root: Path) -> None:
    before = tree(root)
    Record(str(root)).place(PIECES)
    Record(str(root)).place([Piece("/etc/there", "newer\n"), Piece("/etc/other", "x\n")])
    now = tree(root)
    assert now["etc/there"] == "newer\n" and "usr/bin/corral" not in now
    Record(str(root)).remove()
    assert tree(root) == before


def test_folders_that_others_use_stay(root: Path) -> None:
    Record(str(root)).place(PIECES)
    (root / "etc" / "a" / "mine").write_text("x")
    Record(str(root)).remove()
    now = tree(root)
    assert now["etc/a/mine"] == "x" and "etc/a/b" not in now and "usr" not in now


class Interrupted:
    """`os.replace` that works some times, and then no more."""

    def __init__(self, times: int) -> None:
        self._left = times
        self._replace = os.replace

    def __call__(self, old: str, new: str) -> None:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        self._replace(old, new)


@pytest.mark.parametrize("times", range(6))
def test_interrupted_anywhere(root: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Between any two changes: a removal leaves what was there before."""
    before = tree(root)
    monkeypatch.setattr("os.replace", Interrupted(times))
    with pytest.raises(KeyboardInterrupt):
        Record(str(root)).place(PIECES)
    monkeypatch.undo()
    Record(str(root)).remove()
    assert tree(root) == before


@pytest.mark.parametrize("times", range(4))
def test_a_removal_that_was_interrupted_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    before = tree(root)
    Record(str(root)).place(PIECES)
    monkeypatch.setattr("os.replace", Interrupted(times))
    with pytest.raises(KeyboardInterrupt):
        Record(str(root)).remove()
    monkeypatch.undo()
    Record(str(root)).remove()
    assert tree(root) == before
