"""Whose ids containers get, and what they may not have then."""

from __future__ import annotations

from typing import Any

import pytest

from corral.config import ConfigError
from corral.engine import remap
from corral.engine.record import MountPoint
from corral.errors import InvalidParameter
from corral.oci.idmap import IdMap
from corral.wire.containers import HostConfig
from tests.unit.engine.test_spec import build, kinds, mount, record

IDS = IdMap(((0, 100_000, 65_536),), ((0, 200_000, 65_536),))
SUBUID = "# who has what\nann:100000:65536\nbob:300000:10\n1002:400000:65536\nbob:200000:5\nbroken\n"
MAPPED = (
    [{"containerID": 0, "hostID": 100_000, "size": 65_536}],
    [{"containerID": 0, "hostID": 200_000, "size": 65_536}],
)


def test_ranges_of_a_user() -> None:
    assert remap.subordinate(SUBUID, "ann", 1000) == [(100_000, 65_536)]
    assert remap.subordinate(SUBUID, "bob", 1002) == [(300_000, 10), (200_000, 5)]
    assert remap.subordinate(SUBUID, "eve", 1002) == [(400_000, 65_536)]
    assert remap.subordinate(SUBUID, "eve", 1003) == []
    assert remap.free_start([SUBUID, ""]) == 465_536
    assert remap.free_start(["", ""]) == 100_000


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("a:b:c", 'Invalid user/group specification in --userns-remap: "a:b:c"'),
        ("nosuch", 'Error during uid lookup for "nosuch": getent unable to find entry "nosuch" in passwd database'),
        ("4294967295", 'Error during uid lookup for "4294967295": getent unable to find entry "4294967295" in passwd'),
        ("7654321", "Uid 7654321 has no entry in /etc/passwd: getent unable to find entry"),
        ("-1", "Uid -1 has no entry in /etc/passwd: "),
        ("", 'Error during uid lookup for "": getent unable to find entry "" in passwd database'),
        ("root:nosuch", 'Error during groupname lookup for "nosuch": getent unable to find entry "nosuch" in group'),
        ("root:7654321", "Gid 7654321 has no entry in /etc/group: getent unable to find entry"),
    ],
)
def test_refused_values(value: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        remap.resolve(value)
    assert str(caught.value).startswith(told)


def test_root_is_nobody_to_be_remapped_to() -> None:
    assert remap.resolve("root") is None
    assert remap.own_root("/data", None) == "/data/0.0"
    assert remap.own_root("/data", IDS) == "/data/100000.200000"


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ({"privileged": True}, "privileged mode is incompatible with user namespaces.  You must run the container in"),
        ({"network_mode": "host"}, "cannot share the host's network namespace when user namespaces are enabled"),
        ({"pid_mode": "host"}, "cannot share the host PID namespace when user namespaces are enabled"),
        ({"ipc_mode": "host"}, "cannot share the host IPC namespace when user namespaces are enabled"),
    ],
)
def test_what_belongs_to_the_host(host: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        remap.check(IDS, HostConfig(**host))
    assert str(caught.value).startswith(told)
    remap.check(IDS, HostConfig(**host, userns_mode="host"))
    remap.check(None, HostConfig(**host))


def test_namespaces_that_are_shared() -> None:
    ours, other, free = record(), record(), record(host={"userns_mode": "host"})
    other.state.pid = 77
    assert remap.joined(None, ours, other) == ""
    assert remap.joined(IDS, ours, other) == "/proc/77/ns/user"
    assert remap.joined(IDS, free, other) == ""
    with pytest.raises(InvalidParameter, match="it is not in a user namespace"):
        remap.joined(IDS, ours, free)


def test_the_spec_has_a_user_namespace() -> None:
    built = build(record(), ids=IDS)
    assert "user" in kinds(built)
    assert (built["linux"]["uidMappings"], built["linux"]["gidMappings"]) == MAPPED
    assert built["linux"]["sysctl"]["net.ipv4.ping_group_range"] == "0 65535"
    shared = build(record(), ids=IDS, joined={"user": "/proc/77/ns/user"})
    assert {"type": "user", "path": "/proc/77/ns/user"} in shared["linux"]["namespaces"]
    assert "uidMappings" not in shared["linux"]
    assert "user" not in kinds(build(record()))


def test_mounts_with_image_ids_are_mapped_and_the_host_s_are_not() -> None:
    everything = ((0, 0, 1 << 32),)
    points = [
        MountPoint("bind", "/srv", "/host"),
        MountPoint("image", "sha256:1", "/image"),
        MountPoint("bind", "/cache", "/cache", uids=everything, gids=everything),
        MountPoint("bind", "/mine", "/mine", uids=((1000, 0, 1),), gids=((1000, 5, 1),)),
        MountPoint("overlay", "overlay", "/over", options=("lowerdir=/a:/b", "upperdir=/u/fs", "workdir=/u/work")),
    ]
    built = build(record(mounts=points), ids=IDS, layers={"/image": ["/l"]})
    assert "uidMappings" not in mount(built, "/host")
    for place in ("/image", "/cache", "/over"):
        found = mount(built, place)
        assert (found["uidMappings"], found["gidMappings"]) == MAPPED
    assert mount(built, "/mine")["uidMappings"] == [{"containerID": 1000, "hostID": 100_000, "size": 1}]
    assert mount(built, "/mine")["gidMappings"] == [{"containerID": 1000, "hostID": 200_005, "size": 1}]
    over = mount(built, "/over")
    assert (over["layers"], over["upper"], over["work"]) == (["/a", "/b"], "/u/fs", "/u/work")
    outside = MountPoint("bind", "/x", "/x", uids=((0, 70_000, 1),), gids=((0, 0, 1),))
    with pytest.raises(InvalidParameter, match="has no id that the container can have"):
        build(record(mounts=[outside]), ids=IDS)
