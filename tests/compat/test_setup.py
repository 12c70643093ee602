"""`corral setup` on a machine, and what systemd thinks of what it has put there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.corral import BIN, CORRAL
from tests.support.daemon import Daemon
from tests.support.machines import Machine

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a machine to spoil needs root")

# What systemctl is asked, on a machine where systemd seems to run.
_SYSTEMD = """
mkdir -p /run/systemd/system /tmp/bin
printf '#!/bin/sh\\necho "$@" >> /tmp/asked\\n' > /tmp/bin/systemctl; chmod 755 /tmp/bin/systemctl
PATH=/tmp/bin:$PATH
"""
_LIST = "find /etc /usr /opt /var/lib -xdev -newer /tmp/start | grep -vx /var/lib || true"


def corral(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CORRAL, "setup", *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path, str(BIN.parent))


@needs_root
def test_check_changes_nothing_and_finds_this_machine_fit(machine: Machine) -> None:
    done = machine.run(f"touch /tmp/start; {CORRAL} setup --check; {_LIST}")
    assert done.returncode == 0, done.stderr
    assert "ok    overlayfs        works" in done.stdout
    assert "gap" not in done.stdout
    assert "\n/" not in done.stdout


@needs_root
def test_check_as_json() -> None:
    done = corral("--check", "--format", "json")
    found = {one["Name"]: one for one in json.loads(done.stdout)}
    assert done.returncode == 0
    assert found["kernel"]["Found"] == os.uname().release
    assert all(
        one["State"] in ("ok", "note") and (one["State"] == "ok") == (not one["Remedy"]) for one in found.values()
    )


@needs_root
def test_a_gap_installs_nothing(machine: Machine) -> None:
    """Here: no room on the disk."""
    done = machine.run(
        "touch /tmp/start; status=0; mount -t tmpfs tmpfs /var/lib -o size=1m; "
        f"{CORRAL} setup || status=$?; {_LIST}; exit $status"
    )
    assert done.returncode == 1
    assert "gap   disk" in done.stdout and "make room" in done.stdout
    assert done.stderr == "corral setup: containers cannot run here, so nothing was installed\n"
    assert "\n/" not in done.stdout


@needs_root
def test_installed_and_taken_away(machine: Machine) -> None:
    """The group, the files and a file that was in the way: all is as it was before."""
    files = "find /etc /usr /var/lib /run /home -xdev -not -path '*__pycache__*' | sort"
    state = f"{files}; getent group; cat /usr/local/bin/corral"
    done = machine.run(f"""{_SYSTEMD}
        ! getent group docker >/dev/null || groupdel docker
        echo theirs > /usr/local/bin/corral
        groupadd --system warm; groupdel warm
        mkdir -p /usr/local/lib; {{ {state}; }} > /tmp/before
        {CORRAL} setup > /tmp/said
        /usr/local/bin/corral --version; /usr/local/bin/corrald --version; getent group docker | cut -d: -f1
        man --warnings corral-image-ls | head -4
        {CORRAL} setup > /dev/null     # again
        {CORRAL} setup --uninstall > /tmp/removed
        {{ {state}; }} > /tmp/after
        diff /tmp/before /tmp/after
        echo; cat /tmp/asked""")
    assert done.returncode == 0, done.stdout + done.stderr
    said, _, asked = done.stdout.partition("\n\n\n") if "\n\n\n" in done.stdout else done.stdout.rpartition("\n\n")
    assert said.startswith("Corral version 0.1.0\nCorral version 0.1.0\ndocker\n"), done.stdout
    assert asked.split("\n") == [
        *["daemon-reload", "enable --now corral.socket corral.service"] * 2,
        "disable --now corral.service corral.socket", "daemon-reload", "",
    ]  # fmt: skip


@needs_root
def test_purge(machine: Machine) -> None:
    done = machine.run(f"""
        mkdir -p /var/lib/corral/x /etc/corral /run/corral/containers/a; touch /var/lib/corral/lock
        ! {CORRAL} setup --uninstall --purge
        ls /var/lib/corral
        rmdir /run/corral/containers/a
        flock /var/lib/corral/lock sh -c '! {CORRAL} setup --uninstall --purge'
        {CORRAL} setup --uninstall --purge
        ! ls -d /var/lib/corral /etc/corral /run/corral 2>/dev/null
        ! {CORRAL} setup --uninstall""")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "lock\nx\nremoved /var/lib/corral\nremoved /run/corral\nremoved /etc/corral\n"
    errors = done.stderr.splitlines()
    assert errors[0].startswith("corral setup: containers run: stop them first")
    assert errors[1] == "corral setup: a daemon still uses /var/lib/corral: end it first"
    assert errors[2].startswith("corral setup: nothing is installed here")


def test_below_a_folder(tmp_path: Path) -> None:
    """As for a package: files that systemd, man and corrald take."""
    assert corral("--root", str(tmp_path), "--prefix", "/usr").returncode == 0
    usr = tmp_path / "usr"
    assert "ExecStart=/usr/bin/corrald -H fd://" in (usr / "lib/systemd/system/corral.service").read_text()
    assert {path.name for path in usr.iterdir()} == {"lib", "share"}
    assert not (tmp_path / "var").exists()
    sample = str(usr / "share/doc/corral/daemon.json")
    done = subprocess.run([BIN / "corrald", "--validate", "--config-file", sample], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    corral("--root", str(tmp_path))
    units = tmp_path / "usr/local/lib/systemd/system"
    for path in units.iterdir():
        path.write_text(path.read_text().replace("/usr/local/bin/corrald", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units.iterdir()], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("groff"), reason="groff is not installed")
def test_manual_pages_are_sound(tmp_path: Path) -> None:
    corral("--root", str(tmp_path))
    pages = sorted((tmp_path / "usr/local/share/man/man1").iterdir())
    assert len(pages) > 100
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", "-rF0", *pages], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--purge"], "--purge goes with --uninstall"),
        (["--format", "json"], "--format goes with --check"),
        (["--check", "--format", "yaml"], 'invalid argument "yaml"'),
        (["--root", "/nowhere", "--prefix", "usr"], "the prefix must be an absolute path: usr"),
    ],
)
def test_refuses(words: list[str], text: str) -> None:
    done = corral(*words)
    assert done.returncode != 0 and text in done.stderr


# systemd's side of the protocol: a bound socket as descriptor 3, and a socket that is told when the daemon is ready.
_FAKE_SYSTEMD = """
import os, socket, sys
bound = socket.socket(socket.AF_UNIX)
bound.bind(sys.argv[1])
bound.listen()
os.dup2(bound.fileno(), 9)
os.dup2(9, 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET=sys.argv[2])
os.execvp(sys.argv[3], [*sys.argv[3:]])
"""


@needs_root
def test_a_socket_from_systemd_and_the_word_to_it(tmp_path: Path, new_daemon: Callable[..., Daemon]) -> None:
    path, told = str(tmp_path / "corral.sock"), str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(told)
        notify.settimeout(20)
        (tmp_path / "fake").write_text(_FAKE_SYSTEMD)
        daemon = new_daemon("-H", "fd://", wrapper=(sys.executable, str(tmp_path / "fake"), path, told))
        assert notify.recv(100) == b"READY=1"
        done = subprocess.run([CORRAL, "-H", f"unix://{path}", "ps", "-q"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")
        daemon.end()
        assert os.path.exists(path)  # it is systemd's, and the next start wants it
