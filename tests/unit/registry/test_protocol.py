"""The distribution specification, operation by operation, without sockets."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.support.desk import Desk, image, sha256

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def begin(desk: Desk, name: str = "a/b") -> str:
    reply = desk.request("POST", f"/v2/{name}/blobs/uploads/")
    assert reply.status == 202 and reply.headers["range"] == "0-0"
    return reply.headers["location"]


def test_base(desk: Desk) -> None:
    for path in ("/v2/", "/v2"):
        assert desk.request("GET", path).status == 200
    assert desk.request("GET", "/healthz").fields == {"status": "ok"}
    assert desk.request("GET", "/v3/").status == 404
    reply = desk.request("POST", "/v2/")
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_in_one_request(desk: Desk, algorithm: str) -> None:
    digest = desk.push_blob("a", b"content", algorithm)
    reply = desk.request("GET", f"/v2/a/blobs/{digest}")
    assert (reply.status, reply.body, reply.headers["docker-content-digest"]) == (200, b"content", digest)
    head = desk.request("HEAD", f"/v2/a/blobs/{digest}")
    assert (head.status, head.headers["content-length"]) == (200, "7")
    assert desk.request("GET", f"/v2/b/blobs/{digest}").code == "BLOB_UNKNOWN"


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_in_chunks(desk: Desk, algorithm: str) -> None:
    location = begin(desk)
    first = desk.request("PATCH", location, b"0123", content_range="0-3")
    assert (first.status, first.headers["range"]) == (202, "0-3")
    second = desk.request("PATCH", first.headers["location"], b"4567", content_range="4-7")
    assert (second.status, second.headers["range"]) == (202, "0-7")
    status = desk.request("GET", location)
    assert (status.status, status.headers["range"]) == (204, "0-7")
    digest = f"{algorithm}:{hashlib.new(algorithm, b'0123456789').hexdigest()}"
    end = desk.request("PUT", f"{location}?digest={digest}", b"89", content_range="8-9")
    assert (end.status, end.headers["docker-content-digest"]) == (201, digest)
    assert desk.request("GET", end.headers["location"]).body == b"0123456789"
    assert desk.request("GET", location).code == "BLOB_UPLOAD_UNKNOWN"


@pytest.mark.parametrize("content_range", ["0-3", "5-8", "9999-10002", "nonsense", "4-", "-4"])
def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(desk: Desk, content_range: str) -> None:
    location = begin(desk)
    desk.request("PATCH", location, b"0123", content_range="0-3")
    reply = desk.request("PATCH", location, b"xxxx", content_range=content_range)
    assert (reply.status, reply.headers["range"], reply.headers["location"]) == (416, "0-3", location)
    assert desk.request("PUT", f"{location}?digest={sha256(b'zzzz')}", b"zz", content_range="1-2").status == 416
    assert desk.request("PATCH", location, b"4567", content_range="4-7").status == 202
    assert desk.request("PUT", f"{location}?digest={sha256(b'01234567')}").status == 201


def test_a_chunk_of_another_length_than_it_says(desk: Desk) -> None:
    assert desk.request("PATCH", begin(desk), b"0123", content_range="0-9").code == "SIZE_INVALID"


def test_an_upload_goes_on_in_another_process(tmp_path: Path) -> None:
    first, second = Desk(tmp_path), Desk(tmp_path)
    location = begin(first)
    first.request("PATCH", location, b"0123")
    second.request("PATCH", location, b"4567")
    assert first.request("PUT", f"{location}?digest={sha256(b'0123456789')}", b"89").status == 201


def test_a_wrong_digest_ends_the_upload(desk: Desk) -> None:
    location = begin(desk)
    assert desk.request("PUT", f"{location}?digest={sha256(b'x')}", b"y").code == "DIGEST_INVALID"
    assert desk.request("GET", location).status == 404
    assert desk.request("POST", f"/v2/a/blobs/uploads/?digest={sha256(b'x')}", b"y").code == "DIGEST_INVALID"
    assert desk.request("HEAD", f"/v2/a/blobs/{sha256(b'y')}").status == 404


def test_an_upload_is_cancelled(desk: Desk) -> None:
    location = begin(desk)
    assert desk.request("DELETE", location).status == 204
    assert desk.request("PATCH", location, b"x").code == "BLOB_UPLOAD_UNKNOWN"
    assert desk.request("DELETE", location).status == 404


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_mount(desk: Desk, algorithm: str) -> None:
    digest = desk.push_blob("from/here", b"content", algorithm)
    reply = desk.request("POST", f"/v2/to/there/blobs/uploads/?mount={digest}&from=from/here")
    assert (reply.status, reply.headers["location"]) == (201, f"/v2/to/there/blobs/{digest}")
    assert desk.request("GET", f"/v2/to/there/blobs/{digest}").body == b"content"
    for query in (f"mount={digest}&from=nowhere", f"mount={digest}", f"mount={sha256(b'no')}&from=from/here"):
        assert desk.request("POST", f"/v2/other/blobs/uploads/?{query}").status == 202
    assert desk.request("POST", f"/v2/other/blobs/uploads/?mount={digest}&from=../x").status == 202
    assert desk.request("POST", "/v2/other/blobs/uploads/?mount=sha256:1&from=a").status == 400


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=4-", 206, b"456789"),
        ("bytes=-3", 206, b"789"),
        ("bytes=-300", 206, b"0123456789"),
        ("bytes=8-999", 206, b"89"),
        ("bytes=10-", 416, None),
        ("bytes=10-12", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-2", 200, b"0123456789"),
        ("bytes=0-1,4-5", 200, b"0123456789"),
        ("lines=0-1", 200, b"0123456789"),
        ("bytes=-", 200, b"0123456789"),
    ],
)
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_ranges(desk: Desk, wanted: str, status: int, body: bytes | None, algorithm: str) -> None:
    digest = desk.push_blob("a", b"0123456789", algorithm)
    reply = desk.request("GET", f"/v2/a/blobs/{digest}", range=wanted)
    assert reply.status == status
    if body is None:
        assert reply.headers["content-range"] == "bytes */10"
    else:
        assert reply.body == body
        start = b"0123456789".index(body)
        if status == 206:
            assert reply.headers["content-range"] == f"bytes {start}-{start + len(body) - 1}/10"


@pytest.mark.parametrize(
    "digest", ["sha256:abc", "sha256:" + "A" * 64, "md5:" + "0" * 32, "x", "sha256:", ":", "sha512:" + "0" * 64, "%00:"]
)
def test_a_malformed_digest_is_a_bad_request(desk: Desk, digest: str) -> None:
    for method, path in (("GET", "blobs"), ("HEAD", "blobs"), ("DELETE", "blobs"), ("GET", "referrers")):
        assert desk.request(method, f"/v2/a/{path}/{digest}").status == 400
    assert desk.request("POST", f"/v2/a/blobs/uploads/?digest={digest}", b"").status == 400
    assert desk.request("PUT", f"{begin(desk)}?digest={digest}").status == 400
    if ":" in digest:
        assert desk.request("GET", f"/v2/a/manifests/{digest}").status == 400
        assert desk.request("PUT", f"/v2/a/manifests/{digest}", b"{}").status == 400
        assert desk.request("DELETE", f"/v2/a/manifests/{digest}").status == 400


@pytest.mark.parametrize(
    "name", ["A", "a//b", "..", "a/../b", "a/..", "_blobs", "a/_tags", "a" * 256, "a%2f..%2fb", "é"]
)
def test_a_malformed_name_is_a_bad_request(desk: Desk, name: str) -> None:
    reply = desk.request("POST", f"/v2/{name}/blobs/uploads/")
    assert (reply.status, reply.code) == (400, "NAME_INVALID")
    assert desk.request("GET", f"/v2/{name}/tags/list").status == 400


def test_manifests_are_kept_byte_for_byte(desk: Desk) -> None:
    desk.push_image("a", "first")
    data = json.dumps({**image(), "x": [1, {"unknown": None}]}, indent=3).encode() + b"\n\n"
    reply = desk.request("PUT", "/v2/a/manifests/v1", data, content_type=MANIFEST)
    assert (reply.status, reply.headers["location"]) == (201, f"/v2/a/manifests/{sha256(data)}")
    for reference in ("v1", sha256(data)):
        got = desk.request("GET", f"/v2/a/manifests/{reference}")
        assert (got.body, got.headers["content-type"]) == (data, MANIFEST)
        assert got.headers["docker-content-digest"] == sha256(data)
    etag = got.headers["etag"]
    assert desk.request("GET", "/v2/a/manifests/v1", if_none_match=etag).status == 304
    assert desk.request("GET", "/v2/a/manifests/v2").code == "MANIFEST_UNKNOWN"
    assert desk.request("GET", "/v2/nowhere/manifests/v1").status == 404
    assert desk.request("GET", "/v2/a/manifests/.NOT-A-TAG").status == 404
    assert desk.request("PUT", "/v2/a/manifests/.NOT-A-TAG", data, content_type=MANIFEST).code == "TAG_INVALID"


def test_a_manifest_by_sha512(desk: Desk) -> None:
    desk.push_image("a", "first")
    data = json.dumps({**image(), "annotations": {"is": "sha512"}}).encode()
    digest = "sha512:" + hashlib.sha512(data).hexdigest()
    assert desk.request("PUT", f"/v2/a/manifests/{digest}", data, content_type=MANIFEST).status == 201
    got = desk.request("GET", f"/v2/a/manifests/{digest}")
    assert (got.body, got.headers["docker-content-digest"]) == (data, digest)
    wrong = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    assert desk.request("PUT", f"/v2/a/manifests/{wrong}", data, content_type=MANIFEST).code == "DIGEST_INVALID"


def test_nested_indexes_and_empty_lists(desk: Desk) -> None:
    child = desk.push_image("a", "child")
    inner = desk.push_manifest(
        "a",
        "inner",
        {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": MANIFEST, "digest": child, "size": 1}]},
    )
    outer = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": INDEX, "digest": inner, "size": 1}]}
    desk.push_manifest("a", "outer", outer)
    desk.push_manifest("a", "empty", {"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
    desk.push_manifest("a", "no-layers", {**image(), "layers": []})
    assert desk.request("GET", "/v2/a/tags/list").fields["tags"] == ["child", "empty", "inner", "no-layers", "outer"]


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"", MANIFEST, 400),
        (b"{", MANIFEST, 400),
        (b"[]", MANIFEST, 400),
        (b"[" * 5000, MANIFEST, 400),
        (b"\xff\xfe", MANIFEST, 400),
        (b'{"schemaVersion": 1}', MANIFEST, 400),
        (b'{"schemaVersion": 2, "layers": 3}', MANIFEST, 400),
        (b'{"schemaVersion": 2, "layers": [{"digest": "sha256:x"}]}', MANIFEST, 400),
        (b'{"schemaVersion": 2, "mediaType": 7}', MANIFEST, 400),
        (b'{"schemaVersion": 2, "subject": []}', MANIFEST, 400),
        (json.dumps(image()).encode(), DOCKER_MANIFEST, 400),
        (json.dumps(image()).encode(), "application/vnd.docker.distribution.manifest.v1+json", 400),
        (json.dumps(image()).encode(), MANIFEST, 404),
        (b" " * (4 << 20) + b"{}", MANIFEST, 413),
    ],
)
def test_bad_manifests(desk: Desk, data: bytes, content_type: str, status: int) -> None:
    assert desk.request("PUT", "/v2/a/manifests/x", data, content_type=content_type).status == status
    assert desk.request("GET", "/v2/a/manifests/x").status == 404


def test_a_manifest_needs_what_it_names_but_not_foreign_layers(desk: Desk) -> None:
    desk.push_blob("a", b"{}")
    manifest = json.dumps(image()).encode()
    assert desk.request("PUT", "/v2/a/manifests/x", manifest, content_type=MANIFEST).code == "MANIFEST_BLOB_UNKNOWN"
    foreign = {**image(), "layers": [{**image()["layers"][0], "urls": ["https://elsewhere"]}]}
    desk.push_manifest("a", "x", foreign)


def test_a_tag_goes_without_its_manifest(desk: Desk) -> None:
    digest = desk.push_image("a", "one")
    desk.push_manifest("a", "two", image())
    assert desk.request("DELETE", "/v2/a/manifests/one").status == 202
    assert desk.request("DELETE", "/v2/a/manifests/one").code == "MANIFEST_UNKNOWN"
    assert desk.request("GET", f"/v2/a/manifests/{digest}").status == 200
    assert desk.request("DELETE", f"/v2/a/manifests/{digest}").status == 202
    assert desk.request("GET", "/v2/a/manifests/two").status == 404
    assert desk.request("GET", "/v2/a/tags/list").fields == {"name": "a", "tags": []}


def test_a_blob_is_removed_from_one_repository(desk: Desk) -> None:
    digest = desk.push_blob("a", b"x")
    desk.push_blob("b", b"x")
    assert desk.request("DELETE", f"/v2/a/blobs/{digest}").status == 202
    assert desk.request("DELETE", f"/v2/a/blobs/{digest}").code == "BLOB_UNKNOWN"
    assert desk.request("GET", f"/v2/a/blobs/{digest}").status == 404
    assert desk.request("GET", f"/v2/b/blobs/{digest}").body == b"x"


def test_tags_in_pages(desk: Desk) -> None:
    for tag in ("c", "A", "b", "_x", "a.1"):
        desk.push_image("r", tag)
    everything = sorted(["c", "A", "b", "_x", "a.1"])
    assert desk.request("GET", "/v2/r/tags/list").fields["tags"] == everything
    seen, target = [], "/v2/r/tags/list?n=2"
    while target:
        reply = desk.request("GET", target)
        seen += reply.fields["tags"]
        link = reply.headers.get("link", "")
        assert not link or link.endswith('; rel="next"')
        target = link.partition("<")[2].partition(">")[0]
    assert seen == everything
    assert desk.request("GET", "/v2/r/tags/list?n=0").fields["tags"] == []
    assert desk.request("GET", "/v2/r/tags/list?last=b").fields["tags"] == ["c"]
    assert desk.request("GET", "/v2/r/tags/list?n=-1").status == 400
    assert desk.request("GET", "/v2/nothing/tags/list").code == "NAME_UNKNOWN"


def test_catalog(desk: Desk) -> None:
    for name in ("b", "a/b", "a", "a/b/c"):
        desk.push_image(name, "x")
    begin(desk, "only/an/upload")
    assert desk.request("GET", "/v2/_catalog").fields == {"repositories": ["a", "a/b", "a/b/c", "b"]}
    reply = desk.request("GET", "/v2/_catalog?n=1&last=a")
    assert reply.fields == {"repositories": ["a/b"]}
    assert reply.headers["link"] == '</v2/_catalog?n=1&last=a%2Fb>; rel="next"'


def test_referrers(desk: Desk) -> None:
    missing = desk.request("GET", f"/v2/nowhere/referrers/{sha256(b'?')}")
    assert (missing.status, missing.headers["content-type"]) == (200, INDEX)
    assert missing.fields == {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
    subject = {"mediaType": MANIFEST, "digest": sha256(b"later"), "size": 5}
    data = json.dumps({**image(), "subject": subject, "artifactType": "a/b", "annotations": {"k": "v"}}).encode()
    desk.push_image("a", "x")
    reply = desk.request("PUT", f"/v2/a/manifests/{sha256(data)}", data, content_type=MANIFEST)
    assert reply.headers["oci-subject"] == subject["digest"]
    other = desk.push_manifest("a", "sig", {**image(), "subject": subject})
    found = desk.request("GET", f"/v2/a/referrers/{subject['digest']}").fields["manifests"]
    expected = {
        "mediaType": MANIFEST,
        "digest": sha256(data),
        "size": len(data),
        "artifactType": "a/b",
        "annotations": {"k": "v"},
    }
    assert expected in found and len(found) == 2
    by_config = next(entry for entry in found if entry["digest"] == other)
    assert by_config["artifactType"] == "application/vnd.oci.image.config.v1+json"
    filtered = desk.request("GET", f"/v2/a/referrers/{subject['digest']}?artifactType=a/b")
    assert filtered.fields["manifests"] == [expected]
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    desk.request("DELETE", f"/v2/a/manifests/{other}")
    assert desk.request("GET", f"/v2/a/referrers/{subject['digest']}").fields["manifests"] == [expected]


def test_referrers_of_the_fallback_tag_count(desk: Desk) -> None:
    signature = desk.push_image("a", "sig")
    subject = sha256(b"subject")
    entry = {"mediaType": MANIFEST, "digest": signature, "size": 3, "artifactType": "x"}
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}
    desk.push_manifest("a", subject.replace(":", "-"), index)
    assert desk.request("GET", f"/v2/a/referrers/{subject}").fields["manifests"] == [entry]


def test_negotiation(desk: Desk) -> None:
    desk.push_image("a", "oci")
    docker = {**image(), "mediaType": DOCKER_MANIFEST}
    child = desk.push_manifest("a", "docker", docker)
    entry = {"mediaType": DOCKER_MANIFEST, "digest": child, "size": 1}
    entry["platform"] = {"os": "linux", "architecture": "amd64"}
    desk.push_manifest("a", "list", {"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]})

    def get(tag: str, accept: str) -> tuple[int, str]:
        reply = desk.request("GET", f"/v2/a/manifests/{tag}", accept=accept)
        return reply.status, reply.headers["content-type"]

    assert get("oci", MANIFEST) == (200, MANIFEST)
    assert get("oci", f"{DOCKER_MANIFEST};q=0.5, {MANIFEST}") == (200, MANIFEST)
    assert get("oci", "*/*") == (200, MANIFEST)
    assert get("oci", DOCKER_MANIFEST)[0] == 404
    assert get("list", f"{DOCKER_LIST}, {DOCKER_MANIFEST}") == (200, DOCKER_LIST)
    assert get("list", DOCKER_MANIFEST) == (200, DOCKER_MANIFEST)
    assert desk.request("GET", "/v2/a/manifests/oci").status == 200


def test_read_only(tmp_path: Path) -> None:
    digest = Desk(tmp_path).push_image("a", "x")
    desk = Desk(tmp_path, **{"read-only": True})
    assert desk.request("GET", "/v2/a/manifests/x").status == 200
    for method, path in (("POST", "blobs/uploads/"), ("PUT", "manifests/x"), ("DELETE", f"manifests/{digest}")):
        assert desk.request(method, f"/v2/a/{path}", b"{}").code == "UNSUPPORTED"


def test_repositories_whose_names_look_like_operations(desk: Desk) -> None:
    for name in ("blobs", "manifests/tags", "a/blobs/uploads", "tags/list", "v2"):
        digest = desk.push_image(name, "x")
        assert desk.request("GET", f"/v2/{name}/manifests/x").headers["docker-content-digest"] == digest
        assert desk.request("GET", f"/v2/{name}/tags/list").fields["tags"] == ["x"]
