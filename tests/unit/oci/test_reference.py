from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.oci import reference
from corral.oci.reference import InvalidReference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("foo/bar", "docker.io/foo/bar", "foo/bar"),
        ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x", "127.0.0.1:5000/x"),
        ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
        (f"x:1@sha256:{HEX}", f"docker.io/library/x:1@sha256:{HEX}", f"x:1@sha256:{HEX}"),
        ("Registry/x", "Registry/x", "Registry/x"),
        ("a__b/c-d--e.f", "docker.io/a__b/c-d--e.f", "a__b/c-d--e.f"),
    ],
)
def test_completes_and_shortens(text: str, canonical: str, familiar: str) -> None:
    parsed = reference.parse(text)
    assert (parsed.canonical, parsed.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("Busybox", "invalid reference format: repository name (library/Busybox) must be lowercase"),
        ("a//b", "invalid reference format"),
        ("-a", "invalid reference format"),
        ("a:", "invalid reference format"),
        ("a:-x", "invalid reference format"),
        ("a@sha256:abc", "invalid reference format"),
        ("a b", "invalid reference format"),
        ("../a", "invalid reference format"),
        ("a:" + "t" * 129, "invalid reference format"),
        ("x" * 256, "invalid reference format: repository name must not be more than 255 characters"),
        (HEX, f"invalid reference format: cannot specify 64-byte hexadecimal strings: {HEX}"),
    ],
)
def test_refuses_with_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        reference.parse(text)
    assert str(caught.value) == message


def test_latest_is_added_only_to_a_bare_name() -> None:
    assert reference.parse("a").tagged().tag == "latest"
    assert reference.parse("a:b").tagged().tag == "b"
    assert reference.parse(f"a@sha256:{HEX}").tagged().tag is None


def test_a_repository_has_no_tag() -> None:
    with pytest.raises(InvalidReference):
        reference.parse_repository("a:b")


@given(st.text(max_size=40))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except InvalidReference:
        return
    assert reference.parse(parsed.canonical) == parsed
    assert reference.parse(parsed.familiar) == parsed


@given(
    st.from_regex(
        r"([a-z0-9]{1,5}\.[a-z]{2}(:[0-9]{2})?/)?[a-z0-9]{1,6}(/[a-z0-9]{1,5}){0,2}(:[A-Za-z0-9]{1,8})?", fullmatch=True
    )
)
def test_well_formed_names_round_trip(text: str) -> None:
    parsed = reference.parse(text)
    assert reference.parse(parsed.canonical) == parsed
