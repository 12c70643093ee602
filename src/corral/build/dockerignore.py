"""`.dockerignore`: which paths of a context do not belong to it; and the wildcards of COPY and ADD.

One pattern on a line, relative to the context's root, with Go's `filepath.Match` syntax and `**` for any number of
directories; `!` takes paths back in; the last pattern that matches decides; a directory's pattern holds for
everything below it.  Source: the Dockerfile reference, ".dockerignore file".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from functools import lru_cache

from corral.build.problems import DockerfileError

_PATTERN_MAX = 4096


def read(text: str) -> list[str]:
    """The patterns of a file: comments and empty lines left out, paths cleaned."""
    patterns = []
    for line in text.removeprefix("\ufeff").split("\n"):
        pattern = line.strip()
        if pattern.startswith("#"):
            continue
        if not pattern:
            continue
        negated = pattern.startswith("!")
        pattern = pattern.removeprefix("!").strip() if negated else pattern
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern.lstrip("/")
        patterns.append(("!" if negated else "") + pattern)
    return patterns


class Ignore:
    """Matches paths (relative, with `/`) against the patterns."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises DockerfileError for a pattern that cannot be read."""
        self._rules: list[tuple[bool, re.Pattern[str]]] = []
        for pattern in patterns:
            negated = pattern.startswith("!")
            body = pattern[1:] if negated else pattern
            if negated and not body:
                raise DockerfileError('illegal exclusion pattern: "!"')
            if body in ("", "."):
                continue
            self._rules.append((negated, compiled(body)))
        self.has_exceptions = any(negated for negated, _ in self._rules)

    def __bool__(self) -> bool:
        return bool(self._rules)

    def ignores(self, path: str) -> bool:
        """Whether `path` is left out; for something in an ignored directory this is asked with its whole path."""
        ignored = False
        parts = path.split("/")
        prefixes = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        for negated, expression in self._rules:
            if negated != ignored:
                continue
            if any(expression.fullmatch(prefix) for prefix in prefixes):
                ignored = not negated
        return ignored


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern with `**` as a regular expression for whole paths; raises DockerfileError."""
    if len(pattern) > _PATTERN_MAX:
        raise DockerfileError("pattern is too long")
    out: list[str] = []
    index = 0
    while index < len(pattern):
        letter = pattern[index]
        index += 1
        if letter == "*":
            if pattern.startswith("*", index):
                while pattern.startswith("*", index):
                    index += 1
                if pattern.startswith("/", index):
                    index += 1
                    piece = "(?:.*/)?"
                else:
                    piece = ".*"
                if not out or out[-1] != piece:  # a run of them is one: nested quantifiers would be slow
                    out.append(piece)
            else:
                out.append("[^/]*")
        elif letter == "?":
            out.append("[^/]")
        elif letter == "[":
            piece, index = _class(pattern, index)
            out.append(piece)
        elif letter == "\\":
            if index == len(pattern):
                raise DockerfileError(f"syntax error in pattern: {pattern}")
            out.append(re.escape(pattern[index]))
            index += 1
        else:
            out.append(re.escape(letter))
    return re.compile("".join(out), re.DOTALL)


def _class(pattern: str, index: int) -> tuple[str, int]:
    """A character class from behind its `[`: the expression, and where it ends."""
    negated = pattern.startswith("^", index)
    index += negated
    ranges: list[str] = []
    while not ranges or not pattern.startswith("]", index):
        first, index = _class_letter(pattern, index)
        last = first
        if pattern.startswith("-", index):
            last, index = _class_letter(pattern, index + 1)
        if last < first:
            raise DockerfileError(f"syntax error in pattern: {pattern}")
        ranges.append(f"{re.escape(first)}-{re.escape(last)}")
    return f"(?!/)[{'^' if negated else ''}{''.join(ranges)}]", index + 1


def _class_letter(pattern: str, index: int) -> tuple[str, int]:
    if index >= len(pattern) or pattern[index] in "-]":
        raise DockerfileError(f"syntax error in pattern: {pattern}")
    if pattern[index] == "\\":
        index += 1
        if index >= len(pattern):
            raise DockerfileError(f"syntax error in pattern: {pattern}")
    return pattern[index], index + 1


def has_wildcards(path: str) -> bool:
    """Whether a source of COPY is a pattern."""
    return any(letter in "*?[\\" for letter in path)
