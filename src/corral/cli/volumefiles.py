"""`corral volume clone|rename|export|import`."""

from __future__ import annotations

from corral.cli.archives import blocks, check_output, open_input, write_to
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.transport import quote


def _clone(session: Session) -> int:
    source, name = session.arguments
    print(session.client.post(f"/volumes/{quote(source)}/clone", {"name": name})["Name"])
    return 0


def _rename(session: Session) -> int:
    old, new = session.arguments
    session.client.post(f"/volumes/{quote(old)}/rename", {"name": new})
    return 0


def _export(session: Session) -> int:
    output = session.flags["output"]
    check_output(output, "export volume")
    write_to(output, session.client.request("GET", f"/volumes/{quote(session.arguments[0])}/export").chunks())
    return 0


def _import(session: Session) -> int:
    name, path = session.arguments
    stream = blocks(0 if path == "-" else open_input(path))
    print(session.client.request("POST", "/volumes/import", {"name": name}, stream=stream).json()["Name"])
    return 0


CLONE = Command(_clone, "Make a local volume with the files and labels of another", "VOLUME NEW-NAME", (), 2, 2)
RENAME = Command(_rename, "Give a volume that no container has another name", "VOLUME NEW-NAME", (), 2, 2)
EXPORT = Command(
    _export, "Write a volume's files as a tar archive", "[OPTIONS] VOLUME",
    (Flag("output", "o", "string", "Write to a file, instead of standard output"),), 1, 1,
)  # fmt: skip
IMPORT = Command(_import, "Make a local volume of a tar archive of files", "NEW-NAME FILE|-", (), 2, 2)
