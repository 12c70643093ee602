"""Limits, devices and host settings of a container, seen from inside it or in its cgroup."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon, Engine

_CGROUP_1 = Path("/sys/fs/cgroup/memory").is_dir()
_DISK = next((f"/dev/{path.name}" for path in sorted(Path("/sys/block").iterdir()) if path.name[0] in "vsnl"), "")


def run(engine: Engine, host: dict[str, object], script: str, **config: object) -> str:
    """The output of a script in a container made through the API."""
    container = engine.start("sh", "-c", script, HostConfig=host, **config)
    engine.wait(container)
    return engine.output("logs", container)


@pytest.mark.skipif(not _CGROUP_1, reason="reads version 1 files; version 2 is tested under user-mode Linux")
@pytest.mark.parametrize(
    ("flags", "file", "expected"),
    [
        (["--cpu-shares", "512"], "cpu/cpu.shares", "512"),
        (["--cpu-period", "50000"], "cpu/cpu.cfs_period_us", "50000"),
        (["--cpu-quota", "25000"], "cpu/cpu.cfs_quota_us", "25000"),
        (["--cpuset-cpus", "0"], "cpuset/cpuset.cpus", "0"),
        (["--cpuset-mems", "0"], "cpuset/cpuset.mems", "0"),
        (["-m", "64m"], "memory/memory.limit_in_bytes", str(64 << 20)),
        (["-m", "64m", "--memory-swap", "96m"], "memory/memory.memsw.limit_in_bytes", str(96 << 20)),
        (["--memory-reservation", "32m"], "memory/memory.soft_limit_in_bytes", str(32 << 20)),
        (["--memory-swappiness", "7"], "memory/memory.swappiness", "7"),
        (["-m", "64m", "--oom-kill-disable"], "memory/memory.oom_control | head -n 1", "oom_kill_disable 1"),
        (["--pids-limit", "33"], "pids/pids.max", "33"),
        (["--pids-limit", "0"], "pids/pids.max", "max"),
        (["--pids-limit", "-1"], "pids/pids.max", "max"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_limits(engine: Engine, flags: list[str], file: str, expected: str) -> None:
    assert engine.output("run", "--rm", *flags, IMAGE, "sh", "-c", f"cat /sys/fs/cgroup/{file}") == expected


@pytest.mark.skipif(not (_CGROUP_1 and _DISK), reason="needs cgroup version 1 and a disk")
@pytest.mark.parametrize("kind", ["read_bps", "write_bps", "read_iops", "write_iops"])
def test_throttles(engine: Engine, kind: str) -> None:
    rate = "1048576" if kind.endswith("bps") else "77"
    flag = f"--device-{kind.replace('_', '-')}"
    file = f"/sys/fs/cgroup/blkio/blkio.throttle.{kind}_device"
    assert engine.output("run", "--rm", flag, f"{_DISK}:{rate}", IMAGE, "cat", file).split()[1] == rate


def test_what_limits_cannot_be(engine: Engine) -> None:
    for host, message in (
        ({"BlkioDeviceReadBps": [{"Path": "/dev/null", "Rate": 100}]}, "not a block device"),
        ({"MemorySwappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"CpuPeriod": 1}, "CPU cfs period can not be less than 1ms"),
    ):
        made = engine.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host})
        if made.status == 201:
            made = engine.post(f"/containers/{made.json()['Id']}/start")
        assert made.status in (400, 500)
        assert message in made.message


@pytest.mark.skipif(not _CGROUP_1, reason="reads version 1 files; version 2 is tested under user-mode Linux")
def test_update_changes_what_it_names(engine: Engine) -> None:
    host = {"PidsLimit": 40, "Memory": 64 << 20, "MemorySwap": 96 << 20, "CpuShares": 300, "CpusetCpus": "0"}
    container = engine.start("sleep", "60", HostConfig=host)
    files = ("pids/pids.max", "memory/memory.limit_in_bytes", "cpu/cpu.shares", "cpuset/cpuset.cpus")

    def limits() -> list[str]:
        return engine.output("exec", container, "cat", *(f"/sys/fs/cgroup/{file}" for file in files)).split()

    def update(**changes: object) -> None:
        reply = engine.post(f"/containers/{container}/update", changes)
        assert reply.status == 200, reply.body

    update(CpuShares=400)
    assert limits() == ["40", str(64 << 20), "400", "0"]
    update(PidsLimit=None)
    assert limits()[0] == "40"
    update(PidsLimit=50)
    assert limits()[0] == "50"
    for unlimited in (0, -1):
        update(PidsLimit=unlimited)
        assert limits()[0] == "max"
        update(PidsLimit=50)
    shown = engine.inspect(container)["HostConfig"]
    assert {name: shown[name] for name in host} == {**host, "PidsLimit": 50, "CpuShares": 400}


def test_cgroup_parent(daemon: Daemon) -> None:
    parent = f"{daemon.cgroup_parent}/below"
    container = daemon.output("run", "-d", "--cgroup-parent", parent, IMAGE, "sleep", "60")
    groups = Path(f"/proc/{daemon.state(container)['Pid']}/cgroup").read_text()
    assert f"{parent}/{container}" in groups
    daemon.output("rm", "-f", container)
    for folder in Path("/sys/fs/cgroup").glob(f"*{parent}"):  # parents are the user's, as in Docker
        folder.rmdir()


def test_device_rules(engine: Engine) -> None:
    script = "mknod /tmp/loops c 10 237 && head -c 0 /tmp/loops && echo opened"
    assert "opened" not in engine.docker("run", "--rm", IMAGE, "sh", "-c", script).stdout
    allowed = engine.output("run", "--rm", "--device-cgroup-rule", "c 10:237 rwm", IMAGE, "sh", "-c", script)
    assert allowed == "opened"
    container = engine.create("true", HostConfig={"DeviceCgroupRules": ["nonsense"]})
    assert "invalid device cgroup rule format" in engine.post(f"/containers/{container}/start").message


def test_paths_that_are_hidden_or_read_only(engine: Engine) -> None:
    host: dict[str, object] = {"MaskedPaths": ["/proc/uptime"], "ReadonlyPaths": ["/proc/self/oom_score_adj"]}
    script = "wc -c < /proc/uptime; test -w /proc/sys/kernel/shmmax && echo writable"
    assert run(engine, host, script).split() == ["0", "writable"]
    assert run(engine, {}, script).split()[0] != "0"


def test_names_and_resolver(engine: Engine) -> None:
    script = "cat /proc/sys/kernel/domainname; grep ^options /etc/resolv.conf"
    found = run(engine, {"DnsOptions": ["ndots:3"]}, script, Domainname="yard.example")
    assert "yard.example" in found
    assert "options ndots:3" in found


def test_network_disabled(engine: Engine) -> None:
    assert run(engine, {}, "ls /sys/class/net", NetworkDisabled=True) == "lo"


def test_console_size(engine: Engine) -> None:
    assert run(engine, {"ConsoleSize": [33, 99]}, "stty size", Tty=True) == "33 99"


def test_annotations_reach_the_runtime(daemon: Daemon) -> None:
    container = daemon.output("run", "-d", "--annotation", "yard=green", IMAGE, "sleep", "60")
    (path,) = Path(daemon.exec_root).glob(f"**/{container}/config.json")
    assert json.loads(path.read_text())["annotations"]["yard"] == "green"


def test_volumes_of_another_container(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bound\n")
    engine.output("create", "--name", "source", "-v", f"{tmp_path}:/bound", "-v", "/anonymous", IMAGE)
    script = "cat /bound/file; touch /bound/x 2>/dev/null || echo read-only; test -d /anonymous && echo there"
    shared = engine.output("run", "--rm", "--volumes-from", "source:ro", IMAGE, "sh", "-c", script)
    assert shared.split() == ["bound", "read-only", "there"]
    asked = {"Image": IMAGE, "HostConfig": {"VolumesFrom": ["nobody"]}}
    assert engine.post("/containers/create", asked).message == "No such container: nobody"


def test_volume_driver(engine: Engine) -> None:
    container = engine.output("create", "--volume-driver", "local", "-v", "/kept", IMAGE)
    assert engine.inspect(container)["Mounts"][0]["Driver"] == "local"
    assert engine.docker("create", "--volume-driver", "nobody", "-v", "/kept", IMAGE).returncode != 0


def test_legacy_links(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "store", IMAGE, "sleep", "60")
    hosts = engine.output("run", "--rm", "--link", "store:db", IMAGE, "cat", "/etc/hosts")
    address = engine.inspect("store")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert any(line.split()[0] == address and "db" in line.split() for line in hosts.splitlines() if line)


def test_unprivileged_ping_and_low_ports(engine: Engine) -> None:
    container = engine.start("sleep", "60")
    target = str(engine.state(container)["Pid"])
    ping = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"
    anybody = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "/usr/bin/python3", "-c", ping]
    subprocess.run(["nsenter", "-t", target, "-n", *anybody], check=True, timeout=20)  # busybox's needs a raw socket
    files = "/proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
    bob = ["run", "--rm", "--user", "bob", "--cap-drop", "ALL", IMAGE, "sh", "-c"]
    assert engine.output(*bob, f"cat {files}").split() == ["0", "0", "2147483647"]
    listening = "nc -l -p 80 < /dev/null & until nc -w 1 127.0.0.1 80 < /dev/null; do :; done; echo reached"
    assert engine.output(*bob, listening) == "reached"


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ({"Sysctls": {"kernel.shmmax": "1"}, "IpcMode": "host"}, "kernel.shmmax"),
        ({"Sysctls": {"vm.swappiness": "1"}}, "vm.swappiness"),
        ({"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"}, "not allowed in host network namespace"),
        ({"Sysctls": {"net.no.such": "1"}}, "net"),
        ({"IpcMode": "sometimes"}, "invalid IPC mode: sometimes"),
        ({"IpcMode": "container:nobody"}, "No such container: nobody"),
        ({"PidMode": "sometimes"}, "invalid PID mode: sometimes"),
        ({"UTSMode": "sometimes"}, "invalid UTS mode: sometimes"),
        ({"UsernsMode": "private"}, "invalid user namespace mode: private"),
        ({"CgroupnsMode": "shared"}, "invalid cgroup namespace mode: shared"),
        ({"Isolation": "hyperv"}, 'invalid Isolation: "hyperv"'),
        ({"Cgroup": "container:x"}, "joining the cgroup of another container is not supported"),
        (
            {"StorageOpt": {"size": "1G"}},
            "--storage-opt is supported only for overlay over xfs or ext4 with project quotas",
        ),
        ({"StorageOpt": {"colour": "red"}}, "Unknown option colour"),
        ({"StorageOpt": {"size": "much"}}, "invalid size: 'much'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refusals(daemon: Daemon, host: dict[str, object], message: str) -> None:
    made = daemon.post("/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host})
    if made.status == 201:
        made = daemon.post(f"/containers/{made.json()['Id']}/start")
    assert made.status in (400, 404, 500, 501), made.body
    assert message in made.message


def test_ipc_modes(engine: Engine) -> None:
    private = engine.output("run", "-d", "--name", "closed", "--ipc", "private", IMAGE, "sleep", "60")
    assert private
    refused = engine.docker("run", "--rm", "--ipc", "container:closed", IMAGE, "true")
    assert "non-shareable IPC" in refused.stderr
    host = engine.output("run", "--rm", "--ipc", "host", IMAGE, "readlink", "/proc/self/ns/ipc")
    assert host == str(Path("/proc/self/ns/ipc").readlink())
    assert engine.output("run", "--rm", "--ipc", "none", IMAGE, "sh", "-c", "mount | grep -c /dev/shm || true") == "0"
    assert engine.output("run", "--rm", "--userns", "host", IMAGE, "cat", "/proc/self/uid_map").split()[0] == "0"


@pytest.mark.skipif(not _CGROUP_1, reason="reads version 1 files; version 2 is tested under user-mode Linux")
@pytest.mark.parametrize(
    ("change", "file", "expected"),
    [
        ({"CpuPeriod": 50_000}, "cpu/cpu.cfs_period_us", "50000"),
        ({"CpuQuota": 25_000}, "cpu/cpu.cfs_quota_us", "25000"),
        ({"CpusetMems": "0"}, "cpuset/cpuset.mems", "0"),
        ({"MemoryReservation": 32 << 20}, "memory/memory.soft_limit_in_bytes", str(32 << 20)),
    ],
    ids=lambda value: "" if isinstance(value, str) else "".join(value),
)
def test_update_of_each(engine: Engine, change: dict[str, object], file: str, expected: str) -> None:
    container = engine.start("sleep", "60")
    assert engine.post(f"/containers/{container}/update", change).status == 200
    assert engine.output("exec", container, "cat", f"/sys/fs/cgroup/{file}") == expected


def test_a_device_is_used_as_permitted(engine: Engine) -> None:
    script = "head -c 0 /dev/mine && echo read; : > /dev/mine"
    done = engine.docker("run", "--rm", "--device", "/dev/loop-control:/dev/mine:r", IMAGE, "sh", "-c", script)
    assert done.stdout == "read\n"
    assert "not permitted" in done.stderr


def test_the_address_of_the_first_network_card(engine: Engine) -> None:
    assert "02:42:ac:11:00:77" in run(engine, {}, "ip link", MacAddress="02:42:ac:11:00:77")
