from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import InvalidParameter
from corral.oci import digest, image
from corral.oci.platform import InvalidPlatform, Platform, best, parse_platform, rank

A = "sha256:" + "a" * 64
B = "sha256:" + "b" * 64


def manifest(**fields: object) -> bytes:
    config = {"mediaType": image.OCI_CONFIG, "digest": A, "size": 1}
    return json.dumps({"schemaVersion": 2, "config": config, "layers": [], **fields}).encode()


def test_digest_forms() -> None:
    assert digest.parse_digest(A) == A
    for bad in ("", "sha256:", "sha256:" + "A" * 64, "md5:" + "a" * 32, "sha256:" + "a" * 63, "../../etc/passwd"):
        with pytest.raises(digest.InvalidDigest):
            digest.parse_digest(bad)


def test_verify_names_both_digests() -> None:
    digest.verify(b"x", digest.digest_of(b"x"))
    with pytest.raises(digest.DigestMismatch) as caught:
        digest.verify(b"x", A)
    assert caught.value.expected == A


def test_chain_ids_follow_the_specification() -> None:
    second = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    assert digest.chain_ids([]) == []
    assert digest.chain_ids([A, B]) == [A, second]


def test_unknown_fields_are_accepted() -> None:
    assert image.parse_manifest(manifest(subject={"x": 1}, extra=[1])).config.digest == A


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        manifest(schemaVersion=1),
        manifest(layers=[{"mediaType": "x", "digest": "../../x", "size": 1}]),
        manifest(layers=[{"mediaType": "x", "digest": A, "size": -1}]),
        manifest(layers=[{"mediaType": "x", "digest": A, "size": 1}] * 501),
        b" " * (image.DOCUMENT_MAX_BYTES + 1),
    ],
)
def test_bad_manifests_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidParameter):
        image.parse_manifest(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_refused(data: bytes) -> None:
    for read in (image.parse_manifest, image.parse_index, image.parse_config, image.media_type_of):
        try:
            read(data)
        except InvalidParameter:
            pass


def test_config_keeps_what_docker_writes() -> None:
    config = image.parse_config(
        b'{"os":"linux","config":{"Cmd":null,"Entrypoint":["/x"],"Healthcheck":{"Test":["CMD","x"],"Interval":5}},'
        b'"rootfs":{"type":"layers","diff_ids":[]},"history":[{"empty_layer":true}]}'
    )
    assert config.run.cmd is None and config.run.entrypoint == ["/x"]
    assert config.run.healthcheck is not None and config.run.healthcheck.interval == 5


def test_media_type_from_shape() -> None:
    assert image.media_type_of(manifest()) == image.OCI_MANIFEST
    assert image.media_type_of(b'{"schemaVersion":2,"manifests":[]}') == image.OCI_INDEX


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("armhf", "linux/arm/v7"),
        ("windows", "windows/amd64"),
        ("LINUX/x86_64", "linux/amd64"),
    ],
)
def test_platform_forms(text: str, shown: str) -> None:
    assert str(parse_platform(text)) == shown


@pytest.mark.parametrize("text", ["", "x", "linux/", "linux/amd64/v1/x", "linux/z80", "/"])
def test_platforms_that_are_none(text: str) -> None:
    with pytest.raises(InvalidPlatform):
        parse_platform(text)


def test_the_best_offer_wins() -> None:
    offers = [Platform(os="linux", architecture="arm", variant=v) for v in ("v6", "v7", "v5")]
    chosen = best(Platform(os="linux", architecture="arm", variant="v7"), offers, lambda found: found)
    assert chosen is offers[1]
    assert best(Platform(os="linux", architecture="amd64"), offers, lambda found: found) is None
    arm64 = Platform(os="linux", architecture="arm64")
    assert rank(arm64, Platform(os="linux", architecture="arm64", variant="v8")) == 0
