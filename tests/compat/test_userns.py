"""`--userns-remap`: containers whose root is nobody on the host, through the real clients."""

from __future__ import annotations

import io
import os
import shutil
import signal
import stat
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.config import ConfigError
from corral.engine import remap
from corral.oci.idmap import IdMap
from tests.compat.test_beyond_docker import corral, said
from tests.support.daemon import IMAGE, Daemon, Footprint, running_daemon
from tests.support.wait import until

FIRST, FIRST_GROUP, SECOND = 1_000_000, 2_000_000, 3_000_000
# What the daemon and its containers see as /etc has its own users; the machine's stay as they are.
_WITH_ETC = 'mount --make-rprivate / && mount --bind "$0" /etc && exec "$@"'


def etc(folder: Path) -> str:
    """A copy of /etc with a user `mapped` whose ids are in two ranges, and one without ranges."""
    copy = folder / "etc"
    shutil.copytree("/etc", copy, symlinks=True)
    for name, line in (
        ("passwd", "mapped:x:7001:7001::/:/bin/false\npoor:x:7002:7002::/:/bin/false\n"),
        ("group", "mapped:x:7001:\npoor:x:7002:\n"),
        ("subuid", f"mapped:{SECOND}:64536\nmapped:{FIRST}:1000\n7002:{FIRST}:5\n"),
        ("subgid", f"7001:{FIRST_GROUP}:65536\n"),
    ):
        path = copy / name
        path.write_text((path.read_text() if path.exists() else "") + line)
    return str(copy)


@pytest.fixture(scope="module")
def remapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if os.geteuid() != 0:
        pytest.skip("corrald needs root")
    wrapper = ("unshare", "--mount", "sh", "-c", _WITH_ETC, etc(tmp_path_factory.mktemp("users")))
    with running_daemon("--userns-remap", "mapped", wrapper=wrapper) as started:
        os.chmod(started.folder, 0o711)  # other runtimes walk to the root as the container's user
        started.output("run", "--rm", IMAGE, "true")
        yield started
        assert "Traceback" not in started.log(), started.log()


@pytest.fixture
def daemon(remapped: Daemon) -> Iterator[Daemon]:
    yield remapped
    remapped.remove_all()


def owner(path: str | Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_uid, found.st_gid


def root_of(daemon: Daemon) -> str:
    return os.path.join(daemon.data_root, f"{FIRST}.{FIRST_GROUP}")


def members(daemon: Daemon, *words: str) -> dict[str, tuple[int, int]]:
    """The owners in the tar that a docker command writes."""
    process = daemon.popen(*words)
    data = process.communicate()[0]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {one.name: (one.uid, one.gid) for one in archive}


def test_the_data_root_is_the_users_own(daemon: Daemon) -> None:
    info = daemon.get("/info").json()
    assert info["DockerRootDir"] == root_of(daemon)
    assert "name=userns" in info["SecurityOptions"]
    # Closed to the users of containers, too: what is set-uid root inside is so on this disk.
    found = os.stat(root_of(daemon))
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, 0o700)


def test_root_inside_is_nobody_outside(daemon: Daemon) -> None:
    container = daemon.start("sleep", "1000")
    status = Path(f"/proc/{daemon.state(container)['Pid']}/status").read_text()
    assert f"Uid:\t{FIRST}\t" in status and f"Gid:\t{FIRST_GROUP}\t" in status
    maps = daemon.output("exec", container, "cat", "/proc/self/uid_map", "/proc/self/gid_map").split()
    assert list(map(int, maps)) == [0, FIRST, 1000, 1000, SECOND, 64536, 0, FIRST_GROUP, 65536]
    assert daemon.output("exec", container, "id") == "uid=0(root) gid=0(root) groups=0(root),10(wheel)"
    script = "id -u; echo out > /dev/stdout; echo err > /dev/stderr"
    assert daemon.output("exec", "-u", "bob", container, "sh", "-c", script) == "1000\nout"
    # bob's number is in the second range.
    assert daemon.docker("exec", "-d", "-u", "bob", container, "sleep", "999").returncode == 0
    until(lambda: str(SECOND) in daemon.output("top", container))
    assert daemon.inspect(container)["HostConfig"]["UsernsMode"] == ""


def test_files_of_the_image_and_the_engine_belong_to_root(daemon: Daemon) -> None:
    script = (
        "stat -c '%u:%g' / /bin /.dockerenv /etc/passwd /etc/hosts /etc/hostname /etc/resolv.conf /dev /dev/null "
        "/dev/shm /dev/mqueue /dev/pts | sort -u; echo 127.0.0.9 nine >> /etc/hosts; touch /x /dev/shm/x; "
        "echo x > /dev/null; head -c3 /dev/zero | wc -c; mount | grep -c '^proc on /proc/sys .*ro'"
    )
    assert daemon.output("run", "--rm", IMAGE, "sh", "-c", script) == "0:0\n3\n1"


def test_devices_of_a_running_container(daemon: Daemon) -> None:
    container = daemon.start("sleep", "1000")
    said(daemon, "device", "add", container, "/dev/zero:/dev/other")
    assert daemon.output("exec", container, "sh", "-c", "head -c 3 /dev/other | wc -c; stat -c %u /dev/other") == "3\n0"
    said(daemon, "device", "rm", container, "/dev/other")
    assert daemon.output("exec", container, "sh", "-c", "ls /dev | grep -c other || true") == "0"


def test_snapshots(daemon: Daemon) -> None:
    container = daemon.start("sh", "-c", "touch /f; chown 5:6 /f; sleep 1000")
    until(lambda: daemon.output("exec", container, "sh", "-c", "stat -c %u:%g /f 2>&1 || true") == "5:6")
    said(daemon, "container", "snapshot", container, "s")
    daemon.output("stop", "-t0", container)
    said(daemon, "container", "snapshot", container, "t")
    for name in "st":
        words = ("run", "--rm", "--from-snapshot", f"{container}@{name}", "stat", "-c", "%u:%g", "/f", "/bin")
        assert said(daemon, *words) == "5:6\n0:0"


def test_devices(daemon: Daemon) -> None:
    done = daemon.output(
        "run", "--rm", "--device", "/dev/zero:/dev/other", IMAGE, "sh", "-c",
        "stat -c '%t:%T %u:%g %a' /dev/other; head -c5 /dev/other | wc -c; mknod /tmp/n c 1 3 || echo refused",
    )  # fmt: skip
    assert done == "1:5 0:0 666\n5\nrefused"


def test_a_terminal_is_the_container_s_own(daemon: Daemon) -> None:
    container = daemon.start("sh", "-c", "stat -c %u:%g /dev/console /dev/pts/0; tty; id -u", Tty=True)
    daemon.wait(container)
    assert daemon.output("logs", container).split() == ["0:5", "0:5", "/dev/pts/0", "0"]


def test_limits_sysctls_and_capabilities(daemon: Daemon) -> None:
    done = daemon.output(
        "run", "--rm", "--init", "-m", "50m", "--ulimit", "nofile=2000:3000", "--sysctl", "net.core.somaxconn=99",
        "--sysctl", "kernel.shm_rmid_forced=1", "--tmpfs", "/t:uid=1000,gid=50", "--cap-add", "SYS_ADMIN", IMAGE,
        "sh", "-c",
        "ulimit -n; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shm_rmid_forced "
        "/proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range "
        "/sys/fs/cgroup/memory/memory.limit_in_bytes; stat -c %u:%g /t; mount -t tmpfs x /mnt && echo mounted",
    )  # fmt: skip
    assert done.split() == ["2000", "99", "1", "0", "0", "65535", str(50 << 20), "1000:50", "mounted"]


def test_unprivileged_ping(daemon: Daemon) -> None:
    pid = str(daemon.state(daemon.start("sleep", "1000"))["Pid"])
    ping = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"

    def allowed(uid: int, gid: int) -> bool:
        words = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "/usr/bin/python3", "-c", ping]
        return (
            subprocess.run(["nsenter", "-t", pid, "-n", *words], timeout=20, stderr=subprocess.DEVNULL).returncode == 0
        )

    assert allowed(SECOND, FIRST_GROUP + 1000)
    assert not allowed(1000, 1000)


def test_network_and_ports(daemon: Daemon) -> None:
    container = daemon.start(
        "httpd", "-f", "-h", "/etc", ExposedPorts={"80/tcp": {}},
        HostConfig={"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8099"}]}},
    )  # fmt: skip
    until(lambda: "root:x:0" in daemon.space.sh("busybox wget -qO- http://127.0.0.1:8099/passwd || true"))
    inside = daemon.output(
        "run", "--rm", "--network", f"container:{container}", IMAGE, "wget", "-qO-", "127.0.0.1/group"
    )
    assert inside.startswith("root:x:0")


def test_shared_namespaces_share_the_user_namespace(daemon: Daemon) -> None:
    container = daemon.start("sleep", "1000", HostConfig={"IpcMode": "shareable"})
    script = "readlink /proc/self/ns/user; readlink /proc/1/ns/user; cat /proc/1/cmdline; touch /dev/shm/here"
    shared = [word for kind in ("network", "pid", "ipc") for word in (f"--{kind}", f"container:{container}")]
    first, second, program = daemon.output("run", "--rm", *shared, IMAGE, "sh", "-c", script).splitlines()
    assert first == second and program.startswith("sleep")
    assert daemon.output("exec", container, "ls", "/dev/shm") == "here"
    device = ["--device", "/dev/zero:/dev/other", IMAGE, "stat", "-c", "%t:%T %u:%g", "/dev/other"]
    assert daemon.output("run", "--rm", *shared, *device) == "1:5 0:0"
    free = daemon.start("sleep", "1000", HostConfig={"UsernsMode": "host"})
    refused = daemon.docker("run", "--rm", "--network", f"container:{free}", IMAGE, "true")
    assert "it is not in a user namespace" in refused.stderr
    assert (
        daemon.docker(
            "run", "--rm", "--userns", "host", "--network", f"container:{container}", IMAGE, "true"
        ).returncode
        == 0
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--privileged"], "privileged mode is incompatible with user namespaces.  You must run the container in the"),
        (["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], "cannot share the host PID namespace when user namespaces are enabled"),
        (["--ipc", "host"], "cannot share the host IPC namespace when user namespaces are enabled"),
    ],
)
def test_what_belongs_to_the_host_is_refused_and_had_by_opting_out(daemon: Daemon, words: list[str], told: str) -> None:
    assert told in daemon.docker("run", "--rm", *words, IMAGE, "true").stderr
    assert daemon.containers() == set()
    script = "cat /proc/self/uid_map; stat -c %u:%g /bin /etc/hosts"
    done = daemon.output("run", "--rm", "--userns", "host", *words, IMAGE, "sh", "-c", script)
    assert done.split() == ["0", "0", "4294967295", "0:0", "0:0"]


def test_volumes_and_binds(daemon: Daemon, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "theirs").write_text("")
    os.chown(tmp_path / "theirs", 5, 5)
    (tmp_path / "ours").write_text("")
    os.chown(tmp_path / "ours", SECOND, FIRST_GROUP + 1000)
    made = tmp_path / "made" / "below"
    script = "touch /var/x /v/y; chown bob:bob /v/y; stat -c %u:%g /b/theirs /b/ours /made /var /v"
    done = daemon.output(
        "run", "--rm", "-v", "uns-copied:/var", "-v", "uns-new:/v", "-v", f"{tmp_path}:/b", "-v", f"{made}:/made",
        IMAGE, "sh", "-c", script,
    )  # fmt: skip
    assert done.split() == ["65534:65534", "1000:1000", "0:0", "0:0", "0:0"]
    root = (FIRST, FIRST_GROUP)
    folder = Path(root_of(daemon), "volumes")
    assert owner(made) == owner(made.parent) == root
    assert owner(folder / "uns-copied/_data") == owner(folder / "uns-new/_data") == root
    assert owner(folder / "uns-copied/_data/x") == root
    assert owner(folder / "uns-new/_data/y") == (SECOND, FIRST_GROUP + 1000)
    daemon.output("volume", "rm", "uns-copied", "uns-new")


def test_a_volume_is_filled_with_the_image_s_owners(daemon: Daemon) -> None:
    script = "mkdir /data; touch /data/a; chown bob:staff /data /data/a"
    daemon.output("run", "--name", "filler", IMAGE, "sh", "-c", script)
    daemon.output("commit", "filler", "corral.test/filled")
    try:
        look = ["corral.test/filled", "stat", "-c", "%u:%g", "/data", "/data/a"]
        assert daemon.output("run", "--rm", "-v", "uns-filled:/data", *look).split() == ["1000:50"] * 2
        data = os.path.join(root_of(daemon), "volumes/uns-filled/_data")
        assert owner(f"{data}/a") == owner(data) == (SECOND, FIRST_GROUP + 50)
        # The image has its own ids on disk: without a user namespace it is the same.
        assert daemon.output("run", "--rm", "--userns", "host", *look).split() == ["1000:50"] * 2
    finally:
        daemon.remove_all()
        daemon.output("rmi", "corral.test/filled")
        daemon.output("volume", "rm", "uns-filled")


@pytest.mark.parametrize("running", [True, False])
def test_cp_export_diff_and_commit(daemon: Daemon, tmp_path: Path, running: bool) -> None:
    source = tmp_path / "file"
    source.write_text("x")
    os.chown(source, 1000, 50)
    container = daemon.start("sleep", "1000")
    daemon.output("exec", container, "sh", "-c", "touch /tmp/made; chown bob:staff /tmp/made")
    if not running:
        daemon.output("stop", "-t0", container)
    daemon.output("cp", "-a", str(source), f"{container}:/tmp/copied")
    for found in (members(daemon, "export", container), members(daemon, "cp", f"{container}:/tmp/", "-")):
        assert {one: found[one] for one in ("tmp/made", "tmp/copied")} == dict.fromkeys(
            ("tmp/made", "tmp/copied"), (1000, 50)
        )
        assert set(found.values()) == {(0, 0), (1000, 50)}
    assert daemon.output("diff", container).splitlines() == ["C /tmp", "A /tmp/copied", "A /tmp/made"]
    daemon.output("commit", container, "corral.test/committed")
    look = ["corral.test/committed", "stat", "-c", "%u:%g", "/tmp/made", "/tmp/copied", "/tmp"]
    try:
        assert daemon.output("run", "--rm", *look).split() == ["1000:50", "1000:50", "0:0"]
        assert daemon.output("run", "--rm", "--userns", "host", *look).split() == ["1000:50", "1000:50", "0:0"]
    finally:
        daemon.output("rmi", "corral.test/committed")


def test_capabilities_of_files(daemon: Daemon, tmp_path: Path) -> None:
    """A file that may open raw sockets: through an image, a copy and an export, with and without remapping."""
    capability = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)
    program = tarfile.TarInfo("grep")
    program.mode, program.pax_headers = 0o755, {"SCHILY.xattr.security.capability": capability.decode("latin-1")}
    data = Path("/bin/busybox").read_bytes()
    program.size = len(data)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(program, io.BytesIO(data))
    container = daemon.start("sleep", "1000")
    put = {"Content-Type": "application/x-tar"}
    assert daemon.request("PUT", f"/containers/{container}/archive", out.getvalue(), put, path="/home").status == 200
    look = ["/home/grep", "CapEff", "/proc/self/status"]
    assert daemon.output("exec", "-u", "bob", container, *look).split() == ["CapEff:", "0000000000002000"]
    for words in (["export", container], ["cp", f"{container}:/home/grep", "-"]):
        tar = daemon.popen(*words).communicate()[0]
        with tarfile.open(fileobj=io.BytesIO(tar), encoding="latin-1") as archive:
            [told] = [one.pax_headers for one in archive if one.name.endswith("grep") and one.isreg()]
        assert told["SCHILY.xattr.security.capability"].encode("latin-1", "surrogateescape") == capability
    daemon.output("commit", container, "corral.test/able")
    try:
        for words in ([], ["--userns", "host"]):
            ran = daemon.output("run", "--rm", "-u", "bob", *words, "corral.test/able", *look)
            assert ran.split() == ["CapEff:", "0000000000002000"]
    finally:
        daemon.remove_all()
        daemon.output("rmi", "corral.test/able")


def test_an_id_that_the_container_cannot_have(daemon: Daemon) -> None:
    container = daemon.start("sleep", "1000")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        found = tarfile.TarInfo("strange")
        found.uid = 70_000
        archive.addfile(found)
    refused = daemon.request(
        "PUT", f"/containers/{container}/archive", out.getvalue(), {"Content-Type": "application/x-tar"}, path="/tmp"
    )
    assert (refused.status, refused.message) == (400, "Container ID 70000 cannot be mapped to a host ID")


def test_build(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGE} AS first\n"
        "RUN touch /made && chown bob /made && test $(stat -c %u:%g /bin) = 0:0\n"
        "RUN --mount=type=cache,target=/c touch /c/x && test $(stat -c %u:%g /c) = 0:0\n"
        "RUN --mount=type=bind,target=/d test $(stat -c %u:%g /d/file) = 0:0\n"
        "RUN --mount=type=bind,rw,target=/d touch /d/new && test $(stat -c %u:%g /d/file) = 0:0\n"
        "COPY --chown=bob:staff file /copied\n"
        f"FROM {IMAGE}\n"
        "COPY --from=first /made /copied /\n"
        "RUN --mount=type=bind,from=first,target=/f test $(stat -c %u /f/made) = 1000\n"
        "USER bob\n"
        "RUN --network=none touch /tmp/bobs\n"
    )
    done = corral(daemon, "build", "-t", "corral.test/built", str(tmp_path))
    assert done.returncode == 0, done.stderr + done.stdout
    script = "stat -c %u:%g /made /copied /tmp/bobs /home"
    try:
        for words in ([], ["--userns", "host"]):
            found = daemon.output("run", "--rm", *words, "corral.test/built", "sh", "-c", script)
            assert found.split() == ["1000:0", "1000:50", "1000:1000", "0:0"]
        mounted = ["run", "--rm", "--mount", "type=image,source=corral.test/built,target=/mnt"]
        assert daemon.output(*mounted, IMAGE, "stat", "-c", "%u:%g", "/mnt/copied", "/mnt/bin") == "1000:50\n0:0"
        part = ["run", "--rm", "--mount", "type=image,source=corral.test/built,target=/mnt,image-subpath=tmp"]
        assert daemon.output(*part, IMAGE, "stat", "-c", "%u:%g", "/mnt/bobs") == "1000:1000"
        refused = corral(daemon, "build", "--network", "host", str(tmp_path))
        assert "cannot share the host's network namespace when user namespaces are enabled" in refused.stderr
        (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN --security=insecure true\n")
        refused = corral(daemon, "build", "--allow", "security.insecure", str(tmp_path))
        assert "privileged mode is incompatible with user namespaces" in refused.stderr
    finally:
        daemon.output("rmi", "corral.test/built")


def test_mapped_ids_of_a_bind_are_the_container_s(daemon: Daemon, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("")
    os.chown(tmp_path / "file", 1234, 1234)
    ranges = [{"ContainerID": 1000, "HostID": 1234, "Size": 1}]
    mount = {
        "Type": "bind", "Source": str(tmp_path), "Target": "/m",
        "BindOptions": {"IDMapping": {"UIDMappings": ranges, "GIDMappings": ranges}},
    }  # fmt: skip
    container = daemon.start("stat", "-c", "%u:%g", "/m/file", HostConfig={"Mounts": [mount]})
    daemon.wait(container)
    assert daemon.output("logs", container) == "1000:1000"


def test_secrets_and_mounts_that_come_later(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("first")
    said(daemon, "secret", "create", "uns", str(tmp_path / "value"))
    try:
        container = said(
            daemon, "run", "-d", "--secret", "source=uns,uid=1000,gid=50,mode=0400", IMAGE, "sleep", "1000"
        ).strip()
        look = ["exec", "-u", "bob", container, "sh", "-c", "cat /run/secrets/uns; stat -c ' %u:%g' /run/secrets/uns"]
        assert daemon.output(*look) == "first 1000:50"
        (tmp_path / "value").write_text("then")
        said(daemon, "secret", "update", "uns", str(tmp_path / "value"))
        assert daemon.output(*look) == "then 1000:50"
        said(daemon, "mount", "add", container, f"type=bind,src={tmp_path},dst=/new/place")
        said(daemon, "mount", "add", container, "type=tmpfs,dst=/new/memory")
        found = daemon.output(
            "exec", container, "sh", "-c", "stat -c %u:%g /new /new/place /new/memory; touch /new/memory/x"
        )
        assert found.split() == ["0:0", "65534:65534", "0:0"]
    finally:
        daemon.remove_all()
        said(daemon, "secret", "rm", "uns")


@pytest.mark.skipif(shutil.which("runc") is None, reason="runc is not installed")
def test_with_another_runtime(daemon: Daemon) -> None:
    container = daemon.start("sleep", "1000", HostConfig={"Runtime": "runc"})
    script = "cat /proc/self/uid_map; stat -c %u:%g /bin /etc/hosts; touch /tmp/x; echo out > /dev/stdout"
    found = daemon.output("exec", container, "sh", "-c", script).split()
    assert found == ["0", str(FIRST), "1000", "1000", str(SECOND), "64536", "0:0", "0:0", "out"]
    assert members(daemon, "cp", f"{container}:/tmp/x", "-") == {"x": (0, 0)}


def test_nothing_is_left_and_nothing_lost_when_the_daemon_dies(daemon: Daemon, tmp_path: Path) -> None:
    daemon.output("run", "--rm", "-p", "127.0.0.1::1", IMAGE, "true")
    until(lambda: not daemon.exec_files() and not daemon.cgroups() and len(daemon.links()) == 1)
    before = Footprint.of(daemon)
    container = daemon.start("sleep", "1000", HostConfig={"Mounts": [{"Type": "tmpfs", "Target": "/t"}]})
    stopped = daemon.create("true")
    pid = daemon.state(container)["Pid"]
    daemon.restart(signal.SIGKILL)
    assert daemon.state(container)["Pid"] == pid
    assert daemon.output("exec", container, "id", "-u") == "0"
    assert set(members(daemon, "export", stopped).values()) == {(0, 0)}
    daemon.remove_all()
    daemon.output("run", "--rm", IMAGE, "true")
    until(lambda: not daemon.exec_files() and not daemon.cgroups() and daemon.links() == before.links)
    assert daemon.mounts() == [] and daemon.elements() == before.elements
    assert os.listdir(os.path.join(root_of(daemon), "containers")) == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("poor", 'Can\'t create ID mappings: no subgid ranges found for user "poor"'),
        ("nobody:poor", 'Can\'t create ID mappings: no subuid ranges found for user "nobody"'),
        ("a:b:c", 'Invalid user/group specification in --userns-remap: "a:b:c"'),
    ],
)
def test_users_without_ranges_stop_the_start(tmp_path: Path, value: str, told: str) -> None:
    wrapper = ("unshare", "--mount", "sh", "-c", _WITH_ETC, etc(tmp_path))
    daemon = Daemon("--userns-remap", value, wrapper=wrapper)
    try:
        with pytest.raises(AssertionError, match="corrald ended"):
            daemon.launch()
        assert told in daemon.log()
        assert not os.path.exists(daemon.data_root)
    finally:
        daemon.close()


def test_the_default_user_cannot_be_made(tmp_path: Path) -> None:
    """An /etc that cannot be written to: useradd says so."""
    hidden = 'mount --make-rprivate / && mount --bind "$0" /etc && mount -o remount,bind,ro /etc && exec "$@"'
    daemon = Daemon("--userns-remap", "default", wrapper=("unshare", "--mount", "sh", "-c", hidden, etc(tmp_path)))
    try:
        with pytest.raises(AssertionError, match="corrald ended"):
            daemon.launch()
        assert 'Error adding user "dockremap": useradd: ' in daemon.log()
    finally:
        daemon.close()


def test_turning_it_on_and_off(tmp_path: Path) -> None:
    wrapper = ("unshare", "--mount", "sh", "-c", _WITH_ETC, etc(tmp_path))
    with running_daemon(wrapper=wrapper) as daemon:
        before = daemon.start("sleep", "1000", name="before")
        daemon.output("volume", "create", "kept")
        Path(daemon.folder, "daemon.json").write_text('{"userns-remap": "mapped"}')
        daemon.restart(signal.SIGTERM)
        assert daemon.containers() == set()
        assert daemon.get("/images/json").json() == [] and daemon.get("/volumes").json()["Volumes"] == []
        until(lambda: not daemon.exec_files() and not daemon.cgroups())  # what ran is ended, for nobody knows it now
        daemon.load_image()
        daemon.output("run", "--name", "during", IMAGE, "touch", "/x")
        Path(daemon.folder, "daemon.json").write_text("{}")
        daemon.restart(signal.SIGTERM)
        assert daemon.containers() == {before}
        assert daemon.state("before")["Status"] == "exited"
        assert daemon.output("volume", "ls", "-q") == "kept"
        daemon.output("start", "before")
        Path(daemon.folder, "daemon.json").write_text('{"userns-remap": "mapped"}')
        daemon.restart(signal.SIGTERM)
        assert daemon.output("diff", "during") == "A /x"
        daemon.remove_all()


def test_a_data_root_that_cannot_have_mapped_ids() -> None:
    if os.geteuid() != 0:
        pytest.skip("user namespaces with ranges need root")
    with pytest.raises(ConfigError, match="cannot use /proc: the file system cannot map ids"):
        remap.check_disk("/proc", IdMap(((0, FIRST, 1000),), ((0, FIRST_GROUP, 1000),)))


def test_the_default_user_is_made(tmp_path: Path) -> None:
    folder = etc(tmp_path)
    wrapper = ("unshare", "--mount", "sh", "-c", _WITH_ETC, folder)
    with running_daemon("--userns-remap", "default", wrapper=wrapper) as daemon:
        first = SECOND + 64536
        assert f"dockremap:{first}:65536\n" in Path(folder, "subuid").read_text()
        assert f"dockremap:{first}:65536\n" in Path(folder, "subgid").read_text()
        assert "dockremap" in Path(folder, "passwd").read_text() and "dockremap" not in Path("/etc/passwd").read_text()
        assert daemon.output("run", "--rm", IMAGE, "cat", "/proc/self/uid_map").split() == ["0", str(first), "65536"]
        daemon.restart()
        assert Path(folder, "subuid").read_text().count("dockremap") == 1
