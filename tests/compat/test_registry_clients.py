"""The registry with its real clients: docker through a daemon, skopeo, umoci's layouts, oras, curl."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.support import registry as debian
from tests.support.corral_registry import Served, served
from tests.support.daemon import IMAGE, Daemon, busybox_image

_S = 120


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="corral-registry-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def server(folder: Path) -> Iterator[Served]:
    with served(folder, "--access-log", "off") as running:
        yield running


def run(*words: str, check: bool = True, **more: Any) -> str:
    """A client's command; what it prints, errors too."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    done = subprocess.run(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_S, check=False, **more
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def archive(folder: Path) -> str:
    path = folder / "busybox.tar"
    path.write_bytes(busybox_image())
    return f"docker-archive:{path}"


# -- docker, through a daemon of ours -----------------------------------------------------------------


def test_docker_pushes_pulls_and_runs(daemon: Daemon, folder: Path) -> None:
    users = folder / "users"
    users.write_text("ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
    for scheme in ("basic", "token"):
        with daemon.space.inside(), served(folder, auth={"htpasswd": str(users), "scheme": scheme}) as server:
            name = f"{server.address}/team/app:1"
            settings = folder / scheme
            settings.mkdir()
            login = base64.b64encode(b"ann:secret").decode()
            (settings / "config.json").write_text(json.dumps({"auths": {server.address: {"auth": login}}}))
            daemon.docker("tag", IMAGE, name, check=True)
            try:
                assert daemon.docker("push", name).returncode != 0
                pushed = daemon.docker("--config", str(settings), "push", name, check=True).stdout
                digest = pushed.rpartition("digest: ")[2].split()[0]
                again = daemon.docker("--config", str(settings), "push", name, check=True).stdout
                assert "Layer already exists" in again
                daemon.docker("rmi", name, check=True)
                assert daemon.docker("pull", name).returncode != 0
                pulled = daemon.docker("--config", str(settings), "pull", name, check=True).stdout
                assert f"Digest: {digest}" in pulled
                assert daemon.output("run", "--rm", "--network=none", name, "echo", "hello") == "hello"
            finally:
                daemon.docker("rmi", "-f", name)


# -- skopeo -------------------------------------------------------------------------------------------


def test_skopeo(server: Served, folder: Path) -> None:
    plain = "--tls-verify=false"
    name = f"docker://{server.address}/lib/busybox"
    for form in ("v2s2", "oci"):
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"--format={form}", archive(folder), f"{name}:{form}")
        found = json.loads(run("skopeo", "inspect", plain, f"{name}:{form}"))
        assert found["RepoTags"] == sorted({"v2s2", form} if form == "v2s2" else {"v2s2", "oci"})
    run("skopeo", "copy", "-q", "--src-tls-verify=false", f"{name}:oci", f"oci:{folder}/back:x")
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{folder}/back:x", f"{name}:again")
    digests = [run("skopeo", "inspect", plain, "--format={{.Digest}}", f"{name}:{tag}") for tag in ("oci", "again")]
    assert digests[0] == digests[1]
    assert json.loads(run("skopeo", "list-tags", plain, name))["Tags"] == ["again", "oci", "v2s2"]
    # Between repositories of one registry: blobs are mounted.
    other = f"docker://{server.address}/other/busybox:x"
    run("skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", f"{name}:oci", other)
    synced = folder / "synced"
    source = f"{server.address}/lib/busybox"
    run("skopeo", "sync", "--src-tls-verify=false", "--src", "docker", "--dest", "dir", source, str(synced))
    assert sorted(os.listdir(synced)) == ["busybox:again", "busybox:oci", "busybox:v2s2"]
    run("skopeo", "delete", plain, f"{name}:oci")
    assert json.loads(run("skopeo", "list-tags", plain, name))["Tags"] == ["v2s2"]


def test_a_layout_that_umoci_made(server: Served, folder: Path) -> None:
    layout = str(folder / "layout")
    run("umoci", "init", "--layout", layout)
    run("umoci", "new", "--image", f"{layout}:new")  # without any layer
    run("umoci", "config", "--image", f"{layout}:new", "--author", "somebody")
    name = f"docker://{server.address}/umoci:x"
    run("skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:new", name)
    run("skopeo", "copy", "-q", "--src-tls-verify=false", name, f"oci:{folder}/back:new")
    assert "umoci config" in run("umoci", "stat", "--image", f"{folder}/back:new")


def test_skopeo_logs_in_over_tls(folder: Path) -> None:
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
        *("-keyout", f"{folder}/key", "-out", f"{folder}/ca.crt", "-addext", "subjectAltName=IP:127.0.0.1"),
    )
    users = folder / "users"
    users.write_text("ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
    auth = {"htpasswd": str(users), "scheme": "token"}
    with served(folder, "--tlscert", f"{folder}/ca.crt", "--tlskey", f"{folder}/key", auth=auth) as server:
        name = f"docker://{server.address}/a/b:x"
        certificates = folder / "certificates"
        certificates.mkdir()
        shutil.copy(folder / "ca.crt", certificates)
        options = ["-q", f"--dest-cert-dir={certificates}"]
        run("skopeo", "copy", *options, "--dest-creds=ann:secret", archive(folder), name)
        assert "access to the resource is denied" in run("skopeo", "copy", *options, archive(folder), name, check=False)
        assert "incorrect" in run("skopeo", "copy", *options, "--dest-creds=ann:no", archive(folder), name, check=False)


# -- oras ---------------------------------------------------------------------------------------------


def test_oras(server: Served, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oras_client = pytest.importorskip("oras.client", reason="oras is not installed")
    monkeypatch.chdir(folder)
    (folder / "file.txt").write_bytes(b"some text" * 1000)
    client = oras_client.OrasClient(hostname=server.address, insecure=True)
    target = f"{server.address}/artifacts/text:v1"
    response = client.push(target=target, files=["file.txt"], manifest_annotations={"made": "here"})
    assert response.status_code == 201
    assert client.get_tags(target) == ["v1"]
    back = folder / "back"
    client.pull(target=target, outdir=str(back))
    assert (back / "file.txt").read_bytes() == b"some text" * 1000
    manifest = client.get_manifest(target)
    assert manifest["annotations"] == {"made": "here"}
    client.delete_tag(target, "v1") if hasattr(client, "delete_tag") else client.delete_tags(target, ["v1"])
    assert client.get_tags(target) == []


# -- curl: the specification as bytes ------------------------------------------------------------------


def curl(server: Served, target: str, *options: str) -> tuple[int, dict[str, str], bytes]:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    words = ["curl", "-sS", "-i", "--max-time", "60", *options, f"http://{server.address}{target}"]
    data = subprocess.run(words, capture_output=True, check=True, timeout=_S).stdout
    while data.startswith(b"HTTP/1.1 100"):
        data = data.partition(b"\r\n\r\n")[2]
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, body


def test_curl_in_chunks_and_ranges(server: Served, folder: Path) -> None:
    data = os.urandom(5 << 20)
    whole, parts = folder / "whole", [folder / "first", folder / "second"]
    whole.write_bytes(data)
    parts[0].write_bytes(data[: 3 << 20])
    parts[1].write_bytes(data[3 << 20 :])
    digest = "sha512:" + hashlib.sha512(data).hexdigest()
    location = curl(server, "/v2/a/blobs/uploads/", "-X", "POST", "-d", "")[1]["location"]
    octets = ["-H", "Content-Type: application/octet-stream"]
    first = ["-X", "PATCH", *octets, "-H", f"Content-Range: 0-{(3 << 20) - 1}", "--data-binary", f"@{parts[0]}"]
    late = [*octets, "-H", f"Content-Range: {3 << 20}-{(5 << 20) - 1}", "--data-binary", f"@{parts[1]}"]
    early = curl(server, location, "-X", "PATCH", *late)
    assert (early[0], early[1]["range"]) == (416, "0-0")
    assert curl(server, location, *first)[0] == 202
    assert curl(server, location)[1]["range"] == f"0-{(3 << 20) - 1}"
    assert curl(server, f"{location}?digest={digest}", "-X", "PUT", *late)[0] == 201
    blob = f"/v2/a/blobs/{digest}"
    assert curl(server, blob)[2] == data
    status, headers, body = curl(server, blob, "-r", "1000-4000000")
    assert (status, body) == (206, data[1000:4000001])
    assert headers["content-range"] == f"bytes 1000-4000000/{5 << 20}"
    assert curl(server, blob, "-r", f"{5 << 20}-")[0] == 416
    # As dockerd sends it: chunked transfer coding, of a length that nobody says.
    location = curl(server, "/v2/b/blobs/uploads/", "-X", "POST", "-d", "")[1]["location"]
    status, headers, _ = curl(
        server, location, "-X", "PATCH", "-H", "Transfer-Encoding: chunked", *octets, "--data-binary", f"@{whole}"
    )
    assert (status, headers["range"]) == (202, f"0-{(5 << 20) - 1}")
    assert curl(server, location, "-X", "DELETE")[0] == 204


# -- Debian's registry as the upstream of a cache -------------------------------------------------------


@pytest.mark.skipif(debian.PROGRAM is None, reason="docker-registry is not installed")
def test_skopeo_copies_through_a_cache(folder: Path) -> None:
    with debian.registry() as upstream:
        original = f"docker://{upstream}/lib/busybox:1"
        run("skopeo", "copy", "-q", "--dest-tls-verify=false", archive(folder), original)
        with served(folder, "--upstream", f"http://{upstream}") as cache:
            name = f"docker://{cache.address}/lib/busybox:1"
            run("skopeo", "copy", "-q", "--src-tls-verify=false", name, f"oci:{folder}/one:x")
            run("skopeo", "copy", "-q", "--src-tls-verify=false", name, f"oci:{folder}/two:x")
            fetched = cache.request("GET", "/metrics")[2].decode()
            assert "corral_registry_upstream_fetches_total 2\n" in fetched  # a layer and a configuration, once each
            refused = run(
                "skopeo",
                "copy",
                "-q",
                "--dest-tls-verify=false",
                archive(folder),
                name.replace(":1", ":2"),
                check=False,
            )
            assert "405" in refused or "unsupported" in refused.lower()
