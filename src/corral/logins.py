"""Credentials of registries, from where Docker's client keeps them: config.json, or a credential helper it names.

For the command line and the Python API alike.
"""

from __future__ import annotations

import base64

from corral import jsontext
from corral.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class BadLogin(InvalidParameter):
    """What is stored for a registry cannot be read."""


HUB = "https://index.docker.io/v1/"


def registry_of(image: str) -> str:
    """The key of the registry that an image's name has."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return HUB if first in ("docker.io", "index.docker.io") else first
    return HUB


def encoded(login: dict[str, str], registry: str) -> dict[str, str]:
    """The X-Registry-Auth header that says it."""
    text = jsontext.dumps({**login, "serveraddress": registry})
    return {"X-Registry-Auth": base64.urlsafe_b64encode(text.encode()).decode()}


def find(config: dict[str, Any], registry: str) -> dict[str, str]:
    """User name and password, or an identity token; empty if nothing is stored.  Raises BadLogin if a helper fails."""
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
        raise BadLogin(f"cannot read the credentials stored for {registry}") from None
    return {"username": user, "password": password} if user else {}


def _from_helper(helper: str, registry: str) -> dict[str, str]:
    import subprocess

    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=registry.encode(), capture_output=True, check=False
        )
    except OSError as error:
        raise BadLogin(f"cannot run docker-credential-{helper}: {error.strerror}") from None
    if done.returncode:
        return {}  # the helper has nothing for this registry
    found = jsontext.loads(done.stdout)
    if found["Username"] == "<token>":
        return {"identitytoken": found["Secret"]}
    return {"username": found["Username"], "password": found["Secret"]}
