"""The nearest known word to one that is not known."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word with the fewest edits, or of which `word` is the beginning; empty if none is near."""
    best, best_distance = "", 1 + max(1, len(word) // 3)
    for candidate in known:
        distance = 1 if len(word) > 1 and candidate.startswith(word) else distance_of(word, candidate)
        if distance < best_distance:
            best, best_distance = candidate, distance
    return best


def distance_of(one: str, other: str) -> int:
    """Edits (insert, delete, replace, swap neighbours) between two words."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        following = [i]
        for j, wanted in enumerate(other, 1):
            cost = min(row[j] + 1, following[j - 1] + 1, row[j - 1] + (char != wanted))
            if i > 1 and j > 1 and char == other[j - 2] and one[i - 2] == wanted:
                cost = min(cost, before[j - 2] + 1)
            following.append(cost)
        before, row = row, following
    return row[-1]
