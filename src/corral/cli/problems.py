"""Everything that ends a command early, with what is printed and the exit status."""

from __future__ import annotations


class CliError(Exception):
    """A command failed: the text goes to standard error as it is, `status` is the exit status."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


class UsageError(CliError):
    """The command line cannot be read: shown with the command's usage, exit status 125 as Docker's."""

    def __init__(self, text: str) -> None:
        super().__init__(text, 125)


class ArgumentCountError(CliError):
    """Too few or too many arguments: shown with the command's usage, exit status 1 as Docker's."""


class DaemonError(CliError):
    """The daemon refused: `message` is its text, `code` the HTTP status."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(f"Error response from daemon: {message}")
        self.message = message
        self.code = code


class NotConnected(CliError):
    """No daemon answers at the endpoint."""


class Exit(Exception):
    """End with this status; everything there is to say has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
