from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.oci.digest import ChainID
from corral.store.db import Database
from corral.store.snapshots import Change, NoSuchSnapshot, SnapshotExists, Snapshots, TooDeep, disk_usage

A, B = ChainID("sha256:" + "a" * 64), ChainID("sha256:" + "b" * 64)


class Store:
    """A database and a snapshot store that can be closed and opened again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open()

    def open(self) -> None:
        self.db = Database(str(self.root / "db"))
        self.snapshots = Snapshots(self.db, str(self.root / "overlay"))
        self.snapshots.recover()

    def close(self) -> None:
        self.snapshots.close()
        self.db.close()

    def layer(self, chain: ChainID, parent: ChainID | None, name: str = "f") -> None:
        path = self.snapshots.begin_layer()
        Path(path, name).write_text("x")
        self.snapshots.commit_layer(path, chain, parent, chain, chain, 1)

    def directories(self) -> list[str]:
        return sorted(name for name in os.listdir(self.root / "overlay") if name != "trash")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


def test_a_snapshot_stands_on_its_layers_top_most_first(store: Store) -> None:
    store.layer(A, None, "low")
    store.layer(B, A, "high")
    mount = store.snapshots.prepare("c", B)
    assert [os.listdir(path) for path in mount.lower] == [["high"], ["low"]]
    assert os.path.isdir(mount.upper) and os.path.isdir(mount.work)
    assert store.snapshots.mounts("c") == mount
    assert store.snapshots.view(B).lower == mount.lower
    assert store.snapshots.parent("c") == B


def test_everything_is_there_after_opening_again(store: Store) -> None:
    store.layer(A, None)
    mount = store.snapshots.prepare("c", A)
    store.close()
    store.open()
    assert store.snapshots.mounts("c") == mount


def test_opening_drops_directories_without_a_row(store: Store) -> None:
    store.layer(A, None)
    kept = store.directories()
    store.snapshots.begin_layer()
    store.snapshots.stage("never-submitted", A)
    assert len(store.directories()) == 3
    store.close()
    store.open()
    store.close()
    assert store.directories() == kept
    assert os.listdir(store.root / "overlay" / "trash") == []
    store.open()


def test_removing_twice_is_fine_and_frees_the_files(store: Store) -> None:
    store.snapshots.prepare("c", None)
    store.snapshots.remove("c")
    store.snapshots.remove("c")
    assert store.directories() == []
    with pytest.raises(NoSuchSnapshot):
        store.snapshots.mounts("c")


def test_a_key_is_taken_once(store: Store) -> None:
    store.snapshots.prepare("c", None)
    with pytest.raises(SnapshotExists):
        store.snapshots.prepare("c", None)
    assert len(store.directories()) == 1


def test_an_unknown_parent_makes_nothing(store: Store) -> None:
    with pytest.raises(NoSuchSnapshot):
        store.snapshots.prepare("c", A)
    assert store.directories() == []


def test_the_second_of_two_equal_layers_is_dropped(store: Store) -> None:
    store.layer(A, None)
    before = store.directories()
    store.layer(A, None)
    assert store.directories() == before


def test_the_upper_root_looks_like_the_layer_below(store: Store) -> None:
    path = store.snapshots.begin_layer()
    os.chmod(path, 0o1750)
    store.snapshots.commit_layer(path, A, None, A, A, 0)
    assert os.stat(store.snapshots.prepare("c", A).upper).st_mode & 0o7777 == 0o1750


def test_a_layer_of_another_boot_that_was_not_synced_is_torn(store: Store) -> None:
    store.layer(A, None)
    store.layer(B, A)
    store.snapshots._boot = "another boot"
    assert store.snapshots.torn_layers() == [A, B]
    store.snapshots.settle_disk()
    assert store.snapshots.torn_layers() == []
    store.close()
    store.open()
    assert store.snapshots.torn_layers() == []


def test_used_chains_reach_down(store: Store) -> None:
    store.layer(A, None)
    store.layer(B, A)
    assert store.snapshots.used_chains() == set()
    store.snapshots.prepare("c", B)
    assert store.snapshots.used_chains() == {A, B}


def test_disk_usage_counts_a_linked_file_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 5000)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "d").mkdir()
    usage = disk_usage(str(tmp_path))
    assert (usage.bytes, usage.inodes) == (5000, 3)


def commit(store: Store, change: Change) -> None:
    store.db.submit(*change.statements).result()
    change.done()


def test_freezing_copies_nothing_and_leaves_an_empty_directory_on_top(store: Store) -> None:
    store.layer(A, None)
    old = store.snapshots.prepare("c", A)
    os.chmod(old.upper, 0o1751)
    Path(old.upper, "written").write_text("w")
    commit(store, store.snapshots.freeze("c", "c@1"))
    new = store.snapshots.mounts("c")
    assert new.lower == (old.upper, *old.lower) and os.listdir(new.upper) == []
    assert os.stat(new.upper).st_mode & 0o7777 == 0o1751
    assert store.snapshots.own("c") == (new.upper, old.upper)
    assert store.snapshots.parent("c") == A and store.snapshots.used_chains() == {A}
    store.close()
    store.open()
    assert store.snapshots.mounts("c") == new


def test_an_undone_change_leaves_nothing(store: Store) -> None:
    store.snapshots.prepare("c", None)
    before = store.directories(), store.snapshots.mounts("c")
    store.snapshots.freeze("c", "c@1").undo()
    store.snapshots.duplicate("c", "c@1").undo()
    assert (store.directories(), store.snapshots.mounts("c")) == before
    with pytest.raises(NoSuchSnapshot):
        store.snapshots.rewind("c", "c@1")


def test_a_committed_snapshot_lives_while_it_is_named_or_used(store: Store) -> None:
    store.layer(A, None)
    store.snapshots.prepare("c", A)
    commit(store, store.snapshots.freeze("c", "c@1"))
    commit(store, store.snapshots.freeze("c", "c@2"))
    store.snapshots.prepare("fork", "c@2")
    commit(store, store.snapshots.forget(["c@1", "c@2"]))
    store.snapshots.remove("c")
    assert set(store.snapshots.committed()) == {"c@1", "c@2"}
    store.snapshots.remove("fork")
    assert store.snapshots.committed() == {}
    store.close()
    store.open()
    assert store.directories() == [os.path.basename(os.path.dirname(store.snapshots.layer_directory(A)))]


def test_a_crash_before_it_was_dropped_is_made_up_for(store: Store) -> None:
    store.snapshots.prepare("c", None)
    commit(store, store.snapshots.freeze("c", "c@1"))
    store.db.submit(*store.snapshots.forget(["c@1"]).statements, store.snapshots.removal("c")).result()
    store.close()
    store.open()
    assert store.directories() == [] and store.snapshots.committed() == {}


def test_only_so_many_layers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corral.store.snapshots._DEPTH_MAX", 3)
    store.snapshots.prepare("c", None)
    for number in range(3):
        commit(store, store.snapshots.freeze("c", f"c@{number}"))
    before = store.directories()
    with pytest.raises(TooDeep):
        store.snapshots.freeze("c", "c@3")
    with pytest.raises(TooDeep):
        store.snapshots.duplicate("c", "c@3")
    assert store.directories() == before
