"""`corral images --tree`: each image with its names, and below it the platforms that it is for."""

from __future__ import annotations

import sys

from corral.cli import table
from corral.cli.listing import SHORT_ID

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

_HEADING = ("IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")


def show(found: Sequence[Mapping[str, Any]]) -> None:
    """Print images, as `GET /images/json?manifests=1` answers them; U marks what a container uses."""
    rows: list[tuple[str, ...]] = [_HEADING]
    for one in found:
        rows += _rows(one)
    sys.stdout.write(table.text_table(rows))


def _rows(one: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    parts = [part for part in one.get("Manifests") or () if part["Kind"] == "image"]
    content = sum(part["Size"]["Content"] for part in parts)
    *names, last = one.get("RepoTags") or ["<untagged>"]
    yield from ((name, "", "", "", "") for name in names)
    yield _row(last, one["Id"], one["Size"], content, one.get("Containers", 0) > 0)
    for index, part in enumerate(parts):
        data = part.get("ImageData") or {}
        branch = "└─" if index == len(parts) - 1 else "├─"
        size = part["Size"]["Total"]
        yield _row(
            f"{branch} {_platform(data)}", part["ID"], size, part["Size"]["Content"], bool(data.get("Containers"))
        )


def _row(name: str, identity: str, size: int, content: int, used: bool) -> tuple[str, ...]:
    return (
        name,
        identity.removeprefix("sha256:")[:SHORT_ID],
        table.human_size(float(size), 3),
        table.human_size(float(content), 3),
        "U" if used else "",
    )


def _platform(data: Mapping[str, Any]) -> str:
    platform = data.get("Platform") or {}
    return "/".join(filter(None, (platform.get("os"), platform.get("architecture"), platform.get("variant"))))
