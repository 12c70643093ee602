"""`corral plugin ls`."""

from __future__ import annotations

import sys

from corral.cli import table
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.listing import FILTER, FORMAT, SHORT_ID, configured_format, filters
from corral.cli.networks import natural

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_TITLES = {
    "ID": "ID", "Name": "NAME", "Description": "DESCRIPTION", "Enabled": "ENABLED",
    "PluginReference": "PLUGIN REFERENCE",
}  # fmt: skip
_DESCRIPTION_CHARS = 45


def _list(session: Session) -> int:
    flags = session.flags
    found = session.client.get("/plugins", {"filters": filters(flags["filter"])}) or []
    found.sort(key=lambda one: natural(one["Name"]))
    rows = [_row(one, flags["no-trunc"]) for one in found]
    if flags["quiet"] and not flags["format"]:
        sys.stdout.write("".join(f"{row['ID']}\n" for row in rows))
        return 0
    table.show(rows, ("ID", "Name", "Description", "Enabled"), _TITLES, configured_format(session, "pluginsFormat"))
    return 0


def _row(one: Mapping[str, Any], full: bool) -> dict[str, Any]:
    description = str((one.get("Config") or {}).get("Description") or "").replace("\n", "").replace("\r", "")
    return {
        "ID": one["Id"] if full else one["Id"][:SHORT_ID],
        "Name": one["Name"],
        "Description": description if full else table.ellipsis(description, _DESCRIPTION_CHARS),
        "Enabled": bool(one["Enabled"]),
        "PluginReference": one.get("PluginReference") or "",
    }


LIST = Command(
    _list,
    "List the plugins that a Docker daemon manages; Corral's are found by their sockets and stand in `info`",
    "[OPTIONS]",
    (
        FILTER,
        FORMAT,
        Flag("no-trunc", "", "bool", "Show ids and descriptions in full"),
        Flag("quiet", "q", "bool", "Print ids alone"),
    ),
    aliases="plugin ls, plugin list",
)
