"""List and event filters, with Docker's semantics and refusals."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from corral.errors import InvalidParameter

Filters = Mapping[str, list[str]]


class InvalidFilter(InvalidParameter):
    """A filter, or a value of one, that does not exist."""


def check_names(filters: Filters, known: Iterable[str]) -> None:
    """Raise InvalidFilter for a filter that the operation does not have."""
    accepted = set(known)
    for name in filters:
        if name not in accepted:
            raise InvalidFilter(f"invalid filter '{name}'")


def match_labels(wanted: Iterable[str], labels: Mapping[str, str]) -> bool:
    """Whether `labels` has every `name` or `name=value`."""
    for entry in wanted:
        name, separator, value = entry.partition("=")
        if name not in labels or (separator and labels[name] != value):
            return False
    return True


def match_pattern(wanted: Iterable[str], texts: Iterable[str]) -> bool:
    """Whether one of the patterns is found in one of the texts, as Docker matches names."""
    candidates = list(texts)
    for pattern in wanted:
        try:
            found = re.compile(pattern)
        except re.error as error:
            raise InvalidFilter(f"invalid filter '{pattern}': {error}") from error
        if any(found.search(text) for text in candidates):
            return True
    return False


def match_fuzzy(wanted: Iterable[str], text: str) -> bool:
    """Whether `text` is, or begins with, one of the values."""
    return any(text == value or text.startswith(value) for value in wanted)


def boolean(filters: Filters, name: str) -> bool | None:
    """The value of a yes-or-no filter, or None when it is absent."""
    values = filters.get(name)
    if not values:
        return None
    truths = {"1": True, "true": True, "0": False, "false": False}
    if len(values) > 1 or values[0].lower() not in truths:
        raise InvalidFilter(f"invalid filter '{name}=[{' '.join(values)}]'")
    return truths[values[0].lower()]


def every(tests: Iterable[Callable[[], bool]]) -> bool:
    """Whether all of the tests hold, asked in order."""
    return all(test() for test in tests)
