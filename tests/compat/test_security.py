"""What a container may do and see, compared with the same container of Debian's dockerd on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.netns import Space
from tests.support.wait import until

_START_S = 30


@pytest.fixture(scope="module")
def reference(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Debian's dockerd, with folders, cgroups and a network namespace of its own; or the one given with --engine."""
    given = request.config.getoption("--engine")
    if given:
        yield Engine(given)
        return
    if shutil.which("dockerd") is None:
        pytest.skip("dockerd (Debian's docker.io) is not installed: nothing to compare with")
    folder = tempfile.mkdtemp(prefix="dockerd-")
    space = Space()
    space.sh("ip link set lo up")
    engine = Engine(os.path.join(folder, "docker.sock"))
    log = open(os.path.join(folder, "log"), "wb")  # noqa: SIM115  closed below
    process = subprocess.Popen(
        [
            "nsenter", f"--net=/proc/{space.pid}/ns/net", "dockerd", "-H", engine.host, "--data-root", f"{folder}/data",
            "--exec-root", f"{folder}/exec", "-p", f"{folder}/pid", "--cgroup-parent", "/corral-test-reference",
        ],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        until(lambda: _answers(engine), _START_S)
        engine.load_image()
        yield engine
        engine.remove_all()
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_START_S)
        log.close()
        space.end()
        for base in ("/sys/fs/cgroup", *(f"/sys/fs/cgroup/{name}" for name in os.listdir("/sys/fs/cgroup"))):
            if os.path.isdir(f"{base}/corral-test-reference"):
                os.rmdir(f"{base}/corral-test-reference")
        subprocess.run(["sh", "-c", f"grep -o '{folder}[^ ]*' /proc/self/mountinfo | xargs -r -n1 umount"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(engine: Engine) -> bool:
    try:
        return engine.get("/_ping").status == 200
    except OSError:
        return False


def same(daemon: Daemon, reference: Engine, flags: list[str], script: str) -> str:
    """Both engines' output of a script, which must be one."""
    ours, theirs = (
        engine.docker("run", "--rm", "--hostname", "probe", *flags, IMAGE, "sh", "-c", script)
        for engine in (daemon, reference)
    )
    assert theirs.returncode == ours.returncode, theirs.stderr + ours.stderr
    assert ours.stdout == theirs.stdout
    return ours.stdout


STATUS = "grep -E '^(Cap|NoNewPrivs|Seccomp:|Uid|Gid|Groups|Cpus_allowed_list)' /proc/self/status"
DEVICES = (
    "cd /dev; for f in * pts/* shm mqueue fd; do stat -c '%n %F %a %u %g %t %T %N' $f; done | grep -v '^pts/[0-9]'"
)
# Ours is stricter in two: the tmpfs around version 1 hierarchies is read-only here, as the option says; and
# /proc/interrupts is masked as in newer Docker.
MOUNTS = (
    "awk '{ print $5, $6 }' /proc/self/mountinfo | grep -vE '^(/ |/etc/|/sys/fs/cgroup|/proc/interrupts)' | sort;"
    " grep -vE ' (/|/etc/[a-z.]*|/sys/fs/cgroup.*|/proc/interrupts) ' /proc/mounts | awk '{ print $2, $3 }' | sort;"
    " grep -oE ' /sys/fs/cgroup/[^ ]* r[wo]' /proc/self/mountinfo | sort"
)


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-u", "bob"],
        ["--cap-drop", "ALL"],
        ["--cap-add", "SYS_ADMIN", "--cap-drop", "CHOWN"],
        ["--security-opt", "no-new-privileges"],
        ["--security-opt", "seccomp=unconfined"],
        ["--group-add", "77"],
    ],
    ids=" ".join,
)
def test_credentials(daemon: Daemon, reference: Engine, flags: list[str]) -> None:
    same(daemon, reference, flags, STATUS)


@pytest.mark.parametrize(
    "flags", [[], ["--read-only"], ["--device", "/dev/loop-control"], ["--network", "none"]], ids=" ".join
)
def test_devices_and_mounts(daemon: Daemon, reference: Engine, flags: list[str]) -> None:
    same(daemon, reference, flags, DEVICES)
    same(daemon, reference, flags, MOUNTS)


def test_masked_and_read_only_paths(daemon: Daemon, reference: Engine) -> None:
    script = (
        "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats; do"
        " test -e $f && wc -c < $f | head -1; done 2>&1;"
        " for d in /proc/acpi /proc/scsi /sys/firmware; do ls -A $d | wc -l; done 2>&1;"
        " for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity"
        " /sys/kernel/profiling; do test -w $f && echo writable $f; done; true"
    )
    same(daemon, reference, [], script)


# each is tried in both engines: what is allowed in one must be allowed in the other, with the same error
ATTEMPTS = (
    "mount -t tmpfs x /mnt",
    "unshare -m true",
    "unshare -U true",
    "mknod /tmp/null c 1 3 && echo > /tmp/null",
    "mknod /tmp/disk b 254 0 && head -c1 /tmp/disk",
    "hostname other",
    "chroot / true",
    "date -s 2001-01-01",
    "ping -c 1 -W 1 127.0.0.1",
    "nc -l -p 80 -w 1 & sleep 0.2; kill $!",
    "chown bob /tmp",
    "dmesg",
    "reboot -f",
    "swapoff -a; swapon /dev/null",
    "ip link set lo down",
    "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes",
    "renice -n -5 $$",
    "chrt -f 10 true",
    "losetup /dev/loop7 /etc/passwd",
    "setsid true",
    "su bob -c id",
    "chattr +i /etc/passwd",
    "touch /proc/1/oom_score_adj; echo -1000 > /proc/self/oom_score_adj",
    "ulimit -n 2000000",
    "pivot_root . .",
    "nsenter -t 1 -m true",
)


@pytest.mark.parametrize("flags", [[], ["-u", "bob"], ["--cap-drop", "ALL"]], ids=" ".join)
def test_what_is_allowed(daemon: Daemon, reference: Engine, flags: list[str]) -> None:
    script = "\n".join(
        f'({attempt}) > /dev/null 2> /tmp/error; echo "$? $(tail -n 1 /tmp/error) : {number}"'
        for number, attempt in enumerate(ATTEMPTS)
    )
    same(daemon, reference, flags, script)


def test_environment_limits_and_namespaces(daemon: Daemon, reference: Engine) -> None:
    same(daemon, reference, [], "env | sort; pwd; umask; id; tty; cat /proc/self/oom_score_adj")
    same(daemon, reference, [], "ls /proc/self/ns; cat /proc/self/uid_map; ls /proc/self/fd | wc -l")
    same(daemon, reference, ["-t"], "env | sort; tty; stat -c '%a %g' $(tty); ls -l /dev/console | cut -c1-30")
    same(daemon, reference, [], "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range")
    same(daemon, reference, ["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn; ulimit -u")
    same(daemon, reference, [], "cat /etc/hostname; grep -c . /etc/hosts; ls -A /; stat -c %a /tmp /dev/shm")
