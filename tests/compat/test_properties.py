"""Effects of single properties of a create request, seen from inside the container (the table: tests/properties.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import IMAGE, Daemon
from tests.support.wait import until

pytestmark = pytest.mark.skipif(
    Path("/sys/fs/cgroup/cgroup.controllers").exists(), reason="reads files of cgroup version 1; test_cgroup_v2 has 2"
)


def seen(daemon: Daemon, script: str, host: dict[str, Any], **config: Any) -> str:
    """What a script prints in a container of its own."""
    container = daemon.start("sh", "-c", script, HostConfig=host, **config)
    daemon.wait(container)
    return daemon.output("logs", container)


def group(file: str) -> str:
    return f"cat /sys/fs/cgroup/{file}"


@pytest.mark.parametrize(
    ("host", "script", "expected"),
    [
        ({"CpuShares": 512}, group("cpu/cpu.shares"), "512"),
        ({"CpuPeriod": 50_000, "CpuQuota": 20_000}, group("cpu/cpu.cfs_period_us /sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
         "50000\n20000"),
        ({"CpusetMems": "0"}, group("cpuset/cpuset.mems"), "0"),
        ({"MemoryReservation": 32 << 20}, group("memory/memory.soft_limit_in_bytes"), str(32 << 20)),
        ({"MemorySwappiness": 17}, group("memory/memory.swappiness"), "17"),
        ({"Memory": 64 << 20, "OomKillDisable": True}, group("memory/memory.oom_control | head -n 1"),
         "oom_kill_disable 1"),
        ({"PidsLimit": 0}, group("pids/pids.max"), "max"),
        ({"PidsLimit": -1}, group("pids/pids.max"), "max"),
        ({"PidsLimit": 23}, group("pids/pids.max"), "23"),
        ({"DeviceCgroupRules": ["c 10:237 r"], "CapAdd": ["MKNOD"]},
         "mknod /tmp/x c 10 237; (: < /tmp/x) && echo read; (: > /tmp/x) 2>/dev/null || echo refused",
         "read\nrefused"),
        ({"MaskedPaths": ["/proc/uptime"], "ReadonlyPaths": []}, "wc -c < /proc/uptime; wc -c < /proc/loadavg | wc -l",
         "0\n1"),
        ({"ReadonlyPaths": ["/tmp"]}, "touch /tmp/x 2>/dev/null || echo read-only", "read-only"),
        ({"SecurityOpt": ["systempaths=unconfined"]}, "grep -c ' /proc/sys ' /proc/self/mountinfo", "0"),
        ({"SecurityOpt": ["writable-cgroups=true"]},
         "mkdir /sys/fs/cgroup/pids/x && echo made; rmdir /sys/fs/cgroup/pids/x",
         "made"),
        ({"ExtraHosts": ["db:10.1.2.3"]}, "grep -w db /etc/hosts", "10.1.2.3\tdb"),
        ({"DnsOptions": ["ndots:3"]}, "grep options /etc/resolv.conf", "options ndots:3"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_effect_of_a_host_property(daemon: Daemon, host: dict[str, Any], script: str, expected: str) -> None:
    assert seen(daemon, script, host) == expected


@pytest.mark.parametrize(
    ("config", "script", "expected"),
    [
        ({"Domainname": "example"}, "cat /proc/sys/kernel/domainname", "example"),
        ({"NetworkDisabled": True}, "ls /sys/class/net", "lo"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_effect_of_a_portable_property(daemon: Daemon, config: dict[str, Any], script: str, expected: str) -> None:
    assert seen(daemon, script, {}, **config) == expected


def _disk() -> str:
    """A disk of this machine with its number."""
    for name in sorted(path.name for path in Path("/sys/block").iterdir()):
        if not name.startswith(("loop", "ram", "zram")) and Path("/dev", name).exists():
            return name
    pytest.skip("this machine has no disk")


@pytest.mark.parametrize(
    ("field", "file"),
    [
        ("BlkioDeviceReadBps", "read_bps"), ("BlkioDeviceWriteBps", "write_bps"),
        ("BlkioDeviceReadIOps", "read_iops"), ("BlkioDeviceWriteIOps", "write_iops"),
    ],
)  # fmt: skip
def test_effect_of_a_throttle(daemon: Daemon, field: str, file: str) -> None:
    name = _disk()
    number = Path("/sys/block", name, "dev").read_text().strip()
    limits = seen(
        daemon, group(f"blkio/blkio.throttle.{file}_device"), {field: [{"Path": f"/dev/{name}", "Rate": 1 << 29}]}
    )
    assert limits == f"{number} {1 << 29}"


@pytest.mark.parametrize(
    ("host", "file", "warning"),
    [
        ({"BlkioWeight": 300}, "blkio/blkio.weight", "Block I/O weight"),
        ({"BlkioWeightDevice": [{"Path": "/dev/null", "Weight": 300}]}, "blkio/blkio.weight_device",
         "Block I/O weight_device"),
    ],
)  # fmt: skip
def test_weights_that_the_kernel_does_not_have(daemon: Daemon, host: dict[str, Any], file: str, warning: str) -> None:
    if Path("/sys/fs/cgroup", file).exists():
        pytest.skip("this kernel has weights for block devices")
    reply = daemon.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host})
    assert reply.status == 201, reply.body
    assert warning in reply.json()["Warnings"][0]
    assert daemon.post(f"/containers/{reply.json()['Id']}/start").status == 204


def test_real_time(daemon: Daemon) -> None:
    """Where groups have it, its period is set (a runtime takes one of every group above); elsewhere it is refused."""
    reply = daemon.post(
        "/containers/create",
        {"Image": IMAGE, "Cmd": group("cpu/cpu.rt_period_us").split(), "HostConfig": {"CpuRealtimePeriod": 500_000}},
    )
    if not Path("/sys/fs/cgroup/cpu/cpu.rt_period_us").exists():
        assert (reply.status, reply.message) == (400, "Your kernel does not support CPU real-time scheduler")
        return
    container = reply.json()["Id"]
    assert daemon.post(f"/containers/{container}/start").status == 204
    assert daemon.wait(container) == 0
    assert daemon.output("logs", container) == "500000"


def test_update_changes_what_is_said_and_nothing_else(daemon: Daemon) -> None:
    container = daemon.start("sleep", "60", HostConfig={"CpuShares": 512, "PidsLimit": 30, "Memory": 64 << 20})

    def values() -> list[str]:
        files = "cpu/cpu.shares pids/pids.max memory/memory.limit_in_bytes memory/memory.soft_limit_in_bytes"
        paths = [f"/sys/fs/cgroup/{file}" for file in files.split()]
        return daemon.output("exec", container, "cat", *paths).split()

    unlimited = values()[3]
    assert values() == ["512", "30", str(64 << 20), unlimited]
    assert daemon.post(f"/containers/{container}/update", {"CpuShares": 256}).status == 200
    assert values() == ["256", "30", str(64 << 20), unlimited]
    assert daemon.post(f"/containers/{container}/update", {"PidsLimit": -1}).status == 200
    assert values() == ["256", "max", str(64 << 20), unlimited]
    assert daemon.post(f"/containers/{container}/update", {"PidsLimit": 9}).status == 200
    assert daemon.post(f"/containers/{container}/update", {"PidsLimit": 0}).status == 200
    assert values()[1] == "max"
    assert daemon.post(f"/containers/{container}/update", {"MemoryReservation": 32 << 20}).status == 200
    assert daemon.post(f"/containers/{container}/update", {"CpuQuota": 50_000}).status == 200
    refused = daemon.post(f"/containers/{container}/update", {"NanoCpus": 500_000_000})
    assert (refused.status, refused.message) == (
        409,
        "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set",
    )
    assert values() == ["256", "max", str(64 << 20), str(32 << 20)]


def test_addresses_of_an_endpoint(daemon: Daemon) -> None:
    made = daemon.post("/networks/create", {"Name": "fixed", "IPAM": {"Config": [{"Subnet": "10.87.3.0/24"}]}})
    assert made.status == 201, made.body
    asked = {"IPAMConfig": {"IPv4Address": "10.87.3.77"}, "MacAddress": "02:42:0a:57:03:4d"}
    try:
        shown = seen(
            daemon, "ip -4 -o addr show eth0; cat /sys/class/net/eth0/address", {"NetworkMode": "fixed"},
            NetworkingConfig={"EndpointsConfig": {"fixed": asked}},
        )  # fmt: skip
        assert "10.87.3.77/24" in shown
        assert shown.splitlines()[-1] == "02:42:0a:57:03:4d"
    finally:
        daemon.remove_all()
        assert daemon.delete("/networks/fixed").status == 204


def test_mounts_of_another_container(daemon: Daemon) -> None:
    owner = daemon.create("true", HostConfig={"Binds": ["/data"]}, Volumes={"/data": {}}, name="owner")
    try:
        assert seen(daemon, "touch /data/x && ls /data", {"VolumesFrom": ["owner"]}) == "x"
        assert seen(daemon, "ls /data; touch /data/y 2>/dev/null || echo no", {"VolumesFrom": ["owner:ro"]}) == "x\nno"
    finally:
        daemon.delete(f"/containers/{owner}", force="1", v="1")


_TRAP = "trap 'exit 6' USR1; trap '' TERM; echo ready; while :; do sleep 0.05; done"


def test_signals_and_timeouts_of_stop_and_restart(daemon: Daemon) -> None:
    container = daemon.start("sh", "-c", _TRAP, StopTimeout=0)
    until(lambda: daemon.output("logs", container) == "ready")
    assert daemon.post(f"/containers/{container}/stop", signal="USR1", t="-1").status == 204
    assert daemon.state(container)["ExitCode"] == 6
    daemon.post(f"/containers/{container}/start")
    first = daemon.state(container)["StartedAt"]
    assert daemon.post(f"/containers/{container}/restart", signal="TERM", t="0").status == 204
    assert daemon.state(container)["StartedAt"] != first
    assert daemon.post(f"/containers/{container}/stop").status == 204  # killed at once: StopTimeout is 0
    assert daemon.state(container)["ExitCode"] == 137


def test_one_sample_and_sizes(daemon: Daemon) -> None:
    container = daemon.start("sh", "-c", "head -c 70000 /dev/zero > /big; echo done; sleep 60")
    until(lambda: daemon.output("logs", container) == "done")
    once = daemon.get(f"/containers/{container}/stats", **{"stream": "0", "one-shot": "1"}).json()
    assert once["memory_stats"]["usage"] > 0
    assert once["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    sized = daemon.get(f"/containers/{container}/json", size="1").json()
    assert sized["SizeRw"] >= 70000
    assert "SizeRw" not in daemon.inspect(container)


def test_a_link_names_another_container(daemon: Daemon) -> None:
    daemon.start("sleep", "60", name="served")
    address = daemon.inspect("served")["NetworkSettings"]["IPAddress"]
    assert seen(daemon, "grep -w alias /etc/hosts | cut -f1", {"Links": ["served:alias"]}) == address


def test_a_network_of_priority_has_the_default_route(daemon: Daemon) -> None:
    for name in ("first", "second"):
        assert daemon.post("/networks/create", {"Name": name}).status == 201
    try:
        for chosen in ("first", "second"):
            gateway = daemon.get(f"/networks/{chosen}").json()["IPAM"]["Config"][0]["Gateway"]
            asked = {name: {"GwPriority": int(name == chosen)} for name in ("first", "second")}
            route = seen(
                daemon, "ip route | grep default", {"NetworkMode": "first"}, NetworkingConfig={"EndpointsConfig": asked}
            )
            assert f"via {gateway} " in route
    finally:
        daemon.remove_all()
        for name in ("first", "second"):
            daemon.delete(f"/networks/{name}")


def test_attach_with_past_output(daemon: Daemon) -> None:
    container = daemon.create("echo", "before")
    daemon.post(f"/containers/{container}/start")
    daemon.wait(container)
    reply = daemon.request("POST", f"/containers/{container}/attach", logs="1", stdout="1")
    assert reply.body.endswith(b"before\n")


def test_exec_is_started_once_and_resized_with_numbers(daemon: Daemon) -> None:
    container = daemon.start("sleep", "60")
    made = daemon.post(f"/containers/{container}/exec", {"Cmd": ["sleep", "50"], "Tty": True}).json()["Id"]
    assert daemon.post(f"/exec/{made}/resize", h="10", w="20").status == 409  # not started yet
    assert daemon.post(f"/exec/{made}/start", {"Detach": True}).status == 200
    assert daemon.post(f"/exec/{made}/start", {"Detach": True}).status == 409
    assert daemon.post(f"/exec/{made}/resize", h="x", w="20").status == 400
    assert daemon.post(f"/exec/{made}/resize", h="10", w="20").status == 200
    daemon.post(f"/containers/{container}/pause")
    refused = daemon.post(f"/containers/{container}/exec", {"Cmd": ["true"]})
    assert refused.status == 409
    assert "unpause the container before exec" in refused.message
    assert daemon.post(f"/containers/{container}/stop", t="0").status == 204  # of a paused one
    assert daemon.state(container)["ExitCode"] == 137


def test_a_cgroup_parent(daemon: Daemon) -> None:
    parent = "corral-test-parent"
    try:
        shown = seen(daemon, "cat /proc/self/cgroup", {"CgroupnsMode": "host", "CgroupParent": parent})
        assert any(f":/{parent}/" in line for line in shown.splitlines())
    finally:
        daemon.remove_all()
        for folder in Path("/sys/fs/cgroup").glob(f"*/{parent}"):
            folder.rmdir()
