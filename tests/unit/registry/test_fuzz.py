"""Whatever a client sends, the answer is never an internal error, and nothing is made outside of the root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral.registry.http.head import BadRequest, parse
from corral.registry.http.ranges import Unsatisfiable, parse_chunk, parse_range
from tests.support.desk import Desk, image, sha256

_LIMITS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

words = st.sampled_from(
    [
        *(
            "v2",
            "a",
            "a/b",
            "blobs",
            "uploads",
            "manifests",
            "tags",
            "list",
            "referrers",
            "_catalog",
            "..",
            ".",
            "",
            "_tags",
        ),
        *("token", "latest", sha256(b"{}"), "sha256:", "sha512:" + "0" * 128, "%2e%2e", "%00", "\xff", "a" * 300, "b"),
    ]
) | st.text(max_size=20)
names = st.sampled_from("digest mount from n last artifactType digest-algorithm scope".split()) | st.text(max_size=8)
header_names = st.sampled_from("Range Content-Range Accept If-None-Match Authorization Content-Type Expect".split())
values = words | st.sampled_from(
    ["bytes=0-1", "0-3", "1-0", "99999999999999999999-1", "bytes=-", "*/*", "Basic AAAA", "Bearer x.y.z", "²", "\x00"]
)
bodies = st.binary(max_size=100) | st.sampled_from([b"{}", b"[]", str(image()).replace("'", '"').encode()])


def _safe(text: str) -> str:
    """What can be on a request line at all; the rest is for the parser's own test."""
    return "".join(character for character in text if "!" <= character <= "~" and character not in "?#&")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    desk.push_image("a", "latest")
    yield desk
    assert sorted(os.listdir(tmp_path)) == ["root"]


@_LIMITS
@given(
    method=st.sampled_from("GET HEAD POST PUT PATCH DELETE".split()),
    path=st.lists(words, max_size=7),
    query=st.dictionaries(names, values, max_size=3),
    headers=st.dictionaries(header_names, values, max_size=3),
    body=bodies,
)
def test_any_request(
    desk: Desk, method: str, path: list[str], query: dict[str, str], headers: dict[str, str], body: bytes
) -> None:
    target = "/v2/" + "/".join(_safe(word) for word in path)
    if query:
        target += "?" + "&".join(f"{_safe(name)}={_safe(value)}" for name, value in query.items())
    clean = {name.replace("-", "_"): _safe(value) for name, value in headers.items()}
    reply = desk.request(method, target, body, **clean)
    assert reply.status < 500, reply
    if reply.status >= 400:
        assert reply.fields["errors"][0]["code"]


@_LIMITS
@given(data=st.binary(max_size=200))
def test_any_manifest(desk: Desk, data: bytes) -> None:
    assert desk.request("PUT", "/v2/a/manifests/x", data).status in (201, 400, 404)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(sha256(b"{}")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "schemaVersion mediaType config layers manifests subject digest annotations artifactType urls".split()
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@_LIMITS
@given(fields=st.dictionaries(st.sampled_from("mediaType config layers manifests subject annotations".split()), _json))
def test_any_json_as_a_manifest(desk: Desk, fields: dict[str, object]) -> None:
    import json

    data = json.dumps({"schemaVersion": 2, **fields}).encode()
    assert desk.request("PUT", "/v2/a/manifests/x", data).status in (201, 400, 404)
    assert desk.request("GET", f"/v2/a/referrers/{sha256(b'{}')}").status == 200


@_LIMITS
@given(data=st.binary(max_size=300))
def test_any_head(data: bytes) -> None:
    try:
        head = parse(data)
    except BadRequest as error:
        assert 400 <= error.status < 600
    else:
        assert head.path.startswith("/")


@_LIMITS
@given(
    line=st.text(alphabet=st.characters(max_codepoint=255), max_size=30),
    fields=st.lists(st.text(alphabet=st.characters(max_codepoint=255), max_size=30), max_size=4),
)
def test_any_header_lines(line: str, fields: list[str]) -> None:
    data = "\r\n".join([f"GET /{line} HTTP/1.1", "Host: x", *fields]).encode("latin-1")
    try:
        head = parse(data)
    except BadRequest:
        return
    assert not any(character in value for value in head.headers.values() for character in "\r\n\0")


@given(text=st.text(alphabet="bytes=-0123456789 ,/*", max_size=30), size=st.integers(0, 1 << 40))
def test_ranges_are_inside(text: str, size: int) -> None:
    parse_chunk(text)
    try:
        found = parse_range(text, size)
    except Unsatisfiable:
        return
    if found is not None:
        start, count = found
        assert 0 <= start < size and 1 <= count <= size - start


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1", 400),
        (b"GET  / HTTP/1.1\r\nHost: x", 400),
        (b"GET / HTTP/2.0\r\nHost: x", 505),
        (b"BREW / HTTP/1.1\r\nHost: x", 501),
        (b"GET x HTTP/1.1\r\nHost: x", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nHost : x", 400),
        (b"GET / HTTP/1.1\r\nHost: x\nX: y", 400),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2", 400),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: +1", 400),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked", 400),
        (b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked", 501),
        (b"GET / HTTP/1.1\r\nHost: x" + b"\r\nA: b" * 101, 431),
        (b"GET /?" + b"a=b&" * 60 + b" HTTP/1.1\r\nHost: x", 400),
    ],
)
def test_heads_that_are_refused(head: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(head)
    assert caught.value.status == status
