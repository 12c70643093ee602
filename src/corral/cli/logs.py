"""`corral logs`."""

from __future__ import annotations

from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.moments import api_moment
from corral.cli.problems import CliError


def _logs(session: Session) -> int:
    from corral.cli.relay import Frames, RawOutput

    flags, names = session.flags, session.arguments
    query = {
        "stdout": True,
        "stderr": True,
        "follow": flags["follow"] or None,
        "timestamps": flags["timestamps"] or None,
        "details": flags["details"] or None,
        "since": api_moment(flags["since"], "since"),
        "until": api_moment(flags["until"], "until"),
        "tail": flags["tail"],
    }
    if len(names) > 1:
        from corral.cli import manylogs

        return manylogs.show(session, names, query)
    found = session.client.get(f"/containers/{names[0]}/json")
    output: Frames | RawOutput = RawOutput() if found["Config"]["Tty"] else Frames()
    for data in session.client.request("GET", f"/containers/{found['Id']}/logs", query).chunks():
        output.feed(data)
    if output.failure:
        raise CliError(output.failure)
    return 0


LOGS = Command(
    _logs,
    "Show what containers have written to their standard output and error",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        Flag("details", "", "bool", "Show extra fields of the log"),
        Flag("follow", "f", "bool", "Go on as more is written"),
        Flag("since", "", "string", "From this moment on (2026-01-02T13:23:37Z, or 42m for 42 minutes ago)"),
        Flag("tail", "n", "string", "Only so many of the last lines", "all"),
        Flag("timestamps", "t", "bool", "Show when each line was written"),
        Flag("until", "", "string", "Up to this moment (2026-01-02T13:23:37Z, or 42m for 42 minutes ago)"),
    ),
    least=1,
    most=None,
    aliases="container logs, logs",
    details="The lines of several containers are merged by their times, each with the name of its container in front.",
    examples=("logs -f --tail 20 web", "logs -f web worker"),
)
