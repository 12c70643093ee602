"""The Dockerfile's lines: directives, continuations, here-documents, flags; nothing makes the parser fall over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.build import dockerfile, stages
from corral.build.dockerfile import decode, parse
from corral.build.problems import DockerfileError, closest


def nodes(text: str) -> list[tuple[str, str]]:
    return [(node.name, node.text) for node in parse(text).nodes]


def test_comments_continuations_and_empty_lines() -> None:
    text = "# comment\n\n  from busybox \\\n# inside\n\n   AS x\nRUN a \\\n  && b\\  \n c\n"
    assert nodes(text) == [("FROM", "busybox    AS x"), ("RUN", "a   && b c")]
    assert [warned.rule for warned in parse(text).warnings] == ["NoEmptyContinuation"]


def test_an_escaped_escape_does_not_continue() -> None:
    assert nodes("FROM a\nRUN echo x\\\\\nRUN y") == [("FROM", "a"), ("RUN", "echo x\\\\"), ("RUN", "y")]


def test_directives() -> None:
    found = parse("# syntax=docker/dockerfile:1\n# escape=`\n# check=skip=all\nFROM a\nRUN x `\n y\\\n")
    assert found.directives == {"syntax": "docker/dockerfile:1", "escape": "`", "check": "skip=all"}
    assert found.nodes[1].text == "x  y\\"
    assert parse("# something\n# escape=`\nFROM a").escape == "\\"  # not at the top any more


def test_places_are_lines_of_the_file() -> None:
    found = parse("FROM a\n\n# c\nRUN x \\\n  y\nCMD z\n").nodes
    assert [(node.place.first, node.place.last) for node in found] == [(1, 1), (4, 5), (6, 6)]


def test_heredocs() -> None:
    found = parse(
        "FROM a\nRUN <<EOF\none $x\n  two\nEOF\nCOPY <<-'A' <<B /d/\n\tq $x\n\tA\nb\nB\nRUN 3<<X cat\nX\nCMD <<EOF\n"
    )
    run, copy, third, cmd = found.nodes[1:]
    assert [(doc.name, doc.content, doc.expand) for doc in run.heredocs] == [("EOF", "one $x\n  two\n", True)]
    assert [(doc.name, doc.content, doc.expand) for doc in copy.heredocs] == [
        ("A", "q $x\n", False),
        ("B", "b\n", True),
    ]
    assert third.heredocs[0].descriptor == "3"
    assert cmd.heredocs == ()
    assert (run.place.first, run.place.last) == (2, 5)


def test_flags() -> None:
    node = parse("FROM a\nCOPY --chown=1:2 --link --from='x y' -- --a b").nodes[1]
    assert node.flags == (("chown", "1:2"), ("link", None), ("from", "x y"))
    assert node.text == "--a b"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("# only\n", "failed to parse Dockerfile: file with no instructions"),
        ("RUNN x", "dockerfile parse error on line 1: unknown instruction: RUNN (did you mean RUN?)"),
        ("FROM a\nxyzzyplugh x", "dockerfile parse error on line 2: unknown instruction: xyzzyplugh"),
        ("FROM a\nRUN <<EOF\nx", "dockerfile parse error on line 2: unterminated heredoc"),
        ("# escape=x\nFROM a", "dockerfile parse error on line 1: invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=`\nFROM a", "dockerfile parse error on line 2: only one escape parser directive can be "
         "used"),
        ("RUN x", "dockerfile parse error on line 1: no build stage in current context"),
        ("FROM a b", "dockerfile parse error on line 1: FROM requires either one or three arguments"),
        ("FROM a AS 1x", "dockerfile parse error on line 1: invalid name for build stage: \"1x\", name can't start "
         "with a number or contain symbols"),
        ("FROM a\nENV x", "dockerfile parse error on line 2: ENV must have two arguments"),
        ("FROM a\nENV a=b c", "dockerfile parse error on line 2: Syntax error - can't find = in \"c\". Must be of the "
         "form: name=value"),
        ("FROM a\nCOPY --foo=1 a b", "dockerfile parse error on line 2: unknown flag: --foo"),
        ("FROM a\nCOPY a", "dockerfile parse error on line 2: COPY requires at least two arguments, but only one was "
         "provided. Destination could not be determined"),
        ("FROM a\nCOPY a b c", "dockerfile parse error on line 2: When using COPY with more than one source file, the "
         "destination must be a directory and end with a /"),
        ("FROM a\nSHELL x", "dockerfile parse error on line 2: SHELL requires the arguments to be in JSON form"),
        ("FROM a\nONBUILD FROM x", "dockerfile parse error on line 2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nHEALTHCHECK X", "dockerfile parse error on line 2: Unknown type \"X\" in HEALTHCHECK (try CMD)"),
        ("FROM a\nRUN --network=x y", "dockerfile parse error on line 2: invalid network mode: x"),
        ("FROM a\nRUN", "dockerfile parse error on line 2: RUN requires at least one argument"),
        ("FROM a\nWORKDIR", "dockerfile parse error on line 2: WORKDIR requires exactly one argument"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        stages.read(parse(text))
    assert str(caught.value).split("\n")[0] == reason


def test_the_excerpt_marks_the_lines() -> None:
    with pytest.raises(DockerfileError) as caught:
        parse("FROM a\nRUN 1\nRUN 2\nWHAT \\\n  x\nRUN 3\nRUN 4\nRUN 5", "my.Dockerfile")
    assert str(caught.value).split("\n")[1:] == [
        "my.Dockerfile:4",
        "--------------------",
        "   2 |     RUN 1",
        "   3 |     RUN 2",
        "   4 | >>> WHAT \\",
        "   5 | >>>   x",
        "   6 |     RUN 3",
        "   7 |     RUN 4",
        "--------------------",
    ]


@pytest.mark.parametrize("data", [b"FROM \xff\xfe", b"FROM a\0b", b"x" * (dockerfile.SIZE_MAX_BYTES + 1)])
def test_what_is_not_text_is_refused(data: bytes) -> None:
    with pytest.raises(DockerfileError):
        decode(data)


def test_a_mark_in_front_is_no_instruction() -> None:
    assert decode("\ufeffFROM a".encode()) == "FROM a"


def test_a_line_of_ten_megabytes() -> None:
    assert len(parse("FROM a\nRUN " + "x" * 10_000_000).nodes[1].text) == 10_000_000


def test_closest() -> None:
    assert closest("COPPY", dockerfile.INSTRUCTIONS) == " (did you mean COPY?)"
    assert closest("ZZZZZZ", dockerfile.INSTRUCTIONS) == ""


PIECES = st.sampled_from(
    [*dockerfile.INSTRUCTIONS, "FROM a", "FROM a AS b", "COPY --from=b", "RUN --mount=type=cache", "<<EOF", "EOF", "\\",
     "`", "# escape=`", "#", '"', "'", "[", "]", "=", "$x", "${x:-y}", "--", "\t", " ", "\n", "\n", "\n", "a", "a=b",
     "\0", "é", "\r\n", "NONE", "CMD x"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=200))
def test_anything_is_either_read_or_refused(text: str) -> None:
    try:
        plan = stages.read(parse(text))
    except DockerfileError:
        return
    for stage in plan.stages:
        assert stage.base
        for instruction in stage.instructions:
            assert instruction.place is not None and 1 <= instruction.place.first <= instruction.place.last


@given(st.lists(PIECES, max_size=20).map(" ".join))
def test_every_line_belongs_to_one_instruction_at_most(text: str) -> None:
    try:
        found = parse("FROM a\n" + text).nodes
    except DockerfileError:
        return
    ends = [0] + [node.place.last for node in found]
    assert all(node.place.first > before for node, before in zip(found, ends, strict=False))
