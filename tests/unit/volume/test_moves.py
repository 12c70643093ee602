from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from corral.store.db import Database
from corral.volume.volumes import Volume, Volumes


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(str(tmp_path / "db"))
    yield database
    database.close()


def record(db: Database, volume: Volume) -> None:
    db.submit(("INSERT INTO volume (name, record) VALUES (?, ?)", (volume.name, msgspec.json.encode(volume)))).result()


def test_a_move_that_a_crash_broke_off_is_finished(db: Database, tmp_path: Path) -> None:
    (tmp_path / "volumes/old/_data").mkdir(parents=True)
    (tmp_path / "volumes/old/_data/file").touch()
    (tmp_path / "volumes/new").mkdir()
    record(db, Volume("new", "", {}, {}, moved_from="old"))
    for _ in range(2):
        volumes = Volumes(db, str(tmp_path))
        assert os.listdir(tmp_path / "volumes") == ["new"]
        assert os.listdir(volumes.folder("new")) == ["file"]
        assert volumes.get("new").moved_from == ""


def test_a_move_that_was_complete_but_not_recorded(db: Database, tmp_path: Path) -> None:
    (tmp_path / "volumes/new/_data").mkdir(parents=True)
    record(db, Volume("new", "", {}, {}, moved_from="old"))
    volumes = Volumes(db, str(tmp_path))
    assert os.path.isdir(volumes.folder("new"))


def test_what_was_being_filled_is_dropped(db: Database, tmp_path: Path) -> None:
    (tmp_path / "volumes/.new-1/_data").mkdir(parents=True)
    (tmp_path / "volumes/.new-2/_data").mkdir(parents=True)
    record(db, Volume("done", "", {}, {}, moved_from=".new-2"))
    volumes = Volumes(db, str(tmp_path))
    assert os.listdir(tmp_path / "volumes") == ["done"]
    assert [volume.name for volume in volumes.all()] == ["done"]
