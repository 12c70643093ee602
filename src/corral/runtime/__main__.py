"""`corral-runtime`: the OCI command line, compatible with runc's; also `python -IS .../runtime/__main__.py`."""

from __future__ import annotations

import os
import sys

if not __package__:
    sys.path.insert(0, __file__.removesuffix("/corral/runtime/__main__.py"))

from corral.runtime import commands, commands_more
from corral.runtime.arguments import Flags, UsageError, parse
from corral.runtime.commands import Context
from corral.runtime.failure import Failure
from corral.runtime.report import NAME, Log, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = "0.1.0"
DEFAULT_ROOT = "/run/corral-runtime"

_GLOBAL = {
    "root": True, "log": True, "log-format": True, "debug": False, "systemd-cgroup": False, "rootless": True,
    "version": False, "help": False, "criu": True,
}  # fmt: skip
_CREATE = {
    "bundle": True, "console-socket": True, "pid-file": True, "no-pivot": False, "no-new-keyring": False,
    "preserve-fds": True, "plan": False,
}  # fmt: skip
_EXEC = {
    "console-socket": True, "cwd": True, "env": True, "tty": False, "user": True, "additional-gids": True,
    "process": True, "detach": False, "pid-file": True, "no-new-privs": False, "cap": True, "preserve-fds": True,
    "cgroup": True,
}  # fmt: skip
_EXEC_SHORT = {"e": "env", "t": "tty", "u": "user", "g": "additional-gids", "p": "process", "d": "detach", "c": "cap"}


class Verb:
    """How to parse a verb's flags and what to call."""

    __slots__ = ("act", "interleaved", "known", "short")

    def __init__(
        self,
        act: Callable[[Context, Flags], int],
        known: dict[str, bool] | None = None,
        short: dict[str, str] | None = None,
        interleaved: bool = True,
    ) -> None:
        self.act = act
        self.known = dict(known or {}, help=False)
        self.short = dict(short or {}, h="help")
        self.interleaved = interleaved


_VERBS = {
    "create": Verb(commands.create, _CREATE, {"b": "bundle"}),
    "start": Verb(commands.start),
    "run": Verb(
        commands.run, dict(_CREATE, detach=False, keep=False, **{"no-subreaper": False}), {"b": "bundle", "d": "detach"}
    ),
    "state": Verb(commands.show_state),
    "kill": Verb(commands.kill, {"all": False}, {"a": "all"}),
    "delete": Verb(commands.delete, {"force": False}, {"f": "force"}),
    "pause": Verb(commands.pause),
    "resume": Verb(commands.resume),
    "exec": Verb(commands.execute, _EXEC, _EXEC_SHORT, interleaved=False),
    "list": Verb(commands.list_all, {"format": True, "quiet": False}, {"f": "format", "q": "quiet"}),
    "ps": Verb(commands_more.processes, {"format": True}, {"f": "format"}, interleaved=False),
    "update": Verb(commands_more.update, dict.fromkeys(commands_more.UPDATE_NAMES, True), {"r": "resources"}),
    "events": Verb(commands_more.events, {"stats": False, "interval": True}),
    "spec": Verb(commands_more.spec, {"bundle": True, "rootless": False}, {"b": "bundle"}),
    "features": Verb(commands_more.features),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    log = Log()
    try:
        words = sys.argv[1:] if argv is None else argv
        flags = parse(words, _GLOBAL, {"v": "version", "h": "help"}, interleaved=False)
        if flags.on("version"):
            print(f"{NAME} version {VERSION}\nspec: 1.2.1")
            return 0
        if flags.on("help") or not flags.positional:
            _usage()
            return 0
        log = Log(flags.get("log"), flags.get("log-format") == "json", flags.on("debug"))
        return _dispatch(flags, log)
    except UsageError as error:
        log.error(str(error))
        return 1
    except Failure as failure:
        log.error(describe(failure))
        return 1


def _dispatch(flags: Flags, log: Log) -> int:
    name, *rest = flags.positional
    verb = _VERBS.get(name)
    if verb is None:
        raise UsageError(f"unknown command {name!r}")
    if flags.on("systemd-cgroup"):
        raise UsageError("--systemd-cgroup is not supported: cgroups are made directly")
    if flags.get("log-format", "text") not in ("text", "json"):
        raise UsageError(f"unknown log-format {flags.get('log-format')!r}")
    parsed = parse(rest, verb.known, verb.short, verb.interleaved)
    if parsed.on("help"):
        print(f"usage: {NAME} {verb.act.__doc__}")
        return 0
    log.debug(f"{name} {' '.join(rest)}")
    return verb.act(Context(os.path.abspath(flags.get("root", DEFAULT_ROOT)), log), parsed)


def _usage() -> None:
    print(f"usage: {NAME} [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND ...\n\ncommands:")
    for verb in _VERBS.values():
        print(f"  {verb.act.__doc__}")


if __name__ == "__main__":
    sys.exit(main())
