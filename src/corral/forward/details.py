"""What a log line says of its container: the tag, and the labels and variables that were asked for.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from corral.errors import InvalidParameter

_SHORT = 12
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}")


class BadTag(InvalidParameter):
    """A tag template that cannot be expanded."""


class BadPattern(InvalidParameter):
    """A regular expression of `labels-regex` or `env-regex` that is none."""


@dataclass(frozen=True)
class Described:
    """A container, as log drivers describe it.  `created` in RFC 3339, `command` as one line."""

    id: str
    name: str
    image_id: str
    image: str
    command: str
    created: str
    daemon: str = "corral"
    labels: Mapping[str, str] = field(default_factory=dict)
    env: tuple[str, ...] = ()


def expand_tag(template: str, container: Described) -> str:
    """A `tag` option with its `{{.Name}}`s filled in; raises BadTag."""
    fields = {
        ".ID": container.id[:_SHORT],
        ".FullID": container.id,
        ".Name": container.name,
        ".FullName": f"/{container.name}",
        ".ImageID": container.image_id.removeprefix("sha256:")[:_SHORT],
        ".ImageFullID": container.image_id,
        ".ImageName": container.image,
        ".ImageFullName": container.image,
        ".Command": container.command,
        ".DaemonName": container.daemon,
    }

    def value(found: re.Match[str]) -> str:
        try:
            return fields[found[1]]
        except KeyError:
            raise BadTag(f"log opt 'tag': cannot expand {found[0]}: known are {', '.join(fields)}") from None

    text = _ACTION.sub(value, template)
    if "{{" in _ACTION.sub("", template):
        raise BadTag(f"log opt 'tag': unclosed action in {template}")
    return text


def extras(options: Mapping[str, str], container: Described) -> dict[str, str]:
    """The labels and variables that `labels`, `labels-regex`, `env` and `env-regex` choose; raises BadPattern."""
    found = _chosen(options, "labels", container.labels.items())
    pairs = (entry.partition("=") for entry in container.env)
    return found | _chosen(options, "env", ((name, value) for name, equals, value in pairs if equals))


def _chosen(options: Mapping[str, str], option: str, offered: Iterable[tuple[str, str]]) -> dict[str, str]:
    names = {name.strip() for name in options.get(option, "").split(",")} - {""}
    pattern = options.get(f"{option}-regex", "")
    try:
        matches = re.compile(pattern).search if pattern else None
    except re.error as error:
        raise BadPattern(f"log opt '{option}-regex': {error}") from error
    return {name: value for name, value in offered if name in names or (matches and matches(name))}
