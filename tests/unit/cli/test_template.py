"""Templates, tables and JSON as Docker's client prints them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral import jsontext
from corral.cli import listing, table
from corral.cli.problems import CliError
from corral.cli.template import Template

_DATA = {
    "Name": "web",
    "State": {"Status": "running", "Pid": 7},
    "Args": ["a", "b"],
    "Labels": {"y": "2", "x": "1"},
    "Nothing": None,
    "Flag": True,
    "Ratio": 0.5,
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.Name}}", "web"),
        ("a{{- .Name -}} b", "aweb" + "b"),
        ("{{ .State.Status }}/{{.State.Pid}}", "running/7"),
        ("{{json .Args}} {{json .Name}}", '["a","b"] "web"'),
        ("{{.Args}} {{.Labels}} {{.Flag}} {{.Nothing}}", "[a b] map[x:1 y:2] true <no value>"),
        ("{{range .Args}}<{{.}}>{{end}}", "<a><b>"),
        ("{{range $i, $v := .Args}}{{$i}}{{$v}}{{end}}", "0a1b"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "x=1;y=2;"),
        ("{{range .Nothing}}x{{else}}none{{end}}", "none"),
        ("{{if .Nothing}}a{{else if .Flag}}b{{else}}c{{end}}", "b"),
        ('{{if and .Flag (eq .Name "web")}}yes{{end}}', "yes"),
        ("{{with .State}}{{.Pid}}{{end}}{{with .Nothing}}x{{end}}", "7"),
        ('{{index .Labels "x"}} {{index .Args 1}}', "1 b"),
        ('{{join .Args ", "}} {{upper .Name}} {{title "ab cd"}}', "a, b WEB Ab Cd"),
        ('{{printf "%s-%03d %q" .Name .State.Pid .Name}}', 'web-007 "web"'),
        ("{{.Name | upper | lower}} {{len .Args}}", "web 2"),
        ("{{$x := .Name}}{{$x}}{{/* nothing */}}", "web"),
        ('{{split "a,b" ","}} {{truncate "abcdef" 3}} {{pad "a" 1 2}}|', "[a b] abc  a  |"),
        ("{{(index .Args 0)}} {{`raw`}} {{not .Flag}} {{ne 1 2}}", "a raw false true"),
        ("{{lt 1 2}} {{or .Nothing .Name}} {{println 1 2}}", "true web 1 2\n"),
    ],
)
def test_renders(template: str, text: str) -> None:
    assert Template(template).render(_DATA) == text


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{", "unclosed action"),
        ("{{.Nope}}", 'map has no entry for key "Nope"'),
        ("{{.Name.First}}", "can't evaluate field First"),
        ("{{foo .Name}}", 'function "foo" not defined'),
        ("{{if .Flag}}x", "unexpected EOF"),
        ("{{end}}", "unexpected {{end}}"),
        ('{{"abc}}', "unclosed action"),
        ("{{(.Name}}", "unclosed left paren"),
        ("{{$x}}", "undefined variable"),
        ("{{index .Args 9}}", "error calling index"),
        ("{{range .Name}}{{end}}", "range can't iterate"),
        ("{{}}", "missing value for command"),
    ],
)
def test_refuses(template: str, reason: str) -> None:
    with pytest.raises(CliError) as caught:
        Template(template).render(_DATA)
    assert reason in str(caught.value)


@given(st.text(st.sampled_from('{}.-|$"`() abNameStxif=:'), max_size=30))
def test_anything_is_rendered_or_refused(template: str) -> None:
    try:
        Template(template).render(_DATA)
    except CliError:
        pass


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_json_comes_back(value: Any) -> None:
    assert jsontext.loads(jsontext.dumps(value)) == value
    assert json.loads(jsontext.dumps(value)) == value
    assert json.loads(jsontext.indented(value)) == value


@given(st.binary(max_size=20))
def test_json_is_read_or_refused(data: bytes) -> None:
    try:
        jsontext.loads(data)
    except ValueError:
        pass


def test_table() -> None:
    assert (
        table.text_table([["A", "LONG TITLE", "C"], ["x", "y", "z"]])
        == "A         LONG TITLE   C\nx         y            z\n"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (61, "About a minute"), (150, "2 minutes"),
        (3600, "About an hour"), (5400, "2 hours"), (86400, "24 hours"), (48 * 3600, "2 days"), (15 * 86400, "2 weeks"),
        (90 * 86400, "3 months"), (800 * 86400, "2 years"),
    ],
)  # fmt: skip
def test_human_duration(seconds: float, text: str) -> None:
    assert table.human_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (999, "999B"), (1000, "1kB"), (77_812_345, "77.8MB"), (2_500_000_000, "2.5GB")]
)
def test_human_size(size: int, text: str) -> None:
    assert table.human_size(size, 3) == text


def _port(private: int, public: int = 0, address: str = "", kind: str = "tcp") -> dict[str, Any]:
    return {"PrivatePort": private, "PublicPort": public, "IP": address, "Type": kind}


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([_port(80)], "80/tcp"),
        ([_port(80, 8080, "0.0.0.0"), _port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([_port(port, port, "0.0.0.0") for port in (82, 80, 81)], "0.0.0.0:80-82->80-82/tcp"),
        ([_port(80), _port(81), _port(90), _port(53, kind="udp")], "80-81/tcp, 90/tcp, 53/udp"),
    ],
)
def test_ports(ports: list[dict[str, Any]], text: str) -> None:
    assert sorted(listing.ports(ports).split(", ")) == sorted(text.split(", "))
