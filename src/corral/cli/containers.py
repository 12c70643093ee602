"""Verbs on containers that are one request each: stop, restart, kill, rm, pause, rename, wait, diff."""

from __future__ import annotations

import sys

from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.problems import CliError, DaemonError

_NAMES = "CONTAINER [CONTAINER...]"
_SIGNAL = Flag("signal", "s", "string", "Signal to send")
_TIMEOUT = Flag("timeout", "t", "int", "Seconds to wait before killing it; -1 for ever")
_TIME = Flag("time", "", "int", "Seconds to wait before killing it", hidden=True)


def _ending_query(session: Session) -> dict[str, object]:
    flags = session.flags
    timeout = next((flags[name] for name in ("timeout", "time") if flags.changed(name)), None)
    return {"signal": flags["signal"] or None, "t": timeout}


def _stop(session: Session) -> int:
    query = _ending_query(session)
    return session.each(session.arguments, lambda name: session.client.post(f"/containers/{name}/stop", query))


def _restart(session: Session) -> int:
    query = _ending_query(session)
    return session.each(session.arguments, lambda name: session.client.post(f"/containers/{name}/restart", query))


def _kill(session: Session) -> int:
    query = {"signal": session.flags["signal"] or "KILL"}
    return session.each(session.arguments, lambda name: session.client.post(f"/containers/{name}/kill", query))


def _rm(session: Session) -> int:
    flags = session.flags
    query = {name: True for name, flag in (("v", "volumes"), ("link", "link"), ("force", "force")) if flags[flag]}

    def remove(name: str) -> None:
        name = name.strip("/") if name.strip("/") else name
        if not name:
            raise CliError("Container name cannot be empty")
        session.client.delete(f"/containers/{name}", query)

    return session.each(session.arguments, remove, forgiven=404 if flags["force"] else 0)


def _pause(session: Session) -> int:
    return session.each(session.arguments, lambda name: session.client.post(f"/containers/{name}/pause"))


def _unpause(session: Session) -> int:
    return session.each(session.arguments, lambda name: session.client.post(f"/containers/{name}/unpause"))


def _rename(session: Session) -> int:
    old, new = (name.strip() for name in session.arguments)
    if not old or not new:
        raise CliError("neither old nor new names may be empty")
    try:
        session.client.post(f"/containers/{old}/rename", {"name": new})
    except DaemonError as error:
        raise CliError(f"{error}\nError: failed to rename container named {old}") from None
    return 0


def _wait(session: Session) -> int:
    def wait(name: str) -> None:
        answer = session.client.post(f"/containers/{name}/wait")
        error = (answer.get("Error") or {}).get("Message")
        if error:
            raise CliError(str(error))
        print(answer["StatusCode"], flush=True)

    return session.each(session.arguments, wait, echo=False)


_KINDS = {0: "C", 1: "A", 2: "D"}


def _diff(session: Session) -> int:
    found = session.client.get(f"/containers/{session.arguments[0]}/changes") or []
    sys.stdout.write("".join(f"{_KINDS[one['Kind']]} {one['Path']}\n" for one in found))
    return 0


def _simple(run: object, summary: str, name: str, flags: tuple[Flag, ...] = ()) -> Command:
    usage = ("[OPTIONS] " if flags else "") + _NAMES
    return Command(run, summary, usage, flags, 1, None, f"container {name}, {name}")  # type: ignore[arg-type]


STOP = _simple(_stop, "Stop running containers: the stop signal, then SIGKILL", "stop", (_SIGNAL, _TIMEOUT, _TIME))
RESTART = _simple(_restart, "Stop containers and start them again", "restart", (_SIGNAL, _TIMEOUT, _TIME))
KILL = _simple(_kill, "Send a signal to running containers", "kill", (Flag("signal", "s", "string", "Signal (KILL)"),))
RM = Command(
    _rm,
    "Remove containers",
    f"[OPTIONS] {_NAMES}",
    (
        Flag("force", "f", "bool", "Kill it first if it runs"),
        Flag("link", "l", "bool", "Remove the link of this name"),
        Flag("volumes", "v", "bool", "Remove its anonymous volumes, too"),
    ),
    least=1,
    most=None,
    aliases="container rm, container remove, rm",
)
PAUSE = _simple(_pause, "Freeze every process of containers", "pause")
UNPAUSE = _simple(_unpause, "Let the processes of containers run on", "unpause")
RENAME = Command(_rename, "Give a container another name", "CONTAINER NEW_NAME", (), 2, 2, "container rename, rename")
WAIT = _simple(_wait, "Wait until containers stop and print their exit statuses", "wait")
DIFF = Command(
    _diff,
    "Show what changed in a container's files: A added, C changed, D deleted",
    "CONTAINER",
    (),
    least=1,
    most=1,
    aliases="container diff, diff",
)
