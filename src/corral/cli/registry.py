"""`corral registry serve|gc`: hands over to the server, which needs the environment that the client does without."""

from __future__ import annotations

import os
import sys

from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.problems import CliError

_COMMON = (
    Flag("config", "", "string", "Configuration file (JSON; see docs/registry.md)"),
    Flag("root", "", "string", "Folder of the registry's content; made if it is not there"),
)
_SWITCHES = ("dry-run", "read-only")


def _serve(session: Session) -> int:
    return _hand_over("serve", session)


def _collect(session: Session) -> int:
    return _hand_over("gc", session)


def _hand_over(verb: str, session: Session) -> int:
    """Become the server, with the flags that were given; raises CliError."""
    words = ["-m", "corral.registry", verb]
    for flag in (SERVE if verb == "serve" else COLLECT).flags:
        value = session.flags[flag.name]
        if flag.name in _SWITCHES:
            words += [f"--{flag.name}"] if value else []
        elif session.flags.changed(flag.name):
            words += [f"--{flag.name}", str(value)]
    sys.stdout.flush()
    python = _interpreter()
    os.execv(python, [python, *words])


def _interpreter() -> str:
    """The environment's interpreter, made on first use; for an installed client the one that runs it."""
    import subprocess

    source = __file__.removesuffix("/corral/cli/registry.py")
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = source + (f":{inherited}" if inherited else "")
    root = source.removesuffix("/src")
    script = os.path.join(root, "bin", "environment.sh")
    if root == source or not os.path.exists(script):
        return sys.executable
    if subprocess.run(["/bin/sh", script, "run"], check=False).returncode:
        raise CliError("the environment could not be prepared (see above)")
    return os.path.join(root, ".venv", "bin", "python")


SERVE = Command(
    _serve,
    "Serve a registry that Docker and OCI clients push to and pull from",
    "--root DIR [OPTIONS]",
    (
        *_COMMON,
        Flag("access-log", "", "string", 'File of the access log, "-" for standard error, "off" for none (default -)'),
        Flag("htpasswd", "", "string", "File of users with bcrypt passwords (htpasswd -B): only they may use it"),
        Flag("listen", "", "string", "HOST:PORT to serve at (default 127.0.0.1:5000)"),
        Flag("read-only", "", "bool", "Refuse every change"),
        Flag("tlscacert", "", "string", "Authority that clients must have a certificate of"),
        Flag("tlscert", "", "string", "Certificate of the server"),
        Flag("tlskey", "", "string", "Key of that certificate"),
        Flag("upstream", "", "string", "URL of a registry to be a pull-through cache of"),
        Flag("workers", "", "string", "Number of processes that serve (default: one for each core)"),
    ),
    details="""Needs no daemon, no container and no root.  Everything is in the folder; several servers may share one.
The configuration file knows more: rights, tokens, retention, garbage collection.""",
    examples=(
        "registry serve --root /srv/registry --listen 0.0.0.0:5000",
        "registry serve --root /srv/cache --upstream https://registry-1.docker.io",
    ),
)
COLLECT = Command(
    _collect,
    "Remove what a registry needs no longer, also while it serves",
    "--root DIR [OPTIONS]",
    (
        *_COMMON,
        Flag("dry-run", "", "bool", "Only say what would be removed"),
        Flag("grace", "", "string", "Age below which nothing is removed (default 6h)"),
    ),
    examples=("registry gc --root /srv/registry --dry-run",),
)
