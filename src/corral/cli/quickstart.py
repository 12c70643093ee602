"""`corral quickstart`: from a fresh Debian machine to a shell in a Debian container, with one command.

Needs no image from anybody: Debian's own bootstrapper assembles one from the signed mirror that the machine uses.
"""

from __future__ import annotations

import os
import sys

from corral.cli.command import PROGRAM, Command, Session, error_line
from corral.cli.flags import Flag
from corral.cli.problems import CliError, DaemonError, NotConnected

IMAGE = "debian:bookworm"
_SUITE = "bookworm"
_DAEMON_START_S = 60.0


def _quickstart(session: Session) -> int:
    if os.geteuid() != 0:
        raise CliError(f"{PROGRAM} quickstart needs root: it starts a daemon and assembles a Debian system")
    _ensure_daemon(session)
    _ensure_image(session)
    return _open_shell(session)


def say(text: str) -> None:
    """Progress goes to standard error: standard output is the command's."""
    error_line(f"==> {text}")


def _ensure_daemon(session: Session) -> None:
    try:
        _ = session.client.version
    except NotConnected:
        _start_daemon(session)


def _start_daemon(session: Session) -> None:
    """Start corrald in the background and wait until it answers; raises CliError with the end of its log."""
    import subprocess
    import time

    host = session.globals.endpoint().host
    if not host.startswith("unix://"):
        raise CliError(f"no daemon answers at {host}, and a daemon is only started here for a unix:// address")
    program = daemon_program()
    log_path = session.flags["daemon-log"]
    arguments = [program, "-H", host, *(f"--{option}" for option in session.flags["daemon-option"])]
    say(f"no daemon answers at {host}: starting corrald (log: {log_path})")
    os.makedirs(os.path.dirname(host.removeprefix("unix://")) or "/", exist_ok=True)
    with open(log_path, "ab") as log:
        start = log.tell()
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
        )
    deadline = time.monotonic() + _DAEMON_START_S
    while time.monotonic() < deadline:
        status = process.poll()
        if status is not None:
            raise CliError(f"corrald ended with status {status}:\n{_log_since(log_path, start)}")
        try:
            _ = session.client.version
            return
        except NotConnected:
            time.sleep(0.02)
    process.terminate()
    raise CliError(f"corrald did not answer within {_DAEMON_START_S:.0f} s:\n{_log_since(log_path, start)}")


def daemon_program() -> str:
    """`bin/corrald` of this checkout, whose environment is made now so that its messages are seen; or what PATH has."""
    import shutil
    import subprocess

    root = __file__.removesuffix("/src/corral/cli/quickstart.py")
    program = os.path.join(root, "bin", "corrald")
    if root != __file__ and os.access(program, os.X_OK):
        status = subprocess.run(["/bin/sh", os.path.join(root, "bin", "environment.sh"), "run"], check=False).returncode
        if status:
            raise CliError("the environment could not be prepared (see above)")
        return program
    beside = os.path.join(os.path.dirname(sys.executable), "corrald")
    found = beside if os.access(beside, os.X_OK) else shutil.which("corrald")
    if not found:
        raise CliError("cannot find corrald: it is neither beside this program nor on PATH")
    return found


def _log_since(path: str, start: int) -> str:
    with open(path, "rb") as log:
        log.seek(start)
        return log.read()[-4000:].decode("utf-8", "replace").rstrip()


def _ensure_image(session: Session) -> None:
    try:
        session.client.get(f"/images/{IMAGE}/json")
    except DaemonError as error:
        if error.code != 404:
            raise
        from corral.cli import bootstrap

        bootstrap.import_debian(session.client, IMAGE, _SUITE, say)


def _open_shell(session: Session) -> int:
    """`run --rm [-it] debian:bookworm ...`, by the same code as `corral run`."""
    from corral.cli import run
    from corral.cli.flags import parse
    from corral.cli.terminal import is_terminal

    interactive = ["-it"] if is_terminal(0) and is_terminal(1) else ["-i"]
    words = ["--rm", *interactive, IMAGE, *(session.arguments or ["bash"])]
    flags, arguments = parse(run.RUN.flags, words, interspersed=False)
    return run.RUN.run(Session(f"{PROGRAM} run", flags, arguments, session.globals))


QUICKSTART = Command(
    _quickstart,
    "Start a daemon, get a Debian image, open a shell in it",
    "[OPTIONS] [COMMAND] [ARG...]",
    (
        Flag("daemon-log", "", "string", "Log file of a daemon that is started", "/var/log/corrald.log"),
        Flag("daemon-option", "", "list", "Option for a daemon that is started (data-root=/srv/corral)"),
    ),
    most=None,
    interspersed=False,
    details=f"""Starts corrald if no daemon answers.  Unless the image {IMAGE} is there already, assembles it with
mmdebstrap from the signed Debian mirror that this machine uses (a minimal system) and imports it.  Then runs
the command, or a shell, in a new container of it.  Needs root.""",
    examples=("quickstart", "quickstart cat /etc/os-release", "-H unix:///tmp/c.sock quickstart"),
)
