"""Credentials of registries, where Docker's client keeps them: config.json, or a credential helper it names."""

from __future__ import annotations

import base64
import os

from corral.cli import jsontext
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HUB = "https://index.docker.io/v1/"


def registry_of(image: str) -> str:
    """The key of the registry that an image's name has."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return HUB if first in ("docker.io", "index.docker.io") else first
    return HUB


def header(config: dict[str, Any], registry: str) -> dict[str, str]:
    """The X-Registry-Auth header for a registry; empty if nothing is stored."""
    found = find(config, registry)
    if not found:
        return {}
    encoded = base64.urlsafe_b64encode(jsontext.dumps({**found, "serveraddress": registry}).encode()).decode()
    return {"X-Registry-Auth": encoded}


def find(config: dict[str, Any], registry: str) -> dict[str, str]:
    """User name and password, or an identity token; empty if nothing is stored.  Raises CliError if a helper fails."""
    helper = (config.get("credHelpers") or {}).get(registry) or config.get("credsStore")
    if helper:
        return _from_helper(helper, registry)
    auths = config.get("auths") or {}
    entry = auths.get(registry) or auths.get(f"https://{registry}") or auths.get(f"https://{registry}/v1/")
    if not entry:
        return {}
    if entry.get("identitytoken"):
        return {"identitytoken": entry["identitytoken"]}
    try:
        user, _, password = base64.b64decode(entry.get("auth") or "").decode().partition(":")
    except ValueError:
        raise CliError(f"cannot read the credentials stored for {registry}") from None
    return {"username": user, "password": password} if user else {}


def _from_helper(helper: str, registry: str) -> dict[str, str]:
    import subprocess

    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=registry.encode(), capture_output=True, check=False
        )
    except OSError as error:
        raise CliError(f"cannot run docker-credential-{helper}: {error.strerror}") from None
    if done.returncode:
        return {}  # the helper has nothing for this registry
    found = jsontext.loads(done.stdout)
    if found["Username"] == "<token>":
        return {"identitytoken": found["Secret"]}
    return {"username": found["Username"], "password": found["Secret"]}


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
