"""What a context leaves out, and the wildcards of COPY."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.build.dockerignore import Ignore, compiled, has_wildcards, read
from corral.build.problems import DockerfileError


def test_reading() -> None:
    text = "\ufeff# comment\n\n  *.md  \n!README.md\n/abs/\n./x/../y\n! z\n"
    assert read(text) == ["*.md", "!README.md", "abs", "y", "!z"]


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        (["*.md"], ["a.md"], ["b/a.md", "a.mdx"]),
        (["*/a"], ["b/a", "b/a/c"], ["a", "b/c/a"]),
        (["**/a"], ["a", "b/a", "b/c/a", "b/a/d"], ["ab", "b/ab"]),
        (["a/**"], ["a/b", "a/b/c"], ["a", "b"]),
        (["**/*.go"], ["x.go", "a/x.go"], ["x.goo"]),
        (["a"], ["a", "a/b", "a/b/c"], ["ab", "b/a"]),
        (["*", "!b"], ["a", "c/d"], ["b", "b/c"]),
        (["a", "!a/b", "a/b/c"], ["a/x", "a/b/c"], ["a/b", "a/b/d"]),
        (["temp?"], ["temp1"], ["temp", "temp12", "temp/x"]),
        (["[a-c]x", "[^z]y"], ["ax", "cx", "ay"], ["dx", "zy"]),
        (["a\\*b"], ["a*b"], ["axb"]),
        (["."], [], ["a"]),
    ],
)
def test_matching(patterns: list[str], ignored: list[str], kept: list[str]) -> None:
    ignore = Ignore(patterns)
    assert [path for path in ignored if not ignore.ignores(path)] == []
    assert [path for path in kept if ignore.ignores(path)] == []


@pytest.mark.parametrize("pattern", ["[", "[a", "a\\", "[]a]", "[z-a]", "[-a]", "x" * 5000])
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(DockerfileError):
        compiled(pattern)


def test_a_lonely_exception() -> None:
    with pytest.raises(DockerfileError, match="illegal exclusion pattern"):
        Ignore(["!"])


def test_wildcards() -> None:
    assert [has_wildcards(path) for path in ("a*", "a?", "[a]", "a/b")] == [True, True, True, False]


@given(st.text(st.sampled_from("ab*?[]!-^\\/."), max_size=12), st.text(st.sampled_from("ab/."), min_size=1, max_size=8))
def test_any_pattern_is_either_matched_or_refused(pattern: str, path: str) -> None:
    try:
        Ignore(read(pattern)).ignores(path)
    except DockerfileError:
        pass


@given(st.text(st.sampled_from("abc/"), min_size=1, max_size=10).filter(lambda path: path.strip("/") == path))
def test_a_path_without_wildcards_matches_itself_and_what_is_below(path: str) -> None:
    clean = "/".join(part for part in path.split("/") if part)
    ignore = Ignore([clean])
    assert ignore.ignores(clean) and ignore.ignores(f"{clean}/x") and not ignore.ignores(f"{clean}x")
