"""`corral ps`."""

from __future__ import annotations

import sys
import time

from corral import jsontext
from corral.cli import table
from corral.cli.command import Command, Session, error_line
from corral.cli.flags import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

FORMAT = Flag(
    "format",
    "",
    "string",
    "Go template for each line; `table TEMPLATE` for a table of it, `json` for JSON",
)
CONTEXT = Flag("context", "", "string", "Ask these contexts (NAME,... or `all`), and show which one a line comes from")
FILTER = Flag("filter", "f", "list", "Show only what fits (NAME=VALUE)", shown="filter")
SHORT_ID = 12

_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_TITLES = {
    "ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
    "RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "Size": "SIZE",
    "Labels": "LABELS", "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS",
    "Platform": "PLATFORM", "Context": "CONTEXT",
}  # fmt: skip


def filters(given: Sequence[str]) -> str | None:
    """`--filter NAME=VALUE` as the API's JSON; raises CliError."""
    from corral.cli.problems import UsageError

    found: dict[str, dict[str, bool]] = {}
    for item in given:
        name, equals, value = item.partition("=")
        if not equals:
            raise UsageError(
                f'invalid argument "{item}" for "-f, --filter" flag: bad format of filter (expected name=value)'
            )
        found.setdefault(name.strip().lower(), {})[value.strip()] = True
    return jsontext.dumps(dict(sorted(found.items()))) if found else None


def configured_format(session: Session, key: str) -> str:
    """The format of the flag, or of the client's configuration."""
    if session.flags["format"]:
        return str(session.flags["format"])
    from corral.cli import endpoint

    return str(endpoint.read_config(session.globals.config).get(key) or "")


def _ps(session: Session) -> int:
    flags = session.flags
    format_ = configured_format(session, "psFormat")
    last = flags["last"]
    if flags["latest"] and last == -1:
        last = 1
    with_size = flags["size"] or ".Size" in format_ or "{{json .}}" in format_
    query = {
        "all": flags["all"] or None,
        "limit": last if last > 0 else None,
        "size": True if with_size else None,
        "filters": filters(flags["filter"]),
    }
    table.check(format_, _TITLES)
    if flags["quiet"] and flags["format"]:
        error_line("WARNING: Ignoring custom format, because both --format and --quiet are set.")
    answers, status = session.everywhere(lambda client: client.get("/containers/json", query))
    if flags["quiet"]:
        sys.stdout.write("".join(f"{_id(one, flags['no-trunc'])}\n" for _, found in answers for one in found))
        return status
    now = time.time()
    rows = [
        table.Row({**where, **row(one, flags["no-trunc"], now, with_size)}, one.get("Labels"))
        for where, found in answers
        for one in found
    ]
    table.show(rows, columns(session, (*_COLUMNS, "Size") if flags["size"] else _COLUMNS), _TITLES, format_)
    return status


def columns(session: Session, own: Sequence[str]) -> Sequence[str]:
    """The columns of a table; with the context first if several daemons are asked."""
    return ("Context", *own) if session.is_everywhere else own


def _id(one: Mapping[str, Any], full: bool) -> str:
    return str(one["Id"] if full else one["Id"][:SHORT_ID])


def row(one: Mapping[str, Any], full: bool, now: float, with_size: bool) -> dict[str, Any]:
    """Every field that a format may name, of one container."""
    command = one["Command"] if full else table.ellipsis(one["Command"], 20)
    names = [name.removeprefix("/") for name in one.get("Names") or ()]
    mounts = one.get("Mounts") or ()
    shown_mounts = [mount.get("Name") or mount.get("Source") or "" for mount in mounts]
    return {
        "ID": _id(one, full),
        "Names": ",".join(name for name in names if full or "/" not in name),
        "Image": _image(one, full),
        "Command": table.quoted(command),
        "CreatedAt": table.local_time(one["Created"]),
        "RunningFor": table.ago(now - one["Created"]),
        "Ports": ports(one.get("Ports") or ()),
        "State": one.get("State", ""),
        "Status": one["Status"],
        "Size": _size(one) if with_size else "0B",
        "Labels": ",".join(f"{key}={value}" for key, value in sorted((one.get("Labels") or {}).items())),
        "Mounts": ",".join(name if full else table.ellipsis(name, 15) for name in shown_mounts),
        "LocalVolumes": str(sum(1 for mount in mounts if mount.get("Driver") == "local")),
        "Networks": ",".join((one.get("NetworkSettings") or {}).get("Networks") or ()),
        "Platform": _platform(one),
    }


def _platform(one: Mapping[str, Any]) -> Any:
    descriptor = (one.get("ImageManifestDescriptor") or {}).get("platform") or {}
    parts = [descriptor.get("os"), descriptor.get("architecture"), descriptor.get("variant")]
    return "/".join(part for part in parts if part) or None


def _image(one: Mapping[str, Any], full: bool) -> str:
    image = str(one["Image"])
    if not image:
        return "<no image>"
    if full:
        return image
    if image == one.get("ImageID"):
        return image.removeprefix("sha256:")[:SHORT_ID]
    return image.partition("@")[0]


def _size(one: Mapping[str, Any]) -> str:
    written = table.human_size(float(one.get("SizeRw") or 0), 3)
    whole = one.get("SizeRootFs") or 0
    return f"{written} (virtual {table.human_size(float(whole), 3)})" if whole > 0 else written


def ports(found: Sequence[Mapping[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp, 90-92/tcp`: neighbours with the same number on both sides are ranges."""
    groups: dict[tuple[str, str], list[int]] = {}
    done: list[str] = []
    mappings: list[str] = []
    ordered = sorted(
        found, key=lambda one: (one["PrivatePort"], one.get("IP") or "", one.get("PublicPort") or 0, one["Type"])
    )
    for one in ordered:
        address, private, kind = one.get("IP") or "", one["PrivatePort"], one["Type"]
        if address and one.get("PublicPort") != private:
            mappings.append(f"{_joined(address, str(one.get('PublicPort') or 0))}->{private}/{kind}")
            continue
        group = groups.setdefault((address, kind), [private, private])
        if private == group[1] + 1:
            group[1] = private
        elif private != group[1]:
            done.append(_group(address, kind, group))
            groups[address, kind] = [private, private]
    done += [_group(address, kind, group) for (address, kind), group in groups.items()]
    return ", ".join([*done, *mappings])


def _joined(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _group(address: str, kind: str, group: list[int]) -> str:
    text = str(group[0]) if group[0] == group[1] else f"{group[0]}-{group[1]}"
    return f"{_joined(address, text)}->{text}/{kind}" if address else f"{text}/{kind}"


PS = Command(
    _ps,
    "List containers",
    "[OPTIONS]",
    (
        Flag("all", "a", "bool", "Show those that do not run, too"),
        CONTEXT,
        FILTER,
        FORMAT,
        Flag("last", "n", "int", "Show so many of the last made, whatever their state", -1),
        Flag("latest", "l", "bool", "Show the last made, whatever its state"),
        Flag("no-trunc", "", "bool", "Show ids, commands and names in full"),
        Flag("quiet", "q", "bool", "Print ids alone"),
        Flag("size", "s", "bool", "Show sizes of files"),
    ),
    aliases="container ls, container list, container ps, ps",
    examples=("ps -a --filter status=exited", "ps --context all", "ps --format 'table {{.Names}}\\t{{.Status}}'"),
)
