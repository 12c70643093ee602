"""`corral device ...`: devices of a container that exists."""

from __future__ import annotations

from corral.cli import limits
from corral.cli.command import Command, Session
from corral.cli.problems import CliError
from corral.cli.transport import quote


def _add(session: Session) -> int:
    container, *texts = session.arguments
    for text in texts:
        try:
            wanted = limits.device(text)
        except ValueError as error:
            raise CliError(str(error)) from None
        session.client.post(f"/containers/{quote(container)}/devices", body=wanted)
    return 0


def _remove(session: Session) -> int:
    container, *paths = session.arguments
    place = f"/containers/{quote(container)}/devices"
    return session.each(paths, lambda path: session.client.delete(place, {"path": path}))


ADD = Command(
    _add, "Give devices to a container, at once if it runs", "CONTAINER HOST-PATH[:PATH[:rwm]] [...]", (), 2, None
)
REMOVE = Command(_remove, "Take devices from a container, at once if it runs", "CONTAINER PATH [PATH...]", (), 2, None)
