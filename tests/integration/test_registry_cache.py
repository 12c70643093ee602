"""A cache whose upstream wants a login, breaks off, lies, or is not there."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from corral.registry.http.wire import ClientGone
from tests.support.corral_registry import served
from tests.support.desk import Desk, image, sha256
from tests.support.wait import until

CONTENT = bytes(range(256)) * 8192


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="corral-registry-"))
    yield path
    shutil.rmtree(path)


class Upstream(http.server.ThreadingHTTPServer):
    """A registry with one blob, whose answers are as good as `behaviour` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behaviour = "good"
        self.seen: list[tuple[str, str, str]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Upstream
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(b"", len(CONTENT)) if "/blobs/" in self.path else self._answer(b"{}", 2)

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.seen.append(("GET", self.path, wanted))
        behaviour = self.server.behaviour
        if "/manifests/" in self.path:
            data = json.dumps(image(CONTENT)).encode() if behaviour != "lies" else b"<html>"
            self._answer(data, len(data), "application/vnd.oci.image.manifest.v1+json")
        elif "/blobs/" in self.path:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            data = CONTENT[start:] if behaviour != "lies" else bytes(len(CONTENT) - start)
            if behaviour == "breaks" and start < len(CONTENT) // 2:
                self.close_connection = True
                self._answer(data[: len(CONTENT) // 4], len(data), status=206 if start else 200)
            else:
                self._answer(data, len(data), status=206 if start else 200)
        else:
            self._answer(b"{}", 2)

    def _answer(self, data: bytes, length: int, kind: str = "application/json", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def cache_of(folder: Path, upstream: Upstream) -> Desk:
    return Desk(folder, upstream={"url": f"http://127.0.0.1:{upstream.server_port}", "tag-ttl": "0s"})


def test_a_fetch_that_breaks_off_goes_on(folder: Path, upstream: Upstream) -> None:
    upstream.behaviour = "breaks"
    desk = cache_of(folder, upstream)
    assert desk.request("GET", f"/v2/a/blobs/{sha256(CONTENT)}").body == CONTENT
    quarter = len(CONTENT) // 4
    ranges = [wanted for _, path, wanted in upstream.seen if "/blobs/" in path]
    assert ranges == ["", f"bytes={quarter}-", f"bytes={2 * quarter}-"]
    until(lambda: os.path.exists(desk.layout.blob_link("a", sha256(CONTENT))))  # from now on it is ours
    assert desk.request("GET", f"/v2/a/blobs/{sha256(CONTENT)}", range="bytes=0-1").body == CONTENT[:2]


def test_a_beginning_from_before_is_used(folder: Path, upstream: Upstream) -> None:
    desk = cache_of(folder, upstream)
    Path(desk.layout.fetch(sha256(CONTENT))).write_bytes(CONTENT[:1000])
    assert desk.request("GET", f"/v2/a/blobs/{sha256(CONTENT)}").body == CONTENT
    assert ("GET", f"/v2/a/blobs/{sha256(CONTENT)}", "bytes=1000-") in upstream.seen


def test_what_is_not_what_it_should_be_is_not_kept(folder: Path, upstream: Upstream) -> None:
    upstream.behaviour = "lies"
    desk = cache_of(folder, upstream)
    with contextlib.suppress(ClientGone):  # passed on as it comes, or broken off: the client looks at the digest
        desk.request("GET", f"/v2/a/blobs/{sha256(CONTENT)}")
    until(lambda: os.stat(desk.layout.fetch(sha256(CONTENT))).st_size == 0)
    assert not os.path.exists(desk.layout.blob(sha256(CONTENT)))
    assert desk.request("GET", "/v2/a/manifests/x").status == 503
    digest = sha256(json.dumps(image(CONTENT)).encode())
    assert desk.request("GET", f"/v2/a/manifests/{digest}").status == 503
    upstream.behaviour = "good"
    assert desk.request("GET", f"/v2/a/blobs/{sha256(CONTENT)}").body == CONTENT
    assert desk.request("GET", f"/v2/a/manifests/{digest}").status == 200


@pytest.mark.parametrize("reference", ["x%3Fa=b", "%2e%2e", "x%0d%0aEvil:%20y", ".hidden", "x%20y", "sha256:..%2fb"])
def test_nothing_strange_is_asked_for(folder: Path, upstream: Upstream, reference: str) -> None:
    assert cache_of(folder, upstream).request("GET", f"/v2/a/manifests/{reference}").status in (400, 404)
    assert upstream.seen == []


def test_an_upstream_that_is_away(folder: Path) -> None:
    desk = Desk(folder, upstream={"url": "http://127.0.0.1:9"})
    assert desk.request("GET", "/v2/a/manifests/x").status == 503
    assert desk.request("GET", f"/v2/a/blobs/{sha256(b'x')}").status == 503
    assert desk.request("HEAD", f"/v2/a/blobs/{sha256(b'x')}").status == 503
    assert desk.request("GET", "/v2/a/tags/list").status == 404


@pytest.mark.parametrize("scheme", ["basic", "token"])
def test_an_upstream_with_a_login(folder: Path, scheme: str) -> None:
    users = folder / "users"
    users.write_text("ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode() + "\n")
    password = folder / "password"
    password.write_text("secret\n")
    pushing = Desk(folder / "origin")
    digest = pushing.push_image("team/app", "v1", CONTENT)
    root = pushing.settings.root
    with served(folder, root=root, auth={"htpasswd": str(users), "scheme": scheme}) as origin:
        keys = {"url": f"http://{origin.address}", "username": "ann", "password-file": str(password)}
        desk = Desk(folder / "cache", upstream=keys)
        reply = desk.request("GET", "/v2/team/app/manifests/v1")
        assert (reply.status, reply.headers["docker-content-digest"]) == (200, digest)
        assert desk.request("GET", f"/v2/team/app/blobs/{sha256(CONTENT)}").body == CONTENT
        assert desk.request("GET", "/v2/team/app/tags/list").fields["tags"] == ["v1"]
        without = Desk(folder / "without", upstream={"url": f"http://{origin.address}"})
        assert without.request("GET", "/v2/team/app/manifests/v1").status == 404
