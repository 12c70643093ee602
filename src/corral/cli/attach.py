"""Attaching to containers: `attach`, `start`, and the part of `run` after the container exists."""

from __future__ import annotations

from corral.cli.command import Command, Session, error_line, tell
from corral.cli.flags import Flag
from corral.cli.problems import CliError, DaemonError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corral.cli.transport import Hijacked


class Streams:
    """Which standard streams are carried, and whether the other side is a terminal."""

    __slots__ = ("stderr", "stdin", "stdout", "tty")

    def __init__(self, stdin: bool, stdout: bool, stderr: bool, tty: bool) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.tty = tty


def open_stream(session: Session, container: str, streams: Streams, logs: bool = False) -> Hijacked:
    """Attach; the answer is the connection."""
    keys = session.flags["detach-keys"]
    query = {
        "stream": True,
        "stdin": streams.stdin,
        "stdout": streams.stdout,
        "stderr": streams.stderr,
        "logs": logs or None,
        "detachKeys": keys or configured_keys(session) or None,
    }
    return session.client.hijack(f"/containers/{container}/attach", query)


def configured_keys(session: Session) -> str:
    """The detach keys of the client's configuration."""
    from corral.cli import endpoint

    return str(endpoint.read_config(session.globals.config).get("detachKeys") or "")


class Exited:
    """The exit of a container, waited for from before its start on a connection of its own."""

    def __init__(self, session: Session, container: str, removed: bool = False) -> None:
        from corral.cli.transport import Client

        self._session = session
        self._container = container
        client = Client(session.globals.endpoint())
        condition = "removed" if removed else "next-exit"
        self._response = client.request("POST", f"/containers/{container}/wait", {"condition": condition})

    def status(self, detached_may_be: bool) -> int:
        """The exit status; 0 if the user left with the detach keys."""
        if detached_may_be:
            try:
                state = self._session.client.get(f"/containers/{self._container}/json")["State"]
                if state.get("Running") and not state.get("Restarting"):
                    return 0
            except DaemonError:
                pass  # removed already: the answer to wait is on its way
        answer = self._response.json()
        error = (answer.get("Error") or {}).get("Message")
        if error:
            error_line(f"Error waiting for container: {error}")
            return 125
        return int(answer["StatusCode"])


def proxy_signals(session: Session, container: str) -> None:
    """Signals that we get go to the container."""
    from corral.cli.terminal import pass_signals_on
    from corral.cli.transport import Client

    def pass_on(name: str) -> None:
        try:
            Client(session.globals.endpoint()).post(f"/containers/{container}/kill", {"signal": name})
        except CliError:
            pass  # it has ended: so shall we, by its status

    pass_signals_on(pass_on)


def follow_size(session: Session, path: str) -> None:
    """Tell the daemon the terminal's size, now and at every change."""
    from corral.cli.terminal import on_resize, size
    from corral.cli.transport import Client

    def resize(rows: int, columns: int) -> None:
        try:
            Client(session.globals.endpoint()).request("POST", path, {"h": rows, "w": columns}).read()
        except CliError:
            pass  # the process has not begun or has ended

    on_resize(resize)
    rows, columns = size()
    if rows and columns:
        resize(rows, columns)


def carry(session: Session, container: str, hijacked: Hijacked, streams: Streams, resize_path: str) -> None:
    """Carry bytes until the stream ends, with the terminal in raw mode if the other side is one."""
    from corral.cli.relay import relay
    from corral.cli.terminal import Raw

    raw = streams.tty if hijacked.multiplexed is None else not hijacked.multiplexed
    if streams.tty:
        follow_size(session, resize_path)
    with Raw(streams.tty and streams.stdin):
        failure = relay(hijacked, raw, streams.stdin)
    if failure:
        error_line(failure)


def _attach(session: Session) -> int:
    flags, name = session.flags, session.arguments[0]
    found = session.client.get(f"/containers/{name}/json")
    if not found["State"]["Running"]:
        raise CliError("You cannot attach to a stopped container, start it first")
    if found["State"].get("Paused"):
        raise CliError("You cannot attach to a paused container, unpause it first")
    if found["State"].get("Restarting"):
        raise CliError("You cannot attach to a restarting container, wait until it is running")
    config = found["Config"]
    streams = Streams(config["OpenStdin"] and not flags["no-stdin"], True, True, config["Tty"])
    if streams.stdin and streams.tty:
        from corral.cli.run import require_terminal

        require_terminal()
    exited = Exited(session, name)
    hijacked = open_stream(session, name, streams)
    if flags["sig-proxy"] and not config["Tty"]:
        proxy_signals(session, name)
    carry(session, name, hijacked, streams, f"/containers/{name}/resize")
    return exited.status(detached_may_be=True)


def _start(session: Session) -> int:
    flags, names = session.flags, session.arguments
    if flags["attach"] or flags["interactive"]:
        if len(names) > 1:
            raise CliError("you cannot start and attach multiple containers at once")
        return _start_attached(session, names[0])
    failed = []
    for name in names:
        try:
            session.client.post(f"/containers/{name}/start")
        except DaemonError as error:
            tell(session, str(error))
            failed.append(name)
        else:
            print(name)
    if failed:
        raise CliError(f"Error: failed to start containers: {', '.join(failed)}")
    return 0


def _start_attached(session: Session, name: str) -> int:
    flags = session.flags
    found = session.client.get(f"/containers/{name}/json")
    identity, config = found["Id"], found["Config"]
    streams = Streams(flags["interactive"] and config["OpenStdin"], flags["attach"], flags["attach"], config["Tty"])
    if not flags["attach"]:
        streams.stdout = streams.stderr = True
    if streams.stdin and streams.tty:
        from corral.cli.run import require_terminal

        require_terminal()
    hijacked = open_stream(session, identity, streams)
    exited = Exited(session, identity, removed=found["HostConfig"].get("AutoRemove", False))
    if flags["sig-proxy"] and not config["Tty"]:
        proxy_signals(session, identity)
    session.client.post(f"/containers/{identity}/start")
    carry(session, identity, hijacked, streams, f"/containers/{identity}/resize")
    return exited.status(detached_may_be=config["Tty"] or streams.stdin)


_KEYS = Flag("detach-keys", "", "string", "Keys that leave the container running and return")
_SIGNALS = Flag("sig-proxy", "", "bool", "Pass signals on to the process", True)
ATTACH = Command(
    _attach,
    "Connect the standard streams to a running container",
    "[OPTIONS] CONTAINER",
    (_KEYS, Flag("no-stdin", "", "bool", "Do not connect standard input"), _SIGNALS),
    least=1,
    most=1,
    aliases="container attach, attach",
)
START = Command(
    _start,
    "Start stopped containers",
    "[OPTIONS] CONTAINER [CONTAINER...]",
    (
        Flag("attach", "a", "bool", "Connect standard output and error, and pass signals on"),
        _KEYS,
        Flag("interactive", "i", "bool", "Connect standard input"),
        Flag("sig-proxy", "", "bool", "Pass signals on to the process", True, hidden=True),
    ),
    least=1,
    most=None,
    aliases="container start, start",
)
