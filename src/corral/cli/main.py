"""`corral`: reads what stands before the command, imports that command alone, runs it, and says what went wrong."""

from __future__ import annotations

import sys

from corral.cli import commands
from corral.cli.command import PROGRAM, Command, Globals, Session, error_line, tell
from corral.cli.flags import Flag, parse
from corral.cli.problems import ArgumentCountError, CliError, Exit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = "0.1.0"

GLOBAL_FLAGS = (
    Flag("config", "", "string", "Folder of the client's configuration (~/.docker unless DOCKER_CONFIG says another)"),
    Flag("context", "c", "string", "Context with the daemon to use (before DOCKER_HOST and `context use`)"),
    Flag("debug", "D", "bool", "Show trace-backs of unexpected errors"),
    Flag("host", "H", "list", "Daemon to talk to: unix:///PATH, tcp://HOST:PORT or ssh://HOST"),
    Flag("log-level", "l", "string", 'How much to log: "debug", "info", "warn", "error" or "fatal"', "info"),
    Flag("tls", "", "bool", "Use TLS, without checking the daemon unless --tlsverify"),
    Flag("tlscacert", "", "string", "Authority that the daemon's certificate must come from"),
    Flag("tlscert", "", "string", "Certificate to show to the daemon"),
    Flag("tlskey", "", "string", "Key of that certificate"),
    Flag("tlsverify", "", "bool", "Use TLS and check the daemon's certificate"),
    Flag("version", "v", "bool", "Print the version and end"),
)

_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """The command; answers the exit status."""
    try:
        status = _main(list(sys.argv[1:] if words is None else words))
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_output()
        return 141  # what a shell shows for a program that SIGPIPE ended
    except Exit as end:
        return _flushed(end.status)
    except KeyboardInterrupt:
        _flushed(0)
        return _INTERRUPTED
    except OSError as error:
        _abandon_output()
        error_line(f"{PROGRAM}: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return 1
    return status


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except OSError:
        _abandon_output()
        return status or 1
    return status


def _abandon_output() -> None:
    """Nobody reads standard output, or it cannot be written: what is buffered must not be tried again at the end."""
    import os

    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _main(words: list[str]) -> int:
    try:
        flags, rest = parse(GLOBAL_FLAGS, words, interspersed=False)
    except UsageError as error:
        error_line(
            f"{error}\n\nUsage:  {PROGRAM} [OPTIONS] COMMAND [ARG...]\n\nRun '{PROGRAM} --help' for more information"
        )
        return error.status
    if flags["version"]:
        print(f"Corral version {VERSION}")
        return 0
    if rest[:1] == ["help"]:
        rest = [*rest[1:], "--help"]
    if not rest or rest == ["--help"] or flags["help"]:
        from corral.cli import helptext

        sys.stdout.write(helptext.overview(GLOBAL_FLAGS))
        return 0
    path, place, rest = _find(rest)
    if place is None:
        return 0
    return _run(path, commands.load(place), rest, Globals(flags))


def _find(words: list[str]) -> tuple[str, tuple[str, str, str] | None, list[str]]:
    """Path, place and remaining words of the command; prints a group's help and answers None for a group alone."""
    first = words[0]
    if first not in commands.GROUPS:
        place = commands.top_level(first)
        if place is None:
            raise Exit(
                _unknown(f"{PROGRAM} {first}", PROGRAM, first, [*commands.COMMON, *commands.OTHERS, *commands.GROUPS])
            )
        return f"{PROGRAM} {first}", place, words[1:]
    path = f"{PROGRAM} {first}"
    rest = [word for word in words[1:] if word != "--help"] if words[1:2] == ["--help"] else words[1:]
    if not rest:
        from corral.cli import helptext

        out = sys.stdout if words[1:] else sys.stderr  # asked for or not, as docker does
        out.write(helptext.group(path, *commands.GROUPS[first]))
        return path, None, []
    if rest[0].startswith("-"):
        problem = (
            f"unknown flag: {rest[0]}"
            if rest[0][:2] == "--"
            else f"unknown shorthand flag: '{rest[0][1]}' in {rest[0]}"
        )
        error_line(f"{problem}\n\nUsage:  {path} COMMAND\n\nRun '{path} --help' for more information")
        raise Exit(125)
    place = commands.in_group(first, rest[0])
    if place is None:
        raise Exit(_unknown(f"{path} {rest[0]}", path, rest[0], commands.GROUPS[first][1]))
    return f"{path} {rest[0]}", place, rest[1:]


def _unknown(shown: str, path: str, word: str, known: Sequence[str] | dict[str, tuple[str, str, str]]) -> int:
    from corral.cli.suggest import nearest

    found = nearest(word, known)
    usage = f"\n\nUsage:  {path}" if path != PROGRAM else ""
    hint = f"\n\nDid you mean '{path} {found}'?" if found else ""
    error_line(f"{PROGRAM}: unknown command: {shown}{usage}{hint}\n\nRun '{path} --help' for more information")
    return 1


def _run(path: str, command: Command, words: list[str], globals_: Globals) -> int:
    session: Session | None = None
    try:
        flags, arguments = parse(command.flags, () if command.verbatim else words, command.interspersed)
        if command.verbatim:
            arguments = words
        if flags["help"]:
            from corral.cli import helptext

            sys.stdout.write(helptext.command(path, command))
            return 0
        spared = 1 if command.instead and flags.changed(command.instead) else 0
        _count(path, command, len(arguments) + spared)
        session = Session(path, flags, arguments, globals_)
        return command.run(session)
    except UsageError as error:
        error_line(f"{error}\n\nUsage:  {path} {command.usage}\n\nRun '{path} --help' for more information")
        return error.status
    except ArgumentCountError as error:
        see = "See" if "at least" in str(error) else "Run"
        error_line(
            f"{PROGRAM}: {error}\n\nUsage:  {path} {command.usage}\n\n{see} '{path} --help' for more information"
        )
        return error.status
    except CliError as error:
        if session is None:
            error_line(str(error))
        else:
            tell(session, str(error))
        return error.status


def _count(path: str, command: Command, count: int) -> None:
    """Docker's checks of the number of arguments; raises ArgumentCountError."""
    least, most = command.least, command.most
    if count >= least and (most is None or count <= most):
        return
    if most == 0:
        raise ArgumentCountError(f"'{path}' accepts no arguments")
    if least == most:
        raise ArgumentCountError(f"'{path}' requires {least} argument{'s' if least != 1 else ''}")
    if count < least and most is None:
        raise ArgumentCountError(f"'{path}' requires at least {least} argument{'s' if least != 1 else ''}")
    if count > least and least == 0:
        raise ArgumentCountError(f"'{path}' requires at most {most} argument{'s' if most != 1 else ''}")
    raise ArgumentCountError(f"'{path}' requires between {least} and {most} arguments")
