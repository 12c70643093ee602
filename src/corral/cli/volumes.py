"""`corral volume ...`."""

from __future__ import annotations

import sys

from corral.cli import table, values
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.listing import CONTEXT, FILTER, FORMAT, columns, configured_format, filters
from corral.cli.networks import natural
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_TITLES = {
    "Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS",
    "Links": "LINKS", "Size": "SIZE", "Group": "GROUP", "Availability": "AVAILABILITY", "Status": "STATUS",
    "Context": "CONTEXT",
}  # fmt: skip


def _list(session: Session) -> int:
    flags = session.flags
    query = {"filters": filters(flags["filter"])}
    answers, status = session.everywhere(lambda client: client.get("/volumes", query)["Volumes"] or [])
    rows = [
        table.Row({**where, **row(one)}, one.get("Labels"))
        for where, found in answers
        for one in sorted(found, key=lambda one: natural(one["Name"]))
    ]
    if flags["quiet"] and not flags["format"]:
        sys.stdout.write("".join(f"{row['Name']}\n" for row in rows))
        return status
    shown = columns(session, ("Driver", "Name"))
    table.show(rows, shown, _TITLES, configured_format(session, "volumesFormat"))
    return status


def row(one: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a volume."""
    usage = one.get("UsageData")
    return {
        "Name": one["Name"],
        "Driver": one["Driver"],
        "Scope": one["Scope"],
        "Mountpoint": one["Mountpoint"],
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((one.get("Labels") or {}).items())),
        "Links": str(usage["RefCount"]) if usage else "N/A",
        "Size": table.human_size(float(usage["Size"]), 4) if usage else "N/A",
        "Group": "N/A",
        "Availability": "N/A",
        "Status": "N/A",
    }


def _create(session: Session) -> int:
    flags = session.flags
    name = session.arguments[0] if session.arguments else flags["name"]
    if session.arguments and flags["name"]:
        raise CliError("conflicting options: cannot specify a volume-name through both --name and as a positional arg")
    body: dict[str, Any] = {
        "Driver": flags["driver"],
        "DriverOpts": values.key_values(flags["opt"]),
        "Labels": values.key_values(flags["label"]),
    }
    if name:
        body["Name"] = name
    print(session.client.post("/volumes/create", body=body)["Name"])
    return 0


def _remove(session: Session) -> int:
    query = {"force": session.flags["force"] or None}
    return session.each(session.arguments, lambda name: session.client.delete(f"/volumes/{name}", query))


LIST = Command(
    _list,
    "List volumes",
    "[OPTIONS]",
    (CONTEXT, FILTER, FORMAT, Flag("quiet", "q", "bool", "Print names alone")),
    aliases="volume ls, volume list",
)
CREATE = Command(
    _create,
    "Create a volume",
    "[OPTIONS] [VOLUME]",
    (
        Flag("driver", "d", "string", "Driver of the volume", "local"),
        Flag("label", "", "list", "Label of the volume (NAME=VALUE)"),
        Flag("name", "", "string", "Name of the volume", hidden=True),
        Flag("opt", "o", "map", "Option of the driver (NAME=VALUE)"),
    ),
    most=1,
)
RM = Command(
    _remove,
    "Remove volumes that no container uses",
    "[OPTIONS] VOLUME [VOLUME...]",
    (Flag("force", "f", "bool", "Do not mind if it does not exist"),),
    least=1,
    most=None,
    aliases="volume rm, volume remove",
)
