"""`corral top`: without a container the live table of all, with one its processes.

The table needs a library of the project's environment, and `bin/corral` runs on the bare interpreter: then the program
is replaced by one that has the environment.
"""

from __future__ import annotations

import os
import sys

from corral.cli.command import Command, Session
from corral.cli.problems import CliError
from corral.cli.terminal import is_terminal


def _top(session: Session) -> int:
    return _processes(session) if session.arguments else _table(session)


def _processes(session: Session) -> int:
    name, words = session.arguments[0], session.arguments[1:]
    query = {"ps_args": " ".join(words) or None}
    found = session.client.get(f"/containers/{name}/top", query)
    rows = [found["Titles"], *found["Processes"]]
    widths = [max(20, 3 + max(len(row[index]) for row in rows)) for index in range(len(found["Titles"]))]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        sys.stdout.write("".join(padded) + row[-1] + "\n")
    return 0


def _table(session: Session) -> int:
    if not (is_terminal(0) and is_terminal(1)):
        raise CliError("the live table needs a terminal: use `corral stats`, or `corral top CONTAINER`")
    _ = session.client.version  # a daemon that is down is told before the screen changes
    try:
        from corral.cli import topscreen
    except ModuleNotFoundError as error:
        if error.name != "blessed":
            raise
        _with_environment()
        raise CliError("the live table needs the Python package blessed: pip install blessed") from None
    return topscreen.show(session.globals.endpoint())


def _with_environment() -> None:
    """Go on in the project's environment, if this is a checkout and that has not been tried."""
    if not sys.flags.no_site:
        return
    import subprocess

    program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    root = os.path.abspath(os.path.join(os.path.dirname(program), "..", "..", ".."))
    python = sys.executable
    if os.path.exists(os.path.join(root, "bin", "environment.sh")):
        if subprocess.run(["sh", os.path.join(root, "bin", "environment.sh"), "run"], check=False).returncode != 0:
            raise CliError("cannot prepare the environment of the live table")
        python = os.path.join(root, ".venv", "bin", "python")
    sys.stdout.flush()
    os.execv(python, [python, "-I", program, *sys.argv[1:]])


TOP = Command(
    _top,
    "Show the processes of a container, as ps shows them; or, live, what all containers use",
    "[CONTAINER [ps OPTIONS]]",
    (),
    least=0,
    most=None,
    aliases="container top, top",
    interspersed=False,
    details="Keys of the live table: arrows select; c m n i p a sort by CPU, memory, network, disk, processes, name\n"
    "(again: the other way round); l logs; s shell; x stop; q quit.",
    examples=("top", "top web -o pid,args"),
)
