"""What is said of machines that lack something."""

from __future__ import annotations

import dataclasses

import pytest

from corral.installation.facts import Facts
from corral.installation.findings import GAP, NOTE, OK, has_gap, judge

_TRIED = "mount pid network ipc uts cgroup user time overlayfs bridge veth".split()
_FINE = Facts(
    kernel="6.1.0-13-amd64",
    is_root=True,
    failures=dict.fromkeys([*_TRIED, "idmapped mounts"], ""),
    cgroup_version=2,
    controllers=frozenset({"cpu", "cpuset", "io", "memory", "pids"}),
    seccomp_filters=True,
    mapped_user="dockremap",
    data_root="/var/lib/corral",
    free_bytes=10**11,
    total_bytes=10**12,
    project_quotas=True,
    nftables="",
    missing_programs=(),
    systemd=True,
)


def states(facts: Facts) -> dict[str, str]:
    return {one.name: one.state for one in judge(facts)}


def test_nothing_is_missing() -> None:
    found = judge(_FINE)
    assert {one.state for one in found} == {OK}
    assert not any(one.remedy for one in found)
    assert not has_gap(found)


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({"kernel": "4.19.0"}, "kernel", GAP),
        ({"kernel": "5.10.0"}, "idmapped mounts", NOTE),
        ({"is_root": False}, "root", GAP),
        ({"controllers": frozenset({"cpu", "memory"})}, "cgroup v2", GAP),
        ({"controllers": frozenset({"cpu", "memory", "pids"})}, "cgroup v2", NOTE),
        ({"cgroup_version": 1, "controllers": frozenset()}, "cgroup v1", GAP),
        ({"seccomp_filters": False}, "seccomp", GAP),
        ({"mapped_user": ""}, "id maps", NOTE),
        ({"free_bytes": 10**8}, "disk", GAP),
        ({"project_quotas": False}, "project quotas", NOTE),
        ({"nftables": "libnftables.so.1: not found"}, "nftables", GAP),
        ({"missing_programs": ("ps",)}, "ps", NOTE),
        ({"systemd": False}, "systemd", NOTE),
    ],
)
def test_something_is_missing(changes: dict[str, object], name: str, state: str) -> None:
    found = judge(dataclasses.replace(_FINE, **changes))  # type: ignore[arg-type]
    (one,) = [one for one in found if one.name == name]
    assert one.state == state
    assert one.remedy and one.found
    assert has_gap(found) == (state == GAP)


@pytest.mark.parametrize("what", [*_TRIED[:6], "overlayfs", "bridge", "veth"])
def test_what_containers_cannot_do_without(what: str) -> None:
    found = judge(dataclasses.replace(_FINE, failures={**_FINE.failures, what: "operation not permitted"}))
    (one,) = [one for one in found if one.state != OK]
    assert one.state == GAP and "operation not permitted" in one.found


@pytest.mark.parametrize("what", ["user", "idmapped mounts"])
def test_what_only_mapped_users_need(what: str) -> None:
    found = judge(dataclasses.replace(_FINE, failures={**_FINE.failures, what: "no"}))
    assert [one.state for one in found if one.state != OK] == [NOTE]
