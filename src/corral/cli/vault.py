"""`corral secret ...` and `corral config ...`: what the daemon keeps encrypted and gives to containers as files."""

from __future__ import annotations

import sys

from corral.cli import table
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.inspecting import show
from corral.cli.listing import FILTER, FORMAT, filters
from corral.cli.problems import CliError
from corral.cli.transport import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TITLES = {"ID": "ID", "Name": "NAME", "CreatedAt": "CREATED", "UpdatedAt": "UPDATED", "Labels": "LABELS"}


def _content(path: str) -> str:
    import base64

    if path == "-":
        return base64.b64encode(sys.stdin.buffer.read()).decode()
    try:
        with open(path, "rb") as file:
            return base64.b64encode(file.read()).decode()
    except OSError as error:
        raise CliError(f"open {path}: {(error.strerror or '').lower()}") from None


def _create(kind: str, session: Session) -> int:
    name, path = session.arguments
    labels = {key: value for key, _, value in (item.partition("=") for item in session.flags["label"])}
    body = {"Name": name, "Kind": kind, "Data": _content(path), "Labels": labels}
    print(session.client.post("/vault/create", body=body)["ID"])
    return 0


def _update(kind: str, session: Session) -> int:
    name, path = session.arguments
    found = session.client.post(f"/vault/{quote(name)}/update", {"kind": kind}, body={"Data": _content(path)})
    for container in found["Containers"]:
        print(container)
    return 0


def _list(kind: str, session: Session) -> int:
    found = session.client.get("/vault", {"filters": filters([*session.flags["filter"], f"kind={kind}"])})
    if session.flags["quiet"]:
        sys.stdout.write("".join(f"{one['ID']}\n" for one in found))
        return 0
    rows = [_row(one) for one in found]
    table.show(rows, ("ID", "Name", "CreatedAt", "UpdatedAt"), _TITLES, session.flags["format"])
    return 0


def _row(one: dict[str, Any]) -> dict[str, Any]:
    labels = ",".join(f"{name}={value}" for name, value in one["Labels"].items())
    return {**{key: one[key] for key in ("ID", "Name", "CreatedAt", "UpdatedAt")}, "Labels": labels}


def _inspect(kind: str, session: Session) -> int:
    flags = session.flags
    if flags["pretty"] and flags["format"]:
        raise CliError("--format is incompatible with human friendly format")

    def get(name: str) -> Any:
        return session.client.get(f"/vault/{quote(name)}", {"kind": kind})

    if not flags["pretty"]:
        return show(session, session.arguments, get, flags["format"])
    sys.stdout.write("\n\n".join(_pretty(get(name)) for name in session.arguments) + "\n")
    return 0


def _pretty(one: dict[str, Any]) -> str:
    lines = [f"ID:              {one['ID']}", f"Name:            {one['Name']}"]
    if one["Labels"]:
        lines += ["Labels:", *(f" - {name}={value}" for name, value in sorted(one["Labels"].items()))]
    lines += [f"Created at:      {one['CreatedAt']}", f"Updated at:      {one['UpdatedAt']}"]
    return "\n".join(lines)


def _remove(kind: str, session: Session) -> int:
    return session.each(session.arguments, lambda name: session.client.delete(f"/vault/{quote(name)}", {"kind": kind}))


def _commands(kind: str) -> dict[str, Command]:
    what = "secrets" if kind == "secret" else "configs"
    quiet = Flag("quiet", "q", "bool", "Print ids alone")
    label = Flag("label", "l", "list", "Label of it (NAME=VALUE)")
    article = f"a {kind}"
    return {
        "create": Command(
            lambda s: _create(kind, s), f"Keep {article}, from a file or standard input (-)", "[OPTIONS] NAME FILE|-",
            (label,), 2, 2,
        ),
        "update": Command(
            lambda s: _update(kind, s), f"Replace {article}, in running containers too", "NAME FILE|-", (), 2, 2
        ),
        "ls": Command(lambda s: _list(kind, s), f"List {what}", "[OPTIONS]", (FILTER, FORMAT, quiet)),
        "inspect": Command(
            lambda s: _inspect(kind, s), f"Show {what}, but not their content", "[OPTIONS] NAME [NAME...]",
            (
                Flag("format", "f", "string", "Go template for each of them, or `json`"),
                Flag("pretty", "", "bool", "Show it for people"),
            ),
            1, None,
        ),
        "rm": Command(lambda s: _remove(kind, s), f"Remove {what}", "NAME [NAME...]", (), 1, None),
    }  # fmt: skip


_SECRETS, _CONFIGS = _commands("secret"), _commands("config")
SECRET_CREATE, SECRET_UPDATE, SECRET_LIST = _SECRETS["create"], _SECRETS["update"], _SECRETS["ls"]
SECRET_INSPECT, SECRET_REMOVE = _SECRETS["inspect"], _SECRETS["rm"]
CONFIG_CREATE, CONFIG_UPDATE, CONFIG_LIST = _CONFIGS["create"], _CONFIGS["update"], _CONFIGS["ls"]
CONFIG_INSPECT, CONFIG_REMOVE = _CONFIGS["inspect"], _CONFIGS["rm"]


def parse_file(text: str) -> dict[str, Any]:
    """`source[,target=NAME][,uid=N][,gid=N][,mode=0400][,on-update=restart|signal:HUP]`; raises ValueError."""
    first, *rest = text.split(",")
    found: dict[str, Any] = {"Source": first.removeprefix("source=")}
    names = {"target": "Target", "uid": "UID", "gid": "GID", "on-update": "OnUpdate"}
    for item in rest:
        name, equals, value = item.partition("=")
        if name == "mode" and equals:
            try:
                found["Mode"] = int(value, 8)
            except ValueError:
                raise ValueError(f"invalid mode specified: {value}") from None
        elif name in names and equals:
            found[names[name]] = value
        else:
            raise ValueError(f"invalid field {item!r}: use target=, uid=, gid=, mode= or on-update=")
    if not found["Source"]:
        raise ValueError("source is required")
    return found
