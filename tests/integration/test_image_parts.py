"""Images of several platforms: their parts are listed, saved and removed one by one; attestations are read."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.image.images import Images
from corral.image.model import NoSuchPlatform, User
from corral.image.parts import NoSuchPart, PartInUse, parts_of, statements
from corral.oci.platform import InvalidPlatform
from corral.store.db import Database
from tests.support import images as made
from tests.support.images import directory, member, tar_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="layers need root")

MINE, OTHER = made.ARCHITECTURE, "s390x"
STATEMENT = json.dumps({"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document"})


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    db = Database(str(tmp_path / "db"))
    found = Images(db, str(tmp_path), lambda *_: None)
    found.recover()
    load(found, archive())
    yield found
    found.close()
    db.close()


def archive() -> bytes:
    base = tar_of([directory("etc"), member("etc/base", b"b" * 9000)])
    parts = {
        MINE: [base, tar_of([member("etc/mine", b"m" * 5000)])],
        OTHER: [base, tar_of([member("etc/o", b"o" * 7)])],
    }
    return made.multi_archive(parts, "multi:1", STATEMENT.encode())


def load(images: Images, data: bytes, *platforms: str) -> None:
    async def work() -> None:
        async def stream():  # type: ignore[no-untyped-def]
            yield data

        await images.load(stream(), lambda _: None, platforms=platforms)

    asyncio.run(work())


def save(images: Images, *platforms: str) -> bytes:
    async def work() -> bytes:
        return b"".join([piece async for piece in images.save(["multi:1"], platforms)])

    return asyncio.run(work())


def kinds(images: Images) -> list[tuple[str, str, bool]]:
    found = parts_of(images.catalog, images.content, images.get("multi:1").id)
    return [(part.kind, part.platform.architecture if part.platform else "", part.available) for part in found]


def remove(images: Images, platform: str, users: list[tuple[User, str]], force: bool = False) -> None:
    asyncio.run(images.remove_platforms("multi:1", [platform], users, force=force))


def test_every_part_is_listed(images: Images) -> None:
    assert kinds(images) == [("image", MINE, True), ("image", OTHER, True), ("attestation", "unknown", True)]
    mine, other, about = parts_of(images.catalog, images.content, images.get("multi:1").id)
    assert mine.unpacked_size == 14_000 and other.unpacked_size == 9_007 and about.subject == mine.descriptor.digest
    assert images.get("multi:1", json.dumps({"os": "linux", "architecture": OTHER})).architecture == OTHER
    with pytest.raises(InvalidPlatform):
        images.get("multi:1", '{"os": 7}')


def test_statements_are_read(images: Images) -> None:
    image = images.get("multi:1")
    (found,) = statements(images.catalog, images.content, image, ())
    assert (found.predicate_type, found.body.decode()) == ("https://spdx.dev/Document", STATEMENT)
    assert list(statements(images.catalog, images.content, image, ("https://slsa.dev/provenance/v1",))) == []
    assert list(statements(images.catalog, images.content, images.get("multi:1", f"linux/{OTHER}"), ())) == []


def test_one_platform_is_saved_and_loaded_under_the_same_id(images: Images) -> None:
    image = images.get("multi:1")
    data = save(images, f"linux/{OTHER}")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        (docker,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert docker["RepoTags"] == ["multi:1"] and len(docker["Layers"]) == 2
        held = {name.rpartition("/")[2] for name in tar.getnames() if name.startswith("blobs/sha256/")}
    parts = {
        part.platform.architecture: part for part in parts_of(images.catalog, images.content, image.id) if part.platform
    }
    assert parts[OTHER].descriptor.digest[7:] in held and parts[MINE].descriptor.digest[7:] not in held
    asyncio.run(images.remove("multi:1"))
    load(images, data)
    assert images.get("multi:1").id == image.id and images.get("multi:1").architecture == OTHER
    load(images, save_of_whole := archive(), f"linux/{MINE}")
    assert images.get("multi:1").architecture == MINE and len(save_of_whole) > len(data) // 2
    with pytest.raises(NoSuchPlatform):
        save(images, "linux/riscv64")


def test_one_platform_is_removed(images: Images) -> None:
    image = images.get("multi:1")
    user = User("c" * 64, running=False)
    with pytest.raises(NoSuchPart, match="no matching manifest for linux/riscv64"):
        remove(images, "linux/riscv64", [])
    with pytest.raises(PartInUse, match="image is being used by stopped container cccccccccccc"):
        remove(images, f"linux/{MINE}", [(user, str(image.chain_id))])
    before = images.usage(()).total
    remove(images, f"linux/{OTHER}", [(user, str(image.chain_id))])
    assert kinds(images) == [("image", MINE, True), ("image", OTHER, False), ("attestation", "unknown", True)]
    assert images.usage(()).total < before - 7
    assert images.get("multi:1").id == image.id
    with pytest.raises(NoSuchPart):
        remove(images, f"linux/{OTHER}", [])
    asyncio.run(images.remove("multi:1"))
    assert images.content.sizes() == {} and images.snapshots.layers() == {}
