"""`docker run` of the stock CLI: flags, streams and exit codes."""

from __future__ import annotations

import os
import pathlib

import pytest

from tests.support.daemon import IMAGE, Daemon, Engine
from tests.support.wait import until


def run(engine: Engine, *words: str) -> str:
    return engine.output("run", "--rm", *words)


def test_output_and_exit_code(engine: Engine) -> None:
    done = engine.docker("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["nothing-of-this-name"], 127, 'exec: "nothing-of-this-name": executable file not found in $PATH'),
        (["/no/such/file"], 127, "no such file or directory"),
        (["/not-executable"], 126, "permission denied"),
        (["/etc"], 126, ""),
        (["sh", "-c", "kill -TERM $$; sleep 9"], 143, ""),
        (["sh", "-c", "exit 255"], 255, ""),
    ],
)
def test_exit_codes(engine: Engine, command: list[str], code: int, text: str) -> None:
    init = ["--init"] if code == 143 else []
    before = engine.containers()
    done = engine.docker("run", "--rm", *init, IMAGE, *command)
    assert done.returncode == code
    assert text in done.stderr
    assert engine.containers() == before


def test_exit_code_of_a_refused_run(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--memory", "1k", IMAGE, "true")
    assert done.returncode == 125
    assert "Minimum memory limit allowed is" in done.stderr


@pytest.mark.parametrize(
    ("flags", "script", "expected"),
    [
        (["-e", "A=1", "-e", "B=two words"], "echo $A-$B", "1-two words"),
        (["-w", "/not/yet"], "pwd", "/not/yet"),
        (["-u", "bob"], "id -u; id -g; id -Gn", "1000\n1000\nbob wheel"),
        (["-u", "1000"], "id -u; id -g", "1000\n1000"),
        (["-u", "1000:50"], "id -u; id -G", "1000\n50"),
        (["-u", "4321:1234"], "id -u; id -G", "4321\n1234"),
        (["-u", "bob:staff"], "id -u; id -g", "1000\n50"),
        (["-u", "bob", "--group-add", "staff", "--group-add", "77"], "id -G", "1000 10 50 77"),
        (["--hostname", "box.example"], "hostname; cat /etc/hostname", "box.example\nbox.example"),
        (["--entrypoint", "echo"], "one", "one"),
        (["--ulimit", "nofile=123:456"], "ulimit -Sn; ulimit -Hn", "123\n456"),
        (["--sysctl", "net.ipv4.ip_forward=1"], "cat /proc/sys/net/ipv4/ip_forward", "1"),
        (["--shm-size", "1m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "1024"),
        (["--network", "none"], "ls /sys/class/net", "lo"),
        (["--network", "host"], "test $(hostname) = $(cat /proc/sys/kernel/hostname) && echo same", "same"),
        (["--add-host", "db:10.1.2.3"], "grep -w db /etc/hosts", "10.1.2.3\tdb"),
        (["--dns", "9.9.9.9", "--dns-search", "a.example"], "grep '^[a-z]' /etc/resolv.conf | sort",
         "nameserver 9.9.9.9\nsearch a.example"),
        (["--pid", "host"], "test $$ -gt 1 && echo many", "many"),
        (["--oom-score-adj", "77"], "cat /proc/self/oom_score_adj", "77"),
        (["--label", "a=b"], "echo labelled", "labelled"),
        (["--device", "/dev/loop-control:/dev/mine:r"], "ls -l /dev/mine | cut -c1", "c"),
        (["--cpuset-cpus", "0"], "grep Cpus_allowed_list /proc/self/status | cut -f2", "0"),
        (["--stop-signal", "SIGINT"], "echo ok", "ok"),
        (["--ipc", "none"], "test -e /dev/shm/x || ls /dev/shm | wc -l", "0"),
    ],
)  # fmt: skip
def test_flags(engine: Engine, flags: list[str], script: str, expected: str) -> None:
    command = [script] if "--entrypoint" in flags else ["sh", "-c", script]
    assert run(engine, *flags, IMAGE, *command).strip() == expected


def test_unknown_user(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "-u", "nobody-here", IMAGE, "true")
    assert done.returncode == 126 or done.returncode == 125
    assert "unable to find user nobody-here: no matching entries in passwd file" in done.stderr


def test_environment_of_the_image_and_of_a_terminal(engine: Engine) -> None:
    names = [line.partition("=")[0] for line in run(engine, "-t", IMAGE, "env").split()]
    assert names[:4] == ["PATH", "HOSTNAME", "TERM", "HOME"]


def test_tmpfs(engine: Engine) -> None:
    options = run(engine, "--tmpfs", "/scratch:size=64k,mode=700", IMAGE, "grep", " /scratch ", "/proc/mounts")
    assert options.split()[2] == "tmpfs"
    assert {"size=64k", "mode=700", "nosuid", "nodev", "noexec"} <= set(options.split()[3].split(","))


def test_read_only_root(engine: Engine) -> None:
    done = engine.docker(
        "run", "--rm", "--read-only", "--tmpfs", "/tmp", IMAGE, "sh", "-c", "touch /tmp/ok && touch /x"
    )
    assert done.returncode == 1
    assert "Read-only file system" in done.stderr


def test_binds(engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "given").write_text("from the host")
    script = "cat /data/given; echo back > /data/made; touch /ro/x"
    done = engine.docker(
        "run", "--rm", "-v", f"{tmp_path}:/data", "-v", f"{tmp_path}:/ro:ro", IMAGE, "sh", "-c", script
    )
    assert done.stdout == "from the host"
    assert "Read-only file system" in done.stderr
    assert (tmp_path / "made").read_text() == "back\n"


def test_bind_of_a_missing_source(engine: Engine, tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "missing"
    done = engine.docker("run", "--rm", "--mount", f"type=bind,src={missing},dst=/data", IMAGE, "true")
    assert done.returncode == 125
    assert f"bind source path does not exist: {missing}" in done.stderr
    assert not missing.exists()
    assert run(engine, "-v", f"{missing}:/data", IMAGE, "stat", "-c", "%F", "/data") == "directory"
    assert missing.is_dir()


def test_bind_of_a_file_and_a_relative_destination(engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("one")
    assert run(engine, "-v", f"{tmp_path}/file:/etc/one", IMAGE, "cat", "/etc/one") == "one"
    done = engine.docker("run", "--rm", "-v", f"{tmp_path}:relative", IMAGE, "true")
    assert done.returncode == 125
    assert "mount path must be absolute" in done.stderr


def test_named_and_anonymous_volumes(engine: Engine) -> None:
    try:
        run(engine, "-v", "kept-data:/data", IMAGE, "sh", "-c", "echo 1 > /data/x")
        assert run(engine, "-v", "kept-data:/other", IMAGE, "cat", "/other/x") == "1"
        before = engine.output("volume", "ls", "-q")
        run(engine, "-v", "/anonymous", IMAGE, "touch", "/anonymous/x")
        assert engine.output("volume", "ls", "-q") == before
    finally:
        engine.output("volume", "rm", "kept-data")


def test_volume_starts_with_the_images_files(engine: Engine) -> None:
    try:
        assert "passwd" in run(engine, "-v", "copied-up:/etc", IMAGE, "ls", "/etc").split()
    finally:
        engine.docker("volume", "rm", "copied-up")


def test_capabilities(engine: Engine) -> None:
    def effective(*flags: str) -> int:
        return int(run(engine, *flags, IMAGE, "grep", "CapEff", "/proc/self/status").split()[1], 16)

    default = 0xA80425FB
    assert effective() == default
    assert effective("--cap-drop", "ALL") == 0
    assert effective("--cap-drop", "ALL", "--cap-add", "NET_ADMIN") == 1 << 12
    assert effective("--cap-add", "cap_sys_admin") == default | 1 << 21
    assert effective("-u", "bob") == 0
    assert effective("--privileged") == effective("--cap-add", "ALL") > default


def test_no_new_privileges(engine: Engine) -> None:
    status = ("grep", "NoNewPrivs", "/proc/self/status")
    assert run(engine, IMAGE, *status).split() == ["NoNewPrivs:", "0"]
    assert run(engine, "--security-opt", "no-new-privileges", IMAGE, *status).split() == ["NoNewPrivs:", "1"]


def test_seccomp(engine: Engine) -> None:
    status = ("grep", "Seccomp:", "/proc/self/status")
    assert run(engine, IMAGE, *status).split() == ["Seccomp:", "2"]
    assert run(engine, "--security-opt", "seccomp=unconfined", IMAGE, *status).split() == ["Seccomp:", "0"]
    assert engine.docker("run", "--rm", IMAGE, "unshare", "-m", "true").returncode != 0


def test_privileged(engine: Engine) -> None:
    script = "mount -t tmpfs x /mnt && test -e /dev/kmsg && grep Seccomp: /proc/self/status"
    assert run(engine, "--privileged", IMAGE, "sh", "-c", script).split() == ["Seccomp:", "0"]
    assert engine.docker("run", "--rm", IMAGE, "mount", "-t", "tmpfs", "x", "/mnt").returncode != 0


def test_init_reaps_and_passes_signals_on(engine: Engine) -> None:
    assert "init" in run(engine, "--init", IMAGE, "cat", "/proc/1/comm")
    assert run(engine, "--init", IMAGE, "sh", "-c", "echo $$") != "1"


def test_memory_limit_bites(engine: Engine) -> None:
    eat = "dd if=/dev/zero of=/dev/shm/x bs=1M count=60"
    done = engine.docker("run", "--name", "hungry", "-m", "16m", "--memory-swap", "16m", "--shm-size", "99m", IMAGE,
                         "sh", "-c", eat + "; sleep 5")  # fmt: skip
    assert done.returncode in (137, 0)
    done = engine.docker("run", "--name", "eaten", "-m", "16m", "--memory-swap", "16m", IMAGE,
                         "tail", "/dev/zero")  # fmt: skip
    assert done.returncode == 137
    assert engine.state("eaten")["OOMKilled"] is True
    assert engine.state("eaten")["ExitCode"] == 137


def test_pids_limit_bites(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "--pids-limit", "6", IMAGE, "sh", "-c",
                         "for i in 1 2 3 4 5 6 7 8; do sleep 3 & done; wait")  # fmt: skip
    assert "can't fork" in done.stderr


def test_cpu_limit_is_set(engine: Engine) -> None:
    container = engine.output("run", "-d", "--cpus", "0.5", IMAGE, "sleep", "60")
    assert engine.inspect(container)["HostConfig"]["NanoCpus"] == 500_000_000
    script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max 2>/dev/null"
    found = engine.docker("exec", container, "sh", "-c", script).stdout.split()
    assert found in (["50000"], ["50000", "100000"])


def test_cidfile_and_name(engine: Engine, tmp_path: pathlib.Path) -> None:
    engine.output("run", "--name", "called", "--cidfile", str(tmp_path / "id"), IMAGE, "true")
    assert engine.inspect("called")["Id"] == (tmp_path / "id").read_text()
    again = engine.docker("run", "--name", "called", IMAGE, "true")
    assert again.returncode == 125
    assert 'The container name "/called" is already in use by container' in again.stderr


def test_stdin_is_piped_and_half_closed(engine: Engine) -> None:
    done = engine.docker("run", "-i", "--rm", IMAGE, "sh", "-c", "cat; echo end", input="a\nb\n")
    assert done.stdout == "a\nb\nend\n"


def test_much_data_through_both_directions(engine: Engine) -> None:
    data = "0123456789abcde\n" * 200_000
    done = engine.docker("run", "-i", "--rm", IMAGE, "cat", input=data)
    assert done.stdout == data


def test_early_end_of_a_reader(engine: Engine) -> None:
    done = engine.docker("run", "-i", "--rm", IMAGE, "head", "-c", "4", input="x" * 5_000_000)
    assert done.stdout == "xxxx"


def test_detached_attach_flags(engine: Engine) -> None:
    done = engine.docker("run", "--rm", "-a", "stderr", IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("", "err\n")


def test_joining_namespaces_of_a_container(engine: Engine) -> None:
    engine.output("run", "-d", "--name", "first", "--hostname", "shared", "--ipc", "shareable", IMAGE, "sleep", "60")
    assert "sleep" in run(engine, "--pid", "container:first", IMAGE, "ps")
    address = engine.output("exec", "first", "hostname", "-i")
    assert run(engine, "--network", "container:first", IMAGE, "hostname", "-i") == address
    engine.output("exec", "first", "touch", "/dev/shm/here")
    assert run(engine, "--ipc", "container:first", IMAGE, "ls", "/dev/shm") == "here"
    engine.output("rm", "-f", "first")


def test_default_log_driver_none(engine: Engine) -> None:
    engine.output("run", "--name", "silent", "--log-driver", "none", IMAGE, "echo", "unseen")
    done = engine.docker("logs", "silent")
    assert done.returncode == 1
    assert "configured logging driver does not support reading" in done.stderr


def test_uts_and_cgroup_namespaces(engine: Engine) -> None:
    assert ":/docker" not in run(engine, "--cgroupns", "private", IMAGE, "cat", "/proc/self/cgroup")
    assert run(engine, "--cgroupns", "host", "--name", "there", IMAGE, "grep", "pids:", "/proc/1/cgroup").count("/") > 1
    assert run(engine, "--uts", "host", IMAGE, "hostname") == os.uname().nodename


def test_our_own_init_reaps_and_forwards(daemon: Daemon) -> None:
    script = "(sleep 0.05 & exit 0); trap 'exit 9' USR1; while :; do sleep 0.05; done"
    container = daemon.output("run", "-d", "--init", "--user", "65534", IMAGE, "sh", "-c", script)
    shown = daemon.output("top", container, "-eo", "pid,args")
    assert "/sbin/docker-init -- sh -c" in shown
    until(lambda: " Z" not in daemon.output("top", container, "-eo", "pid,stat,args"))
    status = daemon.output("exec", container, "cat", "/proc/1/status")
    assert "CapEff:\t0000000000000020" in status  # CAP_KILL, for a program that changes its user
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    looked = daemon.docker("exec", "-u", "0", container, "ls", "-l", "/proc/1/exe")
    assert "cannot read link: Permission denied" in looked.stderr  # the program behind it is the host's
    daemon.output("kill", "--signal", "USR1", container)
    assert daemon.wait(container) == 9


def test_our_own_init_ends_as_its_program_does(daemon: Daemon) -> None:
    assert daemon.docker("run", "--rm", "--init", IMAGE, "sh", "-c", "kill -9 $$").returncode == 137
    assert daemon.docker("run", "--rm", "--init", IMAGE, "sh", "-c", "exit 3").returncode == 3
    assert daemon.docker("run", "--rm", "--init", IMAGE, "nosuchprogram").returncode == 127
    assert daemon.docker("run", "--rm", "--init", IMAGE, "/etc/passwd").returncode == 126
    missing = daemon.docker("run", "--rm", "--init", IMAGE, "/nosuchprogram")
    assert "no such file or directory" in missing.stderr
    strict = daemon.docker("run", "--rm", "--init", "--cap-drop", "ALL", "--read-only", IMAGE, "echo", "fine")
    assert strict.stdout == "fine\n"
