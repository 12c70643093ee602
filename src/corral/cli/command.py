"""What a command is, and what it gets to work with."""

from __future__ import annotations

import sys

from corral.cli.flags import Flag, Flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from corral.cli.endpoint import Endpoint
    from corral.cli.transport import Client

PROGRAM = "corral"


class Globals:
    """What stands before the command: where the daemon is, and how much to say."""

    __slots__ = ("config", "context", "debug", "hosts", "tls")

    def __init__(self, flags: Flags) -> None:
        from corral.cli import endpoint

        self.config = endpoint.config_folder(flags["config"])
        self.context: str = flags["context"]
        self.hosts: list[str] = flags["host"]
        self.debug: bool = flags["debug"]
        self.tls = _tls(flags, self.config)

    def endpoint(self) -> Endpoint:
        """The daemon to talk to; raises CliError."""
        from corral.cli import endpoint

        return endpoint.resolve(self.config, self.context, self.hosts, self.tls)


def _tls(flags: Flags, config: str) -> endpoint_module.Tls | None:
    import os

    from corral.cli import endpoint

    verify = flags["tlsverify"] or (not flags.changed("tlsverify") and bool(os.environ.get("DOCKER_TLS_VERIFY")))
    if not (verify or flags["tls"] or os.environ.get("DOCKER_TLS")):
        return None
    return endpoint.tls_of(config, flags["tlscacert"], flags["tlscert"], flags["tlskey"], verify=verify)


class Session:
    """One run of a command: its flags and arguments, and the daemon."""

    __slots__ = ("_client", "arguments", "flags", "globals", "path")

    def __init__(self, path: str, flags: Flags, arguments: list[str], globals_: Globals) -> None:
        self.path = path
        self.flags = flags
        self.arguments = arguments
        self.globals = globals_
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The daemon; no connection is made before the first request."""
        if self._client is None:
            from corral.cli.transport import Client

            self._client = Client(self.globals.endpoint())
        return self._client

    @property
    def is_everywhere(self) -> bool:
        """Whether several daemons are asked: `--context` after the command, or a list or `all` before it."""
        given = self.globals.context
        return bool(self.flags["context"]) or given == "all" or "," in given

    def everywhere(self, ask: Callable[[Client], Any]) -> tuple[list[tuple[dict[str, Any], Any]], int]:
        """What every daemon in question answers, with the field that says which one it is (none for one alone).

        The status is 1 if one of several has not answered, which has been told then.
        """
        if not self.is_everywhere:
            return [({}, ask(self.client))], 0
        from corral.cli import fleet

        return fleet.gather(self, ask)

    def each(self, names: Sequence[str], work: Callable[[str], object], echo: bool = True, forgiven: int = 0) -> int:
        """Do `work` for each name: print the name when done, the error when not; 1 if any failed.

        Errors with the HTTP status `forgiven` are told and do not count.
        """
        from corral.cli.problems import CliError, NotConnected

        status = 0
        for name in names:
            try:
                work(name)
            except NotConnected:
                raise
            except CliError as error:
                tell(self, str(error))
                if not forgiven or getattr(error, "code", 0) != forgiven:
                    status = 1
            else:
                if echo:
                    print(name)
        return status


class Command:
    """A command: `usage` follows its path, `least` and `most` bound its arguments (most None: any number).

    Flags stand anywhere if they are `interspersed`; with `verbatim` every word is an argument.  With the flag `instead`
    one argument less is needed.
    """

    __slots__ = (
        "aliases", "details", "examples", "flags", "instead", "interspersed", "least", "most", "run", "summary",
        "usage", "verbatim",
    )  # fmt: skip

    def __init__(
        self,
        run: Callable[[Session], int],
        summary: str,
        usage: str = "",
        flags: Sequence[Flag] = (),
        least: int = 0,
        most: int | None = 0,
        aliases: str = "",
        interspersed: bool = True,
        details: str = "",
        examples: Sequence[str] = (),
        verbatim: bool = False,
        instead: str = "",
    ) -> None:
        self.run = run
        self.summary = summary
        self.usage = usage
        self.flags = flags
        self.least = least
        self.most = most
        self.aliases = aliases
        self.interspersed = interspersed
        self.details = details
        self.examples = examples
        self.instead = instead
        self.verbatim = verbatim


def tell(session: Session, text: str) -> None:
    """An error to standard error, and what can be done about it."""
    from corral.cli import advice

    error_line(text)
    hint = advice.hint(session, text)
    if hint:
        error_line(f"Hint: {hint}")


def error_line(text: str) -> None:
    """One line to standard error."""
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if TYPE_CHECKING:
    from corral.cli import endpoint as endpoint_module
