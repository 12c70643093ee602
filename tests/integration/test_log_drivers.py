"""Logs that go elsewhere: real containers, real sockets on the other end."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import socket
import ssl
import subprocess
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from corral.forward import journald
from tests.support.daemon import Daemon
from tests.support.wait import until

SAY = "echo out; echo err >&2"


class Receiver:
    """A socket that keeps what it is sent."""

    def __init__(self, listening: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.listening = listening
        self.context = context
        self.received: list[bytes] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])

    @property
    def data(self) -> bytes:
        return b"".join(self.received)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if self.listening.type & socket.SOCK_DGRAM:
                    self.received.append(self.listening.recv(65536))
                else:
                    connection, _ = self.listening.accept()
                    threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            stream = self.context.wrap_socket(connection, server_side=True) if self.context else connection
            with stream:
                while data := stream.recv(65536):
                    self.received.append(data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self.listening.close()
        self.thread.join(10)


@contextlib.contextmanager
def receiver(
    daemon: Daemon, kind: int = socket.SOCK_STREAM, context: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """A receiver on the loopback of the daemon's network namespace."""
    with daemon.space.inside():
        listening = socket.socket(socket.AF_INET, kind)
    listening.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        listening.listen()
    found = Receiver(listening, context)
    try:
        yield found
    finally:
        found.close()


def run(daemon: Daemon, driver: str, script: str = SAY, name: str = "", **options: str) -> str:
    words = ["run", "-d", "--log-driver", driver, *(["--name", name] if name else [])]
    words += [word for key, value in options.items() for word in ("--log-opt", f"{key.replace('_', '-')}={value}")]
    container = daemon.output(*words, "--label", "rack=7", "-e", "A=1", "corral.test/busybox:1", "sh", "-c", script)
    daemon.wait(container)
    return container


def test_syslog_over_udp(daemon: Daemon) -> None:
    with receiver(daemon, socket.SOCK_DGRAM) as far:
        address = f"udp://127.0.0.1:{far.port}"
        container = run(daemon, "syslog", syslog_address=address, tag="{{.Name}}/x", name="logged")
        until(lambda: len(far.received) == 2)
        err, out = sorted(far.received)
        assert re.fullmatch(rb"<30>\w{3} [ \d]\d \d\d:\d\d:\d\d logged/x\[%d\]: out\n" % daemon.pid, out), out
        assert re.fullmatch(rb"<27>.* logged/x\[\d+\]: err\n", err), err
        assert daemon.output("logs", container) == "out"  # the cache beside it


def test_syslog_formats_over_tcp(daemon: Daemon) -> None:
    with receiver(daemon) as far:
        address = f"tcp://127.0.0.1:{far.port}"
        run(daemon, "syslog", "echo a", syslog_address=address, syslog_format="rfc5424micro", syslog_facility="local3")
        until(lambda: far.data.endswith(b"a\n"))
        assert re.fullmatch(rb"<158>1 [-\d]+T[:\d]+\.\d{6}[+-]\d\d:\d\d \S+ (\w{12}) \d+ \1 - a\n", far.data), far.data
        far.received.clear()
        run(daemon, "syslog", "echo b", syslog_address=address, syslog_format="rfc3164")
        until(lambda: far.data.endswith(b"b\n"))
        assert os.uname().nodename.encode() in far.data


def test_syslog_over_tls(daemon: Daemon, tmp_path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=log",
         "-keyout", tmp_path / "key", "-out", tmp_path / "cert", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with receiver(daemon, context=context) as far:
        address = f"tcp+tls://127.0.0.1:{far.port}"
        run(daemon, "syslog", "echo a", syslog_address=address, syslog_tls_ca_cert=str(tmp_path / "cert"),
            syslog_format="rfc5424")  # fmt: skip
        until(lambda: far.data.endswith(b"- a"))
        count, _, message = far.data.partition(b" ")
        assert int(count) == len(message)
        refused = daemon.docker(
            "run", "--log-driver", "syslog", "--log-opt", f"syslog-address={address}", "corral.test/busybox:1", "true"
        )
        assert refused.returncode == 125 and "failed to initialize logging driver" in refused.stderr


def test_gelf(daemon: Daemon) -> None:
    with receiver(daemon, socket.SOCK_DGRAM) as far:
        address = f"udp://127.0.0.1:{far.port}"
        container = run(daemon, "gelf", gelf_address=address, labels="rack", env="A", name="gelfed")
        until(lambda: len(far.received) == 2)
        found: list[dict[str, Any]] = [json.loads(gzip.decompress(data)) for data in far.received]
        by_text = {one["short_message"]: one for one in found}
        assert (by_text["out"]["level"], by_text["err"]["level"]) == (6, 3)
        assert by_text["out"]["_container_id"] == container and by_text["out"]["_container_name"] == "gelfed"
        assert (by_text["out"]["_rack"], by_text["out"]["_A"], by_text["out"]["version"]) == ("7", "1", "1.1")
        far.received.clear()
        run(
            daemon, "gelf", "head -c 9000 /dev/urandom | base64 -w0", gelf_address=address, gelf_compression_type="zlib"
        )
        until(lambda: len(far.received) >= 7)
        parts = sorted(far.received, key=lambda data: data[10])
        assert (
            {data[:10] for data in parts} == {parts[0][:10]}
            and parts[0][:2] == b"\x1e\x0f"
            and parts[0][11] == len(parts)
        )
        text = json.loads(zlib.decompress(b"".join(data[12:] for data in parts)))["short_message"]
        assert len(text) == 12_000
    with receiver(daemon) as far:
        run(daemon, "gelf", gelf_address=f"tcp://127.0.0.1:{far.port}")
        until(lambda: far.data.count(b"\0") == 2)


def messages(data: bytes) -> list[Any]:
    unpacker = msgpack.Unpacker()
    unpacker.feed(data)
    return list(unpacker)


def test_fluentd(daemon: Daemon) -> None:
    with receiver(daemon) as far:
        address = f"tcp://127.0.0.1:{far.port}"
        container = run(daemon, "fluentd", fluentd_address=address, tag="t.{{.Name}}", name="flowing")
        until(lambda: far.data.count(b"t.flowing") == 2 and far.data.count(b"stderr") == 1)
        until(lambda: len(messages(far.data)) == 2)
        for tag, _, told in messages(far.data):
            assert tag == "t.flowing" and told["container_id"] == container and told["container_name"] == "/flowing"
        found = {(told["source"], told["log"]) for _, _, told in messages(far.data)}
        assert found == {("stdout", "out"), ("stderr", "err")}
        closed = far.port
    refused = daemon.docker(
        "run", "--log-driver", "fluentd", "--log-opt", f"fluentd-address=127.0.0.1:{closed}", "corral.test/busybox:1"
    )
    assert refused.returncode == 125 and "Connection refused" in refused.stderr
    run(daemon, "fluentd", fluentd_address=f"127.0.0.1:{closed}", fluentd_async="true")


@pytest.fixture
def journal() -> Iterator[socket.socket]:
    """A journal's socket, where the machine has none of its own."""
    if os.path.exists(journald.SOCKET):
        pytest.skip("this machine has a journal of its own")
    os.makedirs(os.path.dirname(journald.SOCKET), exist_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(journald.SOCKET)
        listening.settimeout(20)
        yield listening
    os.unlink(journald.SOCKET)


def test_journald(daemon: Daemon, journal: socket.socket) -> None:
    container = run(daemon, "journald", "echo out", name="noted", labels="rack", tag="{{.ImageName}}")
    fields = dict(line.split(b"=", 1) for line in journal.recv(65536).splitlines())
    assert fields[b"MESSAGE"] == b"out" and fields[b"PRIORITY"] == b"6" and fields[b"CONTAINER_NAME"] == b"noted"
    assert fields[b"CONTAINER_ID_FULL"].decode() == container and fields[b"CONTAINER_TAG"] == b"corral.test/busybox:1"
    assert fields[b"RACK"] == b"7"


def test_journald_without_a_journal(daemon: Daemon) -> None:
    if os.path.exists(journald.SOCKET):
        pytest.skip("this machine has a journal")
    refused = daemon.docker("run", "--log-driver", "journald", "--name", "lost", "corral.test/busybox:1", "true")
    assert refused.returncode == 125
    assert "failed to initialize logging driver: journald is not enabled on this host" in refused.stderr
    assert daemon.state("lost")["Status"] == "created"


def test_no_cache_means_nothing_to_read(daemon: Daemon) -> None:
    with receiver(daemon, socket.SOCK_DGRAM) as far:
        address = f"udp://127.0.0.1:{far.port}"
        container = run(daemon, "syslog", syslog_address=address, cache_disabled="true")
        shown = daemon.docker("logs", container)
        assert shown.returncode == 1 and "configured logging driver does not support reading" in shown.stderr


def test_a_receiver_that_hangs_does_not_hold_up_a_container_that_does_not_wait(daemon: Daemon) -> None:
    with daemon.space.inside():
        listening = socket.create_server(("127.0.0.1", 0))
    with listening:  # accepted by the kernel, read by nobody
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        script = "head -c 30000000 /dev/zero | tr '\\0' 'x' | fold -w 1000"
        run(daemon, "syslog", script, syslog_address=address, mode="non-blocking", max_buffer_size="64k")


def test_forwarding_outlives_the_daemon(own_daemon: Daemon) -> None:
    with receiver(own_daemon, socket.SOCK_DGRAM) as far:
        words = ["--log-driver", "syslog", "--log-opt", f"syslog-address=udp://127.0.0.1:{far.port}"]
        container = own_daemon.output(
            "run", "-d", "-i", *words, "corral.test/busybox:1", "sh", "-c", "echo before; cat; echo after"
        )
        until(lambda: b"before" in far.data)
        own_daemon.restart()
        own_daemon.docker("kill", "--signal", "KILL", container)
        own_daemon.docker("start", container)
        until(lambda: far.data.count(b"before") == 2)


def test_details_labels_and_tag_of_json_file(daemon: Daemon) -> None:
    container = run(daemon, "json-file", "echo a", labels="rack", env="A", tag="{{.Name}} here", name="told")
    assert daemon.output("logs", "--details", container) == "A=1,rack=7,tag=told+here a"
    shown = daemon.output("logs", "--details", "--timestamps", container)
    assert re.fullmatch(r"\S+Z A=1,rack=7,tag=told\+here a", shown)
    (line,) = Path(daemon.inspect(container)["LogPath"]).read_text().splitlines()
    assert json.loads(line)["attrs"] == {"rack": "7", "A": "1", "tag": "told here"}
    plain = run(daemon, "json-file", "echo a")
    assert daemon.docker("logs", "--details", plain).stdout == " a\n"


def test_local_compresses_what_it_rotates(daemon: Daemon) -> None:
    container = run(daemon, "local", "seq 100000 105000", max_size="10k", max_file="4")
    folder = Path(daemon.data_root, "containers", container)
    until(lambda: len(list(folder.glob("*.gz"))) == 3)
    lines = daemon.output("logs", container).split("\n")
    assert lines == [str(number) for number in range(int(lines[0]), 105001)] and 300 < len(lines) < 1000
    assert daemon.output("logs", "--tail", "250", container).split("\n") == lines[-250:]
    assert daemon.inspect(container)["LogPath"] == ""
    files = sum(path.stat().st_size for path in folder.glob("*.gz"))
    assert 0 < files < 10_000
