"""What a container is: credentials, namespaces, mounts, devices, filters. One thing per test."""

from __future__ import annotations

import array
import json
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_fixtures import bundle, busybox_root, needs_root
from tests.support.bundles import Bundle, make_root

__all__ = ["bundle", "busybox_root"]
pytestmark = needs_root

_ALL_SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def _capabilities(status: str) -> dict[str, int]:
    return {line[3:6]: int(line.split()[1], 16) for line in status.splitlines() if line.startswith("Cap")}


def _status_field(status: str, name: str) -> str:
    return next(line.split(":")[1].strip() for line in status.splitlines() if line.startswith(f"{name}:"))


@pytest.mark.parametrize("uid", [0, 1000])
def test_all_five_capability_sets_exactly(bundle: Bundle, uid: int) -> None:
    # CAP_CHOWN 0, CAP_KILL 5, CAP_NET_RAW 13
    bundle.process["user"] = {"uid": uid, "gid": uid}
    bundle.process["noNewPrivileges"] = True
    bundle.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    found = _capabilities(bundle.output("cat /proc/self/status"))
    assert found["Bnd"] == 1 << 0 | 1 << 5 | 1 << 13
    assert found["Inh"] == 1 << 0 | 1 << 5
    assert found["Amb"] == 1 << 5
    if uid:
        assert found["Prm"] == found["Eff"] == 1 << 5
    else:
        # With no_new_privs execve as root may not gain beyond what was permitted.
        assert found["Prm"] == 1 << 0 | 1 << 5


def test_unknown_capabilities_are_warned_of(bundle: Bundle) -> None:
    bundle.process["capabilities"] = {name: ["CAP_KILL", "CAP_TIME_TRAVEL"] for name in _ALL_SETS}
    done = bundle.run("cat /proc/self/status")
    assert done.returncode == 0
    assert "CAP_TIME_TRAVEL" in done.stderr
    assert _capabilities(done.stdout)["Eff"] == 1 << 5


def test_without_capabilities_there_are_none(bundle: Bundle) -> None:
    del bundle.process["capabilities"]
    assert set(_capabilities(bundle.output("cat /proc/self/status")).values()) == {0}


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(bundle: Bundle, wanted: bool) -> None:
    bundle.process["noNewPrivileges"] = wanted
    assert _status_field(bundle.output("cat /proc/self/status"), "NoNewPrivs") == str(int(wanted))


def test_user_groups_umask(bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [10, 4242], "umask": 0o027}
    out = bundle.output("id; umask; echo $HOME")
    assert "uid=1000(bob) gid=1000(bob) groups=10(wheel),4242\n" in out
    assert out.endswith("0027\n/home/bob\n")


def test_rlimits(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    assert bundle.output("ulimit -Sn; ulimit -Hn") == "100\n200\n"


def test_unknown_rlimit(bundle: Bundle) -> None:
    bundle.process["rlimits"] = [{"type": "RLIMIT_COFFEE", "soft": 1, "hard": 1}]
    assert "RLIMIT_COFFEE" in bundle.run("true").stderr


def test_oom_score(bundle: Bundle) -> None:
    bundle.process["oomScoreAdj"] = 123
    assert bundle.output("cat /proc/self/oom_score_adj") == "123\n"


def test_hostname_domainname_sysctl(bundle: Bundle) -> None:
    bundle.spec["hostname"], bundle.spec["domainname"] = "inside", "example.org"
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}
    script = "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced"
    assert bundle.output(script) == "inside\nexample.org\n1\n1\n"
    assert Path("/proc/sys/kernel/hostname").read_text() != "inside\n"


def test_missing_working_directory_is_made_and_a_file_refused(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "own"
    make_root(root)
    bundle.spec["root"] = {"path": str(root)}
    bundle.process["cwd"] = "/made/for/me"
    assert bundle.output("pwd") == "/made/for/me\n"
    bundle.process["cwd"] = "/etc/passwd"
    assert 'chdir to cwd ("/etc/passwd")' in bundle.run("pwd").stderr


def test_namespaces_are_new(bundle: Bundle) -> None:
    bundle.linux["namespaces"].append({"type": "cgroup"})
    out = bundle.output("for n in pid net ipc uts mnt cgroup user; do readlink /proc/self/ns/$n; done").split()
    for name, link in zip(("pid", "net", "ipc", "uts", "mnt", "cgroup", "user"), out, strict=True):
        assert (os.readlink(f"/proc/self/ns/{name}") == link) == (name == "user")
    assert set(bundle.output("cat /proc/self/cgroup | cut -d: -f3").split()) == {"/"}


def test_joined_namespaces(bundle: Bundle) -> None:
    holder = subprocess.Popen(["unshare", "-nu", "sleep", "100"])
    try:
        while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            os.sched_yield()
        paths = {"network": f"/proc/{holder.pid}/ns/net", "uts": f"/proc/{holder.pid}/ns/uts"}
        for entry in bundle.linux["namespaces"]:
            if entry["type"] in paths:
                entry["path"] = paths[entry["type"]]
        out = bundle.output("readlink /proc/self/ns/net; readlink /proc/self/ns/uts").split()
        assert out == [os.readlink(paths["network"]), os.readlink(paths["uts"])]
        del bundle.spec["hostname"]
        bundle.linux["namespaces"] = [
            {"type": "mount"},
            {"type": "pid"},
            {"type": "network", "path": f"/proc/{holder.pid}/ns/uts"},
        ]
        assert "not a network namespace" in bundle.run("true").stderr
        bundle.linux["namespaces"][-1]["path"] = "/etc/passwd"
        assert bundle.run("true").returncode != 0
    finally:
        holder.kill()
        holder.wait()


def _user_namespace(bundle: Bundle, size: int = 65536) -> None:
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 200000, "size": size}]
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 200000, "size": size}]


def test_user_namespace(bundle: Bundle) -> None:
    _user_namespace(bundle)
    bundle.folder.chmod(0o700)
    bundle.process["capabilities"] = {name: ["CAP_CHOWN", "CAP_KILL"] for name in _ALL_SETS}
    bundle.process["args"] = ["sleep", "100"]
    assert bundle.create().returncode == 0, bundle.written()
    pid = bundle.oci_state()["pid"]
    bundle.command("start", bundle.id, check=True)
    assert os.stat(f"/proc/{pid}").st_uid == 200000
    out = bundle.command(
        "exec", bundle.id, "sh", "-c", "id -u; cat /proc/self/uid_map; echo x > /dev/null; ls -l /dev/null"
    )
    assert out.stdout.split()[:4] == ["0", "0", "200000", "65536"], out.stderr
    assert "1,   3" in out.stdout
    status = Path(f"/proc/{pid}/status").read_text()
    assert _status_field(status, "Uid").split()[0] == "200000"
    # The other namespaces belong to the new user namespace: its root may act on them.
    bundle.process["args"] = ["true"]


def test_user_namespace_with_a_terminal_and_every_user(bundle: Bundle) -> None:
    _user_namespace(bundle)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert bundle.output("id -u; hostname") == "1000\ncorral\n"


def test_user_and_cgroup_namespace_together(bundle: Bundle) -> None:
    _user_namespace(bundle)
    bundle.linux["namespaces"].append({"type": "cgroup"})
    assert set(bundle.output("cat /proc/self/cgroup | cut -d: -f3; ls -d /sys/fs/cgroup/pids/pids.max").split()) == {
        "/",
        "/sys/fs/cgroup/pids/pids.max",
    }


@pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed: nothing to compare with")
def test_user_namespace_as_runc_has_it() -> None:
    script = (
        "id; cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups; grep ^Cap /proc/self/status; "
        "stat -c '%n %u:%g %a' / /bin /proc /sys /dev /dev/pts /dev/shm; "
        "stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; "
        "touch /x 2>&1; mknod /dev/x c 1 3 2>&1; hostname; cut -d' ' -f2 /proc/mounts | sort"
    )
    with tempfile.TemporaryDirectory() as place:  # which runc enters as the container's root
        os.chmod(place, 0o755)
        make_root(Path(place, "root"))
        told = []
        for name in ("ours", "runc"):
            folder = Path(place, name)
            folder.mkdir()
            found = Bundle(folder, Path(place, "root"), *(["runc"] if name == "runc" else []))
            try:
                _user_namespace(found)
                told.append(found.output(script))
            finally:
                found.close()
    assert told[0] == told[1]


def test_time_namespace(bundle: Bundle) -> None:
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("this kernel has no time namespaces")
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1000000}, "monotonic": {"secs": 5}}
    bundle.process["args"] = ["sleep", "100"]
    assert bundle.create().returncode == 0, bundle.written()
    bundle.command("start", bundle.id, check=True)
    done = bundle.command("exec", bundle.id, "cat", "/proc/uptime", check=True)
    assert float(done.stdout.split()[0]) > 1000000


def test_personality(bundle: Bundle) -> None:
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert bundle.output("uname -m") == "i686\n"


def test_mapped_ids_of_a_bind(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "file").write_text("x")
    mapping = [{"containerID": 0, "hostID": 3000, "size": 1000}]
    bundle.spec["mounts"].append(
        {
            "destination": "/tmp",
            "type": "bind",
            "source": str(folder),
            "options": ["rbind"],
            "uidMappings": mapping,
            "gidMappings": mapping,
        }
    )
    done = bundle.run("stat -c %u:%g /tmp/file")
    if "invalid argument" in done.stderr:
        pytest.skip("this file system cannot map ids")
    assert done.stdout == "3000:3000\n", done.stderr


def test_mounts_in_order_and_options(bundle: Bundle, tmp_path: Path) -> None:
    one = tmp_path / "one"
    (one / "inner").mkdir(parents=True)
    two = tmp_path / "two"
    two.mkdir()
    (two / "hello").write_text("hi\n")
    bundle.spec["mounts"] += [
        {"destination": "/tmp", "type": "bind", "source": str(one), "options": ["rbind", "ro", "nosuid", "nodev"]},
        {"destination": "/tmp/inner", "type": "bind", "source": str(two), "options": ["bind", "noexec"]},
    ]
    out = bundle.output(
        "cat /tmp/inner/hello; touch /tmp/inner/x && echo rw; touch /tmp/y || echo ro; cat /proc/mounts"
    )
    assert out.startswith("hi\nrw\nro\n")
    options = {line.split()[1]: line.split()[3].split(",") for line in out.splitlines()[3:]}
    assert {"ro", "nosuid", "nodev"} <= set(options["/tmp"])
    assert {"rw", "noexec"} <= set(options["/tmp/inner"])


@pytest.mark.parametrize(("option", "inner"), [("ro", "rw"), ("rro", "ro")])
def test_read_only_against_recursive_read_only(bundle: Bundle, tmp_path: Path, option: str, inner: str) -> None:
    folder = tmp_path / "tree"
    (folder / "sub").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "inner", str(folder / "sub")], check=True)
    try:
        bundle.spec["mounts"].append(
            {"destination": "/tmp", "type": "bind", "source": str(folder), "options": ["rbind", option]}
        )
        out = bundle.output(
            "touch /tmp/x 2>/dev/null && echo rw || echo ro; touch /tmp/sub/x 2>/dev/null && echo rw || echo ro"
        )
        assert out.split() == ["ro", inner]
    finally:
        subprocess.run(["umount", str(folder / "sub")], check=True)


def test_propagation(bundle: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "peer", str(folder)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(folder)], check=True)
        for option, kind in (("rprivate", ""), ("rslave", "master:"), ("rshared", "shared:")):
            bundle.spec["mounts"] = [mount for mount in bundle.spec["mounts"] if mount["destination"] != "/tmp"]
            bundle.spec["mounts"].append(
                {"destination": "/tmp", "type": "bind", "source": str(folder), "options": ["rbind", option]}
            )
            line = bundle.output("grep ' /tmp ' /proc/self/mountinfo").split(" - ")[0].split()[6:]
            assert [word.split(":")[0] + ":" for word in line] == ([kind] if kind else [])
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_rootfs_propagation(bundle: Bundle) -> None:
    bundle.linux["rootfsPropagation"] = "shared"
    assert "shared:" in bundle.output("grep ' / / ' /proc/self/mountinfo || cat /proc/self/mountinfo")
    bundle.linux["rootfsPropagation"] = "sideways"
    assert "sideways" in bundle.run("true").stderr


def test_nothing_reaches_the_hosts_mounts(bundle: Bundle, busybox_root: Path) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.create()
    bundle.command("start", bundle.id, check=True)
    # Other mounts may come and go meanwhile: they are other programs' own.
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        assert str(bundle.folder) not in line
        assert str(busybox_root) not in line


def test_tmpcopyup(bundle: Bundle) -> None:
    bundle.spec["mounts"].append(
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]}
    )
    assert bundle.output("grep bob /etc/passwd; touch /etc/new && echo ok").endswith("ok\n")


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_symlinked_proc_and_sys_are_refused(bundle: Bundle, tmp_path: Path, name: str) -> None:
    root = tmp_path / "own"
    make_root(root)
    (root / name).rmdir()
    (root / name).symlink_to("/tmp")
    bundle.spec["root"] = {"path": str(root)}
    done = bundle.run("true")
    assert done.returncode != 0
    assert f"cannot mount: /{name}" in done.stderr


def test_links_in_the_image_stay_inside(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "own"
    make_root(root)
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "escape").symlink_to(outside)
    (root / "dots").symlink_to("../../../../../../tmp")
    bundle.spec["root"] = {"path": str(root)}
    bundle.spec["mounts"] += [
        {"destination": "/escape/here", "type": "tmpfs", "source": "tmpfs"},
        {"destination": "/dots/here", "type": "tmpfs", "source": "tmpfs"},
    ]
    out = bundle.output("cat /proc/mounts")
    assert list(outside.iterdir()) == []
    assert f" {outside}/here tmpfs" in out
    assert " /tmp/here tmpfs" in out


def test_missing_bind_source(bundle: Bundle) -> None:
    bundle.spec["mounts"].append({"destination": "/tmp", "type": "bind", "source": "/no/such", "options": ["bind"]})
    assert bundle.create().returncode != 0
    assert "/no/such: no such file" in bundle.written()


def test_file_bind_makes_its_target(bundle: Bundle, tmp_path: Path) -> None:
    root = tmp_path / "own"
    make_root(root)
    source = tmp_path / "file"
    source.write_text("content\n")
    bundle.spec["root"] = {"path": str(root)}
    bundle.spec["mounts"].append({"destination": "/a/b", "type": "bind", "source": str(source), "options": ["bind"]})
    assert bundle.output("cat /a/b") == "content\n"


def test_default_devices_and_links(bundle: Bundle) -> None:
    out = bundle.output(
        "cd /dev; stat -c '%n %t:%T %a %u' null zero full random urandom tty; "
        "for l in fd stdin stdout stderr ptmx; do readlink $l; done"
    )
    assert out.splitlines() == [
        "null 1:3 666 0",
        "zero 1:5 666 0",
        "full 1:7 666 0",
        "random 1:8 666 0",
        "urandom 1:9 666 0",
        "tty 5:0 666 0",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "/proc/self/fd/1",
        "/proc/self/fd/2",
        "pts/ptmx",
    ]


def test_fifo_block_and_character_nodes(bundle: Bundle) -> None:
    bundle.linux["devices"] = [
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o640, "uid": 1, "gid": 2},
        {"path": "/dev/deep/disk", "type": "b", "major": 7, "minor": 250, "fileMode": 0o600, "uid": 3, "gid": 4},
        {"path": "/dev/chars", "type": "c", "major": 10, "minor": 229, "fileMode": 0o2622},
    ]
    out = bundle.output("cd /dev; stat -c '%F %t:%T %a %u:%g' pipe deep/disk chars")
    assert out.splitlines() == [
        "fifo 0:0 640 1:2",
        "block special file 7:fa 600 3:4",
        "character special file a:e5 2622 0:0",
    ]


def test_masked_and_read_only_paths(bundle: Bundle) -> None:
    bundle.linux["maskedPaths"] = ["/proc/version", "/sys/kernel", "/not/there"]
    bundle.linux["readonlyPaths"] = ["/proc/sys", "/not/there/either"]
    bundle.spec["root"]["readonly"] = True
    script = "cat /proc/version; ls /sys/kernel; echo 1 > /proc/sys/kernel/domainname || echo ro; touch /x || echo ro"
    assert bundle.output(script) == "ro\nro\n"


def test_terminal_through_a_console_socket(bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.process["consoleSize"] = {"height": 33, "width": 99}
    path = bundle.folder / "console"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    bundle.shell("tty; ls -l /dev/console; stty size 2>/dev/null; read line; echo got $line")
    assert bundle.create().returncode != 0
    assert "tty" in bundle.written()
    assert bundle.create("--console-socket", str(path)).returncode == 0, bundle.written()
    connection, _ = server.accept()
    _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2])[0]
    connection.close()
    server.close()
    os.set_blocking(master, True)
    bundle.command("start", bundle.id, check=True)
    os.write(master, b"hello\n")
    seen = b""
    while b"got hello" not in seen:
        seen += os.read(master, 1000)
    assert seen.startswith(b"/dev/pts/0\r\n") or b"/dev/pts/0\r\n" in seen
    os.close(master)


def test_cgroup_paths_relative_and_absolute(bundle: Bundle) -> None:
    own = {
        line.split(":")[1]: line.strip().split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()
    }
    out = bundle.output("cat /proc/self/cgroup")
    assert f":pids:/corral-test/{bundle.id}\n" in out
    bundle.linux["cgroupsPath"] = f"relative/{bundle.id}"
    out = bundle.output("cat /proc/self/cgroup")
    assert f":pids:{own['pids'].rstrip('/')}/relative/{bundle.id}\n" in out
    for name in os.listdir("/sys/fs/cgroup"):
        folder = f"/sys/fs/cgroup/{name}{own.get(name, own.get('name=' + name, '/')).rstrip('/')}/relative"
        if os.path.isdir(folder):
            os.rmdir(folder)


def test_device_rules_in_order(bundle: Bundle) -> None:
    bundle.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    read = "cat /dev/fuse >/dev/null 2>/tmp/err; cat /tmp/err"
    bundle.spec["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
    fuse = {"type": "c", "major": 10, "minor": 229, "access": "rwm"}
    bundle.linux["resources"]["devices"] = [{"allow": False, "access": "rwm"}]
    assert "Operation not permitted" in bundle.output(read)
    bundle.linux["resources"]["devices"] = [{"allow": False, "access": "rwm"}, dict(fuse, allow=True)]
    # Past the cgroup; reading a fuse device that no file system was mounted through is refused by its driver.
    listed = f"/sys/fs/cgroup/devices/corral-test/{bundle.id}/devices.list"
    bundle.shell("sleep 100")
    bundle.create()
    assert "c 10:229 rwm" in Path(listed).read_text().splitlines()
    assert "c 1:3 rwm" in Path(listed).read_text().splitlines()
    bundle.command("delete", "--force", bundle.id, check=True)
    bundle.linux["resources"]["devices"] = [dict(fuse, allow=True), {"allow": False, "access": "rwm"}]
    assert "Operation not permitted" in bundle.output(read)


def test_memory_and_pids_limits_bite(bundle: Bundle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 5}
    done = bundle.run("for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait")
    assert "fork" in done.stderr
    del bundle.linux["resources"]["pids"]
    bundle.linux["resources"]["memory"] = {"limit": 16 << 20}
    done = bundle.run("dd if=/dev/zero of=/dev/null bs=64M count=1")
    assert done.returncode == 137


def test_a_small_memory_limit_still_starts(bundle: Bundle) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 6 << 20}
    assert bundle.output("echo up") == "up\n"


def test_update(bundle: Bundle) -> None:
    bundle.process["args"] = ["sleep", "100"]
    bundle.linux["resources"]["memory"] = {"limit": 32 << 20, "swap": 64 << 20}
    bundle.create()
    folder = f"/sys/fs/cgroup/memory/corral-test/{bundle.id}"
    for limit, total in (("128m", "256m"), ("16m", "32m")):
        bundle.command("update", "--memory", limit, "--memory-swap", total, bundle.id, check=True)
        assert int(Path(folder, "memory.limit_in_bytes").read_text()) == int(limit[:-1]) << 20
        assert int(Path(folder, "memory.memsw.limit_in_bytes").read_text()) == int(total[:-1]) << 20
    bundle.command("update", "--pids-limit", "77", bundle.id, check=True)
    assert Path(f"/sys/fs/cgroup/pids/corral-test/{bundle.id}/pids.max").read_text() == "77\n"
    stats = json.loads(bundle.command("events", "--stats", bundle.id, check=True).stdout)
    assert stats["data"]["pids"]["limit"] == 77


# -- seccomp -----------------------------------------------------------------------------------------------------


def _profile(*rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW") -> dict[str, Any]:
    return {"defaultAction": default, "architectures": ["SCMP_ARCH_X86_64"], "syscalls": list(rules)}


@pytest.mark.parametrize("nnp", [True, False])
@pytest.mark.parametrize(("errno_ret", "text"), [(None, "Operation not permitted"), (28, "No space left on device")])
def test_seccomp_errno(bundle: Bundle, nnp: bool, errno_ret: int | None, text: str) -> None:
    bundle.process["noNewPrivileges"] = nnp
    rule: dict[str, Any] = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    if errno_ret is not None:
        rule["errnoRet"] = errno_ret
    bundle.linux["seccomp"] = _profile(rule)
    out = bundle.output("mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status")
    assert text in out
    assert out.endswith("Seccomp:\t2\n")


def test_seccomp_kill(bundle: Bundle) -> None:
    bundle.linux["seccomp"] = _profile({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"})
    done = bundle.run("mkdir /tmp/x; echo status $?")
    assert "status 159" in done.stdout  # 128 + SIGSYS


def test_seccomp_arguments(bundle: Bundle) -> None:
    rule = {
        "names": ["kill"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": 28,
        "args": [{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}],
    }
    bundle.linux["seccomp"] = _profile(rule)
    out = bundle.output("kill -10 $$ 2>&1; kill -0 $$ && echo fine")
    assert "No space left on device" in out
    assert out.endswith("fine\n")


@pytest.mark.parametrize("nnp", [True, False])
def test_filter_that_forbids_what_the_runtime_does_last(bundle: Bundle, nnp: bool) -> None:
    names = "capset setuid setresuid setgid setresgid setgroups chdir openat prctl write close futex brk mmap getcwd"
    bundle.process["noNewPrivileges"] = nnp
    bundle.linux["seccomp"] = _profile({"names": names.split(), "action": "SCMP_ACT_ERRNO"})
    bundle.process["args"] = ["true"]
    bundle.write()
    done = bundle.command("run", bundle.id)
    # The program itself may fail for want of these calls; that it was started at all is what counts.
    assert "seccomp" not in done.stderr
    assert "capabilities" not in done.stderr
    assert "corral-runtime" not in done.stderr


def test_seccomp_notify(bundle: Bundle) -> None:
    path = bundle.folder / "listener"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    got: list[Any] = []

    def accept() -> None:
        connection, _ = server.accept()
        message, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(4))
        fd = array.array("i", ancillary[0][2])[0]
        got.append((json.loads(message), os.readlink(f"/proc/self/fd/{fd}")))
        os.close(fd)
        connection.close()

    thread = threading.Thread(target=accept)
    thread.start()
    bundle.linux["seccomp"] = dict(
        _profile({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}),
        listenerPath=str(path),
        listenerMetadata="some text",
    )
    out = bundle.output("mkdir /tmp/x 2>&1; echo on")
    thread.join(10)
    server.close()
    record, link = got[0]
    assert "seccomp notify" in link
    assert record["fds"] == ["seccompFd"]
    assert record["metadata"] == "some text"
    assert record["state"]["id"] == bundle.id
    assert "Function not implemented" in out  # nobody listens any more
    assert out.endswith("on\n")


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_DANCE"},
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NONE"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_Z80"]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]},
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_NOTIFY"}]},
    ],
)
def test_bad_seccomp_profiles(bundle: Bundle, profile: dict[str, Any]) -> None:
    bundle.linux["seccomp"] = profile
    assert bundle.create().returncode != 0
    assert "seccomp" in bundle.written()
    assert bundle.cgroup_directories() == []


def test_root_stays_as_it_was(bundle: Bundle, busybox_root: Path) -> None:
    assert bundle.output("true") == ""
    assert stat.S_ISDIR((busybox_root / "dev").stat().st_mode)
    assert list((busybox_root / "dev").iterdir()) == []
