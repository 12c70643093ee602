"""`corral container snapshot|snapshots|rewind|forget`, and the same of volumes, where going back is `restore`."""

from __future__ import annotations

from corral.cli import table
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.listing import FORMAT
from corral.cli.transport import quote
from corral.cli.units import human_size

_COLUMNS = ("Name", "CreatedAt", "Size")
_TITLES = {"Name": "NAME", "CreatedAt": "CREATED", "Size": "SIZE"}


def _path(session: Session) -> str:
    kind = session.path.split()[1]  # corral container ..., corral volume ...
    return f"/{kind}s/{quote(session.arguments[0])}"


def _snapshot(session: Session) -> int:
    name = session.arguments[1]
    session.client.post(f"{_path(session)}/snapshots", body={"Name": name})
    print(name)
    return 0


def _list(session: Session) -> int:
    found = session.client.get(f"{_path(session)}/snapshots")
    rows = [{"Name": one["Name"], "CreatedAt": one["Created"], "Size": human_size(one["Size"])} for one in found]
    table.show(rows, _COLUMNS, _TITLES, session.flags["format"])
    return 0


def _back(session: Session) -> int:
    session.client.post(f"{_path(session)}/restore", {"snapshot": session.arguments[1]})
    return 0


def _rewind(session: Session) -> int:
    query = {"snapshot": session.arguments[1], "restart": session.flags["restart"] or None}
    session.client.post(f"{_path(session)}/rewind", query)
    return 0


def _forget(session: Session) -> int:
    path = _path(session)
    return session.each(session.arguments[1:], lambda name: session.client.delete(f"{path}/snapshots/{quote(name)}"))


SNAPSHOT = Command(
    _snapshot, "Keep a container's files as they are, under a name", "CONTAINER NAME", (), 2, 2,
    details="What the container has written is kept, not its volumes. One that runs is paused while that is copied.",
    examples=("container snapshot web before-upgrade", "run -d --from-snapshot web@before-upgrade"),
)  # fmt: skip
LIST = Command(_list, "List the snapshots of a container", "[OPTIONS] CONTAINER", (FORMAT,), 1, 1)
REWIND = Command(
    _rewind, "Put a stopped container's files back to a snapshot", "[OPTIONS] CONTAINER NAME",
    (Flag("restart", "", "bool", "Kill it first if it runs, and start it afterwards"),), 2, 2,
)  # fmt: skip
FORGET = Command(_forget, "Remove snapshots of a container", "CONTAINER NAME [NAME...]", (), 2, None)
VOLUME_SNAPSHOT = Command(
    _snapshot, "Keep a volume's files as they are, under a name", "VOLUME NAME", (), 2, 2,
    details="Containers that run with the volume are paused while its files are copied.",
    examples=("volume snapshot data monday", "volume restore data monday"),
)  # fmt: skip
VOLUME_LIST = Command(_list, "List the snapshots of a volume", "[OPTIONS] VOLUME", (FORMAT,), 1, 1)
RESTORE = Command(_back, "Give a volume the files of a snapshot", "VOLUME NAME", (), 2, 2)
VOLUME_FORGET = Command(_forget, "Remove snapshots of a volume", "VOLUME NAME [NAME...]", (), 2, None)
