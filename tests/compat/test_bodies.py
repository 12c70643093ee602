"""Effects of the parts of larger objects in a create request, and of the bodies of exec, update and volumes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.test_beyond_docker import corral
from tests.compat.test_docker_terminal import typed
from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.wait import until

_CGROUP_1 = not Path("/sys/fs/cgroup/cgroup.controllers").exists()
_REALTIME = Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()


def seen(engine: Engine, script: str, host: dict[str, Any], **config: Any) -> str:
    """What a script prints in a container of its own."""
    container = engine.start("sh", "-c", script, HostConfig=host, **config)
    engine.wait(container)
    return engine.output("logs", container)


# --- Mounts ------------------------------------------------------------------------------------------------------


def test_a_tmpfs_with_options(engine: Engine) -> None:
    options = {"SizeBytes": 1 << 20, "Mode": 0o1750, "Options": [["uid", "7"], ["exec"]]}
    mount = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": options}
    told = seen(engine, "stat -c '%a %u' /t; grep ' /t ' /proc/mounts", {"Mounts": [mount]}).splitlines()
    assert told[0] == "1750 7"
    assert "size=1024k" in told[1] and "noexec" not in told[1]


def test_a_volume_with_options(engine: Engine) -> None:
    options = {
        "NoCopy": True, "Labels": {"a": "b"},
        "DriverConfig": {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}},
    }  # fmt: skip
    mount = {"Type": "volume", "Source": "bodies", "Target": "/etc", "ReadOnly": True, "VolumeOptions": options}
    try:
        script = "grep ' /etc ' /proc/mounts; touch /etc/x 2>/dev/null || echo refused; ls /etc"
        told = seen(engine, script, {"Mounts": [mount]}).splitlines()
        assert "tmpfs ro" in told[0] and "size=2048k" in told[0]
        assert told[1:] == ["refused"]
        assert engine.get("/volumes/bodies").json()["Labels"] == {"a": "b"}
        plain = {"Type": "volume", "Source": "bodies2", "Target": "/bin", "VolumeOptions": {"NoCopy": True}}
        made = engine.create("true", HostConfig={"Mounts": [plain]})
        assert engine.post(f"/containers/{made}/start").status == 400  # nothing has been copied: there is no program
    finally:
        engine.remove_all()
        engine.delete("/volumes/bodies")
        engine.delete("/volumes/bodies2")


def test_the_driver_of_a_volume(engine: Engine) -> None:
    options = {"DriverConfig": {"Name": "nosuchdriver"}}
    mount = {"Type": "volume", "Source": "bodies5", "Target": "/v", "VolumeOptions": options}
    refused = engine.post("/containers/create", {"Image": IMAGE, "HostConfig": {"Mounts": [mount]}})
    assert refused.status >= 400 and 'plugin "nosuchdriver" not found' in refused.message
    mount["VolumeOptions"] = {"DriverConfig": {"Name": "local"}}
    try:
        assert seen(engine, "touch /v/x && ls /v", {"Mounts": [mount]}) == "x"
        assert engine.get("/volumes/bodies5").json()["Driver"] == "local"
    finally:
        engine.remove_all()
        engine.delete("/volumes/bodies5")


def test_a_config_as_a_file(daemon: Daemon) -> None:
    assert corral(daemon, "config", "create", "bodies", "/etc/hostname").returncode == 0
    one = {"Source": "bodies", "Target": "told", "UID": "7", "GID": "8", "Mode": 0o640, "OnUpdate": "signal:USR1"}
    script = (
        "trap 'echo changed; cat /run/configs/told' USR1; stat -c '%u:%g %a' /run/configs/told; "
        "while :; do sleep 0.05; done"
    )
    container = daemon.start("sh", "-c", script, HostConfig={"Configs": [one]})
    until(lambda: daemon.output("logs", container) == "7:8 640")
    assert corral(daemon, "config", "update", "bodies", "/etc/os-release").returncode == 0
    until(lambda: "PRETTY_NAME" in daemon.output("logs", container))
    assert daemon.output("logs", container).splitlines()[1] == "changed"
    daemon.remove_all()
    assert corral(daemon, "config", "rm", "bodies").returncode == 0


def test_a_volume_is_made_as_asked(engine: Engine) -> None:
    body = {
        "Name": "bodies3", "Driver": "local", "Labels": {"team": "a"},
        "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=3m,uid=9"},
    }  # fmt: skip
    try:
        assert engine.post("/volumes/create", body).status == 201
        told = seen(engine, "stat -c %u /v; grep ' /v ' /proc/mounts", {"Binds": ["bodies3:/v"]}).splitlines()
        assert told[0] == "9" and "size=3072k" in told[1]
        [found] = engine.get("/volumes", filters='{"label":["team=a"]}').json()["Volumes"]
        assert (found["Name"], found["Driver"]) == ("bodies3", "local")
        refused = engine.post("/volumes/create", {"Name": "bodies4", "Driver": "nosuchdriver"})
        assert "nosuchdriver" in refused.message
    finally:
        engine.remove_all()
        engine.delete("/volumes/bodies3")


# --- networks ----------------------------------------------------------------------------------------------------


@pytest.fixture
def six(daemon: Daemon) -> Iterator[str]:
    """A network with IPv6."""
    ipam = {"Config": [{"Subnet": "10.87.9.0/24"}, {"Subnet": "fd00:87:9::/64"}]}
    made = daemon.post("/networks/create", {"Name": "six", "EnableIPv6": True, "IPAM": ipam})
    assert made.status == 201, made.body
    yield "six"
    daemon.remove_all()
    assert daemon.delete("/networks/six").status == 204


def test_a_fixed_ipv6_address(daemon: Daemon, six: str) -> None:
    asked = {"IPAMConfig": {"IPv6Address": "fd00:87:9::77"}}
    shown = seen(
        daemon, "ip -6 -o addr show eth0", {"NetworkMode": six}, NetworkingConfig={"EndpointsConfig": {six: asked}}
    )
    assert "fd00:87:9::77/64" in shown
    outside = {"IPAMConfig": {"IPv6Address": "fd00:88::77"}}
    made = daemon.create("true", HostConfig={"NetworkMode": six}, NetworkingConfig={"EndpointsConfig": {six: outside}})
    assert daemon.post(f"/containers/{made}/start").status >= 400


def test_sysctls_and_the_name_of_an_interface(daemon: Daemon, six: str) -> None:
    sysctls = "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=33"
    options = {
        "com.docker.network.endpoint.sysctls": sysctls, "com.docker.network.endpoint.ifname": "front",
    }  # fmt: skip
    script = "cat /proc/sys/net/ipv4/conf/front/log_martians /proc/sys/net/ipv6/conf/front/hop_limit; ls /sys/class/net"
    wanted = {"EndpointsConfig": {six: {"DriverOpts": options}}}
    assert seen(daemon, script, {"NetworkMode": six}, NetworkingConfig=wanted).split() == ["1", "33", "front", "lo"]
    running = daemon.start("sleep", "1000")
    daemon.output("network", "connect", "--driver-opt", "com.docker.network.endpoint.ifname=side", six, running)
    assert daemon.output("exec", running, "ls", "/sys/class/net").split() == ["eth0", "lo", "side"]
    daemon.output("network", "disconnect", six, running)
    assert daemon.output("exec", running, "ls", "/sys/class/net").split() == ["eth0", "lo"]
    for text, told in (
        ("com.docker.network.endpoint.sysctls=net.ipv4.ip_forward=1", "to have format net.X.Y.IFNAME.Z=V"),
        ("com.docker.network.endpoint.ifname=lo", "invalid interface name: lo"),
        ("com.docker.network.endpoint.ifname=eth0", "interface name eth0 is taken by another network"),
    ):
        refused = daemon.docker("network", "connect", "--driver-opt", text, six, running)
        assert told in refused.stderr


# --- real-time limits --------------------------------------------------------------------------------------------


@pytest.fixture
def realtime_parent() -> Iterator[str]:
    """A group with real-time to give away."""
    name = f"corral-test-rt-{os.getpid()}"
    folder = Path("/sys/fs/cgroup/cpu", name)
    folder.mkdir()
    (folder / "cpu.rt_runtime_us").write_text("100000")
    yield name
    for path in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        until(lambda: not any(one.is_dir() for one in path.iterdir()))  # noqa: B023  used at once
        path.rmdir()


@pytest.mark.skipif(not _REALTIME, reason="this kernel has no real-time limits for groups; test_real_time has that")
def test_a_real_time_runtime(daemon: Daemon, realtime_parent: str) -> None:
    host = {"CgroupParent": realtime_parent, "CpuRealtimePeriod": 500_000, "CpuRealtimeRuntime": 20_000}
    files = " ".join(f"/sys/fs/cgroup/cpu/cpu.rt_{name}_us" for name in ("period", "runtime"))
    container = daemon.start("sh", "-c", f"cat {files}; sleep 1000", HostConfig=host)
    until(lambda: daemon.output("logs", container).split() == ["500000", "20000"])
    assert daemon.post(f"/containers/{container}/update", {"CpuRealtimeRuntime": 10_000}).status == 200
    assert daemon.output("exec", container, "sh", "-c", f"cat {files}").split() == ["500000", "10000"]
    assert daemon.post(f"/containers/{container}/update", {"CpuRealtimePeriod": 400_000}).status == 200
    assert daemon.output("exec", container, "sh", "-c", f"cat {files}").split() == ["400000", "10000"]
    daemon.remove_all()


# --- update ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not _CGROUP_1, reason="reads version 1 files; version 2 is tested under user-mode Linux")
@pytest.mark.parametrize(
    ("host", "change", "file", "expected"),
    [
        ({}, {"NanoCpus": 500_000_000}, "cpu/cpu.cfs_quota_us", "50000"),
        ({}, {"Memory": 48 << 20, "MemorySwap": 64 << 20}, "memory/memory.limit_in_bytes", str(48 << 20)),
        ({}, {"Memory": 48 << 20, "MemorySwap": 64 << 20}, "memory/memory.memsw.limit_in_bytes", str(64 << 20)),
        ({}, {"CpusetCpus": "0"}, "cpuset/cpuset.cpus", "0"),
    ],
)
def test_update(engine: Engine, host: dict[str, Any], change: dict[str, Any], file: str, expected: str) -> None:
    if not Path("/sys/fs/cgroup", file).exists() and "memsw" in file:
        pytest.skip("this kernel does not account for swap")
    container = engine.start("sleep", "60", HostConfig=host)
    reply = engine.post(f"/containers/{container}/update", change)
    assert reply.status == 200, reply.body
    assert engine.output("exec", container, "cat", f"/sys/fs/cgroup/{file}") == expected


def test_update_of_a_weight(engine: Engine) -> None:
    """Where the kernel has weights of block devices they change; elsewhere a warning says that they do not."""
    file = next(
        (name for name in ("blkio.weight", "blkio.bfq.weight") if Path("/sys/fs/cgroup/blkio", name).exists()), ""
    )
    container = engine.start("sleep", "60")
    reply = engine.post(f"/containers/{container}/update", {"BlkioWeight": 300, "CpuShares": 300})
    assert reply.status == 200, reply.body
    shares = engine.output("exec", container, "cat", "/sys/fs/cgroup/cpu/cpu.shares") if _CGROUP_1 else "300"
    assert shares == "300"
    if file == "blkio.weight":
        assert engine.output("exec", container, "cat", "/sys/fs/cgroup/blkio/blkio.weight") == "300"
    elif _CGROUP_1:
        [warning] = reply.json()["Warnings"]
        assert "Block I/O weight" in warning and engine.inspect(container)["HostConfig"]["BlkioWeight"] == 0


def test_a_port_is_added_on_one_address(daemon: Daemon) -> None:
    container = daemon.start("httpd", "-f", "-h", "/etc")
    added = {"PortAdd": {"80/tcp": [{"HostIp": "127.0.0.5", "HostPort": "8113"}]}}
    assert daemon.post(f"/containers/{container}/update", added).status == 200
    until(lambda: "root:x:0" in daemon.space.sh("busybox wget -qO- http://127.0.0.5:8113/passwd || true"))
    assert "root:x:0" not in daemon.space.sh("busybox wget -T 2 -qO- http://127.0.0.1:8113/passwd || true")


def test_update_of_the_restart_policy(engine: Engine) -> None:
    container = engine.start("sh", "-c", "until test -e /go; do sleep 0.05; done; exit 3")
    policy = {"Name": "on-failure", "MaximumRetryCount": 2}
    assert engine.post(f"/containers/{container}/update", {"RestartPolicy": policy}).status == 200
    engine.output("exec", container, "touch", "/go")
    until(lambda: engine.state(container)["Status"] == "exited" and engine.inspect(container)["RestartCount"] == 2, 20)
    refused = engine.post(f"/containers/{container}/update", {"RestartPolicy": {"Name": "sometimes"}})
    assert refused.status == 400


# --- exec --------------------------------------------------------------------------------------------------------


def executed(engine: Engine, container: str, script: str, **body: Any) -> bytes:
    """What comes back from an exec, in frames."""
    made = engine.post(f"/containers/{container}/exec", {"Cmd": ["sh", "-c", script], **body})
    assert made.status == 201, made.body
    return engine.post(f"/exec/{made.json()['Id']}/start", {"Detach": False, "Tty": False}).body


@pytest.mark.parametrize(
    ("body", "script", "expected"),
    [
        ({"Env": ["A=1", "B=two"]}, "echo $A $B", "1 two"),
        ({"WorkingDir": "/etc"}, "pwd", "/etc"),
        ({"User": "bob:staff"}, "echo $(id -u) $(id -g)", "1000 50"),
        ({"Tty": True}, "tty", "/dev/pts/0"),
        ({}, "tty", "not a tty"),
    ],
)
def test_exec(engine: Engine, body: dict[str, Any], script: str, expected: str) -> None:
    container = engine.start("sleep", "1000")
    told = executed(engine, container, script, AttachStdout=True, **body)
    assert told.decode(errors="replace").rstrip("\r\n").endswith(expected)
    assert told[:1] == (expected[:1].encode() if body.get("Tty") else b"\1")


def test_exec_with_privileges(engine: Engine) -> None:
    container = engine.start("sleep", "1000")
    script = "grep CapEff /proc/self/status"
    plain = executed(engine, container, script, AttachStdout=True)
    all_of_them = executed(engine, container, script, AttachStdout=True, Privileged=True)
    assert int(plain.split()[-1], 16) < int(all_of_them.split()[-1], 16)


def test_exec_attaches_what_is_asked_for(engine: Engine) -> None:
    container = engine.start("sleep", "1000")
    script = "echo out; echo err >&2"
    assert executed(engine, container, script, AttachStdout=True) == b"\1\0\0\0\0\0\0\4out\n"
    assert executed(engine, container, script, AttachStderr=True) == b"\2\0\0\0\0\0\0\4err\n"
    assert engine.docker("exec", "-i", container, "cat", input="typed").stdout == "typed"
    assert engine.docker("exec", container, "cat", input="typed").stdout == ""


def test_exec_is_left_with_its_own_keys(engine: Engine) -> None:
    container = engine.start("sleep", "1000")
    with typed(engine, "exec", "-it", "--detach-keys", "x,y", container, "sh") as terminal:
        terminal.expect("# ")
        terminal.type("xy")
        terminal.finish()
    until(lambda: "sh" in engine.output("top", container).splitlines()[-1])


def test_exec_goes_on_by_itself(engine: Engine) -> None:
    container = engine.start("sleep", "1000")
    made = engine.post(f"/containers/{container}/exec", {"Cmd": ["sh", "-c", "sleep 0.1; touch /done"]}).json()["Id"]
    assert engine.post(f"/exec/{made}/start", {"Detach": True}).body == b""
    until(lambda: engine.docker("exec", container, "test", "-e", "/done").returncode == 0)
    assert IMAGE in engine.inspect(container)["Config"]["Image"]
