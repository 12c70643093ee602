"""corrald's options, seen from a container; and starts that must not happen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon

SOURCE = str(Path(__file__).resolve().parents[2] / "src")
SEES = "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; ulimit -n; df -k /dev/shm | tail -1; cat /etc/resolv.conf"


def run(daemon: Daemon, *words: str) -> str:
    daemon.load_image()
    return daemon.output("run", "--rm", *words)


def test_what_containers_get_unless_they_say_otherwise(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon(
        "--no-new-privileges", "--seccomp-profile=unconfined", "--default-ulimit", "nofile=123:456",
        "--default-shm-size", "8M", "--dns", "192.0.2.53", "--log-driver", "none", "--label", "rack=7",
    )  # fmt: skip
    told = run(daemon, "corral.test/busybox:1", "sh", "-c", SEES)
    assert "NoNewPrivs:\t1" in told
    assert "Seccomp:\t0" in told
    assert "\n123\n" in told
    assert " 8192 " in told
    assert "nameserver 192.0.2.53" in told
    opposite = ["--security-opt", "no-new-privileges=false", "--ulimit", "nofile=99", "--dns", "192.0.2.54"]
    told = run(daemon, *opposite, "corral.test/busybox:1", "sh", "-c", SEES)
    assert "NoNewPrivs:\t0" in told
    assert "\n99\n" in told
    assert "nameserver 192.0.2.54" in told
    refused = daemon.docker("logs", daemon.create("true"))
    assert "configured logging driver does not support reading" in refused.stderr
    assert daemon.get("/info").json()["Labels"] == ["rack=7"]


def test_a_seccomp_profile_from_a_file(new_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    daemon = new_daemon(f"--seccomp-profile={profile}")
    daemon.load_image()
    done = daemon.docker("run", "--rm", "corral.test/busybox:1", "mkdir", "/tmp/x")
    assert (done.returncode, "not supported" in done.stderr) == (1, True)


def corrald(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "corral.daemon", *words],
        env={**os.environ, "PYTHONPATH": SOURCE},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--nonsense"], "unknown flag: --nonsense"),
        (["--config-file", "/absent.json"], "unable to configure the daemon with file /absent.json"),
        (["--seccomp-profile", "/absent.json"], "opening seccomp profile (/absent.json) failed"),
        (["-H", "tcp://0.0.0.0:2375"], "without TLS"),
        (["-H", "ftp://x"], "unsupported proto"),
        (["--storage-driver=vfs"], "no other way"),
        (["--authorization-plugin", "x"], "does not have authorization-plugin: there are no authorization plugins"),
        (["--log-format", "xml"], "invalid log-format: xml: must be one of text, json"),
        (["--shutdown-timeout", "-2"], "invalid shutdown-timeout"),
        (["--default-address-pool", "base=10.0.0.0/8"], "default-address-pool"),
    ],
)
def test_a_wrong_configuration_is_no_start(words: list[str], text: str, tmp_path: Path) -> None:
    places = ["--data-root", f"{tmp_path}/data", "--exec-root", f"{tmp_path}/exec", "-p", f"{tmp_path}/pid"]
    if "-H" not in words:
        places += ["-H", f"unix://{tmp_path}/s"]
    done = corrald(*places, *words)
    assert done.returncode == 1
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "s").exists()
    assert not (tmp_path / "pid").exists()


def test_validate_changes_nothing(tmp_path: Path) -> None:
    config = tmp_path / "daemon.json"
    config.write_text('{"debug": true, "live-restore": true}')
    words = ["--data-root", f"{tmp_path}/data", "--config-file", str(config), "--validate"]
    assert (corrald(*words).returncode, corrald(*words).stdout) == (0, "configuration OK\n")
    config.write_text('{"debug": "yes"}')
    assert corrald(*words).returncode == 1
    assert os.listdir(tmp_path) == ["daemon.json"]


def test_a_data_root_has_one_daemon(own_daemon: Daemon, tmp_path: Path) -> None:
    other = corrald(
        "-H", f"unix://{tmp_path}/s", "--data-root", own_daemon.data_root, "--exec-root", f"{tmp_path}/exec",
        "-p", f"{tmp_path}/pid",
    )  # fmt: skip
    assert other.returncode == 1
    assert "another daemon uses" in other.stderr
    assert own_daemon.get("/_ping").status == 200
