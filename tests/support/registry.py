"""Debian's docker-registry on a free loopback port."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAM = shutil.which("docker-registry")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def registry(extra: str = "", tls: tuple[str, str] | None = None, clients: str = "") -> Iterator[str]:
    """`host:port` of a running registry with an empty store; `extra` is YAML, `tls` certificate and key.

    `clients` is the authority that must have signed the clients' certificates.
    """
    assert PROGRAM is not None, "docker-registry is not installed"
    root = tempfile.mkdtemp(prefix="registry-")
    address = f"127.0.0.1:{free_port()}"
    wanted = f", clientcas: [{clients}]" if clients else ""
    certificate = f"  tls: {{certificate: {tls[0]}, key: {tls[1]}{wanted}}}\n" if tls else ""
    config = os.path.join(root, "config.yml")
    with open(config, "w") as file:
        file.write(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {root}/data}}, delete: {{enabled: true}}}}\n"
            f"http:\n  addr: {address}\n{certificate}{extra}"
        )
    process = subprocess.Popen([PROGRAM, "serve", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(address)
        yield address
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(root)


def wait_for_port(address: str, deadline_s: float = 20) -> None:
    """Until something listens at `address`."""
    host, _, port = address.partition(":")
    end = time.monotonic() + deadline_s
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


def push(address: str, repository: str, reference: str, media_type: str, data: bytes) -> str:
    """PUT a manifest; its digest."""
    connection = http.client.HTTPConnection(address, timeout=20)
    headers = {"Content-Type": media_type}
    connection.request("PUT", f"/v2/{repository}/manifests/{reference}", data, headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 201, (response.status, body)
    return response.headers["Docker-Content-Digest"]


def push_blob(address: str, repository: str, digest: str, data: bytes) -> None:
    """Upload a blob in one piece."""
    connection = http.client.HTTPConnection(address, timeout=20)
    connection.request("POST", f"/v2/{repository}/blobs/uploads/")
    response = connection.getresponse()
    response.read()
    location = response.headers["Location"]
    path = location.partition(address)[2] or location
    separator = "&" if "?" in path else "?"
    headers = {"Content-Type": "application/octet-stream"}
    connection.request("PUT", f"{path}{separator}digest={digest}", data, headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 201, (response.status, body)


def push_image(address: str, repository: str, tag: str, descriptor: dict[str, object], blobs: dict[str, bytes]) -> str:
    """Upload what `tests.support.images.oci_blobs` made."""
    manifest = blobs[str(descriptor["digest"])]
    for digest, data in blobs.items():
        if digest != descriptor["digest"]:
            push_blob(address, repository, digest, data)
    return push(address, repository, tag, str(json.loads(manifest)["mediaType"]), manifest)
