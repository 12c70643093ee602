"""The image store end to end: load, pull, import, commit, save, remove, crash; with real registries and readers."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.errors import CorralError, DataLoss, InvalidParameter, NotFound, Unavailable
from corral.image import make
from corral.image.model import NoSuchImage, NoSuchPlatform, RemoveConflict, User
from corral.image.registries import Registries
from corral.image.transport import proxy_for
from corral.oci.image import RunConfig
from tests.support import images as made
from tests.support import registry as registries
from tests.support.hostile import Answer, Hostile, hostile, serve
from tests.support.images import directory, member, tar_of
from tests.support.stores import Store, stream

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers need root")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


@pytest.fixture(scope="module")
def small() -> list[bytes]:
    """Two small layers."""
    low = tar_of([directory("etc"), member("etc/a", b"1" * 4000), member("etc/b", b"2")])
    return [low, tar_of([directory("etc"), member("etc/.wh.b"), member("etc/c", b"3")])]


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with registries.registry() as address:
        yield address


def test_a_docker_archive(store: Store, small: list[bytes]) -> None:
    assert store.load(made.docker_archive(small, ["a:1", "b/c:2"])) == ["a:1", "b/c:2"]
    image = store.images.get("a:1")
    assert image.repo_tags == ("b/c:2", "a:1") and store.images.list() == [image]
    assert image.config.run.cmd == ["sh"] and list(image.diff_ids) == [made.digest(layer) for layer in small]
    assert [record["stream"] for record in store.records if "stream" in record] == [
        "Loaded image: a:1\n",
        "Loaded image: b/c:2\n",
    ]
    assert store.events == [("load", image.id)]
    lower = store.images.snapshots.prepare("c", image.chain_id).lower
    assert sorted(os.listdir(f"{lower[0]}/etc")) == ["b", "c"] and os.listdir(f"{lower[1]}/etc") != []


def test_an_id_is_stable_and_an_image_survives_opening_again(store: Store, small: list[bytes]) -> None:
    store.load(made.docker_archive(small, ["a:1"]))
    image = store.images.get("a:1")
    store.close()
    store.open()
    assert store.images.get("a:1") == image
    store.remove("a:1")
    store.load(gzip.compress(made.docker_archive(small, ["z:1"])))
    assert store.images.get("z:1").id == image.id


def test_an_oci_layout_keeps_its_digest(store: Store, small: list[bytes]) -> None:
    descriptor, blobs = made.oci_blobs(small)
    assert store.load(made.oci_archive(small, "oci:1")) == ["oci:1"]
    image = store.images.get("oci:1")
    assert image.id == descriptor["digest"]
    assert {store.images.content.read(name) == data for name, data in blobs.items()} == {True}
    assert store.load(made.oci_archive(small, "other:1")) == ["other:1"]


def test_a_nameless_image_dangles(store: Store, small: list[bytes]) -> None:
    (shown,) = store.load(made.docker_archive(small, []))
    image = store.images.get(shown)
    assert image.dangling and store.records[-1]["stream"] == f"Loaded image ID: {image.id}\n"
    assert store.images.get(image.id[7:19]) == image
    store.remove(image.id)
    assert store.leftovers() == []


def test_skopeo_and_umoci_read_the_store_in_place(store: Store, small: list[bytes], tmp_path: Path) -> None:
    store.load(made.docker_archive(small, ["a:1"]))
    layout = f"{store.root}/image:a:1"
    found = json.loads(subprocess.run(["skopeo", "inspect", f"oci:{layout}"], capture_output=True, check=True).stdout)
    assert found["Digest"] == store.images.get("a:1").id
    subprocess.run(["umoci", "unpack", "--image", layout, str(tmp_path / "b")], capture_output=True, check=True)
    assert sorted(os.listdir(tmp_path / "b" / "rootfs" / "etc")) == ["a", "c"]


def test_skopeo_archives_load(store: Store, small: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(made.docker_archive(small, ["a:1"]))
    for kind, name in (("docker-archive", "k:1"), ("oci-archive", "k:2")):
        target = f"{kind}:{tmp_path}/{kind}.tar:{name}"
        copy = ["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{tmp_path}/in.tar", target]
        subprocess.run(copy, check=True, capture_output=True)
        assert store.load((tmp_path / f"{kind}.tar").read_bytes()) == [name]
    assert store.images.get("k:1").diff_ids == store.images.get("k:2").diff_ids


def test_tags_move_and_images_dangle(store: Store, small: list[bytes]) -> None:
    store.load(made.docker_archive(small[:1], ["a:1"]))
    old = store.images.get("a:1")
    store.load(made.docker_archive(small, ["a:1"]))
    new = store.images.get("a:1")
    assert old.id != new.id and store.images.get(old.id).dangling
    asyncio.run(store.images.tag("a:1", "b", "2"))
    assert store.images.get("b:2").id == new.id
    assert ("tag", new.id) in store.events
    assert [str(gone) for gone in store.remove("b:2")] == ["Untagged(name='b:2')"]


def test_removing_frees_everything_that_is_not_shared(store: Store, small: list[bytes]) -> None:
    store.load(made.docker_archive(small, ["two:1"]))
    store.load(made.docker_archive(small[:1], ["one:1"]))
    two = store.images.get("two:1")
    store.remove("two:1")
    assert ("delete", two.id) in store.events
    one = store.images.get("one:1")
    assert store.images.snapshots.prepare("c", one.chain_id).lower
    store.images.snapshots.remove("c")
    store.remove("one:1")
    assert store.leftovers() == []


def test_a_container_keeps_the_layers_of_a_removed_image(store: Store, small: list[bytes]) -> None:
    store.load(made.docker_archive(small, ["a:1"]))
    image = store.images.get("a:1")
    mount = store.images.snapshots.prepare("c", image.chain_id)
    user = User("f" * 64, False)
    with pytest.raises(RemoveConflict):
        store.remove("a:1", in_use=lambda _: [user])
    store.remove("a:1", force=True, in_use=lambda _: [user])
    with pytest.raises(NoSuchImage, match="No such image: a:1"):
        store.images.get("a:1")
    assert store.images.snapshots.mounts("c") == mount
    store.images.snapshots.remove("c")
    asyncio.run(store.images.collect())
    assert store.leftovers() == []


def test_commit_save_and_load_again(store: Store, small: list[bytes], tmp_path: Path) -> None:
    store.load(made.docker_archive(small, ["a:1"]))
    base = store.images.get("a:1")
    mount = store.images.snapshots.prepare("c", base.chain_id)
    Path(mount.upper, "made").write_text("here")
    request = make.CommitRequest(run=RunConfig(cmd=["x"]), parent=base, author="me", comment="why", created_by="sh")
    image = asyncio.run(store.images.commit("c", request, "b", "1"))
    assert image.diff_ids[:2] == base.diff_ids and image.config.author == "me"
    steps = store.images.history("b:1")
    assert [step.created_by for step in steps] == ["sh", "layer 1", "layer 0"] and steps[0].size == 4
    data = store.save("a:1", "b:1")
    store.images.snapshots.remove("c")
    store.remove("a:1")
    store.remove("b:1")
    assert store.leftovers() == []
    assert sorted(store.load(data)) == ["a:1", "b:1"]
    assert (store.images.get("a:1").id, store.images.get("b:1").id) == (base.id, image.id)
    (tmp_path / "s.tar").write_bytes(data)
    inspect = ["skopeo", "inspect", f"docker-archive:{tmp_path}/s.tar:b:1"]
    assert len(json.loads(subprocess.run(inspect, capture_output=True, check=True).stdout)["Layers"]) == 3


def test_import(store: Store) -> None:
    async def work() -> Any:
        changes = ["CMD x", "ENV A=1"]
        return await store.images.import_(
            stream(gzip.compress(made.busybox_layer())), "i", "1", message="m", changes=changes
        )

    image = asyncio.run(work())
    assert image.repo_tags == ("i:1",) and image.config.run.env == ["A=1"]
    assert image.config.comment == "m" and len(image.diff_ids) == 1


def test_prune(store: Store, small: list[bytes]) -> None:
    store.load(made.docker_archive(small, []))
    store.load(made.docker_archive(small[:1], ["a:1"]))
    done, freed = asyncio.run(store.images.prune(lambda image: image.dangling, lambda _: ()))
    assert len(done) == 1 and freed > 0 and len(store.images.list()) == 1


# --- bad archives ---------------------------------------------------------------------------------------------


def rebuilt(data: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """An archive with members changed or left out."""
    members = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            held = archive.extractfile(info)
            found = change(info.name, held.read() if held else b"")
            if found is not None:
                members.append((info, found))
    return tar_of(members)


def test_bad_archives_change_nothing(store: Store, small: list[bytes]) -> None:
    docker, oci = made.docker_archive(small, ["a:1"]), made.oci_archive(small, "a:1", compress=False)
    evil = tar_of([member("../x", b"1")])
    other = tar_of([member("other", b"1")])
    bad = {
        "empty": b"",
        "text": b"hello" * 1000,
        "truncated": docker[: len(docker) // 2],
        "truncated gzip": gzip.compress(docker)[:-500],
        "no manifest": rebuilt(docker, lambda name, data: None if name == "manifest.json" else data),
        "no layer": rebuilt(docker, lambda name, data: None if name.endswith("1/layer.tar") else data),
        "other layer": rebuilt(docker, lambda name, data: other if name.endswith("1/layer.tar") else data),
        "evil layer": made.docker_archive([evil], ["a:1"]),
        "manifest": rebuilt(docker, lambda name, data: b"[1]" if name == "manifest.json" else data),
        "config": rebuilt(docker, lambda name, data: b"{}" if len(name) == 69 else data),
        "blob": rebuilt(oci, lambda name, data: data[:-1] + b"!" if data == small[0] else data),
        "name": made.docker_archive(small, ["UPPER:1"]),
    }
    for what, data in bad.items():
        with pytest.raises((InvalidParameter, DataLoss)):
            store.load(data)
            pytest.fail(f"{what} was accepted")
        assert store.images.list() == [], what
    asyncio.run(store.images.collect())
    assert store.leftovers() == []
    assert store.load(docker) == ["a:1"]


def test_the_words_of_a_wrong_diff_id(store: Store, small: list[bytes]) -> None:
    other = tar_of([member("other", b"1")])
    archive = rebuilt(
        made.docker_archive(small, ["a:1"]), lambda name, data: other if name.endswith("1/layer.tar") else data
    )
    with pytest.raises(InvalidParameter) as caught:
        store.load(archive)
    assert str(caught.value) == (
        f'invalid diffID for layer 1: expected "{made.digest(small[1])}", got "{made.digest(other)}"'
    )


def test_a_client_that_hangs_up_leaves_nothing(store: Store) -> None:
    data = made.docker_archive([made.busybox_layer()], ["a:1"])

    async def broken() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        raise ConnectionResetError("gone")

    async def work() -> None:
        await store.images.load(broken(), store.records.append)

    with pytest.raises(ConnectionResetError):
        asyncio.run(work())
    assert store.images.list() == [] and store.leftovers() == []


def test_torn_layers_are_unpacked_again(store: Store, small: list[bytes]) -> None:
    store.load(made.docker_archive(small, ["a:1"]))
    image = store.images.get("a:1")
    mount = store.images.snapshots.prepare("c", image.chain_id)
    for path in mount.lower:
        shutil.rmtree(path)
    store.close()
    store.open()
    again = store.images.snapshots.mounts("c")
    assert sorted(os.listdir(f"{again.lower[1]}/etc")) == ["a", "b"] and again.upper == mount.upper


# --- registries -----------------------------------------------------------------------------------------------


def test_pull(store: Store, small: list[bytes], registry: str) -> None:
    descriptor, blobs = made.oci_blobs(small)
    registries.push_image(registry, "test/a", "1", descriptor, blobs)
    image = store.pull(f"{registry}/test/a", "1")
    assert image.id == descriptor["digest"] and image.repo_tags == (f"{registry}/test/a:1",)
    statuses = [record["status"] for record in store.records]
    assert statuses[0] == "Pulling from test/a" and store.records[0]["id"] == "1"
    assert statuses.count("Pulling fs layer") == statuses.count("Pull complete") == 2
    assert statuses[-2:] == [f"Digest: {image.id}", f"Status: Downloaded newer image for {registry}/test/a:1"]
    store.records.clear()
    by_digest = store.pull(f"{registry}/test/a", image.id)
    assert by_digest.id == image.id
    assert "Already exists" in [record["status"] for record in store.records]
    assert store.events[-1][0] == "pull"
    store.remove(image.id, force=True)
    assert store.leftovers() == []


def test_pull_from_an_index_takes_this_platform(store: Store, small: list[bytes], registry: str) -> None:
    descriptor, blobs = made.oci_blobs(small)
    registries.push_image(registry, "test/index", "one", descriptor, blobs)
    mine = {**descriptor, "platform": {"os": "linux", "architecture": store.images.platform.architecture}}
    kind = "application/vnd.oci.image.index.v1+json"
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [mine]}).encode()
    digest = registries.push(registry, "test/index", "1", kind, index)
    image = store.pull(f"{registry}/test/index", "1")
    assert (image.id, image.manifest_digest) == (digest, descriptor["digest"])
    with pytest.raises(NoSuchPlatform):
        store.pull(f"{registry}/test/index", "1", platform="linux/s390x")


def test_what_a_registry_lacks(store: Store, registry: str) -> None:
    with pytest.raises(NotFound) as caught:
        store.pull(f"{registry}/nothing/here", "1")
    assert str(caught.value) == f"manifest for {registry}/nothing/here:1 not found: manifest unknown: manifest unknown"
    with pytest.raises(Unavailable):
        store.pull(f"127.0.0.1:{registries.free_port()}/x")
    assert store.images.list() == [] and store.leftovers() == []


def test_two_pulls_at_once_share_the_work(store: Store, small: list[bytes], registry: str) -> None:
    descriptor, blobs = made.oci_blobs([made.busybox_layer(), *small])
    registries.push_image(registry, "test/twice", "1", descriptor, blobs)

    async def work() -> list[Any]:
        return await asyncio.gather(*(store.images.pull(f"{registry}/test/twice", "1") for _ in range(3)))

    assert {image.id for image in asyncio.run(work())} == {descriptor["digest"]}
    store.remove(f"{registry}/test/twice:1")
    assert store.leftovers() == []


def test_a_transfer_that_breaks_goes_on_where_it_was(store: Store) -> None:
    layer = tar_of([member("big", os.urandom(3_000_000))])
    descriptor, blobs = made.oci_blobs([layer], compress=False)
    good = serve(blobs, str(descriptor["digest"]))
    ranges: list[str] = []

    def answer(request: Hostile) -> Answer:
        status, headers, body, sent = good(request)
        if request.path.endswith(made.digest(layer)):
            offset = request.headers.get("Range", "bytes=0-")
            ranges.append(offset)
            start = int(offset[6:-1])
            if len(ranges) == 1:
                return status, headers, body, 1_000_000
            return 206, {**headers, "Content-Range": f"bytes {start}-"}, body[start:], len(body)
        return status, headers, body, sent

    with hostile(answer) as server:
        image = store.pull(f"{server.address}/x", "1")
    assert image.diff_ids == (made.digest(layer),)
    assert len(ranges) == 2 and ranges[1] != "bytes=0-"


def test_a_torn_partial_blob_is_fetched_anew(store: Store, small: list[bytes]) -> None:
    descriptor, blobs = made.oci_blobs(small, compress=False)
    Path(store.root, "image", "partial", made.digest(small[0])[7:]).write_bytes(bytes(2000))
    with hostile(serve(blobs, str(descriptor["digest"]))) as server:
        assert store.pull(f"{server.address}/x", "1").id == descriptor["digest"]


def test_wrong_bytes_are_never_visible(store: Store, small: list[bytes]) -> None:
    descriptor, blobs = made.oci_blobs(small, compress=False)
    good = serve(blobs, str(descriptor["digest"]))
    size = len(small[0])
    other = tar_of([member("evil", b"x" * 100)]).ljust(size, b"\0")[:size]

    def swapped(request: Hostile) -> Answer:
        status, headers, body, sent = good(request)
        return (status, headers, other, sent) if body == small[0] else (status, headers, body, sent)

    with hostile(swapped) as server:
        with pytest.raises(DataLoss, match="digest mismatch"):
            store.pull(f"{server.address}/x", "1")
        with pytest.raises(DataLoss, match="digest mismatch"):
            store.pull(f"{server.address}/x", "sha256:" + "a" * 64)
    assert store.images.list() == []
    asyncio.run(store.images.collect())
    # The layer that came, whole or in part, waits for another try; nothing else is left.
    assert {name.removesuffix(".whole") for name in store.leftovers()} <= {made.digest(small[1])[7:]}


def test_garbage_from_a_registry(store: Store) -> None:
    bodies = [b"", b"<html>", b"{}", b"[" * 10_000, b'{"schemaVersion":1}', b" " * (5 << 20)]
    for body in bodies:
        answer: Answer = (200, {}, body, len(body))
        with hostile(lambda _, answer=answer: answer) as server, pytest.raises(CorralError):  # type: ignore[misc]
            store.pull(f"{server.address}/x", "1")
    assert store.images.list() == []


def test_credentials_do_not_follow_a_redirect_to_another_host(store: Store, small: list[bytes]) -> None:
    descriptor, blobs = made.oci_blobs(small)
    good = serve(blobs, str(descriptor["digest"]))

    with hostile(good) as elsewhere:

        def answer(request: Hostile) -> Answer:
            if request.path == "/v2/":
                return 200, {}, b"{}", 2
            if "Authorization" not in request.headers:
                return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b"{}", 2
            if "/blobs/" in request.path:
                return 307, {"Location": f"http://localhost:{elsewhere.server_port}{request.path}"}, b"", 0
            return good(request)

        with hostile(answer) as server:
            store.pull(f"{server.address}/x", "1", auth={"username": "u", "password": "p"})
        assert elsewhere.requests
        assert all("Authorization" not in headers for _, headers in elsewhere.requests)


def test_a_token_server(store: Store, small: list[bytes]) -> None:
    descriptor, blobs = made.oci_blobs(small)
    good = serve(blobs, str(descriptor["digest"]))

    def answer(request: Hostile) -> Answer:
        if request.path == "/v2/":
            return 200, {}, b"{}", 2
        if request.path.startswith("/token"):
            assert request.headers["Authorization"] == "Basic dTpw"
            return 200, {}, b'{"token": "secret"}', 19
        if request.headers.get("Authorization") != "Bearer secret":
            realm = f"http://{request.headers['Host']}/token"
            return 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'}, b"{}", 2
        return good(request)

    with hostile(answer) as server:
        store.pull(f"{server.address}/x", "1", auth={"username": "u", "password": "p"})
        assert any("scope=repository%3Ax%3Apull" in path for path, _ in server.requests)


def test_denied_without_credentials(store: Store) -> None:
    words = "pull access denied for .*, repository does not exist or may require 'docker login'"
    refuse: Callable[[Hostile], Answer] = lambda r: (200 if r.path == "/v2/" else 401, {}, b"{}", 2)  # noqa: E731
    with hostile(refuse) as server, pytest.raises(NotFound, match=words):
        store.pull(f"{server.address}/x", "1")


def test_push_and_pull_back(store: Store, small: list[bytes], registry: str) -> None:
    store.load(made.docker_archive([made.busybox_layer(), *small], [f"{registry}/up/a:1", f"{registry}/up/b:1"]))
    image = store.images.get(f"{registry}/up/a:1")

    async def push(name: str) -> None:
        await store.images.push(name, progress=store.records.append)

    store.records.clear()
    asyncio.run(push(f"{registry}/up/a:1"))
    statuses = [record.get("status") for record in store.records]
    assert statuses[0] == f"The push refers to repository [{registry}/up/a]"
    assert statuses.count("Pushed") == 3 and "Pushing" in statuses
    assert store.records[-1]["aux"]["Digest"] == image.id
    store.records.clear()
    asyncio.run(push(f"{registry}/up/b"))
    assert [record.get("status") for record in store.records].count("Mounted from up/a") == 3
    inspect = ["skopeo", "inspect", "--tls-verify=false", f"docker://{registry}/up/b:1"]
    found = json.loads(subprocess.run(inspect, capture_output=True, check=True).stdout)
    assert found["Digest"] == image.id
    store.remove(image.id, force=True)
    assert store.pull(f"{registry}/up/a", "1").id == image.id
    with pytest.raises(NotFound, match="An image does not exist locally with the tag: nope:latest"):
        asyncio.run(push("nope:latest"))


def make_certificate(folder: Path) -> tuple[str, str]:
    """A self-signed certificate for 127.0.0.1."""
    certificate, key = str(folder / "c.pem"), str(folder / "k.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=registry"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def test_pull_over_tls(store: Store, small: list[bytes], tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    certs = tmp_path / "certs.d"
    store.images.registries = Registries(certs=(str(certs),))
    with registries.registry(tls=(certificate, key)) as address:
        (tmp_path / "in.tar").write_bytes(made.docker_archive(small, ["a:1"]))
        copy = ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false"]
        copy += [f"docker-archive:{tmp_path}/in.tar", f"docker://{address}/t/a:1"]
        subprocess.run(copy, check=True, capture_output=True)
        assert store.pull(f"{address}/t/a", "1").diff_ids == tuple(made.digest(layer) for layer in small)
        (certs / address).mkdir(parents=True)
        shutil.copy(certificate, certs / address / "ca.crt")
        store.remove(f"{address}/t/a:1")
        assert store.pull(f"{address}/t/a", "1").repo_tags == (f"{address}/t/a:1",)
        other = tmp_path / "other"
        other.mkdir()
        shutil.copy(make_certificate(other)[0], certs / address / "ca.crt")
        store.remove(f"{address}/t/a:1")
        with pytest.raises(Unavailable, match="certificate verify failed"):
            store.pull(f"{address}/t/a", "1")


def test_a_client_certificate(store: Store, small: list[bytes], tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    certs = tmp_path / "certs.d"
    store.images.registries = Registries(certs=(str(tmp_path / "none"), str(certs)), retry_s=0.01)
    with registries.registry(tls=(certificate, key), clients=certificate) as address:
        with pytest.raises(Unavailable):
            store.pull(f"{address}/t/a", "1")
        folder = certs / address
        folder.mkdir(parents=True)
        for source, name in ((certificate, "ca.crt"), (certificate, "client.cert"), (key, "client.key")):
            shutil.copy(source, folder / name)
        store.load(made.docker_archive(small, [f"{address}/t/a:1"]))
        store.push(f"{address}/t/a", "1")
        store.remove(f"{address}/t/a:1")
        assert store.pull(f"{address}/t/a", "1").diff_ids == tuple(made.digest(layer) for layer in small)


CRASHING = """
import asyncio, sys
from corral.image.images import Images
from corral.store.db import Database

async def main(root, path):
    images = Images(Database(root + "/db"), root, lambda *_: None)
    images.recover()
    data = open(path, "rb").read()

    async def stream():
        for start in range(0, len(data), 50_000):
            yield data[start:start + 50_000]

    print("ready", flush=True)
    while True:
        for name in await images.load(stream(), lambda _: None):
            print("loaded", flush=True)
            await images.remove(name)
            print("removed", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def test_kill_at_any_point_leaves_a_store_that_opens_clean(tmp_path: Path, small: list[bytes]) -> None:
    archive = tmp_path / "in.tar"
    archive.write_bytes(made.docker_archive([made.busybox_layer(), *small], ["a:1"]))
    root = tmp_path / "root"
    root.mkdir()
    randomness = random.Random(4)
    for _ in range(8):
        command = [sys.executable, "-c", CRASHING, str(root), str(archive)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            for _ in range(randomness.randint(1, 4)):
                process.stdout.readline()
            try:
                process.wait(randomness.random() * 0.08)
            except subprocess.TimeoutExpired:
                process.kill()
        store = Store(root)
        try:
            for image in store.images.list():
                assert store.images.catalog.is_complete(image.id)
                assert store.images.snapshots.view(image.chain_id).lower
                store.remove("a:1")
            assert store.leftovers() == []
        finally:
            store.close()


def test_a_proxy_from_the_environment(store: Store, small: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    descriptor, blobs = made.oci_blobs(small)
    store.images.registries = Registries(insecure=frozenset(("registry.invalid",)))
    with hostile(serve(blobs, str(descriptor["digest"]))) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://{server.address}")
        assert store.pull("registry.invalid/x", "1").id == descriptor["digest"]
        assert all(path.startswith("http://registry.invalid/v2/") for path, _ in server.requests)


@pytest.mark.parametrize(
    ("netloc", "proxy"),
    [("a.example", "p:1"), ("127.0.0.1:5000", ""), ("b.internal", ""), ("internal", ""), ("c.example:5000", "")],
)
def test_hosts_without_a_proxy(netloc: str, proxy: str) -> None:
    environment = {"https_proxy": "p:1", "NO_PROXY": ".internal, c.example:5000"}
    assert proxy_for("https", netloc, environment) == proxy
