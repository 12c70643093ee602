"""`corral system df`."""

from __future__ import annotations

import sys
import time

from corral.cli import images, listing, table, volumes
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.listing import FORMAT
from corral.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_TITLES = {
    "Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
}  # fmt: skip


def _df(session: Session) -> int:
    found = session.client.get("/system/df")
    if session.flags["verbose"]:
        _verbose(found)
        return 0
    rows = [_images(found), _containers(found), _volumes(found), _cache(found)]
    table.show(rows, ("Type", "TotalCount", "Active", "Size", "Reclaimable"), _TITLES, session.flags["format"])
    return 0


def _row(kind: str, total: int, active: int, size: float, free: float, show_share: bool = True) -> dict[str, Any]:
    share = f" ({int(free * 100 / size)}%)" if show_share and size > 0 else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": human_size(size),
        "Reclaimable": human_size(free) + share,
    }


def _images(found: Mapping[str, Any]) -> dict[str, Any]:
    all_images = found.get("Images") or ()
    used = [one for one in all_images if one.get("Containers", 0) > 0]
    size = float(found.get("LayersSize") or 0)
    kept = sum(float(one["Size"] - max(one.get("SharedSize", 0), 0)) for one in used if one["Size"] != -1)
    return _row("Images", len(all_images), len(used), size, max(size - kept, 0.0))


def _containers(found: Mapping[str, Any]) -> dict[str, Any]:
    containers = found.get("Containers") or ()
    active = [one for one in containers if one["State"] in ("running", "paused", "restarting")]
    size = float(sum(one.get("SizeRw") or 0 for one in containers))
    free = size - sum(one.get("SizeRw") or 0 for one in active)
    return _row("Containers", len(containers), len(active), size, free)


def _volumes(found: Mapping[str, Any]) -> dict[str, Any]:
    usage = [one["UsageData"] for one in found.get("Volumes") or () if one.get("UsageData")]
    sizes = [(one["RefCount"], max(one["Size"], 0)) for one in usage]
    size = float(sum(size for _, size in sizes))
    active = sum(1 for count, _ in sizes if count > 0)
    return _row(
        "Local Volumes", len(found.get("Volumes") or ()), active, size, sum(s for count, s in sizes if not count)
    )


def _cache(found: Mapping[str, Any]) -> dict[str, Any]:
    entries = found.get("BuildCache") or ()
    size = float(sum(one["Size"] for one in entries if not one.get("Shared")))
    free = float(sum(one["Size"] for one in entries if not one.get("InUse") and not one.get("Shared")))
    return _row("Build Cache", len(entries), sum(1 for one in entries if one.get("InUse")), size, free, False)


def _verbose(found: Mapping[str, Any]) -> None:
    now = time.time()
    out = ["Images space usage:\n\n"]
    rows = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]]
    for one in found.get("Images") or ():
        for row in images.rows_of(one, False, False):
            rows.append(
                [
                    row[name]
                    for name in (
                        "Repository",
                        "Tag",
                        "ID",
                        "CreatedSince",
                        "Size",
                        "SharedSize",
                        "UniqueSize",
                        "Containers",
                    )
                ]
            )
    out += [table.text_table(rows), "\nContainers space usage:\n\n"]
    rows = [["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    for one in found.get("Containers") or ():
        row = listing.row(one, False, now, True)
        row["Size"] = human_size(float(one.get("SizeRw") or 0), 3)
        rows.append(
            [row[name] for name in ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")]
        )
    out += [table.text_table(rows), "\nLocal Volumes space usage:\n\n"]
    rows = [["VOLUME NAME", "LINKS", "SIZE"]]
    for one in found.get("Volumes") or ():
        row = volumes.row(one)
        rows.append([row["Name"], row["Links"], row["Size"]])
    out += [table.text_table(rows), f"\nBuild cache usage: {_cache(found)['Size']}\n\n"]
    rows = [["CACHE ID", "CACHE TYPE", "SIZE", "CREATED", "LAST USED", "USAGE", "SHARED"]]
    for one in found.get("BuildCache") or ():
        shared = "true" if one.get("Shared") else "false"
        rows.append(
            [one["ID"][:12], one["Type"], human_size(float(one["Size"]), 3), "", "", str(one["UsageCount"]), shared]
        )
    out.append(table.text_table(rows))
    sys.stdout.write("".join(out))


DF = Command(
    _df,
    "Show how much disk space is used, and how much could be freed",
    "[OPTIONS]",
    (FORMAT, Flag("verbose", "v", "bool", "Show every image, container and volume")),
)
