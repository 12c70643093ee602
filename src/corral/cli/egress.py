"""`corral egress`: what a container may send to, and what was refused."""

from __future__ import annotations

import sys

from corral.cli.command import Command, Session
from corral.cli.events import moment
from corral.cli.flags import Flag
from corral.cli.table import text_table
from corral.cli.transport import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _list(session: Session) -> int:
    found = session.client.get(f"/containers/{quote(session.arguments[0])}/egress")
    rows = [["RULE", "NAME", "ADDRESS", "SECONDS"]]
    resolved: list[dict[str, Any]] = found["Resolved"] or []
    for rule in found["Egress"] or ():
        rows.append([rule, "", "", ""])
    for one in resolved:
        rows.append(["", one["Name"] + one["Service"], one["Address"], str(one["Seconds"])])
    rows.append([f"others {found['Others']}", "", "", ""])
    sys.stdout.write(text_table(rows))
    return 0


def _log(session: Session) -> int:
    path = f"/containers/{quote(session.arguments[0])}/egress/log"
    query = {"follow": session.flags["follow"] or None}
    for entry in session.client.request("GET", path, query).records():
        sys.stdout.write(line(entry) + "\n")
        sys.stdout.flush()
    return 0


def line(entry: dict[str, Any]) -> str:
    """`2026-11-23T21:27:26.123456789Z tcp 192.0.2.1 443 example.org`, or `... dns example.org`."""
    words = [moment({"timeNano": entry["Time"]}), entry["Protocol"]]
    if entry.get("Address"):
        words += [entry["Address"], str(entry["Port"] or "-")]
    return " ".join(filter(None, [*words, entry.get("Name")]))


LIST = Command(
    _list,
    "Show a container's egress list, and what its names stand for now",
    "CONTAINER",
    (),
    1,
    1,
    details="A list is given with `run --egress` and changed with `update --egress`.",
    examples=("egress ls web",),
)
LOG = Command(
    _log,
    "Show what a container tried to reach and may not",
    "[OPTIONS] CONTAINER",
    (Flag("follow", "f", "bool", "Go on as more is refused"),),
    1,
    1,
    examples=("egress log -f web",),
)
