"""What `docker rmi` removes: names first, and with the last name the content.

Docker's rules: a name goes when others remain, whoever uses the image; the last name goes only if no container uses
the image, or by force; an id stands for all names of one repository, and by force for all of several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corral.image.model import RemoveConflict, User
from corral.oci import reference
from corral.oci.digest import Digest

InUse = Callable[[Digest], Sequence[User]]


@dataclass(frozen=True, slots=True)
class Plan:
    """Canonical names to drop, in order, and whether the image goes with them."""

    names: tuple[str, ...]
    delete: bool


def plan(
    shown: str, digest: Digest, name: str | None, names: Sequence[str], users: Sequence[User], force: bool
) -> Plan:
    """Decide a removal; raises RemoveConflict.

    `name` is the canonical name that was asked for, None when it was an id; `names` are all names of the image.
    """
    if name is not None:
        return _by_name(shown, digest, name, names, users, force)
    named = [held for held in names if not held.startswith("@")]
    repositories = {reference.parse(held).name for held in named}
    if len(repositories) > 1 and not force:
        raise RemoveConflict.several_repositories(digest)
    _refuse_users(digest, users, force)
    return Plan(tuple(names), True)


def _by_name(shown: str, digest: Digest, name: str, names: Sequence[str], users: Sequence[User], force: bool) -> Plan:
    repository = reference.parse(name).name
    rest = [held for held in names if held != name]
    # A digest reference of the same repository exists because of its tag, and goes with the last one.
    others = [held for held in rest if not (_is_digest_of(held, repository) and not _tagged(rest, repository))]
    if others:
        return Plan((name, *(held for held in rest if held not in others)), False)
    if users and not force:
        raise RemoveConflict.name_in_use(shown, users[0].container_id, digest)
    if any(user.running for user in users):  # by force: the name goes, what is running keeps its image
        return Plan((name, *rest), False)
    return Plan((name, *rest), True)


def _refuse_users(digest: Digest, users: Sequence[User], force: bool) -> None:
    running = next((user for user in users if user.running), None)
    if running is not None:
        raise RemoveConflict.used_by(digest, running)
    if users and not force:
        raise RemoveConflict.used_by(digest, users[0])


def _is_digest_of(name: str, repository: str) -> bool:
    if name.startswith("@"):
        return True
    parsed = reference.parse(name)
    return parsed.digest is not None and parsed.name == repository


def _tagged(names: Sequence[str], repository: str) -> bool:
    for name in names:
        if not name.startswith("@"):
            parsed = reference.parse(name)
            if parsed.tag and parsed.name == repository:
                return True
    return False
