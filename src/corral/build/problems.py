"""What can be wrong with a Dockerfile, told with its file, line and an excerpt.

Every error of this package that a line of a Dockerfile caused is a DockerfileError, or is given its place by `at`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.errors import InvalidParameter

_AROUND = 2  # lines shown before and after
_LINE_SHOWN_MAX = 400


@dataclass(frozen=True, slots=True)
class Place:
    """Lines `first` to `last` of a Dockerfile, counted from 1."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Source:
    """A Dockerfile: its name as the user gave it, and its lines."""

    name: str
    lines: tuple[str, ...]

    def excerpt(self, place: Place) -> str:
        """The lines around `place`, those of it marked."""
        first = max(1, place.first - _AROUND)
        last = min(len(self.lines), place.last + _AROUND)
        rule = "-" * 20
        shown = [f"{self.name}:{place.first}", rule]
        for number in range(first, last + 1):
            mark = ">>>" if place.first <= number <= place.last else "   "
            shown.append(f"{number:4} | {mark} {self.lines[number - 1][:_LINE_SHOWN_MAX]}")
        return "\n".join([*shown, rule])


class DockerfileError(InvalidParameter):
    """A Dockerfile that cannot be read or does not make sense.  `reason` is the text without place and excerpt."""

    def __init__(self, reason: str, source: Source | None = None, place: Place | None = None) -> None:
        self.reason = reason
        excerpt = f"\n{source.excerpt(place)}" if source is not None and place is not None else ""
        super().__init__(f"{self.lead(place)}{reason}{excerpt}")

    @staticmethod
    def lead(place: Place | None) -> str:
        """What comes before the reason."""
        return ""


class ParseError(DockerfileError):
    """A Dockerfile that cannot be read."""

    @staticmethod
    def lead(place: Place | None) -> str:
        return f"dockerfile parse error on line {place.first}: " if place is not None else ""


@dataclass(frozen=True, slots=True)
class Warned:
    """A build check that fired: BuildKit's name of the rule, and what it says."""

    rule: str
    message: str
    place: Place | None = None


def closest(word: str, known: Sequence[str]) -> str:
    """` (did you mean X?)` for the known word nearest to `word`, or nothing."""
    best = min(known, key=lambda candidate: _distance(word.lower(), candidate.lower()), default="")
    if best and _distance(word.lower(), best.lower()) <= 2:
        return f" (did you mean {best}?)"
    return ""


def _distance(left: str, right: str) -> int:
    """Levenshtein's; only asked for short words."""
    left, right = left[:40], right[:40]
    row = list(range(len(right) + 1))
    for index, letter in enumerate(left, 1):
        diagonal, row[0] = row[0], index
        for column, other in enumerate(right, 1):
            change = diagonal + (letter != other)
            diagonal = row[column]
            row[column] = min(change, row[column] + 1, row[column - 1] + 1)
    return row[-1]
