"""`corral search`."""

from __future__ import annotations

from corral.cli import images_api, table
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.listing import FILTER, filters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_TITLES = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
_COLUMNS = ("Name", "Description", "StarCount", "IsOfficial")
_DESCRIPTION_CHARS = 45


def _search(session: Session) -> int:
    flags, term = session.flags, session.arguments[0]
    query = {"term": term, "filters": filters(flags["filter"]), "limit": flags["limit"] or None}
    # the API wants the header even when there is nothing to say
    headers = images_api.auth_header(session, term) or {"X-Registry-Auth": "e30="}
    found = session.client.request("GET", "/images/search", query, headers=headers).json()
    official = {True: "true", False: "false"} if flags["format"] == "json" else {True: "[OK]", False: ""}
    rows = [
        {
            "Name": one["name"],
            "Description": _description(one, flags["no-trunc"]),
            "StarCount": str(one["star_count"]),
            "IsOfficial": official[bool(one.get("is_official"))],
        }
        for one in found
    ]
    table.show(rows, _COLUMNS, _TITLES, flags["format"])
    return 0


def _description(one: Mapping[str, Any], full: bool) -> str:
    text = str(one.get("description") or "").replace("\n", " ").replace("\r", " ")
    return text if full else table.ellipsis(text, _DESCRIPTION_CHARS)


SEARCH = Command(
    _search,
    "Search a registry for images; TERM begins with the registry's name if that is not Docker Hub",
    "[OPTIONS] TERM",
    (
        FILTER,
        Flag("format", "", "string", "Go template for each line; `table TEMPLATE` for a table of it"),
        Flag("limit", "", "int", "Show at most so many"),
        Flag("no-trunc", "", "bool", "Show descriptions in full"),
    ),
    least=1,
    most=1,
    examples=("search --filter is-official=true nginx",),
)
