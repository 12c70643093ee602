"""Which tags and manifests retention keeps.  Pure: ages in, names out.

The first rule whose patterns fit a repository and a tag decides about that tag: it is kept if it is among the
`keep_last` youngest of those that the rule decides about, or younger than `keep_younger`; a rule with neither keeps
it.  A tag that no rule fits is kept.  A manifest is kept while a kept tag leads to it, directly, through an index, or
as the manifest of a signature or the like that refers to a kept one; another one goes when it is older than
`remove_untagged`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.registry.rights import matches


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """One rule; ages in seconds, None for no limit of that kind."""

    repositories: tuple[str, ...]
    tags: tuple[str, ...]
    keep_last: int | None
    keep_younger_s: float | None
    remove_untagged_s: float | None

    def fits(self, repository: str) -> bool:
        """Whether it is about the repository."""
        return any(matches(pattern, repository) for pattern in self.repositories)


def retired_tags(rules: tuple[RetentionRule, ...], repository: str, ages_s: Mapping[str, float]) -> list[str]:
    """The tags to remove of those with these ages."""
    left = dict(ages_s)
    retired: list[str] = []
    for rule in rules:
        if not rule.fits(repository):
            continue
        mine = sorted(
            (tag for tag in left if any(matches(pattern, tag) for pattern in rule.tags)),
            key=lambda tag: (left[tag], tag),
        )
        if rule.keep_last is not None or rule.keep_younger_s is not None:
            kept = set(mine[: rule.keep_last or 0])
            if rule.keep_younger_s is not None:
                kept.update(tag for tag in mine if left[tag] < rule.keep_younger_s)
            retired += [tag for tag in mine if tag not in kept]
        for tag in mine:
            del left[tag]
    return sorted(retired)


def untagged_limit_s(rules: tuple[RetentionRule, ...], repository: str) -> float | None:
    """The age from which untagged manifests go; None for never."""
    for rule in rules:
        if rule.remove_untagged_s is not None and rule.fits(repository):
            return rule.remove_untagged_s
    return None


def reachable(roots: set[str], children: Mapping[str, tuple[str, ...]], subjects: Mapping[str, str | None]) -> set[str]:
    """The manifests that the roots lead to: through indexes, and from a subject to what refers to it."""
    referrers: dict[str, list[str]] = {}
    for digest, subject in subjects.items():
        if subject is not None:
            referrers.setdefault(subject, []).append(digest)
    found: set[str] = set()
    pending = list(roots)
    while pending:
        digest = pending.pop()
        if digest in found:
            continue
        found.add(digest)
        pending.extend(children.get(digest, ()))
        pending.extend(referrers.get(digest, ()))
    return found
