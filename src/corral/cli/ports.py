"""`corral port`: what a container publishes; `port add` and `port rm` change it, while it runs too."""

from __future__ import annotations

import sys

from corral.cli import portspecs
from corral.cli.command import Command, Session
from corral.cli.problems import ArgumentCountError, CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHANGES = ("add", "rm")


def _command(session: Session) -> int:
    words = session.arguments
    if len(words) > 2 and words[0] in _CHANGES:  # with two words, `add` and `rm` are names of containers
        return _change(session, words[0], words[1], words[2:])
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


def _address(binding: dict[str, str]) -> str:
    address = binding.get("HostIp", "")
    return f"[{address}]:{binding['HostPort']}" if ":" in address else f"{address}:{binding['HostPort']}"


PORT = Command(
    _command,
    "Show the published ports of a container, or change them",
    "CONTAINER [PRIVATE_PORT[/PROTO]] | add CONTAINER PORT... | rm CONTAINER HOST_PORT...",
    (),
    least=1,
    most=None,
    aliases="container port, port",
    details="Ports to add are written as for --publish, ports to remove as [ADDRESS:]PORT[-PORT][/PROTO] of the host.",
    examples=("port add web 8080:80", "port rm web 8080"),
)
