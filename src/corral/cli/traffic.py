"""`corral traffic`: what containers received and sent, by network and published port."""

from __future__ import annotations

import sys

from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.table import text_table
from corral.cli.transport import quote
from corral.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _traffic(session: Session) -> int:
    rows = [["CONTAINER", "WHERE", "IN", "OUT", "PACKETS IN", "PACKETS OUT"]]
    exact = session.flags["bytes"]

    def row(name: str, where: str, one: dict[str, Any]) -> list[str]:
        sizes = [one["BytesIn"], one["BytesOut"]]
        shown = [str(size) if exact else human_size(size) for size in sizes]
        return [name, where, *shown, str(one["PacketsIn"]), str(one["PacketsOut"])]

    def add(name: str) -> None:
        found = session.client.get(f"/containers/{quote(name)}/traffic")
        rows.extend(row(name, network, one) for network, one in found["Networks"].items())
        for one in found["Ports"] or ():
            rows.append(row(name, f"{one['HostPort']}->{one['ContainerPort']}/{one['Protocol']}", one))

    status = session.each(session.arguments, add, echo=False)
    sys.stdout.write(text_table(rows))
    return status


TRAFFIC = Command(
    _traffic,
    "Show what containers received and sent, by network and published port",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (Flag("bytes", "", "bool", "Show bytes, not rounded sizes"),),
    least=1,
    most=None,
    aliases="container traffic, traffic",
    examples=("traffic web",),
)
