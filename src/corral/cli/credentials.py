"""Credentials of registries as commands use them: `corral.logins` reads, this stores."""

from __future__ import annotations

import base64
import os

from corral import jsontext, logins
from corral.cli.problems import CliError
from corral.logins import HUB, registry_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["HUB", "find", "header", "registry_of", "store"]


def header(config: dict[str, Any], registry: str) -> dict[str, str]:
    """The X-Registry-Auth header for a registry; empty if nothing is stored.  Raises CliError."""
    found = find(config, registry)
    return logins.encoded(found, registry) if found else {}


def find(config: dict[str, Any], registry: str) -> dict[str, str]:
    """User name and password, or an identity token; empty if nothing is stored.  Raises CliError if a helper fails."""
    try:
        return logins.find(config, registry)
    except logins.BadLogin as error:
        raise CliError(str(error)) from None


def _for_helper(entry: dict[str, str]) -> dict[str, str]:
    if entry.get("identitytoken"):
        return {"Username": "<token>", "Secret": entry["identitytoken"]}
    return {"Username": entry["username"], "Secret": entry["password"]}


def store(folder: str, config: dict[str, Any], registry: str, entry: dict[str, str] | None) -> None:
    """Keep credentials (None: forget them), with the helper that the configuration names or in config.json."""
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    auths = config.setdefault("auths", {})
    auths.pop(registry, None)
    if helper:
        import subprocess

        text = registry if entry is None else jsontext.dumps({"ServerURL": registry, **_for_helper(entry)})
        command = [f"docker-credential-{helper}", "erase" if entry is None else "store"]
        done = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
        if done.returncode and entry is not None:
            raise CliError(f"cannot store credentials: {done.stdout.decode(errors='replace').strip()}")
        if entry is not None:
            auths[registry] = {}
    elif entry is not None:
        pair = f"{entry['username']}:{entry.get('password', '')}".encode()
        auths[registry] = {"auth": base64.b64encode(pair).decode()}
        if entry.get("identitytoken"):
            auths[registry]["identitytoken"] = entry["identitytoken"]
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, "config.json")
    temporary = f"{path}.{os.getpid()}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(jsontext.indented(config, "\t"))
    os.replace(temporary, path)
