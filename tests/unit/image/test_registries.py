"""What the configuration says about registries, and the readers of what registries say."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.errors import InvalidParameter
from corral.image import auth, registries
from corral.image.registries import Endpoint, Entry, InvalidRegistrySetting, Registries
from corral.image.sources import Whereabouts
from corral.oci import image as oci
from corral.oci import reference

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def places(settings: Registries, name: str, given_auth: dict[str, str] | None = None) -> list[Endpoint]:
    return settings.endpoints(reference.parse(name), given_auth)


def test_hub() -> None:
    settings = Registries(mirrors=("https://near.example", "http://here:5000/"))
    found = places(settings, "busybox", {"username": "u"})
    assert [(place.host, place.repository, place.scheme, place.is_mirror) for place in found] == [
        ("near.example", "library/busybox", "https", True),
        ("here:5000", "library/busybox", "http", True),
        ("registry-1.docker.io", "library/busybox", "", False),
    ]
    assert [place.auth for place in found] == [{}, {}, {"username": "u"}]
    assert [place.shown for place in found] == ["busybox"] * 3
    assert [place.is_mirror for place in places(settings, "other.example/x")] == [False]


def test_the_longest_key_wins_for_mirrors_and_accounts_each() -> None:
    entries = registries.parse_entries(
        {
            "r.example": {"mirrors": ["m.example/all"], "username": "all", "password": "1"},
            "r.example/a": {"username": "a", "password": "2"},
            "r.example/a/b": {"mirrors": ["http://m2.example:81/b"]},
            "m.example": {"identity-token": "t"},
            "m2.example:81": {"insecure": True},
        }
    )
    settings = Registries(entries=entries)

    def seen(name: str, given_auth: dict[str, str] | None = None) -> list[tuple[str, str, dict[str, str]]]:
        return [(place.host, place.repository, place.auth) for place in places(settings, name, given_auth)]

    everyone, team = {"username": "all", "password": "1"}, {"username": "a", "password": "2"}
    mirror = {"identitytoken": "t"}
    assert seen("r.example/x") == [("m.example", "all/x", mirror), ("r.example", "x", everyone)]
    assert seen("r.example/a/x") == [("m.example", "all/a/x", mirror), ("r.example", "a/x", team)]
    assert seen("r.example/a/b/x") == [("m2.example:81", "b/a/b/x", {}), ("r.example", "a/b/x", team)]
    assert seen("r.example/ab") == [("m.example", "all/ab", mirror), ("r.example", "ab", everyone)]
    # A client's credentials are the whole host's: they win over that account, not over a path's.
    mine = {"username": "me", "password": "3"}
    assert seen("r.example/x", mine)[-1][2] == mine and seen("r.example/a/x", mine)[-1][2] == team
    assert seen("r.example/x", {"serveraddress": "r.example"})[-1][2] == everyone


def test_insecure_hosts_and_networks() -> None:
    hosts, networks = registries.split_insecure(("a.example:5000", "10.0.0.0/8", "http://b.example/", "fd00::/8"))
    settings = Registries(insecure=hosts, networks=networks, entries={"c.example/x": Entry(insecure=True)})
    names = ["a.example:5000/x", "a.example/x", "10.1.2.3:81/x", "11.1.2.3:81/x", "b.example/x", "[fd00::1]:5000/x"]
    assert [places(settings, name)[0].insecure for name in names] == [True, False, True, False, True, True]
    assert [places(settings, name)[0].insecure for name in ("c.example/x", "c.example/y")] == [True, False]


@pytest.mark.parametrize("value", ["a/b", "ftp://a", "-a", "", "10.0.0.0/99"])
def test_bad_insecure_registries(value: str) -> None:
    with pytest.raises(InvalidRegistrySetting, match="is not valid"):
        registries.split_insecure((value,))


@pytest.mark.parametrize(
    "url", ["mirror.example", "ftp://m", "https://u:p@m", "https://m/path", "https://m?q", "https://"]
)
def test_bad_mirrors_of_the_hub(url: str) -> None:
    with pytest.raises(InvalidRegistrySetting, match="invalid mirror"):
        registries.check_hub_mirror(url)


@pytest.mark.parametrize(
    "entry",
    [
        {"mirror": []},
        {"mirrors": "https://m"},
        {"mirrors": ["ftp://m"]},
        {"mirrors": [1]},
        {"insecure": "yes"},
        {"username": "u"},
        {"password": "p"},
        {"username": "u", "password": "p", "password-file": "/f"},
        {"username": 1, "password": "p"},
    ],
)
def test_bad_entries(entry: dict[str, Any]) -> None:
    with pytest.raises(InvalidRegistrySetting):
        registries.parse_entries({"r.example": entry})


@pytest.mark.parametrize("key", ["https://r.example", "/a", "r.example/", ""])
def test_bad_keys(key: str) -> None:
    with pytest.raises(InvalidRegistrySetting, match=r"is not HOST\[:PORT\]\[/PATH\]"):
        registries.parse_entries({key: {}})


def test_passwords_from_files() -> None:
    entries = registries.parse_entries({"r.example": {"username": "u", "password-file": "/f"}})
    read = registries.with_passwords(entries, lambda path: f"word of {path}\n")
    assert read["r.example"].account == {"username": "u", "password": "word of /f"}
    assert "word" not in repr(read)


def test_hosts_to_log_in_to() -> None:
    settings = Registries()
    for name in ("", "https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"):
        assert settings.host(name, None).host == "registry-1.docker.io"
    assert settings.host("https://r.example:5000/v2/", None).host == "r.example:5000"


def test_scopes_and_queries() -> None:
    wanted = auth.scopes("repository:x:pull repository:y:pull", "x", "pull,push", ["y", "z"])
    assert wanted == ["repository:x:pull", "repository:y:pull", "repository:x:pull,push", "repository:z:pull"]
    query = auth.token_query({"auth": "dTpwOnE="}, "s", wanted[:1], offline=True)
    assert query == [
        ("account", "u"), ("client_id", "corral"), ("offline_token", "true"), ("scope", "repository:x:pull"),
        ("service", "s"),
    ]  # fmt: skip
    assert auth.user_and_password({"auth": "dTpwOnE="}) == ("u", "p:q")
    assert auth.user_and_password({"auth": "!"}) is None and auth.basic({}) is None


def test_where_blobs_were_seen() -> None:
    seen = Whereabouts()
    assert seen.find("r", "d", "a") == ""
    for path in "abcdefghijk":
        seen.note("r", path, ["d", "e"])
    assert seen.find("r", "d", "k") == "j" and seen.find("r", "d", "z") == "k"
    assert seen.find("other", "d", "z") == "" and len(seen._known["r", "d"]) == 8
    seen.note("r", "x", (f"many{n}" for n in range(20_001)))
    assert seen.find("r", "d", "z") == ""


@given(ANYTHING | st.fixed_dictionaries({"schemaVersion": st.just(2), "config": ANYTHING, "layers": ANYTHING}))
def test_a_manifest_reader_takes_anything(document: Any) -> None:
    data = json.dumps(document).encode()
    for read in (oci.parse_manifest, oci.parse_index, oci.parse_config, oci.media_type_of):
        with contextlib.suppress(InvalidParameter):
            read(data)
    oci.is_schema1(data)


@given(st.binary(max_size=200))
def test_a_manifest_reader_takes_any_bytes(data: bytes) -> None:
    for read in (oci.parse_manifest, oci.parse_index, oci.parse_config, oci.media_type_of):
        with contextlib.suppress(InvalidParameter):
            read(data)
    oci.is_schema1(data)


@given(st.text(max_size=80) | st.text(alphabet="ab:/@.-_0A[]", max_size=40))
def test_a_reference_is_refused_or_comes_back(text: str) -> None:
    try:
        found = reference.parse(text)
    except InvalidParameter:
        return
    assert reference.parse(found.canonical) == found
    assert reference.parse(found.familiar) == found


@given(st.text(max_size=200))
def test_a_challenge_reader_takes_anything(header: str) -> None:
    challenge = auth.parse_challenge(header)
    assert challenge.scheme == challenge.scheme.lower()
    assert auth.parse_challenge('Bearer realm="a\\"b", scope=x:y').parameters == {"realm": 'a"b', "scope": "x:y"}


@given(st.text(max_size=60))
def test_a_mirror_is_refused_or_has_a_host(url: str) -> None:
    with contextlib.suppress(InvalidParameter):
        scheme, host, path = registries.split_mirror(url)
        assert host and "/" not in host and scheme in ("", "http", "https") and path == path.strip("/")
