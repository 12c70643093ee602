"""`corral mount ...`: mounts of a container that exists."""

from __future__ import annotations

from corral.cli import mounts
from corral.cli.command import Command, Session
from corral.cli.problems import CliError
from corral.cli.transport import quote


def _add(session: Session) -> int:
    container, text = session.arguments
    try:
        wanted = mounts.mount(text)
    except ValueError as error:
        raise CliError(str(error)) from None
    session.client.post(f"/containers/{quote(container)}/mounts", body=wanted)
    return 0


def _remove(session: Session) -> int:
    container, *targets = session.arguments
    path = f"/containers/{quote(container)}/mounts"
    return session.each(targets, lambda target: session.client.delete(path, {"target": target}))


ADD = Command(
    _add, "Add a mount to a container, at once if it runs", "CONTAINER type=TYPE,src=SOURCE,dst=TARGET[,...]", (), 2, 2
)
REMOVE = Command(
    _remove, "Remove mounts from a container, at once if it runs", "CONTAINER TARGET [TARGET...]", (), 2, None
)
