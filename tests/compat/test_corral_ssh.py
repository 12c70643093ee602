"""Daemons behind `ssh://`: through a stand-in for ssh, and through a real sshd on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.daemon import IMAGE, Daemon
from tests.support.wait import until

_BIN = Path(__file__).resolve().parents[2] / "bin"
_CORRAL = str(_BIN / "corral")
_SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")
_TIMEOUT_S = 60


@dataclass
class Far:
    """An address that is reached by ssh, and the environment in which it is."""

    host: str
    environment: dict[str, str]

    def corral(self, *words: str, input: bytes = b"", client: str = _CORRAL) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [client, "-H", self.host, *words],
            env=self.environment, input=input, capture_output=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


@pytest.fixture
def stand_in(daemon: Daemon, tmp_path: Path) -> Far:
    """An `ssh` that notes its words and runs the remote command here, where `docker` leads to the daemon."""
    note = f'printf "%s\\n" "$@" >{tmp_path}/words'
    _script(tmp_path / "bin" / "ssh", f'{note}\nfor last; do :; done\nexec sh -c "$last"\n')
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "DOCKER_HOST": daemon.host}
    return Far("ssh://somebody@far.example:2222", environment)


def _sshd(folder: Path, environment: dict[str, str]) -> str:
    """A configuration for sshd, and one for ssh that gets in; the port."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    variables = " ".join(f'{name}="{value}"' for name, value in environment.items())
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin prohibit-password\nSetEnv {variables}\n"
    )
    (folder / "ssh_config").write_text(
        f"Host *\nIdentityFile {folder}/user\nIdentitiesOnly yes\nStrictHostKeyChecking no\n"
        f"UserKnownHostsFile {folder}/known\nLogLevel ERROR\n"
    )
    return port


@pytest.fixture
def far(daemon: Daemon, tmp_path: Path) -> Iterator[Far]:
    """A real sshd on loopback; `corral` is on the PATH over there, under docker's name too."""
    assert _SSHD, "sshd is missing: apt-get install openssh-server"
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "docker").symlink_to(_CORRAL)
    port = _sshd(tmp_path, {"PATH": f"{_BIN}:{tmp_path}/there:/usr/bin:/bin", "CORRAL_HOST": daemon.host})
    _script(tmp_path / "bin" / "ssh", f'exec {shutil.which("ssh")} -F {tmp_path}/ssh_config "$@"\n')
    os.makedirs("/run/sshd", exist_ok=True)  # sshd wants it for its separated privileges
    server = subprocess.Popen([_SSHD, "-D", "-e", "-f", tmp_path / "sshd_config"], stderr=subprocess.PIPE)

    def listens() -> bool:
        assert server.poll() is None, server.stderr and server.stderr.read()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(port))) == 0

    try:
        until(listens)
        environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path)}
        yield Far(f"ssh://root@127.0.0.1:{port}", environment)
    finally:
        server.terminate()
        server.communicate(timeout=_TIMEOUT_S)


def test_ssh_is_asked_for_what_the_address_says(stand_in: Far, tmp_path: Path) -> None:
    done = stand_in.corral("version", "--format", "{{.Server.Os}}")
    assert (done.stdout, done.stderr) == (b"linux\n", b"")
    words = (tmp_path / "words").read_text().splitlines()
    assert words[:-1] == ["-o", "ConnectTimeout=30", "-T", "-l", "somebody", "-p", "2222", "--", "far.example"]
    assert words[-1].endswith("sh system dial-stdio")


def test_the_socket_over_there_can_be_named(stand_in: Far, daemon: Daemon) -> None:
    far = Far(f"ssh://far.example{daemon.socket_path}", {**stand_in.environment, "DOCKER_HOST": "unix:///nosuch"})
    assert far.corral("version", "--format", "{{.Server.Os}}").stdout == b"linux\n"


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("ssh://", "hostname is empty"),
        ("ssh://user:secret@far", "plain-text password is not supported"),
        ("ssh://far?x=1", 'query parameters are not allowed: "x=1"'),
        ("ssh://far:abc", 'invalid port ":abc" after host'),
    ],
)
def test_addresses_that_cannot_be(stand_in: Far, tmp_path: Path, host: str, text: str) -> None:
    done = Far(host, stand_in.environment).corral("ps")
    assert done.returncode == 1
    assert text in done.stderr.decode()
    assert not (tmp_path / "words").exists()


def test_an_ssh_that_fails_is_told_in_one_line(stand_in: Far, tmp_path: Path) -> None:
    _script(tmp_path / "bin" / "ssh", "echo 'ssh: no route' >&2\nexit 255\n")
    done = stand_in.corral("ps")
    assert done.returncode == 1
    first, second = done.stderr.decode().splitlines()
    assert first == "ssh: no route"
    assert second.startswith("Cannot connect to the Docker daemon at ssh://somebody@far.example:2222: ssh ended with")
    assert stand_in.corral("run", IMAGE).returncode == 125


def test_a_real_sshd(far: Far, daemon: Daemon) -> None:
    done = far.corral("run", "--rm", "-i", IMAGE, "wc", "-c", input=b"x" * 3_000_000)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"3000000", b"")
    assert far.corral("run", "--name", "far", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7").returncode == 7
    done = far.corral("logs", "far")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert far.corral("ps", "-a", "--format", "{{.Names}}").stdout == b"far\n"


def test_a_context_may_have_such_an_address(far: Far) -> None:
    made = subprocess.run(
        [_CORRAL, "context", "create", "there", "--docker", f"host={far.host}"],
        env=far.environment, capture_output=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    environment = {**far.environment, "DOCKER_CONTEXT": "there"}
    done = subprocess.run(
        [_CORRAL, "info", "--format", "{{.OSType}}"],
        env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (b"linux\n", b"")


def test_docker_gets_through_our_end(far: Far) -> None:
    """The stock client runs `docker system dial-stdio` over there, and `docker` is ours."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("the docker CLI is not installed")
    done = far.corral("run", "--rm", "-i", IMAGE, "cat", input=b"hello", client=docker)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello", b"")
