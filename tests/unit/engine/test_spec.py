"""From a record to the OCI spec, and the default profiles."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.engine import profiles, seccomp, spec
from corral.engine.hostfacts import HostFacts
from corral.engine.record import Container, MountPoint
from corral.runtime import bpf, syscalls, validate
from corral.wire.containers import ContainerConfig, HostConfig, Ulimit

FACTS = HostFacts(
    machine="x86_64", architecture="amd64", kernel="6.1.0", hostname="machine", operating_system="Debian",
    os_version="12", cpus=2, memory_bytes=1 << 32, cgroup_version=1, capabilities=profiles.ALL_CAPABILITIES,
    controllers=frozenset(("cpu", "cpuset", "memory", "pids")), swap_accounting=True, confining=frozenset(),
    devices=(("/dev/null", "c", 1, 3, 0o666, 0, 0), ("/dev/sda", "b", 8, 0, 0o660, 0, 6)),
)  # fmt: skip

Change = Callable[[Container], None]


def record(config: dict[str, Any] | None = None, host: dict[str, Any] | None = None, **more: Any) -> Container:
    settings: dict[str, Any] = {"network_mode": "bridge", "ipc_mode": "private", **(host or {})}
    return Container(
        id="c" * 64, name="web", created_ns=1_700_000_000_123_456_789, image_id="sha256:" + "1" * 64, image_ref="img",
        layers="", config=ContainerConfig(**{"hostname": "inside", "cmd": ["sh"], **(config or {})}),
        host=HostConfig(**settings), networks={}, mounts=more.pop("mounts", []), **more,
    )  # fmt: skip


def build(container: Container, **around: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "facts": FACTS, "root": "/bundle/rootfs", "cgroup_parent": "/corral", "hostname_path": "/c/hostname",
        "hosts_path": "/c/hosts", "resolv_path": "/c/resolv.conf", "shm_size": 64 << 20, "joined": {},
        "init_path": "", "default_ulimits": {},
    }  # fmt: skip
    return spec.build(container, spec.Surroundings(**{**given, **around}))


def mount(built: dict[str, Any], destination: str) -> dict[str, Any]:
    (found,) = [entry for entry in built["mounts"] if entry["destination"] == destination]
    return dict(found)


def kinds(built: dict[str, Any]) -> set[str]:
    return {entry["type"] for entry in built["linux"]["namespaces"]}


def test_the_default_container_is_docker_s() -> None:
    built = build(record())
    process, linux = built["process"], built["linux"]
    assert set(process["capabilities"]["bounding"]) == set(profiles.DEFAULT_CAPABILITIES)
    assert process["capabilities"]["effective"] == process["capabilities"]["permitted"]
    assert "inheritable" not in process["capabilities"]
    assert "ambient" not in process["capabilities"]
    assert process["noNewPrivileges"] is False
    assert process["cwd"] == "/"
    assert kinds(built) == {"mount", "pid", "network", "ipc", "uts", "cgroup"}
    assert linux["maskedPaths"] == list(profiles.MASKED_PATHS)
    assert linux["readonlyPaths"] == list(profiles.READONLY_PATHS)
    assert linux["seccomp"]["defaultAction"] == "SCMP_ACT_ERRNO"
    assert linux["cgroupsPath"] == "/corral/" + "c" * 64
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert "ro" in mount(built, "/sys")["options"]
    assert "ro" in mount(built, "/sys/fs/cgroup")["options"]
    assert "size=65536k" in mount(built, "/dev")["options"]
    assert f"size={64 << 20}" in mount(built, "/dev/shm")["options"]
    assert built["root"] == {"path": "/bundle/rootfs", "readonly": False}


def test_the_runtime_accepts_every_variant() -> None:
    for host in (
        {}, {"privileged": True}, {"network_mode": "host"},
        {"pid_mode": "host", "ipc_mode": "host", "uts_mode": "host"},
        {"readonly_rootfs": True, "cgroupns_mode": "host"}, {"security_opt": ["seccomp=unconfined"]},
        {"memory": 1 << 28, "nano_cpus": 500_000_000, "pids_limit": 10, "cpuset_cpus": "0", "blkio_weight": 20},
    ):  # fmt: skip
        validate.check(build(record(host=host)))


def test_a_privileged_container_has_everything() -> None:
    built = build(record(host={"privileged": True}))
    linux = built["linux"]
    assert built["process"]["capabilities"]["bounding"] == list(profiles.ALL_CAPABILITIES)
    assert "seccomp" not in linux
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == ([], [])
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert [device["path"] for device in linux["devices"]] == ["/dev/null", "/dev/sda"]
    assert "ro" not in mount(built, "/sys")["options"]


def test_host_namespaces_are_left_out() -> None:
    built = build(record(host={"pid_mode": "host", "ipc_mode": "host", "uts_mode": "host", "network_mode": "host"}))
    assert kinds(built) == {"mount", "cgroup"}
    assert "hostname" not in built
    assert mount(built, "/dev/shm")["source"] == "/dev/shm"
    assert "net.ipv4.ip_unprivileged_port_start" not in built["linux"]["sysctl"]


def test_joined_namespaces_have_paths() -> None:
    built = build(
        record(host={"network_mode": "container:x", "pid_mode": "container:x"}),
        joined={"network": "/proc/7/ns/net", "pid": "/proc/7/ns/pid"},
    )
    paths = {entry["type"]: entry.get("path") for entry in built["linux"]["namespaces"]}
    assert (paths["network"], paths["pid"], paths["ipc"]) == ("/proc/7/ns/net", "/proc/7/ns/pid", None)


def test_security_options() -> None:
    assert build(record(host={"security_opt": ["no-new-privileges"]}))["process"]["noNewPrivileges"] is True
    assert build(record(), no_new_privileges=True)["process"]["noNewPrivileges"] is True
    off = record(host={"security_opt": ["no-new-privileges=false"]})
    assert build(off, no_new_privileges=True)["process"]["noNewPrivileges"] is False
    assert "seccomp" not in build(record(host={"security_opt": ["seccomp=unconfined"]}))["linux"]
    assert "seccomp" not in build(record(), seccomp_profile={})["linux"]
    own = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    assert build(record(), seccomp_profile=own)["linux"]["seccomp"] == own
    open_paths = build(record(host={"security_opt": ["systempaths=unconfined"]}))["linux"]
    assert (open_paths["maskedPaths"], open_paths["readonlyPaths"]) == ([], [])
    for option in ("nonsense", "seccomp", "apparmor", "no-new-privileges=maybe"):
        with pytest.raises(spec.InvalidSecurityOption, match="invalid --security-opt"):
            spec.security_options([option])


def test_the_environment() -> None:
    built = build(record({"env": ["A=1", "PATH=/x", "HOSTNAME"], "tty": True}))
    assert built["process"]["env"] == ["PATH=/x", "TERM=xterm", "A=1"]
    assert built["process"]["terminal"] is True


@given(st.lists(st.sampled_from(["A=1", "A=2", "A", "B=", "B", "C=x=y"]), max_size=8))
def test_the_last_word_on_a_variable_counts(entries: list[str]) -> None:
    merged = spec.merge_environment(["A=0"], entries)
    names = [entry.partition("=")[0] for entry in merged]
    assert len(names) == len(set(names))
    last = {entry.partition("=")[0]: entry for entry in ["A=0", *entries]}
    assert set(merged) == {entry for entry in last.values() if "=" in entry}


def test_limits() -> None:
    host = {
        "memory": 1 << 28, "nano_cpus": 1_500_000_000, "pids_limit": 7, "cpu_shares": 512, "cpuset_cpus": "0-1",
        "memory_reservation": 1 << 27, "blkio_weight": 300, "oom_kill_disable": True,
    }  # fmt: skip
    assert spec.limits(record(host=host)) == {
        "cpu": {"shares": 512, "period": 100_000, "quota": 150_000, "cpus": "0-1"},
        "memory": {"limit": 1 << 28, "swap": 1 << 29, "reservation": 1 << 27, "disableOOMKiller": True},
        "pids": {"limit": 7},
        "blockIO": {"weight": 300},
    }
    assert spec.limits(record()) == {}


def test_ulimits_of_the_container_win() -> None:
    built = build(
        record(host={"ulimits": [Ulimit(name="nofile", soft=10, hard=-1)]}),
        default_ulimits={"nofile": (1, 2), "core": (0, 0)},
    )
    assert built["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": (1 << 64) - 1},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]


def test_a_users_mount_replaces_the_default_one() -> None:
    points = [
        MountPoint("tmpfs", "", "/dev/shm", options=("size=1m",)),
        MountPoint("bind", "/src", "/a/b", rw=False, propagation="rprivate"),
        MountPoint("bind", "/src", "/a", options=("norecurse", "ro-shallow"), rw=False),
        MountPoint("bind", "/hosts", "/etc/hosts"),
    ]
    built = build(record(mounts=points))
    assert mount(built, "/dev/shm")["options"] == ["size=1m"]
    assert mount(built, "/a/b")["options"] == ["rbind", "rprivate", "rro"]
    assert mount(built, "/a")["options"] == ["bind", "rprivate", "ro"]
    assert mount(built, "/etc/hosts")["source"] == "/hosts"
    order = [entry["destination"] for entry in built["mounts"]]
    assert order.index("/a") < order.index("/a/b")


def test_an_init_is_first() -> None:
    built = build(record(), init_path="/usr/bin/tini")
    assert built["process"]["args"] == ["/sbin/docker-init", "--", "sh"]
    assert mount(built, "/sbin/docker-init")["source"] == "/usr/bin/tini"


def test_device_rules() -> None:
    built = build(record(host={"device_cgroup_rules": ["c 42:* rmw", "a *:* r"]}))
    assert built["linux"]["resources"]["devices"][-2:] == [
        {"allow": True, "type": "c", "access": "rmw", "major": 42},
        {"allow": True, "type": "a", "access": "r"},
    ]
    with pytest.raises(Exception, match="invalid device cgroup rule format"):
        build(record(host={"device_cgroup_rules": ["c 42"]}))


# -- capabilities -----------------------------------------------------------------------------------------------


def capabilities(add: list[str], drop: list[str]) -> set[str]:
    found = profiles.capabilities(add, drop, privileged=False, available=profiles.ALL_CAPABILITIES)
    assert found == [name for name in profiles.ALL_CAPABILITIES if name in found]  # in the kernel's order
    return set(found)


def test_capabilities() -> None:
    default = set(profiles.DEFAULT_CAPABILITIES)
    assert capabilities([], []) == default
    assert capabilities(["SYS_ADMIN"], ["cap_chown"]) == default - {"CAP_CHOWN"} | {"CAP_SYS_ADMIN"}
    assert capabilities(["all"], ["SYS_ADMIN"]) == set(profiles.ALL_CAPABILITIES) - {"CAP_SYS_ADMIN"}
    assert capabilities([], ["ALL"]) == set()
    assert capabilities(["NET_RAW"], ["ALL"]) == {"CAP_NET_RAW"}
    with pytest.raises(profiles.UnknownCapability):
        capabilities(["FLY"], [])
    with pytest.raises(profiles.UnknownCapability):
        capabilities([], ["FLY"])


@given(*2 * [st.lists(st.sampled_from(["ALL", *profiles.ALL_CAPABILITIES]), max_size=5)])
def test_what_was_dropped_is_gone_unless_all_was(add: list[str], drop: list[str]) -> None:
    found = capabilities(add, drop)
    if "ALL" not in drop:
        assert not found & (set(drop) - set(add))


# -- seccomp ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_default_filter_compiles(machine: str) -> None:
    profile = seccomp.default_filter(profiles.DEFAULT_CAPABILITIES, machine)
    assert bpf.compile_profile(profile, machine)


def test_capabilities_open_calls() -> None:
    def allowed(*names: str) -> set[str]:
        profile = seccomp.default_filter(names, "x86_64")
        return {
            name
            for rule in profile["syscalls"]
            if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
            for name in rule["names"]
        }

    base = allowed()
    assert {"mount", "setns", "reboot", "bpf", "init_module", "clone3", "keyctl"}.isdisjoint(base)
    assert {"read", "execve", "ptrace", "io_setup"} <= base
    assert {"mount", "setns", "clone3"} <= allowed("CAP_SYS_ADMIN")
    assert "reboot" in allowed("CAP_SYS_BOOT")
    assert base <= allowed(*profiles.ALL_CAPABILITIES)


def test_every_call_is_one_that_some_machine_has() -> None:
    known = {name for machine in ("x86_64", "x86", "x32", "aarch64") for name in syscalls.table(machine)}
    for machine in ("x86_64", "aarch64"):
        for rule in seccomp.default_filter(profiles.ALL_CAPABILITIES, machine)["syscalls"]:
            unknown = set(rule["names"]) - known - OF_OTHER_MACHINES
            assert not unknown


# Docker's list names them too; they exist on machines that we have no numbers for, or are not calls of their own.
OF_OTHER_MACHINES = set(
    "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush recv riscv_hwprobe send set_tls "
    "sync_file_range2".split()
)


# What Docker's list comes to on amd64 without, with the default and with all capabilities: digests of `_allowed`.
DOCKERS = {
    (): "679405aff56503e6",
    profiles.DEFAULT_CAPABILITIES: "7e7888d4aef48ed9",
    profiles.ALL_CAPABILITIES: "836d6d80cb4d534f",
}


@pytest.mark.parametrize("names", DOCKERS)
def test_it_allows_what_docker_s_list_allows(names: tuple[str, ...]) -> None:
    ours = _allowed(seccomp.default_filter(names, "x86_64")["syscalls"])
    if folder := os.environ.get("CORRAL_REFERENCE"):  # with Docker's seccomp-default.json: the differences can be seen
        reference = json.loads((Path(folder) / "seccomp-default.json").read_text())
        assert ours == _allowed(_applying(reference["syscalls"], set(names)))
    assert hashlib.sha256(repr(sorted(ours)).encode()).hexdigest()[:16] == DOCKERS[names]


def _applying(rules: list[dict[str, Any]], held: set[str]) -> list[dict[str, Any]]:
    """The rules of Docker's list that apply on amd64 with `held` capabilities and a new kernel."""
    found = []
    for rule in rules:
        wanted, unwanted = rule.get("includes") or {}, rule.get("excludes") or {}
        if "arches" in wanted and "amd64" not in wanted["arches"]:
            continue
        if "amd64" in unwanted.get("arches", ()) or held & set(unwanted.get("caps", ())):
            continue
        if set(wanted.get("caps", ())) <= held:
            found.append(rule)
    return found


def _allowed(rules: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(call, its conditions) for each call that this machine has."""
    known = syscalls.table("x86_64")
    return {
        (name, json.dumps(rule.get("args") or [], sort_keys=True))
        for rule in rules
        if rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule.get("names", [])
        if name in known
    }
