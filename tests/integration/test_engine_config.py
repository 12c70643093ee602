"""corrald's flags and daemon.json, and its sockets: unix, TCP and TLS."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from corral.client import CorralError, Tls
from tests.support.corral import CORRAL
from tests.support.daemon import IMAGE, Daemon, docker_cli, running_daemon
from tests.support.netns import inside
from tests.support.pyapi import Async, Sync
from tests.support.registry import free_port
from tests.support.terminal import Terminal

SOURCE = str(Path(__file__).resolve().parents[2] / "src")


def corrald(*words: str) -> subprocess.CompletedProcess[str]:
    """A daemon that is expected to end at once."""
    return subprocess.run(
        [sys.executable, "-m", "corral.daemon", *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
        env={**os.environ, "PYTHONPATH": SOURCE},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "invalid JSON"),
        ('{"no-such-key": 1}', "the following directives don't match any configuration option: no-such-key"),
        ('{"debug": "yes"}', "debug"),
        ('{"hosts": "unix:///x"}', "hosts"),
        ("[]", "must hold an object"),
    ],
)
def test_bad_configuration_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "daemon.json").write_text(text)
    done = corrald("--config-file", str(tmp_path / "daemon.json"), "--data-root", str(tmp_path / "data"))
    assert done.returncode == 1
    assert message in done.stderr
    assert not (tmp_path / "data").exists()


def test_bad_flags(tmp_path: Path) -> None:
    for words, message in (
        (["--no-such-flag"], "unknown flag: --no-such-flag"),
        (["--mtu", "many"], 'invalid argument "many"'),
        (["--data-root"], "flag needs an argument"),
        (["argument"], "accepts no arguments"),
        (["--config-file", "/no/such/file"], "no such file or directory"),
    ):
        done = corrald(*words)
        assert done.returncode == 1
        assert message in done.stderr
    assert corrald("--version").stdout.startswith("Corral version")
    (tmp_path / "daemon.json").write_text('{"debug": true}')
    assert corrald("--validate", "--config-file", str(tmp_path / "daemon.json")).stdout.strip() == "configuration OK"
    done = corrald("--debug", "--config-file", str(tmp_path / "daemon.json"))
    assert "specified both as a flag and in the configuration file: debug" in done.stderr


def test_plain_tcp_is_for_loopback_only(tmp_path: Path) -> None:
    folders = ["--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path / "e"), "-p", str(tmp_path / "pid")]
    done = corrald("-H", "tcp://0.0.0.0:0", *folders, "--bridge", "none")
    assert done.returncode == 1
    assert "without TLS" in done.stderr


def test_options_reach_containers(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon(
        "--bip", "10.77.0.1/24", "--mtu", "1400", "--dns", "9.9.9.9", "--default-ulimit", "nofile=99:100",
        "--log-opt", "max-size=1m", "--default-shm-size", "5M", "--no-new-privileges", "--label", "rack=7", "--init",
    )  # fmt: skip
    container = daemon.start("sleep", "60")
    settings = daemon.inspect(container)["NetworkSettings"]["Networks"]["bridge"]
    assert (settings["Gateway"], settings["IPAddress"].rpartition(".")[0]) == ("10.77.0.1", "10.77.0")
    script = (
        "cat /sys/class/net/eth0/mtu; ulimit -n; grep NoNew /proc/self/status | cut -f2;"
        " grep -o 9.9.9.9 /etc/resolv.conf"
    )
    assert daemon.output("exec", container, "sh", "-c", script).split() == ["1400", "99", "1", "9.9.9.9"]
    host = daemon.inspect(container)["HostConfig"]
    assert (host["ShmSize"], host["LogConfig"]["Config"], host["Init"]) == (5 << 20, {"max-size": "1m"}, True)
    assert daemon.get("/info").json()["Labels"] == ["rack=7"]
    daemon.remove_all()


def test_daemon_without_a_bridge(new_daemon: Callable[..., Daemon]) -> None:
    daemon = new_daemon("--bridge", "none")
    assert daemon.links() == []
    assert daemon.output("run", "--rm", "--network", "none", IMAGE, "echo", "alone") == "alone"


def _certificates(folder: Path) -> None:
    """A CA, and a server's and a client's certificate from it."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    (folder / "san").write_text("subjectAltName=IP:127.0.0.1\n")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=ca"
    )
    for name in ("server", "client"):
        openssl(
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            f"{name}-key.pem",
            "-out",
            f"{name}.csr",
            "-subj",
            f"/CN={name}",
        )
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
                "-out", f"{name}.pem", "-extfile", "san", "-days", "2")  # fmt: skip
    shutil.copy(folder / "client.pem", folder / "cert.pem")
    shutil.copy(folder / "client-key.pem", folder / "key.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not installed")
@pytest.mark.parametrize("client", [docker_cli, lambda: CORRAL], ids=["docker", "corral"])
def test_tls(tmp_path: Path, client: Callable[[], str]) -> None:
    _certificates(tmp_path)
    port = free_port()
    flags = [
        "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", f"{tmp_path}/ca.pem",
        "--tlscert", f"{tmp_path}/server.pem", "--tlskey", f"{tmp_path}/server-key.pem",
    ]  # fmt: skip
    with running_daemon(*flags) as daemon, inside(daemon.space.pid):
        environment = {**daemon.environment(), "DOCKER_CERT_PATH": str(tmp_path)}
        environment["DOCKER_HOST"] = f"tcp://127.0.0.1:{port}"

        def docker(*words: str, stdin: str = "", verify: bool = True) -> subprocess.CompletedProcess[str]:
            more = {"DOCKER_TLS_VERIFY": "1"} if verify else {}
            return subprocess.run(
                [client(), *words],
                env=environment | more,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )

        assert docker("version", "--format", "{{.Server.Os}}").stdout == "linux\n"
        done = docker("run", "-i", "--rm", IMAGE, "sh", "-c", "cat; echo err >&2; exit 3", stdin="through tls\n")
        assert (done.stdout, done.stderr, done.returncode) == ("through tls\n", "err\n", 3)
        assert docker("run", "-i", "--rm", IMAGE, "cat", stdin="x" * 3_000_000).stdout == "x" * 3_000_000
        with Terminal(
            [client(), "run", "--rm", "-it", IMAGE, "sh"], environment | {"DOCKER_TLS_VERIFY": "1"}
        ) as terminal:
            terminal.expect("# ")
            terminal.type("echo $((6 * 7)); exit 4\r")
            terminal.expect("42")
            assert terminal.finish() == 4
        assert docker("version", verify=False).returncode != 0
        os.unlink(tmp_path / "cert.pem")
        os.unlink(tmp_path / "key.pem")
        assert docker("version").returncode != 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificates, is not installed")
@pytest.mark.parametrize("make", [Sync, Async])
def test_tls_from_python(tmp_path: Path, make: type[Sync | Async]) -> None:
    _certificates(tmp_path)
    port = free_port()
    flags = [
        "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", f"{tmp_path}/ca.pem",
        "--tlscert", f"{tmp_path}/server.pem", "--tlskey", f"{tmp_path}/server-key.pem",
    ]  # fmt: skip
    ca, cert, key = (f"{tmp_path}/{name}.pem" for name in ("ca", "cert", "key"))
    with running_daemon(*flags) as daemon, inside(daemon.space.pid), contextlib.closing(make()) as flavour:
        host = f"tcp://127.0.0.1:{port}"
        with flavour.client(host, tls=Tls(ca, cert, key)) as client:
            data = os.urandom(3_000_000)
            assert client.containers.output(IMAGE, "cat", input=data).stdout == data
            with client.containers.run(IMAGE, "sleep", "600") as box, box.process("cat", stdin=True) as process:
                for word in (b"one", b"two"):
                    process.write(word)
                    assert process.read().data == word
                process.close_stdin()
                assert process.wait() == 0
            assert len(b"".join(client.images.save(IMAGE))) > 1_000_000
        with flavour.client(host) as client, pytest.raises(CorralError):
            client.ping()
        for wrong in (Tls(ca), Tls(cert=cert, key=key)):  # no certificate; an authority that nobody knows
            with flavour.client(host, tls=wrong) as client, pytest.raises(CorralError):
                client.ping()


def test_plain_tcp_on_loopback() -> None:
    port = free_port()
    with running_daemon("-H", f"tcp://127.0.0.1:{port}") as daemon, inside(daemon.space.pid):
        environment = {**daemon.environment(), "DOCKER_HOST": f"tcp://127.0.0.1:{port}"}
        done = subprocess.run(
            [docker_cli(), "run", "-i", "--rm", IMAGE, "cat"], env=environment, input="over tcp", capture_output=True,
            text=True, timeout=20, check=False,
        )  # fmt: skip
        assert done.stdout == "over tcp"


def test_socket_belongs_to_root_alone(daemon: Daemon) -> None:
    status = os.stat(daemon.socket_path)
    assert status.st_uid == 0
    assert status.st_mode & 0o007 == 0


def test_pid_file_and_configuration_are_as_asked(daemon: Daemon) -> None:
    assert int(Path(daemon.folder, "pid").read_text()) == daemon.pid
    assert json.loads(Path(daemon.folder, "daemon.json").read_text()) == {}
