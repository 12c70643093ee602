"""`ssh://[USER@]HOST[:PORT][/SOCKET]`: a daemon behind ssh, through `system dial-stdio` of the client over there.

ssh runs in a session of its own, as with docker: Ctrl-C is ours to handle, and it cannot ask for a password (an agent,
a key without a passphrase or SSH_ASKPASS answer).  What it says goes to our standard error.
"""

from __future__ import annotations

import _socket
import os

from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CONNECT_S = 30
# Whichever client is there.  One word for the shell over there, whatever shell that is.
_REMOTE = 'sh -c \'if command -v corral >/dev/null 2>&1; then exec corral "$@"; else exec docker "$@"; fi\' sh'


class Tunnel(_socket.socket):
    """Our end of the connection, and the ssh behind it."""

    pid = 0

    def ended(self) -> str:
        """Wait for ssh, whose end of the connection is closed; how it ended."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return f"exit status {code}" if code >= 0 else f"signal {-code}"


def arguments(host: str) -> list[str]:
    """The words of ssh for an address; raises CliError with Docker's text."""
    account, path = _parts(host)
    user, at, place = account.rpartition("@")
    name, port = _name_and_port(host, place)
    words = ["ssh", "-o", f"ConnectTimeout={_CONNECT_S}", "-T"]
    if at:
        words += ["-l", user]
    if port:
        words += ["-p", port]
    option = f"--host {_quoted('unix://' + path)} " if path else ""
    return [*words, "--", name, f"{_REMOTE} {option}system dial-stdio"]


def _parts(host: str) -> tuple[str, str]:
    rest = host.removeprefix("ssh://")
    rest, hash_, fragment = rest.partition("#")
    rest, question, query = rest.partition("?")
    if question:
        raise _invalid(f'query parameters are not allowed: "{query}"')
    if hash_:
        raise _invalid(f'fragments are not allowed: "{fragment}"')
    account, slash, path = rest.partition("/")
    return account, slash + path if path else ""


def _name_and_port(host: str, place: str) -> tuple[str, str]:
    user = host.removeprefix("ssh://").partition("/")[0].rpartition("@")[0]
    if ":" in user:
        raise _invalid("plain-text password is not supported")
    if place.startswith("["):
        name, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    else:
        name, _, port = place.partition(":")
    if not name:
        raise _invalid("hostname is empty")
    if port and not port.isdecimal():
        raise _invalid(f'invalid port ":{port}" after host')
    return name, port


def _invalid(reason: str) -> CliError:
    return CliError(f"Failed to initialize: ssh host connection is not valid: invalid SSH URL: {reason}")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def connect(host: str) -> Any:
    """A connection to the daemon through an ssh of its own; raises CliError."""
    words = arguments(host)
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    tunnel = Tunnel(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, ours.detach())
    actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1)]
    try:
        tunnel.pid = os.posix_spawnp(words[0], words, os.environ, file_actions=actions, setsid=True)
    except FileNotFoundError:
        tunnel.close()
        raise CliError(
            f"cannot connect to {host}: ssh is not installed (Debian: apt-get install openssh-client)"
        ) from None
    finally:
        theirs.close()
    return tunnel
