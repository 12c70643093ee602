"""The version in a path."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.api.versions import NEWEST, OLDEST, VersionTooNew, VersionTooOld, split, text


def test_a_path_with_and_without_a_version() -> None:
    assert split("/v1.44/containers/json") == ((1, 44), "/containers/json")
    assert split("/containers/json") == (NEWEST, "/containers/json")
    assert split("/_ping") == (NEWEST, "/_ping")
    assert split(f"/v{text(OLDEST)}/info") == (OLDEST, "/info")
    assert split(f"/v{text(NEWEST)}/info") == (NEWEST, "/info")


@pytest.mark.parametrize("path", ["/v1.x/info", "/volumes/v1.2", "/version", "/v1", "/v1.44", "/", ""])
def test_what_only_looks_like_a_version_stays(path: str) -> None:
    assert split(path) == (NEWEST, path)


def test_versions_out_of_range_are_refused_in_docker_s_words() -> None:
    with pytest.raises(VersionTooNew, match=r"^client version 1\.99 is too new\. Maximum supported API version is "):
        split("/v1.99/info")
    with pytest.raises(
        VersionTooOld, match=r"^client version 1\.10 is too old\. Minimum supported API version is 1\.24, "
    ):
        split("/v1.10/info")
    with pytest.raises(VersionTooNew):
        split("/v2.0/info")


@given(st.integers(OLDEST[1], NEWEST[1]), st.text(max_size=20))
def test_the_rest_of_the_path_is_kept(minor: int, rest: str) -> None:
    assert split(f"/v1.{minor}/{rest}") == ((1, minor), "/" + rest)


@given(st.text(max_size=30))
def test_any_path_is_split_or_refused(path: str) -> None:
    try:
        version, rest = split(path)
    except (VersionTooNew, VersionTooOld):
        return
    assert OLDEST <= version <= NEWEST
    assert path.endswith(rest)
