"""Who may do what to which repository.  Pure.

A rule names users, repositories and actions; whoever one rule allows something is allowed it.  In a pattern `*` is any
text without a slash, `**` any text.  Users: a name, `*` for everybody who has logged in, `anonymous` for anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

ANONYMOUS = "anonymous"
ACTIONS = ("pull", "push", "delete", "catalog")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the rights."""

    users: tuple[str, ...]
    repositories: tuple[str, ...]
    actions: tuple[str, ...]

    def allows(self, user: str, repository: str, action: str) -> bool:
        """`user` is "" for somebody who has not logged in."""
        named = ANONYMOUS in self.users or (bool(user) and ("*" in self.users or user in self.users))
        return named and action in self.actions and any(matches(pattern, repository) for pattern in self.repositories)


@dataclass(frozen=True, slots=True)
class Rights:
    """All of them; without any rule everybody who has logged in may do everything."""

    rules: tuple[Rule, ...] = ()

    def allowed(self, user: str, repository: str, actions: Iterable[str]) -> list[str]:
        """Those of `actions` that the user may do."""
        if not self.rules:
            return list(actions) if user else []
        return [action for action in actions if any(rule.allows(user, repository, action) for rule in self.rules)]

    def may(self, user: str, repository: str, action: str) -> bool:
        """Whether the user may do that."""
        return bool(self.allowed(user, repository, (action,)))


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part) or re.escape(part) for part in parts))


def matches(pattern: str, text: str) -> bool:
    """Whether a pattern fits the whole text."""
    return _compiled(pattern).fullmatch(text) is not None
