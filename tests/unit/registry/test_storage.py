"""The files of a registry: durability, sharing, and what the collector may take when."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from corral.registry import layout as layouts
from corral.registry.collect import Collector
from corral.registry.layout import DirectorySync, Layout, NotOurRoot
from tests.support.desk import Desk, image, sha256
from tests.support.wait import until


def test_a_root_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotOurRoot, match="not empty and not a registry's root"):
        Layout(str(tmp_path))
    (tmp_path / "corral-registry").write_text('{"version": 99}')
    with pytest.raises(NotOurRoot, match="version 99"):
        Layout(str(tmp_path))
    (tmp_path / "corral-registry").write_text("[]")
    with pytest.raises(NotOurRoot, match="damaged"):
        Layout(str(tmp_path))


def test_a_root_whose_making_was_cut_short(tmp_path: Path) -> None:
    (tmp_path / "corral-registry.new").touch()
    (tmp_path / "lost+found").mkdir()
    Layout(str(tmp_path))
    Layout(str(tmp_path))


def test_threads_share_an_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, count = threading.Event(), threading.Event(), [0]

    def slow(path: str) -> None:
        count[0] += 1
        begun.set()
        assert go.wait(20)

    monkeypatch.setattr(layouts, "_fsync_directory", slow)
    sync = DirectorySync()
    threads = [threading.Thread(target=sync.sync, args=("x",)) for _ in range(10)]
    threads[0].start()
    assert begun.wait(20)
    for thread in threads[1:]:
        thread.start()
    until(lambda: "x" in sync._waiting)
    go.set()
    for thread in threads:
        thread.join(20)
    assert 2 <= count[0] <= 10  # one that ran already, and at least one for all who came while it did


def test_a_failed_fsync_is_everybodys(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DirectorySync().sync(str(tmp_path / "nothing"))


def test_who_waits_to_be_alone_is_not_overtaken_for_ever(tmp_path: Path) -> None:
    layout, stop = Layout(str(tmp_path)), threading.Event()

    def share() -> None:
        pause = threading.Event()
        while not stop.is_set():
            with layout.sharing():
                pause.wait(0.01)  # always somebody of the eight holds it

    threads = [threading.Thread(target=share) for _ in range(8)]
    for thread in threads:
        thread.start()
    alone = threading.Thread(target=_be_alone, args=(layout,))
    alone.start()
    alone.join(30)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not alone.is_alive()


def _be_alone(layout: Layout) -> None:
    with layout.alone():
        pass


def collector(desk: Desk, grace: str = "1h", dry: bool = False) -> Collector:
    keys = {"root": desk.settings.root, "collection": {"grace": grace}}
    from corral.registry import settings as configuration

    return Collector(configuration.read(None, keys), desk.layout, dry)


def age(root: str) -> None:
    """Make everything two hours older."""
    then = time.time() - 7200
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(folder, name), (then, then), follow_symlinks=False)


def test_the_young_stays(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    digest = desk.push_blob("a", b"not named by a manifest yet")
    assert collector(desk).run().blobs == []
    age(desk.settings.root)
    assert collector(desk, dry=True).run().blobs == [digest]
    assert desk.request("GET", f"/v2/a/blobs/{digest}").status == 200
    report = collector(desk).run()
    assert (report.blobs, report.links, report.stored_blobs) == ([digest], 1, 0)
    assert desk.request("GET", f"/v2/a/blobs/{digest}").status == 404


def test_what_a_client_was_told_of_is_young_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    digest = desk.push_blob("a", b"content")
    other = desk.push_blob("from", b"mounted")
    age(desk.settings.root)
    assert desk.request("HEAD", f"/v2/a/blobs/{digest}").status == 200
    assert desk.request("POST", f"/v2/a/blobs/uploads/?mount={other}&from=from").status == 201
    assert collector(desk).run().blobs == []
    assert desk.request("GET", f"/v2/a/blobs/{digest}").status == 200
    assert desk.request("GET", f"/v2/a/blobs/{other}").status == 200


def test_what_manifests_name_stays_however_old(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.push_image("a", "x")
    desk.push_manifest("a", "sig", {**image(), "subject": {"digest": sha256(b"?"), "mediaType": "x", "size": 1}})
    age(desk.settings.root)
    report = collector(desk).run()
    assert (report.blobs, report.links, report.manifests) == ([], 0, [])
    assert desk.request("GET", f"/v2/a/blobs/{sha256(b'layer')}").status == 200


def test_a_manifest_that_comes_while_others_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between marking and sweeping somebody pushes a manifest that names an old blob."""
    desk = Desk(tmp_path)
    desk.push_blob("a", b"{}")
    desk.push_blob("a", b"layer")
    age(desk.settings.root)
    busy = collector(desk)
    original = busy._layout.alone

    def alone() -> object:
        monkeypatch.setattr(busy._layout, "alone", original)
        desk.push_manifest("a", "x", image())
        return original()

    monkeypatch.setattr(busy._layout, "alone", alone)
    assert busy.run().links == 0
    assert desk.request("GET", f"/v2/a/blobs/{sha256(b'layer')}").status == 200


def test_an_empty_repository_goes_and_can_come_back(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    digest = desk.push_image("a/b/c", "x")
    desk.push_image("a", "y")
    desk.request("DELETE", f"/v2/a/b/c/manifests/{digest}")
    desk.request("POST", "/v2/a/b/c/blobs/uploads/")
    age(desk.settings.root)
    for _ in range(2):
        collector(desk).run()
    assert desk.request("GET", "/v2/_catalog").fields["repositories"] == ["a", "a/b/c"]  # an upload is there still
    for upload in Path(desk.layout.uploads("a/b/c")).iterdir():
        os.utime(upload, (1, 1))
    collector(desk).run()
    assert desk.request("GET", "/v2/_catalog").fields["repositories"] == ["a"]
    assert not os.path.exists(desk.layout.repository("a/b"))
    desk.push_image("a/b/c", "x")
    assert desk.request("GET", "/v2/a/b/c/tags/list").fields["tags"] == ["x"]


def test_beginnings_that_a_kill_left(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for name in ("incoming/x", "fetches/y"):
        path = Path(desk.settings.root, name)
        path.touch()
        os.utime(path, (1, 1))
    Path(desk.settings.root, "incoming/young").touch()
    location = desk.request("POST", "/v2/only/an-upload/blobs/uploads/").headers["location"]
    os.utime(f"{desk.layout.uploads('only/an-upload')}/{location.rpartition('/')[2]}", (1, 1))
    assert collector(desk).run().uploads == 3
    assert os.listdir(desk.layout.repositories) == []
    assert os.listdir(desk.layout.incoming) == ["young"] and os.listdir(desk.layout.fetches) == []
