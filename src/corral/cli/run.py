"""`corral run` and `corral create`."""

from __future__ import annotations

import os
import sys

from corral.cli import images_api, runbody
from corral.cli.command import PROGRAM, Command, Session, error_line, tell
from corral.cli.problems import CliError, DaemonError, Exit, UsageError
from corral.cli.runflags import CREATE_FLAGS, RUN_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NOT_FOUND = ("executable file not found", "no such file or directory", "system cannot find the file specified")
_NOT_EXECUTABLE = ("permission denied", "is a directory")


def _with_help(session: Session, error: CliError, command: str, status: int) -> Exit:
    tell(session, f"{PROGRAM}: {error}\n\nRun '{PROGRAM} {command} --help' for more information")
    return Exit(status)


def start_status(text: str) -> int:
    """The exit status for a container that could not be started: a shell's, judged by the daemon's text as Docker's
    client does (nothing else of the reason is in the answer)."""
    if any(part in text for part in _NOT_FOUND):
        return 127
    return 126 if any(part in text for part in _NOT_EXECUTABLE) else 125


def create(session: Session, body: dict[str, Any]) -> str:
    """Create the container, pulling its image if it must; answers the id."""
    flags = session.flags
    cidfile = flags["cidfile"]
    if cidfile:
        _reserve(cidfile)
    if flags["pull"] not in ("always", "missing", "never"):
        raise CliError(f'invalid pull option: \'{flags["pull"]}\': must be one of "always", "missing" or "never"', 125)
    if body["Image"]:
        images_api.check_reference(body["Image"])
    try:
        answer = _create_or_pull(session, body)
    except BaseException:
        if cidfile:
            os.unlink(cidfile)
        raise
    for warning in answer.get("Warnings") or ():
        error_line(f"WARNING: {warning}")
    identity = str(answer["Id"])
    if cidfile:
        with open(cidfile, "w") as file:
            file.write(identity)
    return identity


def _reserve(cidfile: str) -> None:
    """Make the file for the id before there is a container; raises CliError if it exists or cannot be made."""
    try:
        with open(cidfile, "x"):
            pass
    except FileExistsError:
        raise CliError(
            f"container ID file found, make sure the other container isn't running or delete {cidfile}"
        ) from None
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CliError(f"failed to create the container ID file: open {cidfile}: {reason}") from None


def _create_or_pull(session: Session, body: dict[str, Any]) -> Any:
    flags, client = session.flags, session.client
    if flags["pull"] == "always" and body["Image"]:
        pull(session, body["Image"])
    query = {"name": flags["name"] or None, "platform": flags["platform"] or None}
    try:
        return client.post("/containers/create", query, body)
    except DaemonError as error:
        if error.code != 404 or "No such image" not in error.message or flags["pull"] != "missing":
            raise
        error_line(f"Unable to find image '{_with_tag(body['Image'])}' locally")
        pull(session, body["Image"])
        return client.post("/containers/create", query, body)


def _with_tag(image: str) -> str:
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def pull(session: Session, image: str) -> None:
    """Pull, with progress on standard error."""
    from corral.cli import progress

    records = images_api.pull(session, image, session.flags["platform"])
    if session.flags["quiet"]:
        progress.silently(records)
    else:
        progress.show(records, sys.stderr)


def _create(session: Session) -> int:
    try:
        body = runbody.body(session.flags, session.arguments)
    except UsageError:
        raise
    except CliError as error:
        raise _with_help(session, error, "create", 125) from None
    _initial_size(body)
    print(create(session, body))
    return 0


def _run(session: Session) -> int:
    flags = session.flags
    try:
        body = runbody.body(flags, session.arguments)
    except UsageError:
        raise
    except CliError as error:
        raise _with_help(session, error, "run", 125) from None
    if flags["detach"]:
        if flags["attach"]:
            raise CliError("conflicting options: cannot specify both --attach and --detach")
        if flags["rm"] and flags["restart"] not in ("", "no"):
            raise CliError("conflicting options: cannot specify both --restart and --rm")
    elif body["Tty"] and body["AttachStdin"]:
        require_terminal()
    _initial_size(body)
    try:
        identity = create(session, body)
    except CliError as error:
        raise _with_help(session, error, "run", 125) from None
    if not (body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"]):
        return _run_detached(session, identity)
    return _run_attached(session, identity, body)


def require_terminal() -> None:
    """Raises CliError unless standard input is a terminal."""
    from corral.cli.terminal import is_terminal

    if not is_terminal(0):
        raise CliError("the input device is not a TTY")


def _initial_size(body: dict[str, Any]) -> None:
    from corral.cli.terminal import size

    body["HostConfig"]["ConsoleSize"] = list(size())


def _run_detached(session: Session, identity: str) -> int:
    try:
        session.client.post(f"/containers/{identity}/start")
    except CliError as error:
        raise _with_help(session, error, "run", start_status(str(error))) from None
    print(identity)
    return 0


def _run_attached(session: Session, identity: str, body: dict[str, Any]) -> int:
    from corral.cli import attach

    streams = attach.Streams(
        stdin=body["AttachStdin"], stdout=body["AttachStdout"], stderr=body["AttachStderr"], tty=body["Tty"]
    )
    try:
        attached = attach.open_stream(session, identity, streams)
        exited = attach.Exited(session, identity, removed=session.flags["rm"])
        if session.flags["sig-proxy"] and not body["Tty"]:
            attach.proxy_signals(session, identity)
        session.client.post(f"/containers/{identity}/start")
    except CliError as error:
        raise _with_help(session, error, "run", start_status(str(error))) from None
    attach.carry(session, identity, attached, streams, f"/containers/{identity}/resize")
    return exited.status(detached_may_be=body["Tty"] or body["AttachStdin"])


CREATE = Command(
    _create,
    "Create a container from an image; `start` runs it",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    CREATE_FLAGS,
    least=1,
    most=None,
    aliases="container create, create",
    interspersed=False,
    instead="from-snapshot",
    examples=("create --name web -p 8080:80 nginx",),
)
RUN = Command(
    _run,
    "Create a container from an image and start it",
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    RUN_FLAGS,
    least=1,
    most=None,
    aliases="container run, run",
    interspersed=False,
    instead="from-snapshot",
    examples=(
        "run -it --rm debian bash",
        "run -d --name web -p 8080:80 --restart always nginx",
        "run --rm -v ./src:/src -w /src -m 512m --cpus 2 gcc make",
        "run -d --from-snapshot web@before-upgrade",
    ),
)
