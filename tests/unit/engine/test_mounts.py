"""Binds, volumes and tmpfs become mount points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engine.mounts import InvalidMount, points, prepare_sources
from corral.engine.record import MountPoint
from corral.wire.containers import (
    BindOptions,
    ContainerConfig,
    DriverConfig,
    HostConfig,
    Mount,
    TmpfsOptions,
    VolumeOptions,
)

made: list[tuple[str, str, dict[str, str], dict[str, str]]] = []


def volume_of(name: str, driver: str, options: dict[str, str], labels: dict[str, str]) -> tuple[str, str]:
    made.append((name, driver, options, labels))
    return name or "anonymous", f"/volumes/{name or 'anonymous'}/_data"


@pytest.fixture(autouse=True)
def _nothing_made() -> None:
    made.clear()


def found(host: dict[str, Any] | None = None, **config: Any) -> list[MountPoint]:
    return points(ContainerConfig(**config), HostConfig(**(host or {})), volume_of)


def one(text: str) -> MountPoint:
    (point,) = found({"binds": [text]})
    return point


def test_binds() -> None:
    assert one("/a:/b") == MountPoint("bind", "/a", "/b", "", True, "rprivate")
    assert one("/a/../c:/b/:ro") == MountPoint("bind", "/c", "/b", "ro", False, "rprivate")
    assert one("/a:/b:rw,rshared") == MountPoint("bind", "/a", "/b", "rw,rshared", True, "rshared")
    assert one("/a:/b:z").rw


def test_named_and_anonymous_volumes() -> None:
    assert one("data:/b") == MountPoint("volume", "/volumes/data/_data", "/b", "z", name="data", driver="local")
    assert one("data:/b:nocopy").options == ("nocopy",)
    assert one("/b").name == "anonymous"
    assert made[-1] == ("", "", {}, {})
    (point,) = found(volumes={"/v": {}})
    assert (point.type, point.destination) == ("volume", "/v")


def test_a_mount_wins_over_the_images_volume() -> None:
    (point,) = found({"binds": ["/a:/v"]}, volumes={"/v/": {}})
    assert point.type == "bind"
    assert made == []


@pytest.mark.parametrize(
    "text",
    [
        "/a:b", "/a:/", "/a:/b:odd", "/a:/b:ro,rw", ":/b", "/a:", "/a:/b:ro:x", "data:/b:rshared", "/a:/b:nocopy",
        "relative", "/a:/../..",
    ],
)  # fmt: skip
def test_wrong_binds(text: str) -> None:
    with pytest.raises(InvalidMount):
        one(text)


def test_two_mounts_in_one_place() -> None:
    with pytest.raises(InvalidMount, match="Duplicate mount point: /b"):
        found({"binds": ["/a:/b", "/c:/b/"]})


def test_mounts(tmp_path: Path) -> None:
    bind = Mount(
        type="bind", source=str(tmp_path), target="/b", read_only=True,
        bind_options=BindOptions(propagation="shared", non_recursive=True, read_only_non_recursive=True),
    )  # fmt: skip
    volume = Mount(
        type="volume", source="data", target="/v",
        volume_options=VolumeOptions(no_copy=True, labels={"a": "b"}, driver_config=DriverConfig(name="local")),
    )  # fmt: skip
    tmpfs = Mount(type="tmpfs", target="/t", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o700))
    first, second, third = found({"mounts": [bind, volume, tmpfs]})
    assert (first.rw, first.propagation, first.options) == (False, "shared", ("norecurse", "ro-shallow"))
    assert (second.name, second.options) == ("data", ("nocopy",))
    assert made == [("data", "local", {}, {"a": "b"})]
    assert third.options == ("noexec", "nosuid", "nodev", "size=4096", "mode=700")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"type": "bind", "source": "/"}, "field Target must not be empty"),
        ({"type": "bind", "source": "/", "target": "t"}, "mount path must be absolute"),
        ({"type": "bind", "target": "/t"}, "field Source must not be empty"),
        ({"type": "bind", "source": "s", "target": "/t"}, "mount path must be absolute"),
        ({"type": "bind", "source": "/absent/x", "target": "/t"}, "bind source path does not exist: /absent/x"),
        ({"type": "volume", "source": "/s", "target": "/t"}, "volume names must not be absolute paths"),
        ({"type": "tmpfs", "source": "s", "target": "/t"}, "field Source must not be specified"),
        ({"type": "npipe", "source": "s", "target": "/t"}, "mount type unknown"),
    ],
)
def test_wrong_mounts(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidMount) as told:
        found({"mounts": [Mount(**fields)]})
    assert text in str(told.value)


def test_tmpfs_options_replace_their_opposites() -> None:
    (point,) = found({"tmpfs": {"/t": "exec,size=1m,ro"}})
    assert point.options == ("nosuid", "nodev", "exec", "size=1m", "ro")
    assert point.rw is False


def test_sources_are_made_for_v_and_refused_for_mount(tmp_path: Path) -> None:
    missing = str(tmp_path / "a" / "b")
    with pytest.raises(InvalidMount):
        prepare_sources([MountPoint("bind", missing, "/b", from_spec=True)], None)
    assert not (tmp_path / "a").exists()
    prepare_sources([MountPoint("bind", missing, "/b")], None)
    assert (tmp_path / "a" / "b").is_dir()


@given(st.text(st.sampled_from("ab/:.,ro"), max_size=12))
def test_any_bind_is_read_or_refused(text: str) -> None:
    try:
        point = one(text)
    except InvalidMount:
        return
    assert point.destination.startswith("/")
    assert point.destination != "/"
    assert ".." not in point.destination.split("/")
