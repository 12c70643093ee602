"""The Dockerfile as lines: directives, comments, continuations, here-documents, flags.

    text -> parse() -> Dockerfile(nodes)        one Node for each instruction, its arguments still text

What an instruction means is `corral.build.instructions`' business.  Source: the Dockerfile reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from corral.build.problems import DockerfileError, ParseError, Place, Source, Warned, closest

INSTRUCTIONS = (
    "ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER",
    "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
_WITH_HEREDOCS = frozenset(("ADD", "COPY", "RUN"))
_DIRECTIVE = re.compile(r"#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*")
_DIRECTIVES = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"""(\d*)<<(-?)\s*(['"]?)([A-Za-z_][\w.]*)\3""")
SIZE_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Heredoc:
    """A here-document: `expand` unless its word was quoted; with `chomp` leading tabs are gone."""

    name: str
    content: str
    expand: bool
    chomp: bool
    descriptor: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """One instruction: `name` in capitals, `text` what follows name and flags, `original` as it was written."""

    name: str
    text: str
    original: str
    place: Place
    flags: tuple[tuple[str, str | None], ...] = ()
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile."""

    source: Source
    nodes: tuple[Node, ...]
    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)
    warnings: tuple[Warned, ...] = ()


def decode(data: bytes, name: str = "Dockerfile") -> str:
    """The text of a Dockerfile; raises DockerfileError for what is none."""
    if len(data) > SIZE_MAX_BYTES:
        raise DockerfileError(f"{name} is larger than {SIZE_MAX_BYTES} bytes")
    if b"\0" in data:
        raise DockerfileError(f"{name} is not text: it contains null bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DockerfileError(f"{name} is not text: line {line} is not UTF-8") from None


def parse(text: str, name: str = "Dockerfile") -> Dockerfile:
    """The instructions of a Dockerfile; raises DockerfileError."""
    return _Parser(text, name).parse()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._lines = [line.removesuffix("\r") for line in text.split("\n")]
        if self._lines and not self._lines[-1]:
            self._lines.pop()
        self._source = Source(name, tuple(self._lines))
        self._next = 0
        self._warnings: list[Warned] = []

    def parse(self) -> Dockerfile:
        directives = self._directives()
        escape = directives.get("escape", "\\")
        nodes = list(self._nodes(escape))
        if not nodes:
            if not any(line.strip() for line in self._lines):
                raise DockerfileError(f"the Dockerfile ({self._source.name}) cannot be empty")
            raise DockerfileError("failed to parse Dockerfile: file with no instructions")
        return Dockerfile(self._source, tuple(nodes), escape, directives, tuple(self._warnings))

    def _directives(self) -> dict[str, str]:
        """`# name=value` lines at the top; the first line of another kind ends them."""
        found: dict[str, str] = {}
        for number, line in enumerate(self._lines, 1):
            match = _DIRECTIVE.fullmatch(line.strip())
            if match is None or match[1].lower() not in _DIRECTIVES:
                break
            name, value = match[1].lower(), match[2]
            place = Place(number, number)
            if name in found:
                raise ParseError(f"only one {name} parser directive can be used", self._source, place)
            if name == "escape" and value not in ("\\", "`"):
                raise ParseError(f"invalid escape token '{value}' does not match ` or \\", self._source, place)
            found[name] = value
        return found

    def _nodes(self, escape: str) -> Iterator[Node]:
        # An odd escape at the end continues the line; two of them are a literal one.
        continued = re.compile(rf"(?:^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*$")
        while self._next < len(self._lines):
            first = self._next + 1
            line = self._take().lstrip(" \t\v\f")
            if not line or line.startswith("#"):
                continue
            logical, original = self._continue(line, continued, escape)
            if logical.strip():
                yield self._node(logical.strip(), original, first, escape)

    def _take(self) -> str:
        line = self._lines[self._next]
        self._next += 1
        return line

    def _continue(self, line: str, continued: re.Pattern[str], escape: str) -> tuple[str, list[str]]:
        original = [line]
        parts: list[str] = []
        while True:
            if not continued.search(line):
                parts.append(line)
                break
            parts.append(line[: line.rindex(escape)])
            following = self._following(original)
            if following is None:
                break
            line = following
        return "".join(parts), original

    def _following(self, original: list[str]) -> str | None:
        """The next line of a continued instruction: comments are skipped, empty lines too, with a warning."""
        while self._next < len(self._lines):
            line = self._take()
            if line.lstrip().startswith("#"):
                continue
            if not line.strip():
                place = Place(self._next, self._next)
                self._warnings.append(Warned("NoEmptyContinuation", "Empty continuation line", place))
                continue
            original.append(line)
            return line
        return None

    def _node(self, logical: str, original: list[str], first: int, escape: str) -> Node:
        name, _, rest = logical.partition(" ")
        if "\t" in name:
            name, _, tail = logical.partition("\t")
            rest = tail
        upper = name.upper()
        place = Place(first, self._next)
        if upper not in INSTRUCTIONS:
            reason = f"unknown instruction: {name[:100]}{closest(name, INSTRUCTIONS) if len(name) < 40 else ''}"
            raise ParseError(reason, self._source, place)
        flags, text = split_flags(rest.strip(), escape)
        heredocs: tuple[Heredoc, ...] = ()
        inner = text.split(maxsplit=1)[0].upper() if upper == "ONBUILD" and text else upper
        if inner in _WITH_HEREDOCS and "<<" in text:
            heredocs = self._heredocs(text, place)
        place = Place(first, self._next)
        if heredocs:
            original = list(self._lines[first - 1 : self._next])
        return Node(upper, text, "\n".join(original), place, flags, heredocs)

    def _heredocs(self, text: str, place: Place) -> tuple[Heredoc, ...]:
        return tuple(self._heredoc(*found, place) for found in heredoc_words(text))

    def _heredoc(self, descriptor: str, chomp: bool, quoted: bool, name: str, place: Place) -> Heredoc:
        lines: list[str] = []
        while self._next < len(self._lines):
            line = self._take()
            if chomp:
                line = line.lstrip("\t")
            if line == name:
                content = "".join(f"{held}\n" for held in lines)
                return Heredoc(name, content, not quoted, chomp, descriptor)
            lines.append(line)
        raise ParseError("unterminated heredoc", self._source, place)


def heredoc_words(text: str) -> list[tuple[str, bool, bool, str]]:
    """The here-documents that a line announces: descriptor, whether tabs are cut, whether quoted, and the word."""
    found = []
    for word in _words(text):
        match = _HEREDOC.fullmatch(word)
        if match:
            found.append((match[1], bool(match[2]), bool(match[3]), match[4]))
    return found


def _words(text: str) -> list[str]:
    """Split at white space outside of quotes, the quotes kept."""
    return re.findall(r"""(?:[^\s"']|"(?:[^"\\]|\\.)*"|'[^']*'|["'])+""", text)


def split_flags(text: str, escape: str) -> tuple[tuple[tuple[str, str | None], ...], str]:
    """The `--name[=value]` words in front, and the rest; `--` ends them.  Quotes and escapes hold words together."""
    flags: list[tuple[str, str | None]] = []
    while text.startswith("--"):
        word, rest = _flag_word(text, escape)
        if word == "--":
            return tuple(flags), rest
        name, equals, value = word[2:].partition("=")
        flags.append((name, value if equals else None))
        text = rest
    return tuple(flags), text


def _flag_word(text: str, escape: str) -> tuple[str, str]:
    word = []
    quote = ""
    index = 0
    while index < len(text):
        letter = text[index]
        if letter == escape and quote != "'" and index + 1 < len(text):
            index += 1
            word.append(text[index])
        elif quote:
            if letter == quote:
                quote = ""
            else:
                word.append(letter)
        elif letter in "\"'":
            quote = letter
        elif letter.isspace():
            break
        else:
            word.append(letter)
        index += 1
    return "".join(word), text[index:].lstrip()
