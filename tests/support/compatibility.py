"""Writes what docs/compatibility.md says of single properties, from the table tests/properties.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests import properties

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
_BEGIN, _END = "<!-- from tests/properties.py: python -m tests.support.compatibility -->\n", "<!-- end -->\n"
_TITLES = {
    "refused": "The request fails",
    "ignored": "Accepted, without effect",
    "untested": "Done, but no test of ours shows the effect yet",
}


def generated() -> str:
    """The tables, as they must stand between the two marks of the page."""
    parts = []
    for word, title in _TITLES.items():
        lines = [f"| {', '.join(f'`{name}`' for name in names)} | {reason} |" for names, reason in _rows(word)]
        if lines:
            parts.append("\n".join([f"### {title}", "", "| what | |", "|---|---|", *lines, ""]))
    return "\n" + "\n".join(parts) + "\n"


def _rows(word: str) -> Iterator[tuple[list[str], str]]:
    """Names with one reason: those of a table together, and of a larger object only its own."""
    tables = {
        "": properties.CONTAINER_CONFIG,
        "HostConfig.": properties.HOST_CONFIG,
        "EndpointSettings.": properties.ENDPOINT_SETTINGS,
        **{f"{way}?": table for way, table in properties.QUERIES.items()},
        **{f"{way} ": table for way, table in properties.BODIES.items()},
    }
    for prefix, table in tables.items():
        chosen = {name: value for name, value in table.items() if value.startswith(f"{word}: ")}
        for value in dict.fromkeys(chosen.values()):
            names = [name for name in chosen if chosen[name] == value and chosen.get(name.rpartition(".")[0]) != value]
            yield [f"{prefix}{names[0]}", *names[1:]], value.removeprefix(f"{word}: ")


def updated(page: str) -> str:
    """The page with the tables as they are now; the prose around them stays."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return before + _BEGIN + generated() + _END + after


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text()))
