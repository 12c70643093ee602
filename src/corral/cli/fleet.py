"""Several daemons at once: which ones, and what each of them answers."""

from __future__ import annotations

import os
import threading
import time

from corral.cli import endpoint
from corral.cli.command import Session, error_line
from corral.cli.contexts import stored
from corral.cli.problems import CliError
from corral.cli.transport import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corral.cli.endpoint import Endpoint

_PATIENCE_S = 10


def endpoints(session: Session) -> list[Endpoint]:
    """The daemons that `--context` names, in order; raises CliError for a context that does not exist."""
    given = session.globals
    text = session.flags["context"] or given.context
    if text == "all":
        return _all(session)
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    return [
        endpoint.default(given.hosts, given.tls) if name == "default" else endpoint.from_context(given.config, name)
        for name in names
    ]


def _all(session: Session) -> list[Endpoint]:
    """Every stored context; and the default one, unless it is one of these or was never set up."""
    given = session.globals
    found = [endpoint.from_context(given.config, one["Name"]) for one in stored(given.config)]
    default = endpoint.default(given.hosts, given.tls)
    named = any(one.host == default.host for one in found)
    idle = default.host == endpoint.DEFAULT_HOST and not os.path.exists(default.host.removeprefix("unix://"))
    return found if named or (idle and found) else [default, *found]


def gather(session: Session, ask: Callable[[Client], Any]) -> tuple[list[tuple[dict[str, Any], Any]], int]:
    """Ask all of them at once; one that fails, or says nothing for ten seconds, gets a line on standard error."""
    members = endpoints(session)
    answers: dict[str, Any] = {}
    problems: dict[str, str] = {}

    def work(member: Endpoint) -> None:
        try:
            answers[member.context] = ask(Client(member))
        except (CliError, OSError) as error:
            problems[member.context] = str(error).replace("\n", " ")

    threads = [threading.Thread(target=work, args=(member,), daemon=True) for member in members]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _PATIENCE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    names = [member.context for member in members]
    for name in names:
        if name not in answers:
            error_line(f"{name}: {problems.get(name, f'no answer within {_PATIENCE_S} seconds')}")
    found = [({"Context": name}, answers[name]) for name in names if name in answers]
    return found, 0 if len(found) == len(names) else 1
