"""Effects of single properties of a create request, seen from inside the container (the table: tests/properties.py)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import IMAGE, Daemon

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
        ({"CgroupnsMode": "host", "CgroupParent": "corral-test-parent"},
         "cat /proc/self/cgroup | grep -c /corral-test-parent/",
         str(len([1 for line in Path("/proc/self/cgroup").read_text().splitlines() if not line.startswith("0:")]))),
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
    assert values() == ["256", "max", str(64 << 20), str(32 << 20)]
