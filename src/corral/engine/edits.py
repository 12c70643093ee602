"""Environment and labels of a container that exists, edited.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from corral.errors import InvalidParameter
from corral.wire.containers import ContainerConfig, UpdateRequest


class BadEdit(InvalidParameter):
    """A variable that has no name or no value."""


@dataclass(frozen=True, slots=True)
class Before:
    """What was there, to be put back if the update fails."""

    env: list[str] | None
    labels: dict[str, str] | None


def apply(config: ContainerConfig, wanted: UpdateRequest) -> Before:
    """Edit `config`; raises BadEdit before anything is changed."""
    for entry in wanted.env_add or ():
        if not entry.partition("=")[0] or "=" not in entry:
            raise BadEdit(f"invalid environment variable: {entry!r}: it must be NAME=VALUE")
    before = Before(config.env, config.labels)
    if wanted.env_add or wanted.env_remove:
        gone = {*(wanted.env_remove or ()), *(entry.partition("=")[0] for entry in wanted.env_add or ())}
        kept = [entry for entry in config.env or () if entry.partition("=")[0] not in gone]
        config.env = [*kept, *(wanted.env_add or ())]
    if wanted.label_add or wanted.label_remove:
        labels = {
            name: value for name, value in (config.labels or {}).items() if name not in (wanted.label_remove or ())
        }
        config.labels = {**labels, **(wanted.label_add or {})}
    return before
