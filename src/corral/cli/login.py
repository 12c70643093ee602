"""`corral login` and `corral logout`."""

from __future__ import annotations

import sys

from corral.cli import credentials
from corral.cli.command import Command, Session, error_line
from corral.cli.endpoint import read_config
from corral.cli.flags import Flag
from corral.cli.problems import CliError


def _registry(session: Session) -> str:
    given = session.arguments[0] if session.arguments else ""
    if given in ("", "docker.io", "index.docker.io", "registry-1.docker.io"):
        return credentials.HUB
    return given.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _login(session: Session) -> int:
    flags, registry = session.flags, _registry(session)
    user, password = flags["username"], flags["password"]
    if flags["password-stdin"]:
        if password:
            raise CliError("--password and --password-stdin are mutually exclusive")
        if not user:
            raise CliError("username is empty")
        password = sys.stdin.read().rstrip("\n").rstrip("\r")
    elif flags.changed("password"):
        error_line("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if not user or not password:
        user, password = _ask(user, password)
    body = {"username": user, "password": password, "serveraddress": registry}
    answer = session.client.post("/auth", body=body) or {}
    config = read_config(session.globals.config)
    entry = {"username": user, "password": password}
    if answer.get("IdentityToken"):  # to be kept in place of the password
        entry = {"username": user, "identitytoken": answer["IdentityToken"]}
    credentials.store(session.globals.config, config, registry, entry)
    print(answer.get("Status") or "Login Succeeded")
    return 0


def _ask(user: str, password: str) -> tuple[str, str]:
    from corral.cli.terminal import is_terminal

    if not is_terminal(0):
        raise CliError("cannot ask for the name or password: standard input is no terminal (use --password-stdin)")
    import getpass

    user = user or input("Username: ").strip()
    if not user:
        raise CliError("username is empty")
    password = password or getpass.getpass("Password: ")
    if not password:
        raise CliError("password is empty")
    return user, password


def _logout(session: Session) -> int:
    registry = _registry(session)
    config = read_config(session.globals.config)
    print(f"Removing login credentials for {registry}")
    if registry in (config.get("auths") or {}) or config.get("credsStore") or config.get("credHelpers"):
        credentials.store(session.globals.config, config, registry, None)
    return 0


LOGIN = Command(
    _login,
    "Store credentials for a registry, after the daemon has tried them",
    "[OPTIONS] [SERVER]",
    (
        Flag("password", "p", "string", "Password or token"),
        Flag("password-stdin", "", "bool", "Read the password from standard input"),
        Flag("username", "u", "string", "User name"),
    ),
    most=1,
)
LOGOUT = Command(_logout, "Forget the credentials for a registry", "[SERVER]", (), most=1)
