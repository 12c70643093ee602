"""Flags and arguments, as pflag reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.cli.flags import Flag, parse
from corral.cli.problems import UsageError
from corral.cli.suggest import distance_of, nearest

TABLE = (
    Flag("interactive", "i", "bool"),
    Flag("tty", "t", "bool"),
    Flag("publish", "p", "list"),
    Flag("name", "", "string"),
    Flag("memory", "m", "bytes"),
    Flag("alias", "", "strings"),
    Flag("pull", "", "string", "", "missing"),
)


@pytest.mark.parametrize(
    ("words", "expected", "arguments"),
    [
        (["-it", "image"], {"interactive": True, "tty": True}, ["image"]),
        (["-p80:80", "-p", "81", "-p=82", "x"], {"publish": ["80:80", "81", "82"]}, ["x"]),
        (["--name=a", "--memory", "1k"], {"name": "a", "memory": 1024}, []),
        (["-itm", "5", "x"], {"interactive": True, "tty": True, "memory": 5}, ["x"]),
        (["--interactive=false", "--", "--name"], {"interactive": False}, ["--name"]),
        (["--alias", 'a,"b,c"', "--alias=d"], {"alias": ["a", "b,c", "d"]}, []),
        (["-", "a"], {}, ["-", "a"]),
        (["a", "--name", "b"], {"name": "b"}, ["a"]),
    ],
)
def test_reads(words: list[str], expected: dict[str, object], arguments: list[str]) -> None:
    flags, rest = parse(TABLE, words)
    assert {name: flags[name] for name in expected} == expected
    assert rest == arguments


def test_stops_at_the_first_argument() -> None:
    flags, rest = parse(TABLE, ["-i", "image", "-t", "--name", "x"], interspersed=False)
    assert flags["interactive"]
    assert not flags["tty"]
    assert rest == ["image", "-t", "--name", "x"]


def test_defaults_and_changes() -> None:
    flags, _ = parse(TABLE, ["--pull", "missing"])
    assert flags["pull"] == "missing"
    assert flags.changed("pull")
    assert not flags.changed("name")
    assert (flags["name"], flags["publish"], flags["memory"]) == ("", [], 0)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--nam", "x"], "unknown flag: --nam (did you mean --name?)"),
        (["--zzzzzz"], "unknown flag: --zzzzzz"),
        (["-x"], "unknown shorthand flag: 'x' in -x"),
        (["-ix"], "unknown shorthand flag: 'x' in -x"),
        (["--name"], "flag needs an argument: --name"),
        (["-itm"], "flag needs an argument: 'm' in -itm"),
        (["-m", "q"], 'invalid argument "q" for "-m, --memory" flag: invalid size: \'q\''),
        (
            ["--tty=maybe"],
            'invalid argument "maybe" for "-t, --tty" flag: strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (["--=x"], "bad flag syntax: --=x"),
        (["---x"], "bad flag syntax: ---x"),
    ],
)
def test_refuses(words: list[str], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(TABLE, words)
    assert str(caught.value) == text
    assert caught.value.status == 125


@given(st.lists(st.text(max_size=6), max_size=8))
def test_anything_is_read_or_refused(words: list[str]) -> None:
    try:
        parse(TABLE, words)
    except UsageError:
        pass


@given(st.text(max_size=8), st.text(max_size=8))
def test_distance_is_a_metric(one: str, other: str) -> None:
    assert distance_of(one, other) == distance_of(other, one)
    assert (distance_of(one, other) == 0) == (one == other)


@pytest.mark.parametrize(
    ("word", "found"), [("rnu", "run"), ("psx", "ps"), ("imags", "images"), ("qqqq", ""), ("insp", "inspect")]
)
def test_nearest(word: str, found: str) -> None:
    assert nearest(word, ["run", "ps", "images", "inspect", "rm"]) == found
