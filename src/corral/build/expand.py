"""Variables and quotes in a Dockerfile's words, as a shell has them.

    $name  ${name}  ${name:-word} ${name-word} ${name:+word} ${name+word} ${name:?word} ${name?word}
    ${name#pattern} ${name##pattern} ${name%pattern} ${name%%pattern} ${name/pattern/word} ${name//pattern/word}

`word` may hold variables itself.  Patterns know `*` and `?`, and the escape character before either.
Source: the Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from corral.build.problems import DockerfileError

_DEPTH_MAX = 100
_RESULT_MAX = 1 << 20
_SPECIAL = frozenset("@*#?-$!0123456789")


def word(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """`text` as one word: quotes removed, variables replaced.  Raises DockerfileError."""
    return _Lexer(text, variables, escape).all()


def words(text: str, variables: Mapping[str, str], escape: str = "\\") -> list[str]:
    """As `word`, split at white space outside of quotes; what a variable holds is split too, as in a shell."""
    return _Lexer(text, variables, escape).split()


def raw_word(text: str, variables: Mapping[str, str], escape: str = "\\") -> str:
    """Variables replaced; quotes and escapes stay as they are (here-documents)."""
    return _Lexer(text, variables, escape, raw=True).all()


def names(text: str, escape: str = "\\") -> set[str]:
    """The variables that expanding `text` asks for."""
    asked = _Recorder()
    try:
        _Lexer(text, asked, escape).all()
    except DockerfileError:
        pass  # a malformed expression is reported where the text is expanded in earnest
    return asked.asked


class _Recorder(dict[str, str]):
    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, key: str, default: object = None) -> None:  # type: ignore[override]
        self.asked.add(key)


class _Lexer:
    def __init__(
        self, text: str, variables: Mapping[str, str], escape: str, *, raw: bool = False, depth: int = 0
    ) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._raw = raw
        self._depth = depth
        self._at = 0
        if depth > _DEPTH_MAX:
            raise DockerfileError("variables are nested too deeply")

    def all(self) -> str:
        out: list[str] = []
        self._until("", out)
        return self._bounded("".join(out))

    def split(self) -> list[str]:
        """One pass that keeps quoted pieces together."""
        found: list[str] = []
        current: list[str] = []
        open_word = False
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter.isspace():
                if open_word:
                    found.append("".join(current))
                current, open_word = [], False
                self._at += 1
            elif letter == "$":
                pieces = re.split(r"\s+", self._dollar())
                if pieces != [""]:
                    current.append(pieces[0])
                    open_word = open_word or bool(pieces[0])
                    for piece in pieces[1:]:
                        if open_word:
                            found.append("".join(current))
                        current, open_word = [piece], bool(piece)
            else:
                quoted = letter in "\"'"
                current.append(self._one())
                open_word = open_word or quoted or bool(current[-1])
        if open_word:
            found.append("".join(current))
        return found

    def _bounded(self, text: str) -> str:
        if len(text) > _RESULT_MAX:
            raise DockerfileError(f"expanded text is longer than {_RESULT_MAX} characters")
        return text

    def _until(self, stop: str, out: list[str]) -> bool:
        """Collect up to the letter `stop`, which is taken; False if the text ends before."""
        while self._at < len(self._text):
            if stop and self._text[self._at] == stop:
                self._at += 1
                return True
            out.append(self._one())
        return not stop

    def _one(self) -> str:
        """The next piece: a quoted run, a variable, an escaped letter or a letter."""
        letter = self._text[self._at]
        if letter == "$":
            return self._dollar()
        self._at += 1
        if self._raw:
            if letter == self._escape and self._text[self._at : self._at + 1] in ("$", self._escape):
                self._at += 1
                return self._text[self._at - 1]
            return letter
        if letter == "'":
            end = self._text.find("'", self._at)
            if end < 0:
                raise DockerfileError("unexpected end of statement while looking for matching single-quote")
            piece, self._at = self._text[self._at : end], end + 1
            return piece
        if letter == '"':
            return self._double()
        if letter == self._escape and self._at < len(self._text):
            self._at += 1
            return self._text[self._at - 1]
        return letter

    def _double(self) -> str:
        out: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == '"':
                self._at += 1
                return "".join(out)
            if letter == "$":
                out.append(self._dollar())
                continue
            self._at += 1
            if letter == self._escape and self._at < len(self._text):
                following = self._text[self._at]
                if following in ('"', "$", self._escape):
                    letter = following
                    self._at += 1
            out.append(letter)
        raise DockerfileError("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self._at += 1
        if self._text[self._at : self._at + 1] == "{":
            self._at += 1
            return self._braced()
        name = self._name()
        if not name:
            return "$"
        return self._variables.get(name) or ""

    def _name(self) -> str:
        match = re.compile(r"[A-Za-z_]\w*", re.ASCII).match(self._text, self._at)
        if match:
            self._at = match.end()
            return match[0]
        letter = self._text[self._at : self._at + 1]
        if letter and letter in _SPECIAL:
            self._at += 1
            return letter
        return ""

    def _braced(self) -> str:
        name = self._name()
        if self._at >= len(self._text):
            raise DockerfileError("syntax error: missing '}'")
        if not name:
            if self._text[self._at] == "}":
                raise DockerfileError("syntax error: bad substitution")
            raise DockerfileError("syntax error: bad substitution")
        letter = self._text[self._at]
        self._at += 1
        value = self._variables.get(name)
        if letter == "}":
            return value or ""
        if letter == ":":
            modifier = self._text[self._at : self._at + 1]
            self._at += 1
            if modifier not in ("+", "-", "?") or not modifier:
                raise DockerfileError(f"unsupported modifier ({modifier or '}'}) in substitution")
            return self._choose(name, value, modifier, is_set=bool(value))
        if letter in "+-?":
            return self._choose(name, value, letter, is_set=value is not None)
        if letter in "#%":
            greedy = self._text[self._at : self._at + 1] == letter
            self._at += greedy
            return _trim(value or "", self._pattern("}"), self._escape, front=letter == "#", greedy=greedy)
        if letter == "/":
            every = self._text[self._at : self._at + 1] == "/"
            self._at += every
            pattern = self._pattern("/")
            return _substitute(value or "", pattern, self._inner(), self._escape, every=every)
        raise DockerfileError(f"unsupported modifier ({letter}) in substitution")

    def _choose(self, name: str, value: str | None, modifier: str, *, is_set: bool) -> str:
        other = self._inner()
        if modifier == "+":
            return other if is_set else ""
        if is_set:
            return value or ""
        if modifier == "-":
            return other
        raise DockerfileError(f"{name}: {other or 'is not allowed to be unset'}")

    def _inner(self) -> str:
        """The word up to the closing brace, expanded."""
        out: list[str] = []
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise DockerfileError("variables are nested too deeply")
        if not self._until("}", out):
            raise DockerfileError("syntax error: missing '}'")
        self._depth -= 1
        return self._bounded("".join(out))

    def _pattern(self, stop: str) -> str:
        """A pattern up to `stop`: variables replaced, escapes kept for the matcher."""
        out: list[str] = []
        while self._at < len(self._text):
            letter = self._text[self._at]
            if letter == stop:
                self._at += 1
                return "".join(out)
            if letter == "$":
                out.append(self._dollar())
                continue
            self._at += 1
            out.append(letter)
            if letter == self._escape and self._at < len(self._text):
                out.append(self._text[self._at])
                self._at += 1
        raise DockerfileError("syntax error: missing '}'" if stop == "}" else "syntax error: missing '/' in ${}")


_ANY, _MANY = "?", "*"
_PATTERN_VALUE_MAX = 1 << 16


def _tokens(pattern: str, escape: str) -> list[tuple[str, str]]:
    """(kind, letter): kind is `?`, `*` or "" for a letter that stands for itself."""
    found: list[tuple[str, str]] = []
    letters = iter(pattern)
    for letter in letters:
        if letter == escape:
            found.append(("", next(letters, escape)))
        elif letter in (_ANY, _MANY):
            if not (letter == _MANY and found and found[-1][0] == _MANY):
                found.append((letter, ""))
        else:
            found.append(("", letter))
    return found


def _ends(tokens: list[tuple[str, str]], value: str, start: int = 0) -> set[int]:
    """Where a match that begins at `start` may end.  Every token is looked at once for each place: no backtracking."""
    at = {start}
    for kind, letter in tokens:
        if kind == _MANY:
            at = set(range(min(at), len(value) + 1))
        elif kind == _ANY:
            at = {index + 1 for index in at if index < len(value)}
        else:
            at = {index + 1 for index in at if value.startswith(letter, index) and index < len(value)}
        if not at:
            break
    return at


def _checked(value: str) -> str:
    if len(value) > _PATTERN_VALUE_MAX:
        raise DockerfileError(f"a value of {len(value)} characters is too long for a pattern")
    return value


def _trim(value: str, pattern: str, escape: str, *, front: bool, greedy: bool) -> str:
    tokens = _tokens(pattern, escape)
    if front:
        ends = _ends(tokens, _checked(value))
        return value[(max if greedy else min)(ends) :] if ends else value
    ends = _ends(tokens[::-1], _checked(value)[::-1])
    return value[: len(value) - (max if greedy else min)(ends)] if ends else value


def _substitute(value: str, pattern: str, replacement: str, escape: str, *, every: bool) -> str:
    tokens = _tokens(pattern, escape)
    if not tokens:
        return value
    out: list[str] = []
    at = 0
    _checked(value)
    while at < len(value):
        ends = _ends(tokens, value, at)
        end = max(ends) if ends else at
        if end > at:
            out.append(replacement)
            at = end
            if not every:
                break
        else:
            out.append(value[at])
            at += 1
    return "".join(out) + value[at:]
