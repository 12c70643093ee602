"""`corral port`: what a container publishes; `port add` and `port rm` change it, `port check` says who can reach it."""

from __future__ import annotations

import sys

from corral.cli import portspecs
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.problems import ArgumentCountError, CliError, DaemonError
from corral.cli.table import text_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHANGES = ("add", "rm")


def _command(session: Session) -> int:
    words = session.arguments
    if len(words) > 2 and words[0] in _CHANGES:  # with two words, `add` and `rm` are names of containers
        return _change(session, words[0], words[1], words[2:])
    if len(words) == 2 and words[0] == "check" and not _is_container(session, "check"):
        return _check(session, words[1])
    if len(words) > 2:
        raise ArgumentCountError(f"'{session.path}' requires between 1 and 2 arguments")
    return _port(session)


def _change(session: Session, verb: str, name: str, ports: list[str]) -> int:
    body: dict[str, Any] = {"PortRemove": ports}
    if verb == "add":
        wanted: dict[str, list[dict[str, str]]] = {}
        try:
            for key, host in (pair for text in ports for pair in portspecs.published(text)):
                wanted.setdefault(key, []).append(host)
        except ValueError as error:
            raise CliError(str(error)) from None
        body = {"PortAdd": wanted}
    session.client.post(f"/containers/{name}/update", body=body)
    print(name)
    return 0


def _is_container(session: Session, name: str) -> bool:
    try:
        session.client.get(f"/containers/{name}/json")
    except DaemonError as error:
        if error.code == 404:
            return False
        raise
    return True


def _check(session: Session, port: str) -> int:
    flags = session.flags
    query = {"port": port, "from": flags["from"], "interface": flags["interface"]}
    found = session.client.get("/ports/check", query={key: value for key, value in query.items() if value})
    for way in found["Published"]:
        listens = {
            True: "",
            False: ", where nothing listens",
            None: ", where it cannot be told whether somebody listens",
        }
        leads = f"port {way['ContainerPort']}/{way['Protocol']} of {way['Container']}{listens[way['Listening']]}"
        print(f"{_address(way)} leads to {leads}")
        rows = [["WHO", "REACHES IT", "WHY"]]
        for one in way["Reach"]:
            reasons = [one["Reason"]] if one["Reason"] else []
            reasons += [_decision(decision) for decision in one["Decisions"]]
            first, *others = reasons or [""]
            rows.append([one["Who"], one["Answer"], first])
            rows.extend(["", "", other] for other in others)
        sys.stdout.write(text_table(rows))
    return 0


def _decision(one: dict[str, str]) -> str:
    told = "cannot tell" if one["Verdict"] == "?" else one["Verdict"]
    return f"{told}: {one['Table']}, {one['Chain']}: {one['Rule']}"


def _port(session: Session) -> int:
    name = session.arguments[0]
    found = session.client.get(f"/containers/{name}/json")
    bindings = (found.get("NetworkSettings") or {}).get("Ports") or {}
    if len(session.arguments) > 1:
        wanted = session.arguments[1]
        number, _, protocol = wanted.partition("/")
        key = f"{number}/{protocol or 'tcp'}"
        if not number.isdigit():
            raise CliError(f'invalid port "{wanted}": it must be a number')
        if not bindings.get(key):
            raise CliError(f"Error: No public port '{wanted}' published for {name}")
        lines = [_address(one) for one in bindings[key]]
    else:
        ordered = sorted(bindings, key=lambda key: (int(key.partition("/")[0]), key))
        lines = [f"{key} -> {_address(one)}" for key in ordered for one in bindings[key] or ()]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _address(binding: dict[str, Any]) -> str:
    address = binding.get("HostIp", "")
    return f"[{address}]:{binding['HostPort']}" if ":" in address else f"{address}:{binding['HostPort']}"


PORT = Command(
    _command,
    "Show the published ports of a container, change them, or say who can reach one",
    "CONTAINER [PRIVATE_PORT[/PROTO]] | add CONTAINER PORT... | rm CONTAINER HOST_PORT... | check HOST_PORT",
    (
        Flag("from", "", "string", "With check: the address that somebody outside has"),
        Flag("interface", "", "string", "With check: the interface that connections from outside come in at"),
    ),
    least=1,
    most=None,
    aliases="container port, port",
    details="Ports to add are written as for --publish, ports to remove as [ADDRESS:]PORT[-PORT][/PROTO] of the host.",
    examples=("port add web 8080:80", "port rm web 8080", "port check 8080"),
)
