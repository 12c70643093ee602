"""Links: legacy names of other containers: on the default bridge lines of /etc/hosts, elsewhere DNS names."""

from __future__ import annotations

from collections.abc import Iterable

from corral.engine.context import Engine
from corral.engine.live import Live
from corral.errors import InvalidParameter


class BadLink(InvalidParameter):
    """A link that cannot be read, or whose target does not run."""


def parse(texts: Iterable[str]) -> list[tuple[str, str]]:
    """`name`, `name:alias`, and what inspect shows (`/name:/self/alias`), as (name, alias)."""
    found = []
    for text in texts:
        name, colon, alias = text.partition(":")
        name = name.removeprefix("/")
        alias = alias.rpartition("/")[2] if colon else name
        if not name or not alias or ":" in alias:
            raise BadLink(f"bad format for links: {text}")
        found.append((name, alias))
    return found


def resolve(engine: Engine, live: Live, texts: Iterable[str]) -> list[tuple[Live, str]]:
    """The linked containers, which must run, with their aliases."""
    found = []
    for name, alias in parse(texts):
        other = engine.index.find(name)
        if other is None:
            raise BadLink(f"could not get container for {name}: No such container: {name}")
        if not other.has_process:
            own = live.record.name
            raise BadLink(f"Cannot link to a non running container: /{other.record.name} AS /{own}/{alias}")
        found.append((other, alias))
    return found


def hosts_lines(linked: Iterable[tuple[Live, str]]) -> list[tuple[str, str]]:
    """Lines of /etc/hosts, as (names, address)."""
    lines = []
    for other, alias in linked:
        record = other.record
        names = " ".join(dict.fromkeys((alias, record.config.hostname, record.name)))
        lines += [(names, endpoint.ipv4) for endpoint in record.endpoints if endpoint.ipv4]
    return lines
