"""Pull and push against registries that are slow, broken, hostile, or behind mirrors, proxies and passwords."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError, Forbidden, InvalidParameter, NotFound, System, Unauthorized, Unavailable
from corral.image.install import DiffIdMismatch
from corral.image.registries import Entry, Limits, Registries
from tests.support import images as made
from tests.support import registry as registries
from tests.support import wait
from tests.support.hostile import Answer, Gate, Hostile, hostile, serve, whole
from tests.support.images import member, tar_of
from tests.support.stores import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers need root")

QUICK = Registries(retry_s=0.01, timeout_s=30, attempts=3)
Respond = Callable[[Hostile], Answer]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "store", QUICK)
    yield store
    store.close()


@pytest.fixture(scope="module")
def layers() -> list[bytes]:
    """A layer that takes several reads, and a small one."""
    noise = random.Random(1).randbytes(3_000_000)
    return [tar_of([member("big", noise)]), tar_of([member("small", b"1")])]


@pytest.fixture(scope="module")
def image(layers: list[bytes]) -> tuple[str, dict[str, bytes]]:
    """Manifest digest and blobs."""
    descriptor, blobs = made.oci_blobs(layers, compress=False)
    return str(descriptor["digest"]), blobs


def document(data: bytes, kind: str = "application/vnd.oci.image.manifest.v1+json") -> Answer:
    return 200, {"Content-Type": kind}, data, len(data)


def status(code: int, **headers: str) -> Answer:
    return code, {name.replace("_", "-"): value for name, value in headers.items()}, b"", 0


def only_manifest(data: bytes) -> Respond:
    return lambda request: document(data) if "/manifests/" in request.path else status(200)


# --- what cannot be an image ----------------------------------------------------------------------------------


def test_schema_1_is_refused_in_dockers_words(store: Store) -> None:
    data = b'{"schemaVersion":1,"name":"x","fsLayers":[{"blobSum":"sha256:' + b"0" * 64 + b'"}]}'
    with hostile(only_manifest(data)) as server, pytest.raises(InvalidParameter) as caught:
        store.pull(f"{server.address}/x", "1")
    assert str(caught.value).startswith(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been removed. "
        f"Suggest the author of {server.address}/x:1 to upgrade the image"
    )
    assert store.records == []


def manifest_of(config: dict[str, Any], count: int = 1) -> bytes:
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + "1" * 64, "size": 1}
    kind = "application/vnd.oci.image.manifest.v1+json"
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] * count}).encode()


@pytest.mark.parametrize(
    ("config", "count", "words"),
    [
        (
            {"mediaType": "application/vnd.cncf.helm.config.v1+json", "size": 1},
            1,
            r'Encountered remote ".*"\(unknown\)',
        ),
        ({"mediaType": "application/vnd.docker.plugin.v1+json", "size": 1}, 1, r"\(plugin\) when fetching"),
        ({"mediaType": "application/vnd.oci.image.config.v1+json", "size": 5 << 20}, 1, "configuration: 5242880 bytes"),
        (
            {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 1},
            10_000,
            "10000 layers are more than 500",
        ),
        ({"mediaType": "application/vnd.oci.image.config.v1+json", "size": 1}, 100_000, "larger than 4194304 bytes"),
        ({"mediaType": "application/vnd.oci.image.config.v1+json", "size": -1}, 1, "negative"),
    ],
)
def test_manifests_that_are_refused(store: Store, config: dict[str, Any], count: int, words: str) -> None:
    data = manifest_of({"digest": "sha256:" + "2" * 64, **config}, count)
    with hostile(only_manifest(data)) as server, pytest.raises(InvalidParameter, match=words):
        store.pull(f"{server.address}/x", "1")
    asyncio.run(store.images.collect())
    assert store.images.list() == [] and store.leftovers() == []


def test_other_digests(store: Store) -> None:
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "sha512:" + "2" * 128, "size": 1}
    with hostile(only_manifest(manifest_of(config))) as server, pytest.raises(CorralError, match="only sha256 digests"):
        store.pull(f"{server.address}/x", "1")


def test_layers_that_are_not_the_configurations(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    manifest = json.loads(blobs[digest])
    manifest["layers"].reverse()
    data = json.dumps(manifest).encode()
    found = {**blobs, made.digest(data): data}
    with hostile(serve(found, made.digest(data))) as server, pytest.raises(DiffIdMismatch):
        store.pull(f"{server.address}/x", "1")
    manifest["layers"].pop()
    data = json.dumps(manifest).encode()
    found = {**blobs, made.digest(data): data}
    with hostile(serve(found, made.digest(data))) as server, pytest.raises(InvalidParameter, match="length mismatch"):
        store.pull(f"{server.address}/x", "1")
    assert store.images.list() == []


def test_bombs(tmp_path: Path) -> None:
    limited = Registries(retry_s=0.01, limits=Limits(layer_bytes=1 << 20, layer_files=50))
    store = Store(tmp_path, limited)
    big = tar_of([member("zeros", bytes(5 << 20))])
    many = tar_of([member(f"f{n}") for n in range(60)])
    try:
        for layer, compress, words in (
            (big, True, "larger than 1048576"),
            (big, False, "larger"),
            (many, True, "many"),
        ):
            descriptor, blobs = made.oci_blobs([layer], compress=compress)
            with (
                hostile(serve(blobs, str(descriptor["digest"]))) as server,
                pytest.raises(InvalidParameter, match=words),
            ):
                store.pull(f"{server.address}/x", "1")
        assert store.images.list() == []
        asyncio.run(store.images.collect())
        assert store.leftovers() == []
    finally:
        store.close()


# --- networks that fail ---------------------------------------------------------------------------------------


def test_busy_servers_are_asked_again(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    good = serve(blobs, digest)
    refusals = iter([status(503), status(429, Retry_After="0"), status(502), status(500)])

    def answer(request: Hostile) -> Answer:
        return good(request) if request.path == "/v2/" else next(refusals, None) or good(request)

    with hostile(answer) as server:
        assert store.pull(f"{server.address}/x", "1").id == digest


def test_a_rate_limit_that_stays(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    good = serve(blobs, digest)
    body = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}'

    def answer(request: Hostile) -> Answer:
        if "/blobs/" in request.path and request.path.endswith(made.digest(blobs[digest])) is False:
            return 429, {"Retry-After": "0"}, body, len(body)
        return good(request)

    with hostile(answer) as server, pytest.raises(Unavailable, match="toomanyrequests: slow down"):
        store.pull(f"{server.address}/x", "1")


def test_what_has_come_stays_for_the_next_try(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    good = serve(blobs, digest)
    big = next(name for name, data in blobs.items() if len(data) > 2_000_000)
    seen: list[str] = []
    broken = True

    def answer(request: Hostile) -> Answer:
        if not request.path.endswith(big):
            return good(request)
        seen.append(request.headers.get("Range", ""))
        found = whole(blobs, request)
        if not broken:
            return found
        return (*found[:3], 1_000_000) if len(seen) == 1 else (*found[:3], 0)

    with hostile(answer) as server:
        with pytest.raises(Unavailable, match="unexpected EOF"):
            store.pull(f"{server.address}/x", "1")
        assert any(text.startswith("Retrying in") for text in store.statuses())
        kept = os.path.getsize(os.path.join(store.root, "image/partial", big[7:]))
        assert kept == 1_000_000
        # A daemon that is started anew goes on there, too.
        store.close()
        store.open()
        broken = False
        seen.clear()
        assert store.pull(f"{server.address}/x", "1").id == digest
        assert seen == ["bytes=1000000-"]


@pytest.mark.parametrize("extra", [-10, 10])
def test_lengths_that_are_wrong(store: Store, image: tuple[str, dict[str, bytes]], extra: int) -> None:
    digest, blobs = image
    good = serve(blobs, digest)

    def answer(request: Hostile) -> Answer:
        code, headers, body, _sent = good(request)
        if len(body) > 2_000_000:
            body = body + bytes(extra) if extra > 0 else body[:extra]
        return code, headers, body, len(body)

    with hostile(answer) as server, pytest.raises(System, match="bytes long, its manifest says"):
        store.pull(f"{server.address}/x", "1")
    assert store.images.list() == []


def test_a_range_that_was_not_asked_for(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    good = serve(blobs, digest)
    big = next(name for name, data in blobs.items() if len(data) > 2_000_000)

    def answer(request: Hostile) -> Answer:
        code, headers, body, sent = good(request)
        if "Range" in request.headers and request.path.endswith(big):
            return 206, {"Content-Range": f"bytes 5-{len(body)}/{len(body)}"}, body[5:], len(body)
        return code, headers, body, 400_000 if request.path.endswith(big) else sent

    with hostile(answer) as server, pytest.raises(System, match="asked for bytes from 400000, got them from 5"):
        store.pull(f"{server.address}/x", "1")


def test_redirects_without_end(store: Store) -> None:
    def answer(request: Hostile) -> Answer:
        return status(200) if request.path == "/v2/" else status(307, Location=request.path + "x")

    with hostile(answer) as server, pytest.raises(System, match="too many redirects"):
        store.pull(f"{server.address}/x", "1")


@contextmanager
def dripping(first: bytes, drop: bytes) -> Iterator[str]:
    """A server that says `first` at once and then goes on a little at a time, for ever."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve_one(peer: socket.socket) -> None:
        with peer:
            try:
                peer.recv(65536)
                peer.sendall(first)
                while not ended.wait(0.02):
                    peer.sendall(drop)
            except OSError:
                return

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve_one, args=(peer,)).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nX-A: ", b"a"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    ],
)
def test_a_peer_that_is_slow_on_purpose(tmp_path: Path, first: bytes, drop: bytes) -> None:
    store = Store(tmp_path, Registries(retry_s=0.01, timeout_s=0.3, attempts=2))
    try:
        with dripping(first, drop) as address, pytest.raises(Unavailable):
            store.pull(f"{address}/x", "1")
    finally:
        store.close()


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nX-A: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_a_slow_peer_in_a_thread(first: bytes) -> None:
    """Where no signal can interrupt: a registry that caches another one asks it from its threads."""
    from corral.image.registry import Registry

    with dripping(first, b"a") as address, ThreadPoolExecutor(1) as threads:
        fields = {"host": address, "repository": "x", "shown": "x", "scheme": "http", "timeout_s": 0.3, "mirror": True}
        registry = Registry(fields)
        with pytest.raises(Unavailable, match="timeout"):
            threads.submit(registry.manifest, "1").result(60)
        registry.close()


def test_a_blob_that_drips(tmp_path: Path, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    good = serve(blobs, digest)
    store = Store(tmp_path, Registries(retry_s=0.01, timeout_s=0.3, attempts=2))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % max(map(len, blobs.values()))
    try:
        with dripping(head, b"x") as slow:

            def answer(request: Hostile) -> Answer:
                found = good(request)
                return status(307, Location=f"http://{slow}/") if len(found[2]) > 2_000_000 else found

            with hostile(answer) as server, pytest.raises(Unavailable, match="timeout"):
                store.pull(f"{server.address}/x", "1")
    finally:
        store.close()


# --- sharing and cancelling -----------------------------------------------------------------------------------


@pytest.fixture
def gate(image: tuple[str, dict[str, bytes]]) -> Iterator[Gate]:
    gate = Gate(image[1], image[0])
    yield gate
    gate.opened.set()


async def until(happened: threading.Event) -> None:
    """Wait for an event of another thread."""
    assert await asyncio.to_thread(happened.wait, 30)


def filled(path: str) -> None:
    """Wait until a file has something in it."""
    wait.until(lambda: os.path.exists(path) and os.path.getsize(path) > 0, 60)


def shared(store: Store) -> None:
    """Wait until two pulls have joined one transfer."""
    live = store.images._transfers._live
    wait.until(lambda: any(len(transfer.watchers) == 2 for transfer in list(live.values())), 60)


def test_who_leaves_does_not_stop_the_others(store: Store, image: tuple[str, dict[str, bytes]], gate: Gate) -> None:
    async def work(name: str) -> str:
        first = asyncio.create_task(store.images.pull(name, "1"))
        await until(gate.reached)
        second = asyncio.create_task(store.images.pull(name, "1"))
        await asyncio.to_thread(shared, store)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.opened.set()
        return (await second).id

    with hostile(gate) as server:
        assert asyncio.run(work(f"{server.address}/x")) == image[0]
    assert gate.asked == [""]


def test_a_cancelled_pull_stops_and_goes_on_later(
    store: Store, image: tuple[str, dict[str, bytes]], gate: Gate
) -> None:
    async def work(name: str) -> None:
        pulling = asyncio.create_task(store.images.pull(name, "1"))
        await until(gate.reached)
        path = os.path.join(store.root, "image/partial", gate.big[7:])
        await asyncio.to_thread(filled, path)
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling

    with hostile(gate) as server:
        asyncio.run(work(f"{server.address}/x"))
        assert os.listdir(os.path.join(store.root, "overlay")) == ["trash"]
        gate.opened.set()
        assert store.pull(f"{server.address}/x", "1").id == image[0]
    assert gate.asked[0] == "" and gate.asked[1].startswith("bytes=")


PULLING = """
import asyncio, sys
from corral.image.images import Images
from corral.store.db import Database

async def main(root, name):
    images = Images(Database(root + "/db"), root, lambda *_: None)
    images.recover()
    await images.pull(name, "1")

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_killed_daemon_goes_on_where_it_was(tmp_path: Path, image: tuple[str, dict[str, bytes]], gate: Gate) -> None:
    root = tmp_path / "store"
    root.mkdir()
    with hostile(gate) as server:
        name = f"{server.address}/x"
        with subprocess.Popen([sys.executable, "-c", PULLING, str(root), name]) as process:
            assert gate.reached.wait(30)
            partial = root / "image/partial" / gate.big[7:]
            filled(str(partial))
            process.kill()
        gate.opened.set()
        store = Store(root, QUICK)
        try:
            assert store.pull(name, "1").id == image[0]
        finally:
            store.close()
    # The worker may have outlived its daemon just long enough to see the end.
    assert gate.asked == [""] or gate.asked[-1].startswith("bytes=")


def test_one_layer_of_several_images_comes_once(store: Store, layers: list[bytes], gate: Gate) -> None:
    """Another image on the same layers, asked for while the first is on its way."""
    other = tar_of([member("other", b"2")])
    descriptor, blobs = made.oci_blobs([*layers, other], compress=False)
    second = serve(blobs, str(descriptor["digest"]))

    def answer(request: Hostile) -> Answer:
        name = request.path.rpartition("/")[2]
        if request.path.endswith("/y/manifests/1") or ("/y/blobs/" in request.path and name != gate.big):
            return second(request)
        return gate(request)

    async def work(address: str) -> list[str]:
        first = asyncio.create_task(store.images.pull(f"{address}/x", "1"))
        await until(gate.reached)
        other = asyncio.create_task(store.images.pull(f"{address}/y", "1"))
        await asyncio.to_thread(shared, store)
        gate.opened.set()
        return [(await first).id, (await other).id]

    with hostile(answer) as server:
        assert len(set(asyncio.run(work(server.address)))) == 2
    assert gate.asked == [""]


class Crowd:
    """Clients that pull images with layers in common, give some up midway, and remove what they got."""

    def __init__(self, store: Store, address: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.images = store.images
        self.address = address
        self.ids: list[str] = []
        self.done = 0
        base = [tar_of([member(f"b{n}", self.rng.randbytes(self.rng.randrange(1000, 800_000)))]) for n in range(3)]
        for n in range(4):
            own = tar_of([member(f"own{n}", self.rng.randbytes(200_000))])
            # The last one has the same blobs on other stacks.
            layers = [*base[: self.rng.randrange(1, 4)], own] if n < 3 else [*reversed(base), base[0], own]
            descriptor, blobs = made.oci_blobs(layers)
            registries.push_image(address, f"crowd/{n}", "1", descriptor, blobs)
            self.ids.append(str(descriptor["digest"]))

    async def client(self) -> None:
        for _ in range(6):
            await self.pull(self.rng.randrange(4))

    async def pull(self, number: int) -> None:
        name = f"{self.address}/crowd/{number}:1"
        left = self.rng.randrange(40)

        def watch(_: dict[str, Any]) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                task.cancel()

        task = asyncio.create_task(self.images.pull(name, progress=watch))
        try:
            assert (await task).id == self.ids[number]
            self.done += 1
        except asyncio.CancelledError:
            pass
        if self.rng.random() < 0.5:
            with contextlib.suppress(NotFound):
                await self.images.remove(name, force=True)

    async def work(self) -> None:
        await asyncio.gather(*(self.client() for _ in range(6)))


@pytest.mark.skipif(registries.PROGRAM is None, reason="docker-registry is not installed")
def test_a_crowd(store: Store) -> None:
    with registries.registry() as address:
        crowd = Crowd(store, address, random.SystemRandom().randrange(10**9))
        asyncio.run(crowd.work())
        assert crowd.done
        for number in range(4):
            assert store.pull(f"{address}/crowd/{number}", "1").id == crowd.ids[number]
        for image in store.images.list():
            store.remove(image.id, force=True)
        asyncio.run(store.images.collect())
    kept = {name.removesuffix(".whole") for name in os.listdir(os.path.join(store.root, "image/partial"))}
    assert {name.removesuffix(".whole") for name in store.leftovers()} <= kept
    transfers = store.images._transfers
    assert (transfers._live, transfers._busy, transfers._at_work, transfers._seats) == ({}, set(), 0, 0)


# --- mirrors, accounts, passwords -----------------------------------------------------------------------------


def test_mirrors_of_any_registry(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    big = next(name for name, data in blobs.items() if len(data) > 2_000_000)
    good = serve(blobs, digest)

    def lacking(request: Hostile) -> Answer:
        return status(404) if request.path.endswith(big) else good(request)

    with hostile(good) as origin, hostile(lacking) as near:
        down = f"http://127.0.0.1:{registries.free_port()}"
        mirrors = (down, f"http://{near.address}/cache")
        store.images.registries = Registries(entries={origin.address: Entry(mirrors)}, retry_s=0.01)
        auth = {"username": "u", "password": "p"}
        found = store.pull(f"{origin.address}/team/x", "1", auth=auth)
        assert found.id == digest and found.repo_tags == (f"{origin.address}/team/x:1",)
        paths = [path for path, _ in near.requests]
        assert "/v2/cache/team/x/manifests/1" in paths and f"/v2/cache/team/x/blobs/{big}" in paths
        assert [path for path, _ in origin.requests if "/v2/team" in path] == [f"/v2/team/x/blobs/{big}"]
        assert all("Authorization" not in headers for _, headers in near.requests)


def test_the_origin_says_what_went_wrong(store: Store) -> None:
    nothing: Respond = lambda request: status(200 if request.path == "/v2/" else 404)  # noqa: E731
    with hostile(nothing) as origin, hostile(nothing) as near:
        store.images.registries = Registries(entries={origin.address: Entry((f"http://{near.address}",))})
        with pytest.raises(NotFound, match=f"manifest for {origin.address}/x:1 not found"):
            store.pull(f"{origin.address}/x", "1")


def test_hub_mirrors(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    with hostile(serve(blobs, digest)) as near:
        store.images.registries = Registries(mirrors=(f"http://{near.address}",))
        assert store.pull("busybox", "1").repo_tags == ("busybox:1",)
        assert "/v2/library/busybox/manifests/1" in [path for path, _ in near.requests]


def test_several_accounts_on_one_registry(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    good = serve(blobs, digest)
    users: dict[str, str] = {}

    def answer(request: Hostile) -> Answer:
        if request.path == "/v2/":
            return status(200)
        given = request.headers.get("Authorization", "")
        if not given:
            return status(401, WWW_Authenticate='Basic realm="x"')
        users[request.path.split("/")[2]] = base64.b64decode(given[6:]).decode()
        return good(request)

    with hostile(answer) as server:
        entries = {
            server.address: Entry(account={"username": "all", "password": "1"}),
            f"{server.address}/b": Entry(account={"username": "b", "password": "2"}),
        }
        store.images.registries = Registries(entries=entries)
        for path in ("a/x", "b/x"):
            store.pull(f"{server.address}/{path}", "1")
        assert users == {"a": "all:1", "b": "b:2"}
        mine = {"username": "me", "password": "3"}
        for path in ("c/x", "b/y"):
            store.pull(f"{server.address}/{path}", "1", auth=mine)
        assert users == {"a": "all:1", "b": "b:2", "c": "me:3"}


class TokenServer:
    """A registry that wants bearer tokens, and the server that gives them for a password or an identity token."""

    def __init__(self, good: Respond) -> None:
        self._good = good
        self.asked: list[str] = []

    def __call__(self, request: Hostile) -> Answer:
        if request.path.startswith("/token"):
            return self._token(request)
        if request.headers.get("Authorization") != "Bearer good":
            realm = f"http://{request.headers['Host']}/token"
            return status(401, WWW_Authenticate=f'Bearer realm="{realm}",service="s"')
        return self._good(request)

    def _token(self, request: Hostile) -> Answer:
        form = request.body.decode()
        self.asked.append(f"{request.command} {request.path} {form}".strip())
        by_password = request.headers.get("Authorization") == "Basic dTpw"
        by_identity = "grant_type=refresh_token" in form and "refresh_token=identity" in form
        if not by_password and not by_identity:
            body = b'{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}'
            return 401, {}, body, len(body)
        fields = {"access_token": "good", "expires_in": 300}
        if "offline_token=true" in request.path:
            fields["refresh_token"] = "identity"
        return document(json.dumps(fields).encode(), "application/json")


def test_identity_tokens(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    tokens = TokenServer(serve(blobs, digest))
    with hostile(tokens) as server:
        given = asyncio.run(store.images.login(server.address, {"username": "u", "password": "p"}))
        assert given == "identity"
        assert store.pull(f"{server.address}/x", "1", auth={"identitytoken": given}).id == digest
        assert "scope=repository%3Ax%3Apull" in tokens.asked[-1]
        with pytest.raises(Unauthorized, match="incorrect username or password"):
            asyncio.run(store.images.login(server.address, {"username": "u", "password": "wrong"}))
        store.remove(f"{server.address}/x:1")
        before = len(tokens.asked)
        assert store.pull(f"{server.address}/x", "1", auth={"registrytoken": "good"}).id == digest
        assert len(tokens.asked) == before


def test_login_with_a_password(store: Store) -> None:
    def answer(request: Hostile) -> Answer:
        good = request.headers.get("Authorization") == "Basic dTpw"
        return status(200) if good else status(401, WWW_Authenticate='Basic realm="x"')

    with hostile(answer) as server:
        assert asyncio.run(store.images.login(server.address, {"username": "u", "password": "p"})) == ""
        with pytest.raises(Unauthorized, match="failed with status: 401 Unauthorized"):
            asyncio.run(store.images.login(server.address, {"username": "u", "password": "x"}))
    with hostile(lambda _: status(200)) as server:
        assert asyncio.run(store.images.login(f"http://{server.address}/v1/", {"username": "u"})) == ""


def test_credentials_are_not_sent_in_plain_text(store: Store) -> None:
    """A token server without TLS, named by a registry that is not insecure."""

    def answer(request: Hostile) -> Answer:
        return status(401, WWW_Authenticate='Bearer realm="http://198.51.100.1/token"')

    from corral.image.registry import Registry

    with hostile(answer) as server:
        fields = store.images.registries.fields(store.images.registries.host(server.address, {"username": "u"}))
        registry = Registry(fields)
        registry.authorizer._insecure = False
        with pytest.raises(Unauthorized, match="refused to send credentials"):
            registry.manifest("1")
        registry.close()


def test_a_proxy_with_a_password(store: Store, image: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    """HTTPS through CONNECT, and the daemon's own settings before the environment's."""
    asked: list[str] = []

    def answer(request: Hostile) -> Answer:
        asked.append(f"{request.command} {request.path} {request.headers.get('Proxy-Authorization')}")
        return status(403)

    with hostile(answer) as server:
        Hostile.do_CONNECT = Hostile.do_GET  # type: ignore[attr-defined]
        proxies = {"https_proxy": f"http://u:p@{server.address}", "no_proxy": "10.0.0.0/8"}
        store.images.registries = Registries(proxies=proxies, retry_s=0.01)
        with pytest.raises(Unavailable):
            store.pull("registry.invalid/x", "1")
        assert asked[0] == "CONNECT registry.invalid:443 Basic dTpw"
        store.images.registries = Registries(proxies={"https_proxy": "socks5://127.0.0.1:1"})
        with pytest.raises(InvalidParameter, match=r"cannot use the proxy socks5://127\.0\.0\.1:1"):
            store.pull("registry.invalid/x", "1")


def test_a_client_certificate_without_its_key(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "certs" / "127.0.0.1:1"
    folder.mkdir(parents=True)
    (folder / "client.cert").write_text("")
    store.images.registries = Registries(certs=(str(tmp_path / "certs"),))
    with pytest.raises(InvalidParameter, match=r"missing key client.key for client certificate client.cert"):
        store.pull("127.0.0.1:1/x", "1")


# --- all tags, searching, looking -----------------------------------------------------------------------------


def test_all_tags(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    good = serve(blobs, digest)

    def answer(request: Hostile) -> Answer:
        if not request.path.startswith("/v2/x/tags/list"):
            return good(request)
        if "last=" in request.path:
            return document(b'{"name":"x","tags":["3"]}')
        code, headers, body, sent = document(b'{"name":"x","tags":["1","2"]}')
        return code, {**headers, "Link": '</v2/x/tags/list?n=1000&last=2>; rel="next"'}, body, sent

    with hostile(answer) as server:
        name = f"{server.address}/x"
        found = asyncio.run(store.images.pull_all(name, progress=store.records.append))
        assert [image.id for image in found] == [digest] * 3
        assert sorted(store.images.get(f"{name}:3").repo_tags) == [f"{name}:1", f"{name}:2", f"{name}:3"]
        assert store.statuses()[-1] == f"Status: Downloaded newer image for {name}"
        store.records.clear()
        asyncio.run(store.images.pull_all(name, progress=store.records.append))
        assert store.statuses()[-1] == f"Status: Image is up to date for {name}"


def test_search(store: Store) -> None:
    results = [{"name": "a/b", "description": None, "star_count": 3, "is_official": False}, {"name": "c"}]

    def answer(request: Hostile) -> Answer:
        if request.path.startswith("/v1/search"):
            return document(json.dumps({"num_results": 2, "results": results}).encode(), "application/json")
        return status(200)

    with hostile(answer) as server:
        found = asyncio.run(store.images.search(f"{server.address}/term", 1, None))
        assert found == [{"name": "a/b", "description": "", "star_count": 3, "is_official": False}]
        assert server.requests[-1][0] == "/v1/search?q=term&n=1"
    nothing: Respond = lambda request: status(200 if request.path == "/v2/" else 404)  # noqa: E731
    with hostile(nothing) as server, pytest.raises(CorralError, match="does not offer a search"):
        asyncio.run(store.images.search(f"{server.address}/term", 25, None))


def test_look(store: Store, image: tuple[str, dict[str, bytes]]) -> None:
    digest, blobs = image
    with hostile(serve(blobs, digest)) as server:
        descriptor, platforms = asyncio.run(store.images.look(f"{server.address}/x:1", None))
    assert descriptor.digest == digest and descriptor.size == len(blobs[digest])
    assert [str(platform) for platform in platforms] == [f"linux/{store.images.platform.architecture}"]
    assert store.images.list() == [] and store.leftovers() == []


# --- push -----------------------------------------------------------------------------------------------------


class Sink:
    """A registry that takes pushes: `refuse(request)` may answer first."""

    def __init__(self, refuse: Callable[[Hostile], Answer | None]) -> None:
        self._refuse = refuse
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.uploads: dict[str, bytearray] = {}

    def __call__(self, request: Hostile) -> Answer:
        refused = self._refuse(request)
        if refused is not None:
            return refused
        path, _, query = request.path.partition("?")
        name = path.rpartition("/")[2]
        if "/manifests/" in path:
            self.manifests[name] = request.body
            return status(201)
        if request.command == "HEAD":
            return status(200 if name in self.blobs else 404)
        if request.command == "POST":
            self.uploads[str(len(self.uploads))] = bytearray()
            return status(202, Location=f"/v2/x/blobs/uploads/{len(self.uploads) - 1}?state=a")
        if request.command in ("PATCH", "PUT"):
            self.uploads[name] += request.body
            if request.command == "PATCH":
                return status(202, Location=path)
            digest = query.rpartition("digest=")[2].replace("%3A", ":")
            self.blobs[digest] = bytes(self.uploads[name])
            return status(201)
        return status(200)


def loaded(store: Store, name: str, layers: list[bytes]) -> None:
    store.load(made.docker_archive(layers, [name]))
    store.records.clear()


def test_a_registry_that_wants_chunks(store: Store, layers: list[bytes]) -> None:
    def refuse(request: Hostile) -> Answer | None:
        return (
            status(413)
            if request.command == "PUT" and len(request.body) > 1_000_000 and "/blobs/" in request.path
            else None
        )

    sink = Sink(refuse)
    with hostile(sink) as server:
        loaded(store, f"{server.address}/x:1", layers)
        store.push(f"{server.address}/x:1")
    assert all(made.digest(data) == digest for digest, data in sink.blobs.items()) and len(sink.blobs) == 3
    assert made.digest(sink.manifests["1"]) == store.images.get(f"{server.address}/x:1").id


def test_an_upload_that_breaks_is_made_again(store: Store, layers: list[bytes]) -> None:
    refusals = iter([status(503), status(500)])
    sink = Sink(
        lambda request: next(refusals, None) if request.command == "PUT" and "/blobs/" in request.path else None
    )
    with hostile(sink) as server:
        loaded(store, f"{server.address}/x:1", layers)
        store.push(f"{server.address}/x:1")
    assert len(sink.blobs) == 3 and "Retrying in 1 second" in store.statuses()


def test_a_server_that_hangs_up_on_long_requests(store: Store, layers: list[bytes]) -> None:
    """As some proxies do: no answer, the connection is gone."""

    def refuse(request: Hostile) -> Answer | None:
        if request.command == "PUT" and len(request.body) > 1_000_000 and "/blobs/" in request.path:
            raise ConnectionAbortedError
        return None

    sink = Sink(refuse)
    with hostile(sink) as server:
        loaded(store, f"{server.address}/x:1", layers)
        store.push(f"{server.address}/x:1")
    assert len(sink.blobs) == 3 and "1" in sink.manifests


def test_a_push_that_is_denied(store: Store, layers: list[bytes]) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
    sink = Sink(lambda request: (403, {}, body, len(body)) if request.command == "POST" else None)
    with hostile(sink) as server:
        loaded(store, f"{server.address}/x:1", layers)
        with pytest.raises(Forbidden, match=r"^denied: requested access to the resource is denied$"):
            store.push(f"{server.address}/x:1")
    assert sink.manifests == {}


def test_one_platform_of_an_index(store: Store, layers: list[bytes]) -> None:
    descriptor, blobs = made.oci_blobs(layers)
    mine = {**descriptor, "platform": {"os": "linux", "architecture": store.images.platform.architecture}}
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [mine]}).encode()
    sink = Sink(lambda _: None)
    with hostile(serve({**blobs, made.digest(index): index}, made.digest(index))) as server:
        store.pull(f"{server.address}/y", "1")
    with hostile(sink) as server:
        asyncio.run(store.images.tag(store.images.list()[0].id, f"{server.address}/x", "1"))
        store.push(f"{server.address}/x", "1")
        assert sink.manifests["1"] == index
        store.push(f"{server.address}/x", "1", platform="linux")
        assert sink.manifests["1"] == blobs[str(descriptor["digest"])]
        assert "Layer already exists" in store.statuses()


def test_foreign_layers_stay_where_they_are(store: Store, layers: list[bytes]) -> None:
    descriptor, blobs = made.oci_blobs(layers, compress=False)
    manifest = json.loads(blobs[str(descriptor["digest"])])
    manifest["layers"][1]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar"
    manifest["layers"][1]["urls"] = ["https://elsewhere.invalid/layer"]
    data = json.dumps(manifest).encode()
    with hostile(serve({**blobs, made.digest(data): data}, made.digest(data))) as server:
        store.pull(f"{server.address}/y", "1")
    sink = Sink(lambda _: None)
    with hostile(sink) as server:
        asyncio.run(store.images.tag(store.images.list()[0].id, f"{server.address}/x", "1"))
        store.push(f"{server.address}/x", "1")
        assert "Skipped foreign layer" in store.statuses()
        assert made.digest(layers[1]) not in sink.blobs and sink.manifests["1"] == data
        store.images.registries = Registries(foreign=frozenset((server.address,)))
        store.push(f"{server.address}/x", "1")
        assert made.digest(layers[1]) in sink.blobs


def test_zstd_and_gzip_and_plain(store: Store, layers: list[bytes]) -> None:
    import zstandard

    packed = [gzip.compress(layers[0], 1, mtime=0), zstandard.ZstdCompressor().compress(layers[1]), layers[1]]
    config = made.config_of([layers[0], layers[1], layers[1]])
    kinds = ["gzip", "tar.zstd", "tar"]
    described = [
        {"mediaType": f"application/vnd.oci.image.layer.v1.{kind}", "digest": made.digest(data), "size": len(data)}
        for kind, data in zip(kinds, packed, strict=True)
    ]
    kind = "application/vnd.oci.image.config.v1+json"
    mine = {"mediaType": kind, "digest": made.digest(config), "size": len(config)}
    kind = "application/vnd.oci.image.manifest.v1+json"
    data = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": mine, "layers": described}).encode()
    blobs = {made.digest(item): item for item in [*packed, config, data]}
    with hostile(serve(blobs, made.digest(data))) as server:
        assert len(store.pull(f"{server.address}/x", "1").diff_ids) == 3
