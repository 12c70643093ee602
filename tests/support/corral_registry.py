"""A registry of ours as its own processes on a free loopback port."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import corral
from tests.support.registry import free_port, wait_for_port

SOURCE = str(Path(corral.__file__).parents[1])


@dataclass
class Served:
    """A running registry."""

    process: subprocess.Popen[bytes]
    address: str
    root: str
    log: Path
    tls: ssl.SSLContext | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def request(
        self, method: str, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """One request on a connection of its own."""
        connection: http.client.HTTPConnection
        if self.tls is not None:
            connection = http.client.HTTPSConnection(self.address, timeout=60, context=self.tls)
        else:
            connection = http.client.HTTPConnection(self.address, timeout=60)
        try:
            connection.request(method, target, body, {**self.headers, **(headers or {})})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def push_blob(self, name: str, data: bytes, digest: str) -> None:
        """Upload in one request."""
        status, _, answer = self.request("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        assert status == 201, answer

    def push_manifest(self, name: str, reference: str, fields: dict[str, Any]) -> str:
        """PUT; the digest."""
        data = json.dumps(fields).encode()
        target = f"/v2/{name}/manifests/{reference}"
        status, headers, answer = self.request("PUT", target, data, {"Content-Type": fields["mediaType"]})
        assert status == 201, answer
        return headers["Docker-Content-Digest"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


def command(*words: str) -> list[str]:
    """The server's command line."""
    return [sys.executable, "-m", "corral.registry", *words]


def environment() -> dict[str, str]:
    """What it needs around it."""
    return {**os.environ, "PYTHONPATH": SOURCE}


@contextmanager
def served(folder: Path, *flags: str, root: str = "", **keys: Any) -> Iterator[Served]:
    """A registry with its root, configuration (`keys`) and log below `folder`."""
    address = f"127.0.0.1:{free_port()}"
    work = Path(tempfile.mkdtemp(dir=folder))
    root = root or str(work / "root")
    config = work / "config.json"
    config.write_text(json.dumps({key.replace("_", "-"): value for key, value in keys.items()}))
    words = command("serve", "--config", str(config), "--root", root, "--listen", address, *flags)
    log = work / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, env=environment(), stdout=output, stderr=output)
    try:
        wait_for_port(address, 60)
        yield Served(process, address, root, log)
    finally:
        if process.poll() is None:
            process.terminate()
            assert process.wait(60) == 0, log.read_text()
