"""Binds: propagation, recursion, owners.  Mounts are made on the host below the test's own folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


@pytest.fixture
def shared(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """A shared mount; it and all below it are gone after the test."""
    folder = tmp_path / "shared"
    folder.mkdir()
    mount("-t", "tmpfs", "tmpfs", str(folder))
    mount("--make-shared", str(folder))
    (folder / "sub").mkdir()
    yield folder
    daemon.remove_all()
    subprocess.run(["umount", "-R", str(folder)], check=True)


@pytest.fixture
def private(daemon: Daemon, tmp_path: Path) -> Iterator[Path]:
    """A private mount with another mount on its folder `sub`."""
    folder = tmp_path / "private"
    folder.mkdir()
    mount("-t", "tmpfs", "tmpfs", str(folder))
    mount("--make-private", str(folder))
    (folder / "sub").mkdir()
    mount("-t", "tmpfs", "inner", str(folder / "sub"))
    (folder / "sub/file").touch()
    yield folder
    daemon.remove_all()
    subprocess.run(["umount", "-R", str(folder)], check=True)


def bind(daemon: Daemon, source: Path, *script: str, api: str = "", **more: object) -> tuple[int, str]:
    """Exit code (-1: not created, -2: not started) and output (or message) of a container with a bind at /m."""
    mounted = {"Type": "bind", "Source": str(source), "Target": "/m", **more}
    body = {"Image": IMAGE, "Cmd": script, "Tty": True, "HostConfig": {"Mounts": [mounted]}}
    reply = daemon.post(f"{api}/containers/create", body)
    if reply.status != 201:
        return -1, reply.message
    container = reply.json()["Id"]
    reply = daemon.post(f"/containers/{container}/start")
    if reply.status != 204:
        return -2, reply.message
    code = daemon.wait(container)
    return code, daemon.output("logs", container)


@pytest.mark.parametrize(("mode", "seen"), [("rprivate", False), ("rslave", True), ("rshared", True), ("", False)])
def test_what_the_host_mounts_later(daemon: Daemon, shared: Path, mode: str, seen: bool) -> None:
    container = daemon.start("sleep", "1000", HostConfig={"Binds": [f"{shared}:/m" + (f":{mode}" if mode else "")]})
    mount("-t", "tmpfs", "tmpfs", str(shared / "sub"))
    (shared / "sub/late").touch()
    assert daemon.output("exec", container, "ls", "/m/sub") == ("late" if seen else "")


@pytest.mark.parametrize(("mode", "seen"), [("rshared", True), ("rslave", False)])
def test_what_the_container_mounts(daemon: Daemon, shared: Path, mode: str, seen: bool) -> None:
    script = "mount -t tmpfs tmpfs /m/sub && touch /m/sub/inside"
    daemon.output("run", "--rm", "--privileged", "-v", f"{shared}:/m:{mode}", IMAGE, "sh", "-c", script)
    assert (shared / "sub/inside").exists() == seen


def test_propagation_needs_a_shared_mount(daemon: Daemon, private: Path) -> None:
    for mode, text in (("rshared", "is not a shared mount"), ("rslave", "is not a shared or slave mount")):
        code, said = bind(daemon, private, "true", BindOptions={"Propagation": mode})
        assert (code, said) == (-2, f"path {private} is mounted on {private} but it {text}")


@pytest.mark.parametrize(
    ("options", "api", "inner"),
    [
        ({}, "", "ro"),
        ({"ReadOnlyNonRecursive": True}, "", "rw"),
        ({"ReadOnlyForceRecursive": True}, "", "ro"),
        ({}, "/v1.43", "rw"),
    ],
)
def test_read_only_with_what_is_below(
    daemon: Daemon, private: Path, options: dict[str, bool], api: str, inner: str
) -> None:
    script = "touch /m/x 2>/dev/null && echo rw || echo ro; touch /m/sub/x 2>/dev/null && echo rw || echo ro"
    more = {"BindOptions": options} if options else {}
    _, said = bind(daemon, private, "sh", "-c", script, api=api, ReadOnly=True, **more)
    assert said.split() == ["ro", inner]


def test_a_bind_without_what_is_below(daemon: Daemon, private: Path) -> None:
    assert bind(daemon, private, "ls", "/m/sub")[1] == "file"
    assert bind(daemon, private, "ls", "/m/sub", BindOptions={"NonRecursive": True}) == (0, "")


@pytest.mark.parametrize(
    ("read_only", "options", "text"),
    [
        (False, {"ReadOnlyNonRecursive": True}, "mount must be read-only"),
        (False, {"ReadOnlyForceRecursive": True}, "mount must be read-only"),
        (True, {"ReadOnlyForceRecursive": True, "ReadOnlyNonRecursive": True}, "contradict"),
        (True, {"ReadOnlyForceRecursive": True, "NonRecursive": True}, "cannot be recursively read-only"),
        (True, {"ReadOnlyForceRecursive": True, "Propagation": "rshared"}, "needs the propagation rprivate"),
        (False, {"Propagation": "sideways"}, "invalid propagation mode: sideways"),
        (False, {"IDMapping": {"UIDMappings": [{"ContainerID": 0, "HostID": 1, "Size": 1}]}}, "both users and groups"),
        (
            False,
            {"IDMapping": {"UIDMappings": [{"HostID": -1}], "GIDMappings": [{}]}},
            "invalid range of ids",
        ),
    ],
)
def test_refused_options(
    daemon: Daemon, tmp_path: Path, read_only: bool, options: dict[str, object], text: str
) -> None:
    code, said = bind(daemon, tmp_path, "true", ReadOnly=read_only, BindOptions=options)
    assert code == -1
    assert text in said


def test_a_missing_source(daemon: Daemon, tmp_path: Path) -> None:
    code, said = bind(daemon, tmp_path / "not/there", "true")
    assert (code, "bind source path does not exist" in said) == (-1, True)
    assert bind(daemon, tmp_path / "not/there", "touch", "/m/x", BindOptions={"CreateMountpoint": True})[0] == 0
    assert (tmp_path / "not/there/x").exists()
    daemon.output("run", "--rm", "-v", f"{tmp_path}/v/made:/m", IMAGE, "true")
    assert (tmp_path / "v/made").is_dir()
    refused = {"Image": IMAGE, "HostConfig": {"Mounts": [{"Type": "bind", "Source": "relative", "Target": "/m"}]}}
    assert "mount path must be absolute" in daemon.post("/containers/create", refused).message


def test_owners_are_mapped(daemon: Daemon, shared: Path) -> None:
    (shared / "file").touch()
    daemon.output("run", "--rm", "-v", f"{shared}:/m", IMAGE, "chown", "1000:1000", "/m", "/m/file")
    ranges = [{"ContainerID": 0, "HostID": 1000, "Size": 1}]
    options = {"IDMapping": {"UIDMappings": ranges, "GIDMappings": ranges}}
    code, said = bind(daemon, shared, "sh", "-c", "stat -c %u:%g /m/file; touch /m/made", BindOptions=options)
    assert (code, said) == (0, "0:0")
    made = (shared / "made").stat()
    assert (made.st_uid, made.st_gid) == (1000, 1000)


@pytest.mark.parametrize(("mode", "seen"), [("rprivate", ""), ("rslave", "late"), ("rshared", "late")])
def test_the_propagation_of_a_mount(daemon: Daemon, shared: Path, mode: str, seen: str) -> None:
    mounted = {"Type": "bind", "Source": str(shared), "Target": "/m", "BindOptions": {"Propagation": mode}}
    container = daemon.start("sleep", "1000", HostConfig={"Mounts": [mounted]})
    mount("-t", "tmpfs", "tmpfs", str(shared / "sub"))
    (shared / "sub/late").touch()
    assert daemon.output("exec", container, "ls", "/m/sub") == seen
